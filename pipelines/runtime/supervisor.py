"""The parent of a command: an end that Ray brings about from C++ has a line and a code, or the command begins anew.

Ray ends its driver, with exit code 1 and no line, where that touches the object store of a raylet that has died, or a
minute after its GCS: no handler, no thread and no `finally` of the driver's sees it, only its parent.
"""

import ctypes
import json
import mmap
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

SENT_BY_KERNEL = 0x80  # a signal's si_code: the terminal's, which the child has had as well
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
FROM_OUTSIDE = (signal.SIGKILL, signal.SIGQUIT, *FORWARDED)  # any other signal is a library's own end
SET_PARENT_DEATH_SIGNAL = 1  # of prctl(2)
RAY_CODE = 1  # of Ray's own ends
LOST_CODE = 4
# In the environment of a command that has begun anew: how often, with which run, whose configuration may have changed,
# and why, where nobody has said so.
BEGUN_ANEW, RUN, REASON = "GAN_BEGUN_ANEW", "GAN_BEGUN_ANEW_RUN", "GAN_BEGUN_ANEW_REASON"
SILENT = "it has ended this command without a word, as where its raylet dies"
_note: mmap.mmap | None = None  # what this process leaves its parent, which has the same memory


def supervise(emit_failure: Callable[[str, int], object]) -> None:
    """Return in a child of this process, which waits for it and ends as it does; in another one where it begins anew.

    To be called before there are threads. `emit_failure` is given the line and the code of an end without a word.
    """
    global _note
    if sys.platform != "linux":
        return
    _note, parent = mmap.mmap(-1, 4096), os.getpid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel would keep the child's status
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (*FORWARDED, signal.SIGCHLD))
    while True:
        _leave_note()
        if (child := os.fork()) == 0:
            ctypes.CDLL(None).prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGKILL)
            if os.getppid() != parent:  # it was killed before that
                os._exit(LOST_CODE)
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            return
        status = _status(child)
        note = _read_note()
        if "code" in note:  # what comes after a command's own end is no part of it
            os._exit(note["code"])
        within = status == RAY_CODE or (status < 0 and -status not in FROM_OUTSIDE)
        if "run" not in note or not within:
            line, code = _end_of(status)
            try:
                emit_failure(line, code)
            finally:
                os._exit(code)
        os.environ.update(
            {BEGUN_ANEW: str(times_begun_anew() + 1), RUN: note["run"], REASON: note.get("reason", SILENT)}
        )


def _status(child: int) -> int:
    """How the child ends: its exit code, or a signal's number below 0. What else has this process as its parent is reaped."""
    asked = 0
    while True:
        arrived = signal.sigwaitinfo((*FORWARDED, signal.SIGCHLD))
        if arrived.si_signo != signal.SIGCHLD:
            if signal.getsignal(arrived.si_signo) is not signal.SIG_IGN:
                asked = arrived.si_signo
            # A terminal that is gone tells its session's leader alone, which may be this process.
            if arrived.si_code != SENT_BY_KERNEL or arrived.si_signo == signal.SIGHUP:
                os.kill(child, arrived.si_signo)
            continue
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = os.waitstatus_to_exitcode(ended[1])
                # One that is asked to end does not begin anew, whatever of a library's has ended it.
                return -asked if asked and (status == RAY_CODE or status < 0) else status


def _end_of(status: int) -> tuple[str, int]:
    """The line and the code of an end without a word."""
    if status == RAY_CODE:
        return (
            f"Ray has died (this machine): {SILENT}; expected its processes to live as long as the command; "
            "what is saved is kept: run the same command again"
        ), LOST_CODE
    if status >= 0:
        return f"ended (gan): with {status}, without a word; the same command resumes", status
    name = signal.Signals(-status).name
    why = ", as where memory runs out" if -status == signal.SIGKILL else ""
    return f"ended (gan): by {name}{why}; the same command resumes", 128 - status


def is_supervised() -> bool:
    """Whether this process has a parent that can begin it anew."""
    return _note is not None


def ends_with(code: int) -> None:
    """Say that this process ends by itself, whatever comes after."""
    _leave_note(code=code)


def resumes(run: str | None) -> None:
    """From now on, a run that begins anew where this process is ended without a word; None: no more."""
    _leave_note(**({} if run is None else {"run": run}))


def begin_anew(run: str) -> NoReturn:
    """End this process at once, and let its parent begin the command again, with its run: a reason has been given."""
    sys.stdout.flush()
    sys.stderr.flush()
    _leave_note(run=run, reason="")
    os._exit(RAY_CODE)


def times_begun_anew() -> int:
    """How often this command has begun anew, its Ray having died."""
    return int(os.environ.get(BEGUN_ANEW, 0))


def run_begun(log: Callable[[str], None]) -> str | None:
    """The run of a command that has begun anew, once, with a line where none has said so."""
    if reason := os.environ.pop(REASON, ""):
        log(f"ray    lost: {reason}; the command has begun anew")
    return os.environ.pop(RUN, None)


def _leave_note(**note: Any) -> None:
    if _note is not None:
        _note[:] = json.dumps(note).encode().ljust(len(_note), b"\0")


def _read_note() -> dict[str, Any]:
    assert _note is not None
    try:
        return dict(json.loads(_note[:].rstrip(b"\0")))
    except ValueError:  # it was ended while it wrote
        return {}
