"""The `gan` command for trials: in this process, or in one forked for it whose processor time and memory are bounded and measured."""

import contextlib
import io
import os
import resource
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.pipelines.conftest import PRIVATE, Answer

WALL_SECONDS = 120.0  # a command that waits longer hangs: a busy machine may make of 5 s of work a minute
MOST_MEMORY = 4 * 2**30  # bytes, beside what the imports have
CPU_SECONDS = 30  # then the kernel ends it, and the trial is over


def in_process(*arguments: object) -> Answer:
    """Run the command in this process, which spares the seconds that importing torch takes."""
    from pipelines.cli import main

    code: Any = None
    with (
        _as_before(),
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        sys.argv = ["gan", *map(str, arguments)]
        try:
            main()
        except SystemExit as ended:
            code = ended.code
    return Answer(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _as_before() -> Iterator[None]:
    """Signals, arguments, hooks and environment stay what they were."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    handlers, known = [signal.getsignal(number) for number in numbers], (sys.argv, sys.unraisablehook)
    environment = {name: os.environ.pop(name) for name in PRIVATE if name in os.environ}
    try:
        yield
    finally:
        sys.argv, sys.unraisablehook = known
        os.environ.update(environment)
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)


@dataclass(frozen=True)
class Measured:
    """What a command said, how it ended, and what it took."""

    answer: Answer
    cpu_seconds: float
    peak_mib: float  # resident, above what the imports take
    hung: bool


def forked(folder: Path, *arguments: object) -> Measured:
    """Run the command in a fork of this process, which has imported what it needs, in `folder`.

    What is said goes through files: a command that is ended says what it had said.
    """
    out, err = folder / ".stdout", folder / ".stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child == 0:
        _become(folder, out, err, arguments)
    hung, end = False, time.monotonic() + WALL_SECONDS
    while True:
        ended, status, usage = os.wait4(child, os.WNOHANG)
        if ended:
            break
        if time.monotonic() > end and not hung:
            hung = True
            os.killpg(child, signal.SIGKILL)
        time.sleep(0.005)
    answer = Answer(os.waitstatus_to_exitcode(status), out.read_text(errors="replace"), err.read_text(errors="replace"))
    # VmHWM of a fork starts at what its parent holds.
    peak = (usage.ru_maxrss - _resident_kib()) / 1024
    return Measured(answer, usage.ru_utime + usage.ru_stime, max(0.0, peak), hung)


def _become(folder: Path, out: Path, err: Path, arguments: tuple[object, ...]) -> None:
    """In the child: be the command, and never return."""
    os.setpgid(0, 0)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = (open(number, "w", closefd=False) for number in (1, 2))  # noqa: SIM115
    for name in PRIVATE:
        os.environ.pop(name, None)
    os.chdir(folder)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    address_space = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + MOST_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))  # the machine has others on it
    sys.argv = ["gan", *map(str, arguments)]
    try:
        from pipelines.cli import process

        process()
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(int(ended.code or 0))
    except BaseException:
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def _resident_kib() -> int:
    with open("/proc/self/status") as file:
        fields: Mapping[str, str] = dict(line.split(":", 1) for line in file)
    return int(fields["VmRSS"].split()[0])


def refusal_fault(answer: Answer, codes: tuple[int, ...]) -> str:
    """What is wrong with how a command refused: another code, a traceback, not one line; empty if nothing."""
    lines = [line for line in answer.err.splitlines() if line.startswith("error: ")]
    if "Traceback" in answer.err or "error: unexpected " in answer.err:
        return f"an uncaught error: {(lines or answer.err.strip().splitlines()[-1:])[-1][:200]}"
    if answer.code not in codes:
        return f"exit {answer.code}, not {' or '.join(map(str, codes))}: {(lines or ['no line'])[-1][:200]}"
    return "" if answer.code == 0 or len(lines) == 1 else f"{len(lines)} error lines"
