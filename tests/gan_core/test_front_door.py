"""What `gan_core` hands out by name."""

import subprocess
import sys

import pytest

import gan_core


def test_every_name_is_what_its_module_has():
    """Each name that is handed out, and shown by completion, is its module's own."""
    for name, module in gan_core.MODULES.items():
        assert getattr(gan_core, name) is getattr(sys.modules[f"gan_core.{module}"], name)
    assert set(gan_core.MODULES) <= set(dir(gan_core))


def test_importing_it_imports_no_torch():
    """Whoever looks a run up pays for no torch."""
    code = "import gan_core, sys; assert not {'torch', 'numpy', 'scipy'} & set(sys.modules); gan_core.train; assert 'torch' in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_names_the_known():
    with pytest.raises(AttributeError, match=r"no attribute 'trian'; it has .*train"):
        gan_core.trian
