"""What ends a process, as a line and an exit code: the command line's, and those of a failure that others are notified of."""

import contextlib
import errno
import os
import select
import signal
import sys
import threading
from collections.abc import Iterator

from gan_core.errors import GanError, visible
from pipelines.runtime import installed

HUNG_UP, INTERRUPTED, PREEMPTED = 129, 130, 143
PREEMPTED_LINE = "preempted (gan): by SIGTERM; the same command resumes"
HUNG_UP_LINE = "hung up (gan): by SIGHUP, its terminal is gone; the same command resumes"
SENT_AGAIN_S = 0.1


def failure(error: Exception) -> tuple[int, str] | None:
    """The exit code and the line of an error; None where it is no failure: nobody reads what is written any more."""
    if isinstance(error, GanError):
        return error.exit_code, str(error)
    if isinstance(error, BrokenPipeError) and _reader_has_left():
        return None
    if isinstance(error, ModuleNotFoundError) and (known := installed.missing(error)) is not None:
        return known.exit_code, str(known)
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:  # whichever option or setting gave it
        name = str(error.filename)
        return 2, f"name too long ({visible(name[:60])}…): {len(name):,} characters; expected a path that there can be"
    first = visible(str(error).splitlines()[0]) if str(error) else ""
    return 1, f"unexpected {type(error).__name__} (gan): {first}; --debug shows where"


@contextlib.contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Let SIGTERM end the block as SystemExit, so that it can save, where it would end the process without a word."""
    own = threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    if own:
        signal.signal(signal.SIGTERM, lambda *signal_and_frame: sys.exit(PREEMPTED))
    try:
        yield
    finally:
        if own:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def send_lost_signals_again() -> None:
    """Let this process send itself SIGINT, SIGTERM or SIGHUP again where the exception that it raised was lost.

    Python ignores what a signal's handler raises within a callback (a fork's, a finalizer's, a C library's): a Ctrl-C
    that arrived there, while Ray starts its processes, say, would be forgotten.
    """
    report = sys.unraisablehook

    def send_again(ignored: "sys.UnraisableHookArgs") -> None:
        code = getattr(ignored.exc_value, "code", None) if ignored.exc_type is SystemExit else 0
        code = INTERRUPTED if ignored.exc_type is KeyboardInterrupt else code
        lost = {INTERRUPTED: signal.SIGINT, PREEMPTED: signal.SIGTERM, HUNG_UP: signal.SIGHUP}.get(
            code if isinstance(code, int) else 0
        )
        if lost is None:
            report(ignored)
        else:  # later, by another thread: what is raised in here would be lost as well
            threading.Timer(SENT_AGAIN_S, os.kill, (os.getpid(), lost)).start()

    sys.unraisablehook = send_again


def _reader_has_left() -> bool:
    """Whether nobody reads any more what is written to stdout."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))
