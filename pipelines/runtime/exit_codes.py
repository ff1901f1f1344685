"""What ends a process, as a line and an exit code: the command line's, and those of a failure that others are notified of."""

import contextlib
import errno
import functools
import math
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

from gan_core.errors import GanError, visible
from pipelines.runtime import installed, supervisor

HUNG_UP, INTERRUPTED, PREEMPTED = 129, 130, 143
PREEMPTED_LINE = "preempted (gan): by SIGTERM; the same command resumes"
HUNG_UP_LINE = "hung up (gan): by SIGHUP, its terminal is gone; the same command resumes"
ENDS = {
    signal.SIGINT: (INTERRUPTED, "interrupted (gan): by the user; the same command resumes"),
    signal.SIGTERM: (PREEMPTED, PREEMPTED_LINE),
    signal.SIGHUP: (HUNG_UP, HUNG_UP_LINE),
}
SENT_AGAIN_S = 0.1
REPEATED_S = 1.0  # who sends a signal to a command's whole group, or to all its processes, sends it twice: its parent forwards it
LEAVE_SECONDS = 9.5  # from a signal to the end, whatever the work waits for


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
    # By name: Ray's and torch's errors of memory too, without importing either.
    if any(kind.__name__ in ("MemoryError", "OutOfMemoryError") for kind in type(error).__mro__):
        return 4, f"out of memory (gan): {first}; expected more that is free, or smaller nets; the same command resumes"
    return 1, f"unexpected {type(error).__name__} (gan): {first}; --debug shows where"


_own_process: Callable[[str, int], object] | None = None
_ending = threading.Event()
last_words = threading.Lock()  # held by whoever tells others of the end, which is waited for
LAST_WORDS_SECONDS = 20.0


def own_process(say: Callable[[str, int], object]) -> None:
    """This process is a command's own: an end by signal may leave to the kernel what it holds. `say` is its last word."""
    global _own_process
    _own_process = say


def is_own_process() -> bool:
    """Whether this process is a command's own, and not that of a program that calls ours."""
    return _own_process is not None


def is_ending() -> bool:
    """Whether a signal ends this process, a command's own, within seconds."""
    return _ending.is_set()


@functools.cache
def bound_the_end() -> None:
    """Give the work of a command `LEAVE_SECONDS` from a signal on that ends it, and then end it with its line.

    The signal's own handler runs in the main thread, between two steps of Python: a call into C, or one to a server
    that does not answer, may keep it for minutes.
    """
    if _own_process is None or threading.current_thread() is not threading.main_thread():
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)

    def watch() -> None:
        while (number := os.read(reader, 1)[0]) not in ENDS:
            pass
        _ending.set()
        time.sleep(LEAVE_SECONDS)
        last_words.acquire(timeout=LAST_WORDS_SECONDS)
        code, line = ENDS[signal.Signals(number)]
        end_process(line, code)

    threading.Thread(target=watch, daemon=True).start()


def end_process(line: str, code: int) -> NoReturn:
    """End this process at once, with its line, whatever its threads wait for."""
    try:
        if _own_process is not None:
            _own_process(line, code)
        else:
            sys.stderr.write(f"error: {line}\n")
            sys.stderr.flush()
    finally:  # perhaps nobody reads it
        supervisor.ends_with(code)
        os._exit(code)


_arrived: dict[int, float] = {}


def is_repeated(number: int) -> bool:
    """Whether a signal has arrived a moment ago, and this is the same one again."""
    before, _arrived[number] = _arrived.get(number, -math.inf), time.monotonic()
    return _arrived[number] - before < REPEATED_S


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
        lost = next((number for number, (end, _) in ENDS.items() if end == code), None)
        if lost is None:
            report(ignored)
        else:  # later, by another thread: what is raised in here would be lost as well
            _arrived.pop(lost, None)
            threading.Timer(SENT_AGAIN_S, os.kill, (os.getpid(), lost)).start()

    sys.unraisablehook = send_again


def _reader_has_left() -> bool:
    """Whether nobody reads any more what is written to stdout."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return bool(poll.poll(0))
