"""`gan clean` names what killed commands have left, removes it only with --yes, and never what a process holds."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipelines.runs import leftovers
from pipelines.storage import Storage, file_lock
from tests.pipelines.conftest import until

OLD = 2 * leftovers.DAY


def aged(path, seconds=OLD):
    """The path, and all inside it, as it was not written for so long."""
    for one in (*(path.rglob("*") if path.is_dir() else ()), path):
        os.utime(one, (time.time() - seconds,) * 2, follow_symlinks=False)
    return path


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """A folder for temporary files, Ray's too, which no other program uses."""
    folder = Path(tempfile.mkdtemp(prefix="left-"))  # a socket's path is short
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def dead_socket(folder):
    folder.mkdir()
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(folder / "listener-x"))
    return folder


@contextmanager
def other_process(program, *arguments):
    """Another process that runs this program, prints a line and waits, until it is killed."""
    command = [sys.executable, "-c", f"import sys, time\n{program}\nprint('there', flush=True); time.sleep(600)"]
    process = subprocess.Popen([*command, *map(str, arguments)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(storage):
    return sorted(one.path.name for one in leftovers.leftovers(Storage.at(storage)))


def test_dead_sessions_and_sockets_are_left_over(temporary, tmp_path, here):
    """A session's folders whose command was killed, and dead sockets of multiprocessing: said, and removed with --yes."""
    gone = [temporary / "gan-ray-dead", temporary / "ray" / "session_1_dead"]
    program = "from pathlib import Path\nfrom pipelines.storage import file_lock\nheld = file_lock.holding(Path(sys.argv[1]))\nheld.__enter__()"
    for folder in gone:
        with other_process(program, folder) as process:
            aged(folder)
            assert folder.name not in names(tmp_path)  # held
            process.send_signal(signal.SIGKILL)
            process.wait()
    gone += [dead_socket(temporary / "pymp-dead")]
    for folder in gone:
        aged(folder)
    kept = [temporary / name for name in ("pymp-young", "pymp-full", "session_2", "gan-other")]
    for folder in kept:
        folder.mkdir()
    (temporary / "pymp-full" / "file").touch()
    for folder in kept[1:]:
        aged(folder)
    answer = here("clean", "--storage", tmp_path, "--json")
    assert sorted(one["path"] for one in answer.json["leftovers"]) == sorted(map(str, gone))
    assert (answer.json["removed"], all(folder.exists() for folder in gone)) == (False, True)
    answer = here("clean", "--storage", tmp_path, "--yes", "--json")
    assert all(one["removed"] for one in answer.json["leftovers"])
    assert ([folder for folder in gone if folder.exists()], all(folder.exists() for folder in kept)) == ([], True)
    assert here("clean", "--storage", tmp_path).out == "nothing is left behind\n"


def test_what_a_process_has_open_is_kept(temporary, tmp_path):
    """A socket on which somebody listens, and a folder in which somebody has a file or works, however old."""
    listening = "import socket\none = socket.socket(socket.AF_UNIX); one.bind(sys.argv[1]); one.listen()"
    folders = [temporary / f"pymp-{name}" for name in ("listens", "works")]
    for folder in folders:
        folder.mkdir()
    with (
        other_process(listening, folders[0] / "listener-x"),
        other_process("import os\nos.chdir(sys.argv[1])", folders[1]),
    ):
        for folder in folders:
            aged(folder)
        assert names(tmp_path) == []
    assert names(tmp_path) == ["pymp-listens", "pymp-works"]


def test_half_made_files_of_stopped_runs_are_left_over(temporary, tmp_path, here):
    """In the storage: what was cut short an hour ago or more; not what is young, finished, MLflow's, or an active run's."""
    runs = tmp_path / "runs"
    half = [
        runs / "stopped" / "checkpoints" / ".tmp-50-0123abcd", runs / "stopped" / ".run.json-0123abcd",
        runs / "stopped" / ".validate_storage_marker", runs / f".removed-{'0a' * 16}",
    ]  # fmt: skip
    active = runs / "active" / "checkpoints" / ".tmp-50-0123abcd"
    kept = [
        runs / "stopped" / "checkpoints" / "step=00000050", runs / "stopped" / "run.json", runs / "active" / "run.json",
        active, tmp_path / "mlartifacts" / ".x-0123abcd",
    ]  # fmt: skip
    never = runs / "never" / "owner.json"
    for path in (*half, *kept, never):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    young = runs / "stopped" / ".new-0123abcd"
    aged(tmp_path)
    young.write_text("{}")
    with file_lock.holding(runs / "active"):
        assert names(tmp_path) == sorted([*(path.name for path in half), "never"])
        answer = here("clean", "--storage", tmp_path, "--yes", "--json")
    assert answer.json["bytes"] == 2 * (len(half) + 1)
    assert [path for path in (*half, never.parent) if path.exists()] == []
    assert all(path.exists() for path in (*kept, young))
    aged(young)
    assert names(tmp_path) == sorted([active.name, young.name])  # nobody works on it any more


def test_a_run_that_began_meanwhile_is_kept(temporary, tmp_path):
    """What was left over when it was looked for is not removed from a run that somebody works on by now."""
    half = tmp_path / "runs" / "stopped" / ".run.json-0123abcd"
    half.parent.mkdir(parents=True)
    for path in (half, half.with_name("run.json")):
        path.write_text("{}")
    aged(tmp_path)
    storage = Storage.at(tmp_path)
    (found,) = leftovers.leftovers(storage)
    with file_lock.holding(half.parent):
        assert not leftovers.remove(found, storage)
    assert until(half.exists)
    assert leftovers.remove(found, storage)
    assert not half.exists()


def test_dates_and_folders_of_others_are_left(temporary, tmp_path):
    """A hidden folder is ours by its whole name, and a date at a name's end is no number of a write of ours."""
    for name in (".backup-20261130", ".venv-0a1b2c3d"):
        (tmp_path / name).mkdir()
    for name in (".notes-20261130", ".run.json-0a1b2c3d"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".tmp-12-0a1b2c3d").mkdir()
    for path in tmp_path.iterdir():
        aged(path)
    found = {leftover.path.name for leftover in leftovers.leftovers(Storage.at(tmp_path))}
    assert found == {".run.json-0a1b2c3d", ".tmp-12-0a1b2c3d"}


def test_what_may_not_be_removed_is_kept(tmp_path, monkeypatch):
    """Another user's file in a shared storage is said to be kept, and the rest is removed."""
    path = tmp_path / ".run.json-0a1b2c3d"
    path.write_text("x")

    def refused(*how, **more):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refused)
    leftover = leftovers.Leftover(path, "half-made", 1, OLD)
    assert not leftovers.remove(leftover, Storage.at(tmp_path))
