"""The session of a Ray of our own: its folder is private and, whatever ends the command, goes with its processes."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pipelines.runtime import exit_codes, local_processes
from pipelines.storage import file_lock

TEMPORARY = "gan-ray-"  # how the folder begins that a session's processes have for their temporary files
BEGUN_SECONDS = 60.0  # after which a folder that nobody holds is nobody's
_folders: list[Path] = []  # of the session, while it is held


def held_here() -> bool:
    """Whether this process holds a session."""
    return bool(_folders)


def end() -> None:
    """End every process of the session, at once; Ray itself can be used no more in this one."""
    if _folders:
        local_processes.end_session(*_folders)
        _folders.clear()


@contextlib.contextmanager
def holding(start: Callable[[], None]) -> Iterator[None]:
    """Start a Ray and hold its session; afterwards nothing is left of it.

    Where this process is ended by a signal it leaves that to the program beside it, as where it is killed.
    """
    from ray._common.utils import get_default_ray_temp_dir

    temporary, sessions = Path(tempfile.mkdtemp(prefix=TEMPORARY)), Path(get_default_ray_temp_dir())
    by_this_process = lambda: set(sessions.glob(f"session_*_{os.getpid()}"))  # noqa: E731
    earlier = by_this_process()  # of another that had its number
    with contextlib.ExitStack() as locks:  # by which others know that the folders are ours, and in use
        locks.enter_context(file_lock.holding(temporary))
        try:
            _start(start, temporary)
            *_, session = sorted(by_this_process() - earlier)
            for failed in by_this_process() - earlier - {session}:
                local_processes.end_session(failed)
            session.chmod(0o700)  # Ray opens it to all
            locks.enter_context(file_lock.holding(session))
            _folders[:] = [session, temporary]
            watcher = _watcher()
        except BaseException:
            for begun in by_this_process() - earlier:
                local_processes.end_session(begun, temporary)
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        _remove_old(sessions, "session_*")
        _remove_old(temporary.parent, f"{TEMPORARY}*")
        try:
            yield
        finally:
            if not exit_codes.is_ending():
                end()
                watcher.kill()  # nothing is left for it to do
                watcher.wait()


def _watcher() -> subprocess.Popen[bytes]:
    """The program beside this process that ends the session if this one cannot."""
    program = [sys.executable, "-I", "-S", local_processes.__file__, str(os.getpid()), *map(str, _folders)]
    return subprocess.Popen(
        program, start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def _start(start: Callable[[], None], temporary: Path) -> None:
    """Start a Ray whose processes leave their temporary files in a folder: of what is killed they are never removed."""
    from ray._common.utils import get_default_system_temp_dir

    names = ("RAY_TMPDIR", "TMPDIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(RAY_TMPDIR=get_default_system_temp_dir(), TMPDIR=str(temporary))  # Ray's own stay where they were
    try:
        start()
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


def unheld(place: Path, pattern: str) -> Iterator[Path]:
    """The folders of sessions of ours that nobody holds: no other's, in which there is no lock of ours."""
    for lock in place.glob(f"{pattern}/{file_lock.LOCK}"):
        with contextlib.suppress(OSError):
            found = lock.lstat()
            old = found.st_uid == os.getuid() and time.time() - found.st_mtime > BEGUN_SECONDS
            if old and not file_lock.held(lock.parent):
                yield lock.parent


def _remove_old(place: Path, pattern: str) -> None:
    for folder in unheld(place, pattern):
        shutil.rmtree(folder, ignore_errors=True)
