"""One entry that cannot be read spoils no list, and nothing that others wrote reaches a terminal as it is."""

import json

import pytest

from gan_core.errors import RegistryError, visible
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.champion_history import MOVE_TAG, ChampionHistory
from pipelines.runs.run import Run
from pipelines.storage import Storage

NAME, EVIL = "gan-listed", "red \x1b[31m\nsecond\x9b line\u202e"
SHOWN = "red \\x1b[31m\\nsecond\\x9b line\\u202e"
OTHERS = {
    "broken JSON": {"metrics": '{"log_likelihood": 1'},
    "no object": {"metrics": "[1, 2]"},
    "text for a number": {"metrics": '{"log_likelihood": "high"}'},
    "nan": {"metrics": '{"log_likelihood": NaN}'},
    "sigma nan": {"metrics": '{"sigma": NaN}'},
    "sigma negative": {"metrics": '{"sigma": -0.2}'},
    "sigma tag": {"sigma": "-0.2"},
    "deep": {"metrics": "[" * 4000},
}


@pytest.fixture
def registry(registry_uri):
    registry = Registry(registry_uri)
    registry.backend.client.create_registered_model(NAME)
    registry.backend.client.create_model_version(
        NAME, "s3://x", tags={"run": "mine", "metrics": '{"log_likelihood": 7.5}'}
    )
    return registry


@pytest.fixture
def models(registry, here):
    return lambda *command: here("models", *command, "--tracking-uri", registry.uri)


def clean(answer):
    """It ended well, and a terminal obeys nothing in what it said."""
    assert answer.code == 0, answer.err
    assert [one for one in answer.out + answer.err if not one.isprintable() and one != "\n"] == []
    return answer.out + answer.err


@pytest.mark.parametrize("kind", OTHERS)
def test_a_version_with_others_tags_is_listed_as_unreadable(kind, registry, models):
    registry.backend.client.create_model_version(NAME, "s3://x", tags=OTHERS[kind])
    bad, good = models("list", "--json").json["models"]
    assert (good["metrics"], "unreadable" in good) == ({"log_likelihood": 7.5}, False)
    assert (bad["metrics"], bad["unreadable"].startswith("unreadable ")) == ({}, True)
    text = clean(models("list"))
    assert f"{NAME}/1" in text
    assert "7.5 nats" in text
    assert f"unreadable {'sigma' if kind in ('sigma negative', 'sigma tag') else 'metrics'} ({NAME}/2)" in text
    assert models("show", f"{NAME}/2", "--json").json == bad
    assert "unreadable" in clean(models("show", f"{NAME}/2"))
    assert [one["version"] for one in models("list", "--json", "--best", "log_likelihood").json["models"]] == [1]


@pytest.mark.parametrize("name", ["two words", EVIL, 'it\'s "quoted"', "x" * 200])
def test_foreign_model_of_any_name_is_listed(name, registry, models):
    """A model of others with any name is listed with the rest, its name made visible."""
    registry.backend.client.create_registered_model(name)
    registry.backend.client.create_model_version(name, "s3://x")
    registry.backend.client.set_registered_model_alias(name, "theirs", "1")
    listed = {one["name"]: one for one in models("list", "--json").json["models"]}
    assert listed.keys() == {name, NAME}
    assert listed[name]["aliases"] == ["theirs"]
    text = clean(models("list"))
    assert len(text.splitlines()) == 2
    assert f"{visible(name)}/1" in text
    assert "not a model name" in text


def test_foreign_text_in_a_version_is_shown_safely(registry, models):
    """What others wrote in a version is shown and not obeyed: control characters are escaped."""
    registry.backend.client.create_model_version(NAME, "s3://x", tags={"run": EVIL, "gate": EVIL})
    assert SHOWN in clean(models("list"))
    text = clean(models("show", f"{NAME}/2"))
    assert (text.count(SHOWN), len(text.splitlines())) == (2, 3)
    ChampionHistory(registry, NAME).force(registry.version(NAME, 2), EVIL)
    assert SHOWN in clean(models("history", NAME))


