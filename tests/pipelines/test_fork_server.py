"""Workers of a Ray of our own are forks of one process, and such as Ray itself would have started."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.runtime import fork_server, ray_session
from tests.pipelines.conftest import until

# What a worker is, in place of Ray's own program.
WORKER = """
import json, os, signal, sys
print(json.dumps({
    "name": __name__, "words": sys.argv[1:], "parent": os.getppid(), "group": os.getpgrp(), "folder": os.getcwd(),
    "environment": dict(os.environ), "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))),
    "oom": open("/proc/self/oom_score_adj").read().strip(),
    "warm": "decimal" in sys.modules, "ray": "ray" in sys.modules,
}))
print("on stderr", file=sys.stderr)
import ray
print(ray.NodeID.from_random().hex())
sys.exit(3)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "worker.py"
    path.write_text(WORKER)
    return path


def asked(program, *words, **named):
    """What a worker says that is asked for as Ray does: its object, its stderr, and an identifier that it has drawn."""
    command = [sys.executable, fork_server.__file__, program, *words, "--language=PYTHON"]
    # A fork outlives the program that has asked for it: the pipes end with it.
    answer = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=100, **named)
    first, second = answer.stdout.splitlines()
    return json.loads(first), answer.stderr, second


def test_a_fork_is_the_worker_asked_for(program, tmp_path):
    """Its words, folder, environment, output, group and blocked signals are of who asked, and Ray knows nothing of the server."""
    context = {"env_vars": {"OF_RUNTIME": "1"}, "py_executable": None, "command_prefix": []}
    words = ["--it", "a b", "--serialized-runtime-env-context=" + json.dumps(context)]
    environment = {**os.environ, "OF_WORKER": "2"}

    def as_ray_starts_it():
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        Path("/proc/self/oom_score_adj").write_text("500")

    with fork_server.running(["decimal", *ray_session.FORKED], tempfile.gettempdir()):
        named = {
            "cwd": tmp_path,
            "preexec_fn": as_ray_starts_it,
            "env": environment | {fork_server.FOLDER: os.environ[fork_server.FOLDER]},
        }
        (one, errors, first), (two, _, second) = (asked(program, *words, **named) for _ in range(2))
    assert first != second
    assert one["parent"] == two["parent"] != os.getpid()
    assert (one["name"], one["words"], errors) == ("__main__", ["--it", "a b"], "on stderr\n")
    assert (one["folder"], one["blocked"], one["group"]) == (str(tmp_path), [signal.SIGINT], os.getpgrp())
    assert one["environment"]["OF_RUNTIME"] + one["environment"]["OF_WORKER"] == "12"
    assert "OMP_NUM_THREADS" not in one["environment"] or "OMP_NUM_THREADS" in os.environ
    assert (one["warm"], one["ray"]) == (True, False)
    assert one["oom"] == "500"


@pytest.mark.parametrize("broken", ["no server", "no module", "threads"])
def test_without_a_server_a_worker_starts_itself(program, broken, tmp_path, monkeypatch):
    """Where none answers, or one may not be forked, the worker is what it would be."""
    (tmp_path / "with_thread.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    if broken == "no server":
        monkeypatch.delenv(fork_server.FOLDER, raising=False)
        said, _, _ = asked(program, "--it")
    else:
        with fork_server.running(["no_such_module" if broken == "no module" else "with_thread"], tempfile.gettempdir()):
            said, _, _ = asked(program, "--it")
    assert (said["name"], said["words"], said["parent"]) == ("__main__", ["--it"], os.getpid())
    assert not said["warm"]


def test_the_server_ends_with_who_started_it():
    """SIGKILL to a command leaves neither the server nor its folder."""
    script = """
import os, tempfile, time
from pipelines.runtime import fork_server, ray_session
with fork_server.running([], tempfile.gettempdir()):
    print(os.environ[fork_server.FOLDER], flush=True)
    time.sleep(300)
"""
    command = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    folder = Path(command.stdout.readline().strip())
    assert folder.stat().st_mode & 0o777 == 0o700
    command.kill()
    command.communicate()
    until(lambda: not folder.exists(), 10)
