"""The local Ray cluster is one's own, whatever was left behind on the machine."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.conftest import free_port
from tests.pipelines.conftest import environment

SCRIPT = """
from pipelines import session
with session.cluster():
    import ray
    print(int(ray.cluster_resources()["CPU"]))
"""


def test_an_address_that_a_dead_cluster_left_behind_is_not_joined():
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
def test_a_cluster_that_is_not_there_is_an_error_within_seconds(address):
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
