"""What is installed of what ours asks for: as the `packaging` library would say it, which an empty environment lacks."""

from importlib import metadata

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipelines.runtime import installed

VERSIONS = ["2.59.9", "2.60", "2.60.0", "2.60.7", "2.61", "2.61.0", "2.61.1", "3", "10.1", "2.60.1+cpu"]


@pytest.mark.parametrize("versions", [">=2.60", "<2.61", ">=2.60,<2.61", "<2.61,>=2.60", "==2.60.0", "==2.60.7", ""])
@pytest.mark.parametrize("version", VERSIONS)
def test_a_version_is_allowed_as_packaging_allows_it(versions, version):
    assert installed.allows(versions, version) == SpecifierSet(versions).contains(version)


def test_every_requirement_is_read_as_packaging_reads_it():
    asked = [Requirement(text) for text in metadata.requires(installed.PACKAGE)]
    extras = [None if one.marker is None else str(one.marker).split('"')[1] for one in asked]
    read = installed.requirements("pipelines", "services", "fidelity", "exchange", "dev")
    assert [(one.name, SpecifierSet(one.versions), one.extra) for one in read] == [
        (one.name, one.specifier, extra) for one, extra in zip(asked, extras, strict=True)
    ]
    core = {one.name for one in installed.requirements()}
    assert "torch" in core
    assert "click" not in core
    assert "click" in {one.name for one in installed.requirements("pipelines")}


@pytest.mark.parametrize(
    ("module", "told"),
    [
        ("click", True),
        ("yaml.reader", True),
        ("pipelines.nosuch", False),
        ("gan_core", False),
        ("sqlite3", False),
        ("", False),
    ],
)
def test_only_third_party_modules_name_an_extra(module, told):
    """Only a module of somebody else's is said to be of an extra; ours and Python's own are not."""
    failure = installed.missing(ModuleNotFoundError(name=module))
    assert (failure is not None) == told
    if failure is not None:
        assert f"not installed ({module.split('.')[0]})" in str(failure)
        assert "pip install 'adversarial-nets-on-ray[pipelines]'" in str(failure)
