"""The session of a Ray of our own: its folder is private and, whatever ends the command, goes with its processes."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from pipelines.runtime import exit_codes, local_processes
from pipelines.storage import file_lock

_folder: Path | None = None  # while it is held


def held_here() -> bool:
    """Whether this process holds a session."""
    return _folder is not None


def end() -> None:
    """End every process of the session, at once; Ray itself can be used no more in this one."""
    if _folder is not None:
        local_processes.end_session(_folder)


@contextlib.contextmanager
def holding() -> Iterator[None]:
    """Hold the session of the Ray that this process has started; afterwards nothing is left of it.

    Where this process is ended by a signal it leaves that to the program beside it, as where it is killed.
    """
    global _folder
    from ray._private.worker import _global_node  # nothing public knows

    session = Path(_global_node.get_session_dir_path())
    session.chmod(0o700)  # Ray opens it to all
    with file_lock.holding(session):  # by which others know that it is ours, and in use
        _folder = session
        program = [sys.executable, "-I", "-S", local_processes.__file__, str(session), str(os.getpid())]
        watcher = subprocess.Popen(
            program, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        _remove_old(session.parent)
        try:
            yield
        finally:
            if not exit_codes.is_ending():
                end()
                _folder = None
                watcher.wait()


def _remove_old(sessions: Path) -> None:
    """Remove the folders of sessions of ours that nobody holds: no other's, in which there is no lock of ours."""
    for lock in sessions.glob(f"session_*/{file_lock.LOCK}"):
        with contextlib.suppress(OSError):
            if lock.lstat().st_uid == os.getuid() and not file_lock.held(lock.parent):
                shutil.rmtree(lock.parent, ignore_errors=True)
