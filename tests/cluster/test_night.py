"""The nightly submitter: whose night it is, once, and how it ended."""

import os
import subprocess
from datetime import UTC, datetime

import pytest
import yaml

from tests.cluster import commands
from tests.cluster.documents import NIGHT, validate

# There is no Kubernetes here: this stands for its command, keeps what is created and tells states off a list.
KUBECTL = """#!/usr/bin/env bash
echo "$*" >> calls
case "$1" in
  create) cat > created.yaml ;;
  get)
    [[ -e created.yaml ]] || exit 0
    read -r state < states || state=Complete
    sed -i 1d states
    [[ "$state" == unreachable ]] && exit 1
    echo "nightly ${state}" ;;
esac
"""


@pytest.fixture
def submit(tmp_path):
    program = tmp_path / "kubectl"
    program.write_text(KUBECTL)
    program.chmod(0o755)
    (tmp_path / "calls").touch()

    def run(job_name, states=(), arguments="/opt/gan/configs/digits.yaml"):
        (tmp_path / "states").write_text("".join(f"{state}\n" for state in states))
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "JOB_NAME": job_name,
            "JOB_UID": "6f1d7b52-0000-4000-8000-000000000000",
            "ARGUMENTS": arguments,
            "POLL_SECONDS": "0",
        }
        return subprocess.run(
            ["bash", str(NIGHT / "submit_night.sh")], cwd=tmp_path, env=environment, capture_output=True, text=True
        )  # fmt: skip

    run.folder = tmp_path
    return run


def created(submit):
    return yaml.safe_load((submit.folder / "created.yaml").read_text())


def calls(submit, verb):
    return [line for line in (submit.folder / "calls").read_text().splitlines() if line.startswith(verb)]


@pytest.mark.parametrize("scheduled", [datetime(2026, 11, 23, 1, 30), datetime(2026, 11, 23, 23, 59), datetime(2027, 1, 1, 0, 0)])  # fmt: skip
def test_nightly_run_is_named_by_its_scheduled_date(submit, scheduled):
    """The night's date is that of the scheduled time in the job's name, whatever the clock says."""
    minutes = int(scheduled.replace(tzinfo=UTC).timestamp()) // 60
    done = submit(f"gan-nightly-{minutes}", ["", "Running", "Complete"])
    assert done.returncode == 0, done.stderr
    assert created(submit)["metadata"]["name"] == f"nightly-{scheduled:%Y-%m-%d}"


def test_a_pod_started_again_waits_for_the_same_night(submit):
    assert submit("gan-nightly-29399130", ["Complete"]).returncode == 0
    again = submit("gan-nightly-29399130", ["Running", "unreachable", "Running", "Complete"])
    assert again.returncode == 0
    assert len(calls(submit, "create")) == 1
    assert len({call.split()[1] for call in calls(submit, "get")}) == 1


def test_missed_night_is_rerun_under_its_date(submit):
    """A job named by a date, as one makes up for a missed night, creates the run of that date."""
    assert submit("gan-nightly-2026-11-23", ["Complete"]).returncode == 0
    assert created(submit)["metadata"]["name"] == "nightly-2026-11-23"


@pytest.mark.parametrize("state", ["Failed", "ValidationFailed"])
def test_a_failed_night_fails_the_job(submit, state):
    failed = submit("gan-nightly-29399130", ["Running", state])
    assert failed.returncode == 3
    assert failed.stderr.startswith("error: the night failed (rayjob/nightly-")


@pytest.mark.parametrize("name", ["gan-nightly", "gan-nightly-manual-x7k2p", "gan-nightly-12"])
def test_a_job_without_a_night_submits_nothing(submit, name):
    refused = submit(name)
    assert refused.returncode == 2
    assert name in refused.stderr
    assert not calls(submit, "")


def test_submitted_job_is_valid_owned_and_runs_gan(submit):
    """The RayJob created is valid, belongs to the Job that created it, and runs `gan` with a seed from its name."""
    submit("gan-nightly-29399130", ["Complete"], "/opt/gan/configs/mnist.yaml --set data.root=/tmp/data")
    run = created(submit)
    assert run == yaml.safe_load(
        commands.night("/opt/gan/configs/mnist.yaml --set data.root=/tmp/data", run["metadata"]["name"]).replace(
            "uid: 0-0", "uid: 6f1d7b52-0000-4000-8000-000000000000"
        )
    )
    parsed = commands.parse(run["spec"]["entrypoint"]).params
    assert parsed["name"] == run["metadata"]["name"]
    assert parsed["overrides"] == ("data.root=/tmp/data", "seed=name")
    validate(run)
