"""Where one stands does not matter: nothing of a run imports what lies there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.runtime import import_path
from tests.pipelines.conftest import environment

NAMES = ("pipelines", "gan_core", "random", "numpy", "torch", "ray", "mlflow", "logging", "socket", "json")
TRAP = """
import os, sys
with open({markers!r}, "a") as file:
    file.write(f"{{__name__}} by {{sys.orig_argv}}\\n")
raise ImportError(__name__ + ", from where one stands")
"""
SHORT = ("tune.rungs=[10, 20]", "algorithm.steps=20", "train.checkpoint_every=20", "evaluate.samples=100")
GAN = Path(sys.executable).with_name("gan")


@pytest.fixture
def markers(tmp_path):
    """Where each of ten packages of the user's own, in the folder `here`, notes who has imported it."""
    path, here = tmp_path / "markers", tmp_path / "here"
    for name in NAMES:
        place = here / name / "__init__.py" if name in ("pipelines", "gan_core") else here / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(TRAP.format(markers=str(path)))
    return path


def noted(markers):
    return markers.read_text() if markers.exists() else ""


def start(*command, markers):
    # Ray's helpers stay with their own interpreter's rules unless the environment says otherwise.
    known = {name: value for name, value in environment().items() if name != import_path.SAFE_PATH}
    here = markers.with_name("here")
    return subprocess.run(list(map(str, command)), cwd=here, env=known, capture_output=True, text=True, timeout=840)


@pytest.mark.timeout(900)
def test_a_run_imports_nothing_from_where_it_stands(small_yaml, markers):
    """Ray puts the driver's folder first in its workers' path, and starts helpers by `python -c`, which does so too."""
    overrides = [part for setting in SHORT for part in ("--set", setting)]
    answer = start(GAN, "run", small_yaml, "--name", "it", "--storage", "st", *overrides, markers=markers)
    assert noted(markers) == ""
    assert answer.returncode == 0, answer.stderr
    assert (markers.with_name("here") / "st" / "runs" / "it" / "run.json").exists()  # a relative path is still of here


def test_python_alone_imports_from_where_it_stands(markers):
    """Else the test above would prove nothing."""
    assert start(sys.executable, "-c", "import numpy", markers=markers).returncode == 1
    assert noted(markers).startswith("numpy by")


def test_module_run_by_name_imports_nothing_local(markers):
    """`python -m pipelines.cli` imports nothing from the current folder beyond what Python itself looks for."""
    for package in ("pipelines", "gan_core"):  # which `python -m` itself looks for there
        (markers.with_name("here") / package / "__init__.py").unlink()
        (markers.with_name("here") / package).rmdir()
    for name in ("logging", "socket", "json", "random"):  # what click needs before a line of ours is run
        (markers.with_name("here") / f"{name}.py").unlink()
    answer = start(sys.executable, "-m", "pipelines.cli", "runs", "--json", markers=markers)
    assert (answer.returncode, noted(markers)) == (0, ""), answer.stderr


@pytest.mark.parametrize(("given", "seen"), [(None, None), ("", None), ("1", "1")])
def test_a_users_own_command_has_the_users_own_environment(given, seen, monkeypatch):
    monkeypatch.delenv(import_path.SAFE_PATH, raising=False)
    if given is not None:
        monkeypatch.setenv(import_path.SAFE_PATH, given)
    import_path.leave_out_current_folder()
    assert os.environ[import_path.SAFE_PATH]
    assert import_path.environment_of_user().get(import_path.SAFE_PATH) == seen
