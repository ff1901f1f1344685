"""What the end of a run will need of MLflow is opened before it begins, for reading alone; each refusal names a remedy that helps."""

import hashlib
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys

import pytest

from gan_core.errors import CheckpointError, RegistryError
from pipelines import diagnostics
from pipelines.registry.address import recorded
from pipelines.registry.mlflow_client import open_client
from pipelines.registry.tracking import check_ready
from tests.pipelines.conftest import environment, failed

NAME = "gan-ready"


def tracking_finding(uri, storage):
    """What `gan doctor` says of MLflow."""
    (found,) = (one for one in diagnostics.examine(str(storage), uri, False) if one.part == "tracking")
    return found


def state(folder):
    return {path: hashlib.md5(path.read_bytes()).digest() for path in folder.rglob("*") if path.is_file()}


def older(path):
    """A database as an older MLflow made it: MLflow's own migrations, but not the last."""
    import sqlalchemy
    from alembic import command
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base

    settings = _get_alembic_config(f"sqlite:///{path}")
    newest = ScriptDirectory.from_config(settings).get_revision("head")
    engine = sqlalchemy.create_engine(f"sqlite:///{path}")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        settings.attributes["connection"] = connection
        command.upgrade(settings, newest.down_revision)
    engine.dispose()


def changed(path, statement):
    database = sqlite3.connect(path)
    with database:
        database.execute(statement)
    database.close()


@pytest.fixture
def kinds(database_template, tmp_path, monkeypatch):
    """Makes the database, or the folder, of a kind, and gives its URI."""
    monkeypatch.chdir(tmp_path)

    def make(kind):
        path = tmp_path / "it.db"
        if kind == "older":
            older(path)
        elif kind == "newer":
            shutil.copy(database_template, path)
            changed(path, "update alembic_version set version_num = 'ffffffffffff'")
        elif kind == "others":
            changed(path, "create table people (name text)")
        elif kind == "text":
            path.write_text("no database\n" * 100)
        elif kind == "empty":
            path.touch()
        return {
            "file": f"file://{tmp_path}/files", "mlruns": "./mlruns", "memory": "sqlite://",
            "memory by name": "sqlite:///:memory:",
        }.get(kind, f"sqlite:///{path}")  # fmt: skip

    return make


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("older", "database of an older MLflow .*back it up, then mlflow db upgrade sqlite:"),
        ("newer", "database of a newer MLflow .*another --tracking-uri"),
        ("others", "not MLflow's database .*people.*another --tracking-uri"),
        ("text", "not a database.*another --tracking-uri"),
        ("file", "MLflow refuses a folder of files .*another --tracking-uri.*mlflow migrate-filestore"),
        ("mlruns", "MLflow refuses a folder of files .*another --tracking-uri"),
        ("memory", "nothing would be kept .*another --tracking-uri"),
        ("memory by name", "nothing would be kept .*another --tracking-uri"),
    ],
)
def test_unusable_registry_is_refused_before_the_run(kind, words, kinds, tmp_path):
    """An MLflow that a run could not end with is refused before it begins, with a remedy, and not changed."""
    uri = kinds(kind)
    before = state(tmp_path)
    for refuse in (lambda: check_ready(uri, NAME), lambda: open_client(uri)):
        with pytest.raises(RegistryError, match=words):
            refuse()
    found = tracking_finding(uri, tmp_path)
    assert (found.verdict, re.search(words, found.found) is not None) == ("fail", True)
    assert state(tmp_path) == before


@pytest.mark.parametrize("kind", ["empty", "gone"])
def test_database_to_be_created_is_ready_and_not_created(kind, kinds, tmp_path):
    """A database that the run will make is ready, and the check does not make it."""
    uri = kinds(kind)
    before = state(tmp_path)
    check_ready(uri, NAME)
    assert tracking_finding(uri, tmp_path).verdict == "ok"
    with pytest.raises(RegistryError, match="no such registry"):
        open_client(uri)
    assert state(tmp_path) == before
    open_client(uri, create=True)
    check_ready(uri, NAME)


def test_an_older_database_is_ready_after_the_remedy(kinds):
    uri = kinds("older")
    with pytest.raises(RegistryError) as refused:
        check_ready(uri, NAME)
    run(re.search(r"mlflow db upgrade \S+", str(refused.value))[0])
    check_ready(uri, NAME)


