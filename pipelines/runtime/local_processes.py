"""The processes and files of a Ray of our own, ended and removed when its command has ended, killed or not.

Run as a program, beside the command: it waits for the command's end, and needs nothing but Python.
"""

import contextlib
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

POLL_SECONDS = 0.2
END_SECONDS = 5.0  # for the kernel to take away what was killed


def end_session(session: Path, *others: Path) -> None:
    """SIGKILL to every process that writes into a Ray session's folder, and remove it and the session's others.

    Workers outlive a raylet that was killed for half a minute, and leave its process tree.
    """
    deadline = time.monotonic() + END_SECONDS
    while (running := processes(session)) and time.monotonic() < deadline:
        for number in running:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.02)
    latest = session.with_name("session_latest")
    with contextlib.suppress(OSError):
        if latest.readlink() == session:
            latest.unlink()
    for folder in (*others, session):  # last what shows that there is something left to do
        shutil.rmtree(folder, ignore_errors=True)


def processes(session: Path) -> list[int]:
    """The processes, this one apart, that write into a session's folder: its daemons and its workers.

    Not by their names, which they change, nor by what they read: someone may be looking at the logs.
    """
    within, found = f"{session}/", set[int]()
    for place in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            if os.readlink(place).startswith(within) and place.lstat().st_mode & stat.S_IWUSR:
                found.add(int(place.parts[2]))
    return sorted(found - {os.getpid()})


def main() -> None:
    """End a session when the process that has started this one is no more, unless that has done so itself."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # its command's: then there is work to do
        signal.signal(number, signal.SIG_IGN)
    command, folders = int(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]
    while os.getppid() == command:
        if not folders[0].exists():
            return
        time.sleep(POLL_SECONDS)
    end_session(*folders)


if __name__ == "__main__":
    main()
