"""A whole run with its storage on S3: one owner at a time, killed and gone on with, to the bits of one on a disk."""

import uuid

import pytest

from pipelines.runs.run_lease import owner
from pipelines.storage import Storage, checkpoint_names
from pipelines.storage.metric_log import read_history
from tests.cluster.conftest import results
from tests.pipelines.conftest import failed, gan, kill_group, start_gan, until

pytestmark = pytest.mark.slow
TIMES = ("time_ms", "steps_per_second", "images_per_second")


def rows(run):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in read_history(run)]


def test_killed_run_on_s3_resumes_and_has_one_owner(bucket, finished, small_yaml, tmp_path):
    """On S3 a run has one owner; killed and started again at once, it ends as an undisturbed one on a disk."""
    storage = Storage.at(bucket).child(uuid.uuid4().hex)
    run = storage.child("runs", "small-run")
    command = (
        "run", small_yaml, "--name", "small-run", "--storage", storage.uri,
        "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", "--json",
    )  # fmt: skip
    first = start_gan(*command, cwd=tmp_path)
    try:
        until(lambda: owner(run) is not None or first.poll() is not None)
        second = gan(*command, cwd=tmp_path)
        assert (second.code, second.json) == (0, {"run": "small-run", "state": "running"})
        until(lambda: checkpoint_names(run.child("checkpoints")) or first.poll() is not None)
        assert first.poll() is None, first.communicate()[1]
    finally:
        kill_group(first)
    assert run.child("records").read_json("report.json") is None, "over before it was killed"
    assert owner(run) is None  # at once, though its last sign of life is seconds old
    answer = gan(*command, cwd=tmp_path)
    assert answer.code == 0, answer.err
    assert results(run) == results(Storage.at(finished.folder))
    there, here = run.child("history"), Storage.at(finished.folder / "history")
    assert rows(there) == rows(here)
    assert (answer.json["version"], answer.json["alias"]) == (1, "champion")
    assert run.read_json("owner.json") is None
    drawn = gan(
        "sample", "gan-small@champion", "-n", 4, "--output", "it.npy", "--storage", storage.uri,
        "--tracking-uri", f"sqlite:///{tmp_path}/mlflow.db", cwd=tmp_path,
    )  # fmt: skip
    assert drawn.code == 0, drawn.err  # the model's files, too, are on S3


def test_faulty_storage_address_is_refused_at_once(bucket, small_yaml, here):
    """Credentials in an address, no MLflow, or no such bucket: each is one line before anything starts."""
    failed(here("run", small_yaml, "--storage", "s3://a:b@bucket/x"), 2, "credentials in an address", "environment")
    failed(here("run", small_yaml, "--storage", f"{bucket}/x"), 5, "no MLflow", "--tracking-uri")
    uri = ("--tracking-uri", "sqlite:///mlflow.db")
    failed(here("run", small_yaml, "--storage", "s3://gan-other/x", *uri), 4, "no such bucket", "gan-other")
