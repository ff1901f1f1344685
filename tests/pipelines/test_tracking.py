"""What the driver copies into MLflow is there once, and no message of MLflow's shows a password."""

import json
import socket
import time

import pytest

from gan_core.errors import RegistryError
from pipelines.registry.address import redacted, tracking_uri
from pipelines.registry.mlflow_backend import MlflowBackend
from pipelines.registry.mlflow_client import check_reachable, open_client
from pipelines.registry.tracking import Tracking
from pipelines.storage import Storage

HISTORY = [
    {"step": step, "time_ms": 1_700_000_000_000 + step, "value": -step / 7, "loss": step / 3} for step in range(1, 31)
]
RECORD = {"log_likelihood": 1.5, "seconds": 2.0, "checkpoint": "somewhere", "promoted": True, "grid": [1, 2]}


def tracking(place, run, experiment="gan-tracked"):
    return Tracking(MlflowBackend.open(place.uri), experiment, run, place.storage.child("mlartifacts"))


def closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_metrics_copied_twice_are_there_once(place):
    """The metrics of a stage copied twice are there once for each step."""
    first = tracking(place, "twice").stage("train", "twice", RECORD, HISTORY, {"table.txt": b"1 2 3"})
    runs = tracking(place, "twice")  # the driver was killed and started again
    again = runs.stage("train", "twice", RECORD, HISTORY, {"table.txt": b"1 2 3"})
    assert first == again
    for run_id in (again, runs.parent):
        for key in ("value", "loss"):
            points = runs.store.client.get_metric_history(run_id, key)
            assert sorted((point.step, point.timestamp, point.value) for point in points) == [
                (row["step"], row["time_ms"], row[key]) for row in HISTORY
            ]
    for key in ("log_likelihood", "seconds"):  # the record's numbers, and nothing else of it
        assert [point.value for point in runs.store.client.get_metric_history(again, key)] == [RECORD[key]]
    assert set(runs.store.client.get_run(again).data.metrics) == {"value", "loss", "log_likelihood", "seconds"}


def test_live_curves_are_not_doubled_at_the_end(place):
    """Curves copied while a training runs are not doubled when all is copied at its end."""
    runs = tracking(place, "followed")
    runs.curves("followed", HISTORY[:10])
    runs.curves("followed", HISTORY[10:20])
    run_id = runs.stage("train", "followed", RECORD, HISTORY)
    assert sorted(point.step for point in runs.store.client.get_metric_history(run_id, "value")) == list(range(1, 31))


def test_each_stage_is_a_finished_child_run(place):
    """Each stage is a finished child of the run, with its record and files."""
    runs = tracking(place, "parent")
    children = [
        runs.stage(stage, "parent", {**RECORD, "stage": stage}, (), {"x.txt": b"x"}) for stage in ("tune", "evaluate")
    ]
    runs.finish({"log_likelihood": 3.5}, {"report.html": b"<html></html>"})
    client = open_client(place.uri)
    for child, stage in zip(children, ("tune", "evaluate"), strict=True):
        run = client.get_run(child)
        assert run.data.tags["mlflow.parentRunId"] == runs.parent
        assert (run.info.run_name, run.info.status) == (f"parent/{stage}", "FINISHED")
        assert {file.path for file in client.list_artifacts(child)} == {"x.txt", f"{stage}.json"}
    parent = client.get_run(runs.parent)
    assert (parent.info.run_name, parent.info.status, parent.data.metrics["log_likelihood"]) == (
        "parent",
        "FINISHED",
        3.5,
    )
    assert [file.path for file in client.list_artifacts(runs.parent)] == ["report.html"]
    found = client.search_runs([runs.experiment], "tags.`gan.run` = 'parent'")
    assert {run.info.run_id for run in found} == {runs.parent, *children}


def test_two_runs_of_one_experiment_do_not_mix(place):
    one, two = tracking(place, "one"), tracking(place, "two")
    assert one.experiment == two.experiment
    assert one.parent != two.parent
    assert one.stage("train", "one", {"x": 1.0}) != two.stage("train", "two", {"x": 2.0})


def test_run_may_be_described_twice(place, digits):
    """A run is described by its parameters, data and configuration, and may be described twice."""
    for _ in range(2):
        runs = tracking(place, "described")
        runs.describe("seed: 1\n", {"seed": 1, "noise.size": 8}, digits, "a test")
    run = open_client(place.uri).get_run(runs.parent)
    assert run.data.params == {"seed": "1", "noise.size": "8"}
    assert run.data.tags["mlflow.note.content"] == "a test"
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("digits", digits.digest[:32])
    assert json.loads(data.dataset.profile) == {"train": 1000, "validation": 200, "gate": 300, "test": 297}


def test_a_look_up_creates_no_database(tmp_path):
    with pytest.raises(RegistryError, match=r"no such registry .*expected a run to have registered a model"):
        open_client(f"sqlite:///{tmp_path}/deep/mlflow.db")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("http://me:s3cr3t@host:1/x", "http://***@host:1/x"),
        ("at postgresql://me:p@s3cr3t@host/db now", "at postgresql://***@host/db now"),
        ("http://host:1/a@b", "http://host:1/a@b"),
        ("sqlite:////a/b.db", "sqlite:////a/b.db"),
        ("two: http://a:b@c https://d:e@f", "two: http://***@c https://***@f"),
    ],
)
def test_redacted_removes_credentials_and_nothing_else(text, clean):
    assert redacted(text) == clean


@pytest.mark.parametrize("scheme", ["http", "postgresql", "mysql"])
@pytest.mark.parametrize("password", ["s3cr3t", "p@s3cr3t"])
def test_no_error_shows_a_password(scheme, password, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri = f"{scheme}://me:{password}@127.0.0.1:{closed_port()}/db"
    for refuse in (check_reachable, open_client):
        started = time.monotonic()
        with pytest.raises(RegistryError) as caught:
            refuse(uri)
        assert time.monotonic() - started < 30  # MLflow's own attempts take a hundred seconds
        assert "s3cr3t" not in str(caught.value)
        assert "me:" not in str(caught.value)
        assert f"{scheme}://***@127.0.0.1" in str(caught.value)
        assert len(str(caught.value).splitlines()) == 1


def test_answering_server_and_database_are_reachable(place):
    """A server that answers is reachable, and a database is not asked."""
    check_reachable(place.uri)


def test_a_server_that_never_answers_is_asked_once():
    with socket.socket() as silent:  # accepts, and never says a word
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(RegistryError, match=r"MLflow does not answer.*ReadTimeout.*another --tracking-uri"):
            check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
        silent.setblocking(False)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):
            silent.accept()


def test_tracking_uri_is_given_or_environment_or_storage(tmp_path, monkeypatch):
    """The address is the one given, then the environment's, then a database in the storage."""
    storage = Storage.at(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, storage) == f"sqlite:///{tmp_path}/mlflow.db"
    with pytest.raises(RegistryError, match="--tracking-uri or MLFLOW_TRACKING_URI"):
        tracking_uri(None, Storage.at("s3://bucket/folder"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    assert tracking_uri(None, storage) == "http://environment"
    assert tracking_uri("http://given", storage) == "http://given"
