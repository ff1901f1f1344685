"""The local Ray cluster is one's own, whatever was left behind on the machine, and starts with patience."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.pipelines.conftest import LOOPBACK, environment, gan

SCRIPT = """
from pipelines.runtime import ray_session
with ray_session.cluster():
    import ray
    print(int(ray.cluster_resources()["CPU"]))
"""


def test_address_of_a_dead_cluster_is_not_joined():
    """An address that a dead cluster left behind is not joined: a local cluster starts instead."""
    with tempfile.TemporaryDirectory() as folder:  # a short path: Ray's sockets lie under it
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
        answer = subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env=environment(RAY_TMPDIR=folder),
            capture_output=True,
            text=True,
        )
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) >= 1
    assert "Failed to connect" not in answer.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://[::1]:{}"])
def test_absent_cluster_is_an_error_within_seconds(address):
    """A cluster that is not there is an error within seconds, where Ray tries for more than five minutes."""
    dead = address.format(free_port())
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=environment(RAY_ADDRESS=dead),
        capture_output=True,
        text=True,
        timeout=200,  # Ray itself tries for more than five minutes
    )
    assert answer.returncode == 1
    last = answer.stderr.splitlines()[-1]
    assert last.startswith("gan_core.errors.ConfigurationError: no Ray cluster")
    assert dead in last
    assert "Connection refused" in last


# Ray's wait for its control service ends as where that is slow; `gan` says a line, and then it is in time.
SLOW = """
import sys
from pipelines.runtime import liveness, ray_session
ray_session.prepare_environment()
import ray, psutil
from ray._private import node

in_time = node.wait_for_persisted_port

def too_late(*arguments, **named):
    raise RuntimeError("Timed out while waiting for file gcs_server_port")

node.wait_for_persisted_port = too_late

def say(line):
    print(line, sum("fork_server" not in str(part.cmdline()) for part in psutil.Process().children()))
    if sys.argv[1] == "once":
        node.wait_for_persisted_port = in_time

with ray_session.cluster(say):
    print(ray_session.started_here(), liveness.lost_part(), ray.cluster_resources()["CPU"] > 0)
"""


@pytest.mark.timeout(700)
@pytest.mark.parametrize("slow", ["once", "always"])
def test_slow_ray_start_is_retried_without_leftovers(slow):
    """A Ray that starts slowly is tried again, three times at most, and no process of a try is left."""
    answer = subprocess.run(
        [sys.executable, "-c", SLOW, slow], env=environment(), capture_output=True, text=True, timeout=600
    )
    lines = [line for line in answer.stdout.splitlines() if line]
    tries = 1 if slow == "once" else 2
    assert [line.split()[:4] for line in lines[:tries]] == [["ray", "did", "not", "start:"]] * tries, answer.stdout
    assert [line.split()[-1] for line in lines[:tries]] == ["0"] * tries, "processes of the first start are left"
    if slow == "once":
        assert answer.returncode == 0, answer.stderr
        assert lines[1:] == ["True None True"]
    else:
        last = answer.stderr.splitlines()[-1]
        assert last.startswith("gan_core.errors.ConfigurationError: Ray did not start (this machine, 3 times)")
        assert "less busy" in last


def test_overlong_socket_path_is_named_before_ray_starts(tmp_path):
    """Ray says so after half a minute, and the line blamed RAY_ADDRESS."""
    folder = tmp_path / ("x" * 60)
    answer = gan("doctor", "--start", cwd=tmp_path, TMPDIR=str(folder))
    assert answer.code == 2
    assert "cluster: path too long for Ray's sockets (TMPDIR)" in answer.error
    assert str(folder) in answer.error
    assert "RAY_ADDRESS" not in answer.error


def test_an_address_set_to_nothing_is_none(tmp_path):
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment(RAY_ADDRESS=""), capture_output=True, text=True, timeout=280
    )
    assert answer.returncode == 0, answer.stderr
    assert int(answer.stdout) >= 1


def test_a_local_run_listens_on_loopback_alone(finished):
    """Ray's control service, raylet, workers and agents, their metrics, and the ranks that train together.

    They listened on every interface: whoever reached a port and had the token ran code there, and metrics had none.
    """
    assert [listener for listener in finished.listeners if listener[1] not in LOOPBACK] == []
    names = " ".join(name for name, _ in finished.listeners)
    for part in ("gcs_server", "raylet", "ray::DashboardAgent", "ray::RayTrainWorker"):
        assert part in names, names
