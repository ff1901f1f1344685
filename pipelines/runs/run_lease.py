"""Who works on a run: one process at a time, which others can see, and ask to save and stop."""

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gan_core.errors import GanError
from pipelines.storage import Storage, run_layout

LOOK_SECONDS = 1.0  # between looks for a request
BEAT_SECONDS = 10.0  # between signs of life
SETTLE_SECONDS = 1.0  # an object store has no locks: a claim is read back after so long
SILENT_SECONDS = 60.0  # without one, elsewhere than on a disk, where a lock tells: dead
_owned: set[str] = set()  # runs that this process works on, by folder


@contextlib.contextmanager
def working_on(folder: Storage) -> Iterator[bool]:
    """Own the run's folder while in use; False if another process does.

    While it is owned, a request to stop reaches this process as SIGTERM does, in its main thread.
    """
    with folder.lock() as free:
        if not free or (folder.local is None and not _free(folder)):
            yield False
            return
        folder.delete(run_layout.STOP_REQUEST)  # of an owner that is no more
        me = {"host": socket.gethostname(), "machine": _machine(), "pid": os.getpid(), "since": time.time()}
        done = threading.Event()
        folder.write_json(run_layout.OWNER, {**me, "beat": time.time()})
        if folder.local is None and not _still_mine(folder, me):
            yield False
            return
        watch = threading.Thread(target=_watch, args=(folder, me, done), daemon=True)
        watch.start()
        _owned.add(folder.uri)
        try:
            yield True
        finally:
            _owned.discard(folder.uri)
            done.set()
            watch.join()
            folder.delete(run_layout.OWNER)


def owner(folder: Storage) -> dict[str, Any] | None:
    """Who works on the run: host, process and last sign of life; None if nobody does.

    Asking disturbs nobody: on a disk it is a shared lock for a moment, for which an owner waits.
    """
    found = folder.read_json(run_layout.OWNER) or {}
    if folder.local is not None:
        return found if folder.held() else None
    if found.get("machine") == _machine() != "" and not os.path.exists(f"/proc/{found.get('pid')}"):
        return None  # killed, here: no need to wait until it has been silent for long
    return found if time.time() - found.get("beat", 0) < SILENT_SECONDS else None


def request_stop(folder: Storage, seconds: float) -> bool:
    """Ask the run's owner to save and stop, and wait; whether it has within `seconds`."""
    folder.write_json(run_layout.STOP_REQUEST, {"asked": time.time()})
    deadline = time.monotonic() + seconds
    while owner(folder) is not None:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    folder.delete(run_layout.STOP_REQUEST)  # it ended by itself before it looked
    return True


def _free(folder: Storage) -> bool:
    """Whether nobody owns the run, or this process did before it began anew."""
    owns = owner(folder)
    mine = owns is not None and owns.get("machine") == _machine() != "" and owns.get("pid") == os.getpid()
    return owns is None or (mine and folder.uri not in _owned)


def _machine() -> str:
    """What makes a process number mean one process: this start of the machine, and the container; "" if unknown."""
    with contextlib.suppress(OSError):
        started = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{started} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _still_mine(folder: Storage, me: dict[str, Any]) -> bool:
    """Whether this process owns the run a moment after it said so: of several at once, the last to write does."""
    time.sleep(SETTLE_SECONDS)
    found = folder.read_json(run_layout.OWNER) or {}
    return all(found.get(key) == value for key, value in me.items())


def _watch(folder: Storage, me: dict[str, Any], done: threading.Event) -> None:
    beaten = time.monotonic()
    while not done.wait(LOOK_SECONDS):
        with contextlib.suppress(GanError, OSError):  # a storage that fails once is asked again
            if folder.read(run_layout.STOP_REQUEST) is not None:
                folder.delete(run_layout.STOP_REQUEST)
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
                return
            if time.monotonic() - beaten >= BEAT_SECONDS:
                folder.write_json(run_layout.OWNER, {**me, "beat": time.time()})
                beaten = time.monotonic()
