"""F22: what deletes asks what protects first, and deletes nothing unless it has answered: each command, each silence."""

import os
import uuid

import pytest

from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import ChampionHistory
from pipelines.runs.retention import apply_retention
from pipelines.runs.run import Run
from pipelines.storage import Storage
from tests.faults.proxy import failing
from tests.pipelines.conftest import failed
from tests.pipelines.test_tracking import closed_port

ALWAYS = 10**6
PROTECTED = {"night-1", "night-2"}  # 2 is champion, 1 was before it; 1 has no record of its registration
SILENCES = {
    "down": {},
    "slow": {"kind": "slow", "delay": 3.0},
    "empty": {"kind": "empty"},
    "no models": {"kind": "empty", "path": "registered-models/search"},
    "no versions": {"kind": "empty", "path": "model-versions/search"},
    "nothing by name": {"kind": "empty", "path": "registered-models/get"},
}


@pytest.fixture
def nights(mlflow_server, small, tmp_path):
    """Three runs and their versions in a real registry, reached through a proxy that can be told to fail."""
    name, storage = f"gan-{uuid.uuid4().hex[:8]}", Storage.at(tmp_path / "st")
    registry = Registry(mlflow_server.uri)
    registry.backend.client.create_registered_model(name)
    with failing(mlflow_server.uri) as (address, faults):
        for number in (1, 2, 3):
            settings = config.override(small, {"registry.model": name, "retention.keep_runs": 1})
            run = Run.create(config.override(settings, {"retention.keep_versions": 1}), "x", f"night-{number}", storage)
            run.save()
            run.folder.write_json("records/report.json", {"inputs": "", "record": {"report": "", "seconds": 0.0}})
            if number > 1:
                record = {"model": name, "version": number, "alias": "challenger", "promoted": False, "reason": ""}
                run.folder.write_json(
                    "records/register.json", {"inputs": "", "record": {**record, "tracking_uri": address}}
                )
            key = {"run": run.name, "gan.key": f"{name}{number}".replace("-", "")}
            registry.backend.client.create_model_version(name, "s3://nowhere/model", tags=key)
        history = ChampionHistory(registry, name)
        for number in (1, 2):
            history.force(registry.version(name, number), "a test")
        registry.backend.client.set_registered_model_alias(name, "before", "1")
        yield Nights(name, storage, registry, address, faults)


class Nights:
    def __init__(self, name, storage, registry, address, faults):
        self.name, self.storage, self.registry, self.address, self.faults = name, storage, registry, address, faults

    def silenced(self, silence, monkeypatch):
        """The address of the registry, which does not answer any more, or not with the truth."""
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
        self.faults.left, self.faults.reads = ALWAYS, True
        for key, value in SILENCES[silence].items():
            setattr(self.faults, key, value)
        return f"http://127.0.0.1:{closed_port()}" if silence == "down" else self.address

    @property
    def left(self):
        """The runs, and the versions with their tags, that are there in truth."""
        versions = [(one.version, dict(one.tags)) for one in self.registry.versions(self.name)]
        return set(os.listdir(self.storage.local / "runs")), versions


COMMANDS = {
    "archive": ("models", "archive", "{name}/3"),
    "delete": ("models", "delete", "{name}/3", "--yes"),
    "prune": ("models", "prune", "{name}", "--keep", "1", "--yes"),
    "runs prune": ("runs", "prune", "--keep", "0", "--yes"),
}
EVERY = ("down", "slow", "empty", "nothing by name")
# And one search alone, where a command needs it.
CASES = [(command, silence) for command in COMMANDS for silence in EVERY]
CASES += [("delete", "no versions"), ("prune", "no versions"), ("runs prune", "no models")]


@pytest.mark.parametrize(("command", "silence"), CASES)
def test_nothing_is_deleted_unless_the_registry_has_answered(command, silence, nights, here, monkeypatch):
    before, address = nights.left, nights.silenced(silence, monkeypatch)
    told = [part.format(name=nights.name) for part in COMMANDS[command]]
    answer = here(*told, "-q", "--tracking-uri", address, "--storage", nights.storage.uri)
    failed(answer, 5, "expected")
    assert nights.left == before


def test_unprotected_are_deleted_if_registry_answers(nights, here):
    """What nothing protects is archived, pruned and deleted once the registry answers."""
    where = ("--tracking-uri", nights.address, "--storage", nights.storage.uri, "--json")
    assert here("models", "archive", f"{nights.name}/3", *where).json["archived"]
    pruned = here("runs", "prune", "--keep", 0, "--yes", *where).json
    assert {one["run"]: one["kept"] for one in pruned["runs"]} == {
        "night-3": None, **dict.fromkeys(PROTECTED, "its version holds an alias"),
    }  # fmt: skip
    assert here("models", "delete", f"{nights.name}/3", "--yes", *where).json["deleted"]
    runs, versions = nights.left
    assert (runs, [number for number, _ in versions]) == (PROTECTED, [2, 1])


@pytest.mark.parametrize("silence", [*EVERY, "no versions"])
def test_retention_needs_the_registrys_answer(silence, nights, monkeypatch):
    """Retention removes nothing unless the registry has answered each of its questions, and warns."""
    before, address = nights.left, nights.silenced(silence, monkeypatch)
    said, warned = [], []
    apply_retention(Run.open("night-3", nights.storage), address, said.append, warned.append)
    assert (nights.left, said) == (before, [])
    assert [line.partition(":")[0] for line in warned] == ["prune  nothing was removed after night-3"]


@pytest.mark.parametrize("silence", ["empty", "no models"])
def test_an_empty_answer_is_not_a_registry_without_models(silence, nights, here, monkeypatch):
    """Both are `{}`: a proxy's answer, or that of a server which is not up yet, would be taken for the truth."""
    address = nights.silenced(silence, monkeypatch)
    failed(here("models", "--tracking-uri", address), 5, "no registry's answer", "gan doctor")


@pytest.mark.parametrize("where", ["http://elsewhere:5000", None])
def test_a_run_registered_elsewhere_is_kept(where, nights, here):
    """The registry that was asked cannot know whether a version in another holds an alias."""
    folder = nights.storage.child("runs", "night-3")
    known = folder.read_json("records/register.json")
    folder.write_json(
        "records/register.json", {**known, "record": {**known["record"], "version": 9, "tracking_uri": where}}
    )
    answer = here(
        "runs",
        "prune",
        "--keep",
        0,
        "--yes",
        "--json",
        "--tracking-uri",
        nights.address,
        "--storage",
        nights.storage.uri,
    )
    (kept,) = [one["kept"] for one in answer.json["runs"] if one["run"] == "night-3"]
    assert kept.startswith(f"registered in {where or 'a registry it does not name'}, which has not answered")
    assert nights.left[0] == {"night-1", "night-2", "night-3"}