def test_unreadable_move_is_listed_and_moves_nothing(registry, models):
    """A move that cannot be read is listed, and moves nothing."""
    history = ChampionHistory(registry, NAME)
    history.force(registry.version(NAME, 1), "a test")
    registry.backend.client.set_registered_model_tag(NAME, f"{MOVE_TAG}00000002", EVIL)
    first, second = models("history", NAME, "--json").json["moves"]
    assert (first["to"], second["unreadable"]) == (1, EVIL)
    assert SHOWN in clean(models("history", NAME))
    assert models("rollback", NAME).code == 5
    with pytest.raises(RegistryError, match="unreadable history"):
        history.moves()


DAMAGED = {
    "empty": ("run.json", b""),
    "half": ("run.json", b'{"run": '),
    "a list": ("run.json", b"[]"),
    "another configuration": ("run.json", b'{"configuration": {"nosuch": 1}}'),
    "a record": ("records/evaluate.json", b'{"inputs": "", "record": {"log_likelihood": 1}}'),
    "a record's numbers": ("records/evaluate.json", None),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_run_is_listed_and_never_pruned(kind, small, tmp_path, here):
    """A damaged run is listed as unreadable and never pruned."""
    storage = Storage.at(tmp_path / "st")
    for name in ("whole", "damaged"):
        Run.create(config.override(small, {"tune.candidates": 0}), "x", name, storage).save()
    file, content = DAMAGED[kind]
    if content is None:
        fields = ("log_likelihood", "standard_error", "sigma", "paper", "cross_validated", "coverage", "references")
        record = dict.fromkeys((*fields, "data_digest", "generator_sha256", "seconds"), "high")
        content = json.dumps({"inputs": "", "record": record}).encode()
    storage.child("runs", "damaged").write(file, content)
    where = ("--storage", storage.uri)
    damaged, whole = here("runs", *where, "--json").json["runs"]
    assert (damaged["run"], damaged["state"], whole["state"]) == ("damaged", "unreadable", "stopped")
    assert "unreadable" in clean(here("runs", *where))
    pruned = here("runs", "prune", "--keep", 0, "--yes", "--json", *where).json
    kept = [(one["run"], one["state"]) for one in pruned["unreadable"]]
    assert ([one["run"] for one in pruned["runs"]], kept) == (["whole"], [("damaged", "unreadable")])
    assert storage.child("runs").names() == ["damaged"]


def test_folder_that_is_no_run_is_listed_safely(small, tmp_path, here):
    """A folder that is no run is listed and not obeyed: control characters are escaped."""
    storage = Storage.at(tmp_path / "st")
    Run.create(small, "x", "whole", storage).save()
    storage.child("runs", EVIL.replace("\n", "")).write("run.json", b"{}")
    storage.child("runs").write("notes.txt", b"not a folder")
    text = clean(here("runs", "--storage", storage.uri))
    assert "\\x1b[31m" in text
    assert "whole" in text


def test_a_reason_of_others_is_shown_and_not_obeyed(registry, models):
    version = registry.version(NAME, 1)
    ChampionHistory(registry, NAME).force(version, "a test")
    registry.tag(version, {"gate": EVIL, "data_settings": '{"name": "digits"}'})
    text = clean(models("promote", f"{NAME}/1", "--storage", "st"))  # champion already: what was said of it
    assert "\\x1b[31m" in text


def test_error_shows_foreign_text_in_one_line():
    """An error shows what others wrote, escaped, and is one line."""
    assert str(RegistryError("refused", EVIL, "no")) == f"refused ({SHOWN.replace(chr(92) + 'n', ' ')}): no"
    assert visible("plain é 한글 \\ text") == "plain é 한글 \\ text"
