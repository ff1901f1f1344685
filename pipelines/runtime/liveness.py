"""A Ray of this machine that dies ends what waits for it, with its cause, before Ray ends this process without a word."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

from gan_core.errors import CheckpointError

POLL_SECONDS = 0.5
LEAVE_SECONDS = 10.0  # for the main thread to end its work once it is interrupted
NEEDED = ("raylet", "gcs_server")


class RayLost(CheckpointError):
    """A part of Ray has died that nothing can go on without; what is saved is kept."""


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """End the block if a part of the Ray that this process has started dies.

    Ray itself ends its driver 15 seconds after its raylet and 60 after its GCS, from C++, with exit code 1;
    and at once where the driver is just asking the raylet for an object, which nothing in this process can prevent.

    Raises:
        RayLost: If so, in place of whatever else that has led to.
    """
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(done,), daemon=True)
    watch.start()
    try:
        yield
    except (Exception, SystemExit) as error:
        if (lost := lost_part()) is None:
            raise
        raise _error(lost) from error
    finally:
        done.set()
        watch.join()


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


def _watch(done: threading.Event) -> None:
    """Interrupt the main thread, as SIGTERM would: of what a handler raises, Ray lets only a SystemExit through.

    A question to a GCS that is dead waits in C++, where no signal is looked at, until Ray ends the process:
    then it is ended here, with its line and its code.
    """
    while not done.wait(POLL_SECONDS):
        if (lost := lost_part()) is None:
            continue
        if callable(signal.getsignal(signal.SIGTERM)):  # else it would be the end without a word
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            if not done.wait(LEAVE_SECONDS):
                sys.stderr.write(f"error: {_error(lost)}\n")
                sys.stderr.flush()
                os._exit(RayLost.exit_code)
        return


def _error(lost: str) -> RayLost:
    expected = "its processes to live as long as the run; what is saved is kept: run the same command again"
    return RayLost("Ray has died", "this machine", lost, expected)
