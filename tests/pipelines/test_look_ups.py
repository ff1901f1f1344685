"""Look-ups answer at once: they import nothing that trains, and read a database in a file as MLflow's own client does."""

import json
import shutil
import sqlite3
import subprocess
import sys

import pytest

from pipelines import config
from pipelines.registry import Lookup, Registry
from pipelines.registry.champion_history import MOVE_TAG, ChampionHistory, entries
from pipelines.registry.mlflow_client import _revisions
from pipelines.registry.mlflow_database import REVISIONS, MlflowDatabase
from pipelines.registry.move import Move
from pipelines.runs import status
from pipelines.runs.recorded_run import RecordedRun
from pipelines.runs.run import Run
from pipelines.storage import Storage
from tests.pipelines.conftest import environment
from tests.pipelines.test_mlflow_client import changed

NAME = "gan-look"
SECONDS_TO_IMPORT = {"torch", "ray", "mlflow", "sklearn", "scipy", "pandas", "sqlalchemy", "pydantic", "matplotlib"}


@pytest.fixture(scope="module")
def registry(database_template, tmp_path_factory):
    """Three versions, the second of which is champion and was first; beside them what is not to be listed."""
    path = shutil.copy(database_template, tmp_path_factory.mktemp("look-ups") / "mlflow.db")
    registry = Registry(f"sqlite:///{path}")
    client = registry.backend.client
    for name in (NAME, 'it\'s "theirs"', "gan-empty"):
        client.create_registered_model(name)
    for number in (1, 2, 3, 4):
        client.create_model_version(NAME, f"s3://m{number}", tags={"run": "mine", "data_digest": f"d{number % 2}"})
    client.create_model_version('it\'s "theirs"', "s3://x")
    client.delete_model_version(NAME, "4")
    client.register_prompt("a-prompt", "Say {{ this }}")
    history = ChampionHistory(registry, NAME)
    for number in (1, 2):
        history.force(registry.version(NAME, number), "a test")
    history.challenge(registry.version(NAME, 3))
    return registry


@pytest.mark.parametrize(
    "command",
    [
        ("--help",),
        ("runs", "--help"),
        ("runs", "list"),
        ("runs", "status", "one"),
        ("runs", "watch", "one"),
        ("models", "list"),
        ("models", "list", "--data-digest", "d1", "--best", "log_likelihood"),
        ("models", "show", f"{NAME}@champion"),
        ("models", "history", NAME),
        ("models", "watch", f"{NAME}@champion", "--once"),
    ],
    ids=" ".join,
)
def test_a_look_up_imports_nothing_heavy(command, registry, small, tmp_path):
    """`gan models` took 12.8 s: MLflow's client, torch, SciPy and scikit-learn were imported to list names."""
    storage = Storage.at(tmp_path)
    Run.create(small, "x", "one", storage).save()
    where = () if "--help" in command else ("--storage", storage.uri, "--tracking-uri", registry.uri)
    started = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines.cli", *command, *where],
        capture_output=True, text=True, env=environment(), timeout=100,
    )  # fmt: skip
    assert started.returncode == 0, started.stderr[-2000:]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in started.stderr.splitlines()}
    assert "click" in imported  # what is imported is what is listed
    assert imported & SECONDS_TO_IMPORT == set()


def test_a_database_is_read_as_mlflow_reads_it(registry):
    """Without deleted versions and prompts, with tags, aliases and names of any text."""
    ours, theirs = MlflowDatabase.open(registry.uri), registry.backend
    assert ours.models() == theirs.models() == ["gan-empty", NAME, 'it\'s "theirs"']
    for name in (*ours.models(), "no-such"):
        assert ours.model(name) == theirs.model(name)
    for which in ({}, {"name": NAME}, {"tag": ("data_digest", "d1")}, {"name": NAME, "tag": ("data_digest", "d1")}):
        assert ours.versions(**which) == theirs.versions(**which) != []
    for number in (1, 2, 3, 4, 9):
        assert ours.version(NAME, number) == theirs.version(NAME, number)
    assert ours.version(NAME, 2).aliases == ("champion",)


def test_the_tables_read_are_those_of_the_installed_mlflow():
    """A new MLflow may have other tables: look at `mlflow_database` before its revision is added there."""
    assert [_revisions()[1]] in REVISIONS


def test_unknown_kinds_are_left_to_mlflow(registry_uri, monkeypatch):
    """What is no file of tables known here is opened by MLflow's client, or refused in its words."""
    assert isinstance(Lookup.at(registry_uri).backend, MlflowDatabase)
    assert MlflowDatabase.open("http://127.0.0.1:1") is None
    assert MlflowDatabase.open(f"{registry_uri}.gone") is None
    monkeypatch.setenv("MLFLOW_WORKSPACE", "other")
    assert MlflowDatabase.open(registry_uri) is None
    monkeypatch.delenv("MLFLOW_WORKSPACE")
    changed(registry_uri.removeprefix("sqlite:///"), "update alembic_version set version_num = 'ffffffffffff'")
    assert MlflowDatabase.open(registry_uri) is None


