"""How many of N quick starts end well beside busy neighbours: each a process, a storage and a name of its own.

    python -m tests.benchmarks.quick_starts --runs 200 --neighbours 2

Every stage of configs/digits.yaml, with few steps: a search that is cut at a rung and confirmed, two workers, scores,
registration, page. One has ended well that ended with 0. Exit code 1 if one did not.
"""

import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.pipelines.conftest import ANY_MODEL

SHORT = (
    "algorithm.steps=40",
    "tune.candidates=4",
    "tune.rungs=[10,20]",
    "tune.keep=0.5",
    "tune.min_coverage=0",
    "tune.samples=100",
    "evaluate.samples=200",
    "evaluate.folds=2",
    *(f"registry.gate.{name}={json.dumps(value)}" for name, value in ANY_MODEL.items()),
)
# What a quick start takes alone is under a minute: one that takes ten stands still.
LONGEST_S = 600


def neighbour() -> None:
    """Work that never ends."""
    while True:
        sum(range(10_000))


def quick_start(path: str, number: int, overrides: tuple[str, ...], log: Path) -> tuple[float, int | None]:
    """Its seconds and its exit code, None if it stood still; what it said is kept where it did not end well."""
    settings = [part for one in (*SHORT, *overrides) for part in ("--set", one)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "GAN_STORAGE")}
    with tempfile.TemporaryDirectory(prefix="gan-") as storage:
        words = [
            "run", path, "--name", f"quick-start-{number}", "--storage", storage,
            "--tracking-uri", f"sqlite:///{storage}/mlflow.db", *settings,
        ]  # fmt: skip
        started = time.monotonic()
        with log.open("w") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "pipelines.cli", *words], env=environment, stdout=file, stderr=file
            )
            try:
                code: int | None = process.wait(LONGEST_S)
            except subprocess.TimeoutExpired:
                code = None
                process.terminate()
                process.wait()
    return time.monotonic() - started, code


@click.command(help=__doc__)
@click.argument("path", default="configs/digits.yaml")
@click.option("--runs", type=click.IntRange(min=1), default=200, show_default=True)
@click.option("--neighbours", type=click.IntRange(min=0), default=2, show_default=True, help="Busy processes beside.")
@click.option("--set", "overrides", multiple=True, metavar="a.b=c")
@click.option(
    "--logs", type=click.Path(path_type=Path), help="Where the logs of bad ends are kept  [default: nowhere]."
)
def main(path: str, runs: int, neighbours: int, overrides: tuple[str, ...], logs: Path | None) -> None:
    busy = [multiprocessing.Process(target=neighbour, daemon=True) for _ in range(neighbours)]
    for process in busy:
        process.start()
    took, well = [], 0
    with tempfile.TemporaryDirectory() as place:
        folder = logs or Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(1, runs + 1):
            log = folder / f"quick-start-{number}.log"
            seconds, code = quick_start(path, number, overrides, log)
            took.append(seconds)
            said = [
                line for line in log.read_text(errors="replace").splitlines() if line.startswith(("ray ", "error:"))
            ]
            print(
                f"{number:4d}  {seconds:6.1f} s  {'stood still' if code is None else f'exit code {code}'}"
                + "".join(f"\n      {line}" for line in said),
                flush=True,
            )
            well += code == 0
            if code == 0:
                log.unlink()
    print(f"\n{well} of {runs} ended well, beside {neighbours} neighbours; median {statistics.median(took):.1f} s")
    raise SystemExit(well < runs)


if __name__ == "__main__":
    main()
