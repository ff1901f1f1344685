"""What the driver copies into MLflow is there once, and no message of MLflow's shows a password."""

import json
import socket
import time

import numpy as np
import pytest
from PIL import Image

from gan_core.errors import RegistryError
from pipelines.registry.address import redacted, tracking_uri
from pipelines.registry.mlflow_backend import MlflowBackend
from pipelines.registry.mlflow_client import check_reachable, open_client
from pipelines.registry.tracked_run import ChildRun, RunSource, SamplePicture
from pipelines.registry.tracking import Span, Tracking
from pipelines.reporting import figures
from pipelines.storage import Storage

HISTORY = [
    {"step": step, "time_ms": 1_700_000_000_000 + step, "value": -step / 7, "loss": step / 3} for step in range(1, 31)
]
RECORD = {"log_likelihood": 1.5, "seconds": 2.0, "checkpoint": "somewhere", "promoted": True, "grid": [1, 2]}


SOURCE = RunSource("gan run configuration.yaml --name it", "0123456789abcdef-dirty")


def tracking(place, run, experiment="gan-tracked", **how):
    return Tracking(MlflowBackend.open(place.uri), experiment, run, place.storage.child("mlartifacts"), **how)


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


def test_runs_last_as_long_as_the_work_did(place):
    """Runs begin and end when the work did, whenever it is copied, and say by whom, how and of which commit."""
    for _ in range(2):
        runs = tracking(place, "timed", source=SOURCE, started_ms=1_000_000)
        stage = runs.stage("tune", "timed", RECORD, span=Span(2_000_000, 2_030_000))
        runs.finish({"log_likelihood": 3.5, "time_ms": 2_900_000}, {}, ended_ms=3_000_000)
    parent, child = (runs.store.client.get_run(run_id) for run_id in (runs.parent, stage))
    assert (parent.info.start_time, parent.info.end_time) == (1_000_000, 3_000_000)
    assert (child.info.start_time, child.info.end_time) == (2_000_000, 2_030_000)
    for run in (parent, child):
        assert (run.data.tags["mlflow.source.name"], run.data.tags["mlflow.source.type"]) == (SOURCE.command, "LOCAL")
        assert run.data.tags["mlflow.source.git.commit"] == "0123456789abcdef"
        assert run.data.tags["mlflow.user"] not in ("", "unknown")
    for run_id, key, time_ms in ((stage, "seconds", 2_030_000), (runs.parent, "log_likelihood", 2_900_000)):
        assert [point.timestamp for point in runs.store.client.get_metric_history(run_id, key)] == [time_ms]


def test_candidates_are_children_of_the_search(place):
    """Each candidate is there once, finished or failed, with its settings and its scores by rung."""
    rows = [{"step": step, "time_ms": 1000 + step, "log_likelihood": float(step)} for step in (20, 40)]
    children = [
        ChildRun("s/candidate-0", {"gan.candidate": "0"}, {"noise.size": 8}, rows, 1000, 4000),
        ChildRun("s/candidate-1", {"gan.candidate": "1"}, {"noise.size": 16}, [], 1000, 2000, "FAILED"),
    ]
    for count in (1, 2, 2):  # the driver was killed after the first
        runs = tracking(place, "searched", source=SOURCE)
        stage = runs.stage("tune", "searched", RECORD)
        runs.candidates(stage, children[:count])
    client = runs.store.client
    found = client.search_runs([runs.experiment], f"tags.`mlflow.parentRunId` = '{stage}'")
    one, two = sorted(found, key=lambda run: run.info.run_name)
    assert (one.info.run_name, one.info.status, one.data.params) == ("s/candidate-0", "FINISHED", {"noise.size": "8"})
    assert (two.info.run_name, two.info.status, two.data.params) == ("s/candidate-1", "FAILED", {"noise.size": "16"})
    assert (one.info.end_time - one.info.start_time, two.info.end_time - two.info.start_time) == (3000, 1000)
    points = client.get_metric_history(one.info.run_id, "log_likelihood")
    assert sorted((point.step, point.value, point.timestamp) for point in points) == [(20, 20, 1020), (40, 40, 1040)]


def test_samples_over_steps_are_there_once(place):
    """Pictures are where MLflow's pages look for them, with a preview each, once; a damaged one is left out."""
    pictures = [
        SamplePicture(step, 5000 + step, figures.png(np.full((8, 8, 3), step, np.uint8))) for step in (0, 100, 200)
    ]
    damaged = SamplePicture(300, 5300, pictures[0].png[:40])
    for count in (2, 3, 3):
        runs = tracking(place, "drawn")
        runs.pictures([*pictures[:count], damaged])
    client = runs.store.client
    names = sorted(file.path for file in client.list_artifacts(runs.parent, "images"))
    assert [name.split("+")[:5] for name in names if name.endswith(".png")] == [
        ["images/samples", "step", str(picture.step), "timestamp", str(picture.time_ms)] for picture in pictures
    ]
    assert [name.removesuffix("+compressed.webp") + ".png" for name in names if name.endswith(".webp")] == [
        name for name in names if name.endswith(".png")
    ]
    with Image.open(client.download_artifacts(runs.parent, names[-1])) as preview:
        assert np.array_equal(np.asarray(preview), np.full((8, 8, 3), 200, np.uint8))
    assert client.get_run(runs.parent).data.tags["mlflow.loggedImages"] == "true"


def test_two_runs_of_one_experiment_do_not_mix(place):
    one, two = tracking(place, "one"), tracking(place, "two")
    assert one.experiment == two.experiment
    assert one.parent != two.parent
    assert one.stage("train", "one", {"x": 1.0}) != two.stage("train", "two", {"x": 2.0})


def test_run_may_be_described_twice(place, digits):
    """A run is described by its parameters, more than a request takes, data and configuration, and may be twice."""
    parameters = {f"setting.{number}": number for number in range(250)}
    for _ in range(2):
        runs = tracking(place, "described")
        runs.describe("seed: 1\n", parameters, digits, "a test")
    run = open_client(place.uri).get_run(runs.parent)
    assert run.data.params == {key: str(value) for key, value in parameters.items()}
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