def test_a_listed_run_is_as_its_configuration_says(small, tmp_path):
    """Without reading the configuration's own classes: stages and steps of a run are those that `Run` has."""
    for name, changes in {
        "plain": {"tune.candidates": 0},
        "searched": {},
        "inverted": {"extension.name": "inference", "algorithm.steps": 7},
    }.items():
        made = Run.create(config.override(small, changes), "x", name, Storage.at(tmp_path))
        made.save()
        assert RecordedRun(name, made.storage).plan == made.plan


MODELS, VERSIONS, MOVES, RUNS = 30, 10, 1000, 500  # versions of each model, moves of the first


@pytest.fixture(scope="module")
def many(database_template, tmp_path_factory):
    """A registry of some years, written into MLflow's own tables at once: 300 versions, 1,000 moves of one champion."""
    from mlflow.store.model_registry.dbmodels import models as tables
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    path = shutil.copy(database_template, tmp_path_factory.mktemp("many") / "mlflow.db")
    names, numbers = [f"gan-{model:03d}" for model in range(MODELS)], range(1, VERSIONS + 1)
    pairs = [(name, number) for name in names for number in numbers]
    tags = {"run": "a", "data_digest": "d0", "metrics": '{"log_likelihood": 1.5}'}
    moves = [
        Move(number, "", number % VERSIONS + 1, (number + 1) % VERSIONS + 1, "force", "") for number in range(MOVES)
    ]
    when = {"creation_time": 1, "last_updated_time": 1}
    rows = [
        [tables.SqlRegisteredModel(name=name, **when) for name in names],
        [
            tables.SqlModelVersion(name=name, version=number, current_stage="None", source="s3://x", **when)
            for name, number in pairs
        ],
        [
            tables.SqlModelVersionTag(name=name, version=number, key=key, value=value)
            for name, number in pairs
            for key, value in tags.items()
        ],
        [tables.SqlRegisteredModelAlias(name=name, alias="champion", version=VERSIONS) for name in names],
        [
            tables.SqlRegisteredModelTag(
                name=names[0], key=f"{MOVE_TAG}{move.number:08d}", value=json.dumps(move.to_json())
            )
            for move in moves
        ],
    ]
    engine = create_engine(f"sqlite:///{path}")
    with Session(engine) as session:
        for of_one_table in rows:
            session.bulk_save_objects(of_one_table)
        session.commit()
    engine.dispose()
    return f"sqlite:///{path}"


class Counting:
    """MLflow's client, and the names of the requests it was asked for."""

    def __init__(self, client):
        self.client, self.asked = client, []

    def __getattr__(self, name):
        self.asked.append(name)
        return getattr(self.client, name)


def test_a_large_registry_takes_few_questions(many, monkeypatch):
    """`gan models` took 94 s: a request for each model. A page has 200 entries, so 300 versions are two."""
    registry = Registry(many)
    registry.backend.client = client = Counting(registry.backend.client)
    assert len(registry.find()) == MODELS * VERSIONS
    assert client.asked == ["search_registered_models", "search_model_versions", "search_registered_models"]
    client.asked.clear()
    assert len(entries(registry, "gan-000")) == MOVES
    assert client.asked == ["get_registered_model"]
    queries, connect = [], sqlite3.connect

    def traced(*arguments, **named):
        connection = connect(*arguments, **named)
        connection.set_trace_callback(queries.append)
        return connection

    monkeypatch.setattr("pipelines.registry.mlflow_database.sqlite3.connect", traced)
    lookup = Lookup.at(many)
    assert lookup.find() == registry.find()
    assert len(lookup.find(data_digest="d0", best="log_likelihood")) == MODELS
    assert len(entries(lookup, "gan-000")) == MOVES
    asked = [query for query in queries if "select" in query]
    assert len(asked) == 1 + 2 * (1 + 3) + 3  # the revision; names and versions, twice; a model with aliases and tags


def test_hundreds_of_runs_are_listed_with_few_reads_each(small, tmp_path, monkeypatch):
    """`gan runs list` took 41 s of 500 runs; each is nine files: its own, twice, six records and who works on it."""
    storage = Storage.at(tmp_path)
    Run.create(small, "x", "run-0", storage).save()
    for number in range(1, RUNS):
        shutil.copytree(tmp_path / "runs" / "run-0", tmp_path / "runs" / f"run-{number}")
    read, names = Storage.read, []
    monkeypatch.setattr(Storage, "read", lambda self, name: names.append(name) or read(self, name))
    assert {entry["state"] for entry, _ in status.entries(storage)} == {"stopped"}
    assert len(names) == 9 * RUNS
