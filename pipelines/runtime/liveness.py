"""A Ray of this machine that dies ends what waits for it, with its cause, before Ray ends this process without a word."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import NoReturn

from gan_core.errors import CheckpointError
from pipelines.runtime import exit_codes

POLL_SECONDS = 0.5
LEAVE_SECONDS = 10.0  # for the main thread to end its work once it is interrupted
NEEDED = ("raylet", "gcs_server")
INTERRUPT = signal.SIGUSR1  # the main thread's: not one of those that a user or a scheduler sends


class RayLost(CheckpointError):
    """A part of Ray has died that nothing can go on without; what is saved is kept."""


@contextlib.contextmanager
def watched(otherwise: Callable[[str], object] | None = None) -> Iterator[None]:
    """End the block if a part of the Ray that this process has started dies.

    Ray itself ends its driver 15 seconds after its raylet and 60 after its GCS, from C++, with exit code 1. A question
    to a GCS that is dead waits there too, where no signal is looked at: where the block has not ended after seconds,
    `otherwise` is called with what was lost; by default it ends the process with its line and its code.

    Raises:
        RayLost: If so, in place of whatever else that has led to.
    """
    done, interrupted = threading.Event(), threading.Event()
    main = threading.current_thread() is threading.main_thread()
    watch = threading.Thread(target=_watch, args=(done, otherwise or _end), daemon=True)

    def interrupt(*signal_and_frame: object) -> NoReturn:
        interrupted.set()
        sys.exit(RayLost.exit_code)  # of what a handler raises, Ray lets only a SystemExit through

    handler = signal.signal(INTERRUPT, interrupt) if main else None
    if main:
        watch.start()
    try:
        yield
    except (Exception, SystemExit) as error:
        # A signal, which the raylet may have had too.
        by_signal = isinstance(error, SystemExit) and (exit_codes.is_ending() or not interrupted.is_set())
        if by_signal or (lost := lost_part()) is None:
            raise
        raise _error(lost) from error
    finally:
        done.set()
        if main:
            watch.join()
            signal.signal(INTERRUPT, handler)


def lost_part() -> str | None:
    """Which part of the Ray that this process has started has ended, and how; None if all is well."""
    from ray._private.worker import _global_node  # nothing public knows

    for name, process in _global_node.dead_processes() if _global_node else []:
        if name in NEEDED:
            code = process.returncode
            return (
                f"its {name} was ended by {signal.Signals(-code).name}" if code < 0 else f"its {name} ended with {code}"
            )
    return None


def _watch(done: threading.Event, otherwise: Callable[[str], object]) -> None:
    while not done.wait(POLL_SECONDS):
        if exit_codes.is_ending():  # by a signal, within seconds: its code is the command's
            return
        if (lost := lost_part()) is not None:
            signal.pthread_kill(threading.main_thread().ident or 0, INTERRUPT)
            if not done.wait(LEAVE_SECONDS):
                otherwise(lost)
            return


def _end(lost: str) -> NoReturn:
    exit_codes.end_process(str(_error(lost)), RayLost.exit_code)


def _error(lost: str) -> RayLost:
    expected = "its processes to live as long as the run; what is saved is kept: run the same command again"
    return RayLost("Ray has died", "this machine", lost, expected)
