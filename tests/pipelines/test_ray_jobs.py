"""A run as a job of a real Ray cluster with token authentication: submitted once for a name, however often."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.registry import Registry
from pipelines.runtime import ray_jobs
from tests.conftest import free_port, listening
from tests.pipelines.conftest import environment, failed, gan, until

ROOT = Path(__file__).parents[2]
TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def head():
    """A cluster of one machine, started by Ray's own command; its dashboard's address."""
    port, dashboard = free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="gan-", ignore_cleanup_errors=True) as folder:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        more = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "PATH": path, "PYTHONPATH": str(ROOT)}
        command = [
            "start", "--head", "--block", "--disable-usage-stats", "--num-cpus=2", f"--port={port}",
            f"--dashboard-port={dashboard}", f"--ray-client-server-port={free_port()}", f"--dashboard-agent-listen-port={free_port()}", f"--temp-dir={folder}/ray", "--object-store-memory=200000000",
        ]  # fmt: skip
        with (Path(folder) / "log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", *command], cwd=folder, env=environment(**more),
                start_new_session=True, stdout=log, stderr=log,
            )  # fmt: skip
            try:
                until(lambda: "Ray runtime started" in (Path(folder) / "log").read_text() or process.poll() is not None)
                assert process.poll() is None, (Path(folder) / "log").read_text()
                until(lambda: listening(dashboard))
                yield f"http://127.0.0.1:{dashboard}"
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(60)
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def submit(head, yaml, storage, *more, token=TOKEN, **variables):
    return gan(
        "submit", yaml, "--address", head, "--storage", storage, "--json", *more, cwd=storage,
        RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token, **variables,
    )  # fmt: skip


@pytest.mark.slow
def test_resubmitted_name_is_one_version(head, small_yaml, tmp_path):
    """A name submitted twice is one version; a bad setting ends with the job's own code, then a new job."""
    quick = ("--set", "tune.candidates=0", "--set", "algorithm.steps=60", "--set", "train.workers=1")
    first = submit(head, small_yaml, tmp_path, "--name", "night-1", *quick)
    assert first.code == 0, first.err
    assert first.json == {"run": "night-1", "job": "gan-night-1", "attached": False, "exit_code": 0}
    assert "done   night-1" in first.err or '"run": "night-1"' in first.err  # the job's own words
    again = submit(head, small_yaml, tmp_path, "--name", "night-1", *quick)
    assert (again.code, again.json["attached"], again.json["exit_code"]) == (0, True, 0)
    registry = Registry(f"sqlite:///{tmp_path}/mlflow.db")
    assert [version.tags["run"] for version in registry.versions("gan-small")] == ["night-1"]
    # More workers than the cluster has: known on the cluster alone, exit 2 there and so here; then a new job.
    wide = ("--set", "tune.candidates=0", "--set", "train.workers=8", "--set", "algorithm.batch_size=40")
    for job in ("gan-wide", "gan-wide.2"):
        refused = submit(head, small_yaml, tmp_path, "--name", "wide", *wide)
        assert (refused.code, refused.json["job"]) == (2, job), refused.err
        assert "not enough resources" in refused.err


@pytest.mark.slow
def test_simultaneous_submissions_share_one_job(head, monkeypatch):
    """Of submissions of a name at once one is a job, and the others are attached to it."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    clusters = [ray_jobs.JobServer(head) for _ in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda cluster: cluster.submit("at-once", "sleep 60", {}), clusters))
    assert {job.id for job in jobs} == {"gan-at-once"}
    assert sorted(job.attached for job in jobs) == [False, True, True, True]
    clusters[0].client.stop_job("gan-at-once")


@pytest.mark.slow
def test_a_wrong_token_is_refused_and_not_shown(head, small_yaml, tmp_path):
    answer = submit(head, small_yaml, tmp_path, "--name", "n", token="f" * 64)
    failed(answer, 2, "cluster refused", head)
    assert "f" * 64 not in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--storage", "runs"), ["storage is not shared", "runs"]),
        (("--storage", "/tmp/gan-none", "--pass-env", "GAN_NOT_SET"), ["not in the environment", "--pass-env GAN_NOT_SET"]),
        (("--storage", "/tmp/gan-none", "--tracking-uri", "http://me:secret@mlflow"), ["password in an address", "***@mlflow"]),
        (("--storage", "/tmp/gan-none", "--set", "algorithm.stepz=1"), ["unknown setting"]),
    ],
)  # fmt: skip
def test_hopeless_submission_is_refused_in_advance(arguments, words, here, small_yaml):
    """What cannot work is refused before any cluster is asked, and no password is shown."""
    answer = here("submit", small_yaml, "--address", "http://127.0.0.1:1", *arguments)
    failed(answer, 2, *words)
    assert "secret" not in answer.err


def test_passed_variable_is_shown_by_name_only(here, small_yaml, monkeypatch):
    """A named variable travels by value, and is shown by its name alone."""
    monkeypatch.setenv("GAN_TEST_SECRET", "a-value-nobody-sees")
    answer = here(
        "submit", small_yaml, "--address", "http://127.0.0.1:1", "--storage", "/tmp/gan-none", "--name", "n",
        "--pass-env", "GAN_TEST_SECRET", "--dry-run", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["environment"] == ["GAN_SUBMITTED_CONFIGURATION", "GAN_TEST_SECRET"]
    assert "a-value-nobody-sees" not in answer.out + answer.err


def test_absent_cluster_is_an_error_in_one_line(here, small_yaml):
    """A cluster that is not there is an error in one line."""
    answer = here(
        "submit",
        small_yaml,
        "--address",
        f"http://127.0.0.1:{free_port()}",
        "--storage",
        "/tmp/gan-none",
        "--name",
        "n",
    )
    failed(answer, 2, "cluster refused")
