"""Of a Ray of our own no process and no file outlives its command, however that ends; another's Ray is left alone."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pipelines.storage import file_lock
from tests.pipelines.conftest import environment, until

# A Ray that ends as it should; then a second one, in which two workers are in the middle of something.
SCRIPT = """
import os, tempfile, time
from pathlib import Path
from pipelines.runtime import ray_session
ray_session.prepare_environment()
import ray

def work(path):
    tempfile.mkdtemp()
    Path(path).write_text(str(os.getpid()))
    time.sleep(300)

with ray_session.cluster():
    ray.get(ray.remote(lambda: None).remote())
print(sorted(path.name for path in Path(os.environ["TMPDIR"]).glob("*/session_*")), flush=True)
with ray_session.cluster():
    ray.get([ray.remote(work).remote(f"worker-{number}") for number in range(2)])
"""


@pytest.fixture
def sessions():
    """A folder for Ray's, whose path is short enough for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="gan-", dir="/tmp"))
    (folder / "ray").mkdir()
    yield folder / "ray"
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.timeout(300)
def test_nothing_of_ray_outlives_its_command(sessions, tmp_path):
    """After SIGKILL of a command its workers lived on for 26 s, and 10 MB of files, which all could read, for ever."""
    for name in ("session_left", "session_held", "session_another"):
        (sessions / name).mkdir()
    (sessions / "session_left" / file_lock.LOCK).touch()
    os.utime(sessions / "session_left" / file_lock.LOCK, (0, 0))
    with file_lock.holding(sessions / "session_held"):
        command = subprocess.Popen(
            [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment(TMPDIR=str(sessions.parent)),
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        try:
            numbers = [
                int(until(lambda path=tmp_path / f"worker-{n}": path.exists() and path.read_text())) for n in range(2)
            ]
            (session,) = list(sessions.glob("session_2*"))
            assert session.stat().st_mode & 0o777 == 0o700
        finally:
            command.kill()
        left = lambda: session.exists() or any(Path(f"/proc/{number}/fd/1").exists() for number in numbers)  # noqa: E731
        until(lambda: not left(), 5)
        ended, _ = command.communicate()
    assert ended == "['session_another', 'session_held']\n"
    assert {path.name for path in sessions.glob("session_*")} == {"session_held", "session_another"}
    assert list(sessions.parent.iterdir()) == [sessions]
