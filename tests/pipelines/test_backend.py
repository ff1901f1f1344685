"""What the registry is kept in: MLflow and a second backend do the same, and another is one class and one line."""

import os
from pathlib import Path

import pytest

from gan_core.errors import RegistryError
from pipelines.registry import Registry
from pipelines.registry.backend import backend_of
from pipelines.registry.mlflow_backend import MlflowBackend
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage
from tests.pipelines.in_memory_registry import InMemoryRegistry, in_memory

NAME = "gan-kept"


@pytest.fixture(params=["mlflow", "memory"])
def backend(request, tmp_path):
    """An empty registry of each kind."""
    if request.param == "mlflow":
        yield Registry(request.getfixturevalue("registry_uri")).backend
    else:
        with in_memory(str(tmp_path)) as uri:
            yield Registry(uri).backend


@pytest.mark.parametrize("scheme", ["sqlite:///it.db", "http://host:5000", "postgresql://host/it", "./mlruns", "uc"])
def test_mlflow_takes_every_other_scheme(scheme):
    """Only a registered scheme is another backend's; to register it is one line of `BACKENDS`."""
    assert backend_of(scheme) is MlflowBackend
    with in_memory("here") as uri:
        assert backend_of(uri) is InMemoryRegistry
        assert backend_of(scheme) is MlflowBackend
    assert backend_of("memory://here") is MlflowBackend


def test_models_and_versions_keep_tags_and_aliases(backend):
    """Numbers count up and are never used again; an alias is on one version; a model's tags come and go."""
    assert (backend.models(), backend.versions(), backend.model(NAME), backend.version(NAME, 1)) == ([], [], None, None)
    for name in (NAME, "gan-also", NAME):  # again: nothing changes
        backend.create_model(name)
    for tags in ({"a": "1"}, {"a": "2"}, {"a": "1"}):
        backend.create_version(NAME, "file:///nowhere", tags)
    backend.create_version("gan-also", "file:///nowhere", {"a": "1"})
    backend.set_alias(NAME, "champion", 1)
    backend.set_alias(NAME, "champion", 2)
    backend.set_alias(NAME, "tried", 2)
    backend.set_version_tag(NAME, 3, "b", "3")
    for tag, value in (("x", "1"), ("x", "2"), ("y", "3")):
        backend.set_tag(NAME, tag, value)
    for _ in range(2):  # what is gone can be deleted: of two that remove a dead process's lease, both go on
        backend.delete_tag(NAME, "y")
    assert backend.models() == ["gan-also", NAME]
    model = backend.model(NAME)
    assert (model.name, model.aliases, model.tags) == (NAME, {"champion": 2, "tried": 2}, {"x": "2"})
    assert list(map(str, backend.versions())) == ["gan-also/1", f"{NAME}/3", f"{NAME}/2", f"{NAME}/1"]
    assert list(map(str, backend.versions(NAME, ("a", "1")))) == [f"{NAME}/3", f"{NAME}/1"]
    assert list(map(str, backend.versions(tag=("a", "1")))) == ["gan-also/1", f"{NAME}/3", f"{NAME}/1"]
    assert backend.version(NAME, 3).tags == {"a": "1", "b": "3"}
    assert backend.version(NAME, 2).aliases == ("champion", "tried")
    backend.delete_version(NAME, 3)
    backend.create_version(NAME, "file:///nowhere", {})
    assert [version.version for version in backend.versions(NAME)] == [4, 2, 1]
    for refused in (lambda: backend.set_tag("gan-none", "x", "1"), lambda: backend.set_alias("gan-none", "x", 1)):
        with pytest.raises(RegistryError):
            refused()


@pytest.mark.parametrize("given", [None, "http://elsewhere"])
def test_an_upload_leaves_the_users_registry(given, registry_uri, monkeypatch, tmp_path):
    """What MLflow, or the next run of this process, would use without being told is after an upload what it was before."""
    import mlflow

    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    if given:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    before = mlflow.get_tracking_uri()
    backend = Registry(registry_uri).backend
    backend.upload(Tracking(backend, "gan-tracked", "one", None).parent, Path.mkdir, (8, 8))
    assert os.environ.get("MLFLOW_TRACKING_URI") == given
    assert mlflow.get_tracking_uri() == before


def test_runs_are_found_again_and_files_come_back(backend, digits, tmp_path):
    """A stage copied twice is one run with each metric once; uploaded files come back byte for byte until deleted."""
    for _ in range(2):
        runs = Tracking(backend, "gan-tracked", "one", Storage.at(tmp_path / "runs"))
        runs.describe("seed: 1\n", {"seed": 1}, digits, "a test")
        stage = runs.stage("train", "one", {"loss": 0.5}, [{"step": 1, "time_ms": 7, "value": -1.0}])
        runs.finish({"log_likelihood": 2.0}, {})
    assert runs.parent == Tracking(backend, "gan-tracked", "one", None).parent != stage
    assert Tracking(backend, "gan-tracked", "two", None).parent not in (runs.parent, stage)
    if isinstance(backend, InMemoryRegistry):
        assert backend.runs[stage].metrics == {("loss", 0, None): 0.5, ("value", 1, 7): -1.0}
        assert {run.status for run in backend.runs.values() if run.name != "two"} == {"FINISHED"}
    content = {"a.bin": bytes(range(256)), "b.json": b"{}"}

    def save(folder):
        folder.mkdir()
        for name, data in content.items():
            (folder / name).write_bytes(data)

    source = backend.upload(runs.parent, save, (8, 8))
    folder = tmp_path / "back"
    folder.mkdir()
    backend.download(source, ["a.bin", "b.json"], folder)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == content
    backend.delete_files(source)
    with pytest.raises((RegistryError, KeyError)):
        backend.download(source, ["a.bin"], folder)
