"""Who holds a folder of a disk: one process at a time, by a lock that ends with the process."""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pipelines.storage.uri import make_private

# Not by the package filelock: it locks exclusively alone, and by opening its file for writing. Who only asks whether a
# folder is held would then write into it, could not ask on a disk that is read-only, and would take the lock from its
# owner and from whoever asks at the same time.
LOCK = ".lock"
TRY_SECONDS = 1.0  # how long the lock is tried for: someone may only be asking whether it is held


@contextlib.contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold the folder (created) while in use; False if another process holds it."""
    make_private(folder)
    deadline = time.monotonic() + TRY_SECONDS
    while (lock := _locked(folder, "a", fcntl.LOCK_EX)) is None and time.monotonic() < deadline:
        time.sleep(0.05)
    with lock or contextlib.nullcontext():
        yield lock is not None


def held(folder: Path) -> bool:
    """Whether a process holds the folder. It writes nothing, and shares the lock for an instant at most."""
    if not (folder / LOCK).exists():
        return False
    with _locked(folder, "r", fcntl.LOCK_SH) or contextlib.nullcontext() as lock:
        return lock is None


def _locked(folder: Path, mode: str, kind: int) -> IO[str] | None:
    """The folder's lock file, locked; None if that cannot be had now."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((folder / LOCK).open(mode))
            fcntl.flock(file, kind | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(file.fileno()), (folder / LOCK).stat()):
                return None  # the folder was removed meanwhile, and made again
        except (BlockingIOError, FileNotFoundError):
            return None
        stack.pop_all()
        return file
