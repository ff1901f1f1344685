"""Processes of a command: which it has started, what they hold, and which of them outlive it."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from tests.pipelines.test_signals import descendants

LINGER_SECONDS = 5.0  # after a command's end, what it has started is gone
LOOK_SECONDS = 0.25


def family_mib(pid: int) -> float:
    """Proportional memory of a process and all that it has started, in MiB."""
    total = 0
    for number in (pid, *(child for child, _ in descendants(pid))):
        with contextlib.suppress(OSError):
            lines = Path(f"/proc/{number}/smaps_rollup").read_text().splitlines()
            total += next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
    return total / 1024


def started_at(pid: int) -> str | None:
    """When a process was started, in the kernel's ticks; None if it has ended, or only waits to be reaped."""
    with contextlib.suppress(OSError):
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    return None


def titles(pid: int) -> dict[int, str]:
    """What the processes that a command has started call themselves, as Ray names its own."""
    found = {}
    for number, name in descendants(pid):
        with contextlib.suppress(OSError):
            title = Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")
            found[number] = title if title.startswith("ray::") else name
    return found


@contextlib.contextmanager
def watched(pid: int) -> Iterator[dict[int, str]]:
    """All processes that a command starts while the block runs: number and time of its start."""
    family, done = dict[int, str](), threading.Event()

    def look() -> None:
        while True:
            for number, _ in descendants(pid):
                if number not in family and (when := started_at(number)) is not None:
                    family[number] = when
            if done.wait(LOOK_SECONDS):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield family
    finally:
        done.set()
        thread.join()


def outliving(family: dict[int, str], seconds: float = LINGER_SECONDS) -> list[int]:
    """Those of the processes that are there so many seconds later; they are ended."""
    end = time.monotonic() + seconds
    while (left := [pid for pid, when in family.items() if started_at(pid) == when]) and time.monotonic() < end:
        time.sleep(0.1)
    for pid in left:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    return left