def test_file_store_is_ready_if_mlflow_allows_it(kinds, monkeypatch, tmp_path):
    """A folder of files is ready if MLflow is told to take it."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    check_ready(kinds("file"), NAME)
    assert list(tmp_path.iterdir()) == []


def test_deleted_experiment_is_refused_until_restored(place, tmp_path):
    """MLflow gives it by its name as if nothing were wrong, and takes no run for it: known only at a run's end."""
    check_ready(place.uri, NAME)
    client = open_client(place.uri)
    client.delete_experiment(client.create_experiment(NAME))
    with pytest.raises(RegistryError, match=rf"experiment in the trash \(.*{NAME}\)") as refused:
        check_ready(place.uri, NAME)
    found = tracking_finding(place.uri, tmp_path)
    assert (found.verdict, f"in its trash: {NAME}" in found.found) == ("warn", True)
    run(str(refused.value).partition("it restored: ")[2])
    check_ready(place.uri, NAME)
    assert tracking_finding(place.uri, tmp_path).verdict == "ok"


def test_a_dry_run_finds_an_experiment_in_the_trash(registry_uri, small_yaml, here):
    client = open_client(registry_uri)
    client.delete_experiment(client.create_experiment("gan-small"))
    command = ("run", small_yaml, "--storage", "st", "--tracking-uri", registry_uri)
    failed(here(*command, "--dry-run"), 5, "experiment in the trash", "mlflow experiments restore")
    failed(here(*command), 5, "experiment in the trash")


def test_an_experiment_whose_files_cannot_be_written_is_refused(registry_uri, tmp_path):
    """Where an experiment's files go was decided when it was made, perhaps on another machine."""
    (tmp_path / "file").touch()
    client = open_client(registry_uri)
    client.create_experiment(NAME, artifact_location=f"file://{tmp_path}/file/deeper")
    client.create_experiment("gan-other", artifact_location=f"file://{tmp_path}/deeper")
    with pytest.raises(CheckpointError, match="storage refused"):
        check_ready(registry_uri, NAME)
    check_ready(registry_uri, "gan-other")


def test_recorded_registry_does_not_depend_on_the_folder(tmp_path, monkeypatch):
    """A record names a registry the same from every folder, without its password."""
    monkeypatch.chdir(tmp_path)
    assert recorded("sqlite:///it.db") == recorded(f"sqlite:///{tmp_path}/it.db") == f"sqlite:///{tmp_path}/it.db"
    assert recorded("http://me:secret@host:5000/") == "http://***@host:5000"
    assert recorded("http://host:5000") != recorded("http://host:5001")


def run(command):
    """A remedy, as a user would type it."""
    words = shlex.split(command)
    told = dict(word.split("=", 1) for word in words if word.startswith("MLFLOW_TRACKING_URI="))
    program, *arguments = words[len(told) :]
    assert program == "mlflow"
    done = subprocess.run(
        [sys.executable, "-m", "mlflow", *arguments],
        capture_output=True,
        text=True,
        env=environment(**told),
        timeout=200,
    )
    assert done.returncode == 0, done.stderr


# One process is killed while it makes a database, at each of some moments; then that is opened as a run does.
KILLED = """
import os, signal, sys, time
from pipelines.registry import Registry
from pipelines.registry.mlflow_client import open_client
folder, moments = sys.argv[1], int(sys.argv[2])
since = time.monotonic()
open_client(f"sqlite:///{folder}/whole.db", create=True)
whole = time.monotonic() - since
for moment in range(moments):
    uri = f"sqlite:///{folder}/killed-{moment}.db"
    child = os.fork()
    if child == 0:
        open_client(uri, create=True)
        os._exit(0)
    time.sleep(whole * moment / moments)
    os.kill(child, signal.SIGKILL)
    killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) < 0
    registry = Registry(uri, create=True)
    registry.backend.create_model("it")
    print(killed, registry.models())
"""


def test_a_database_killed_in_the_making_is_made(tmp_path):
    """A SIGKILL left tables without a revision, which the same command refused as "not MLflow's database" for ever."""
    command = [sys.executable, "-c", KILLED, str(tmp_path), "5"]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True ['it']\n") >= 3, done.stdout
    assert done.stdout.count("['it']\n") == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [*(f"killed-{n}.db" for n in range(5)), "whole.db"]


def test_processes_that_make_one_database_share_it(tmp_path):
    """Each found no tables, and the second to make them was refused by the first one's."""
    script = (
        "import sys; from pipelines.registry.mlflow_client import open_client; open_client(sys.argv[1], create=True)"
    )
    command = [sys.executable, "-c", script, f"sqlite:///{tmp_path}/one.db"]
    both = [subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[1] for process in both] == ["", ""]
    assert [path.name for path in tmp_path.iterdir()] == ["one.db"]
