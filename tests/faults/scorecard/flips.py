"""One bit flipped, or a cut, in any file of a finished run: what is read again is the same, or is refused by the file's name."""

import contextlib
import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.checkpoint import tensors_digest
from gan_core.datasets import DataSettings, load
from gan_core.errors import GanError
from pipelines import config
from pipelines.search.results_store import TrainingSegment, open_results, segments
from pipelines.search.search_table import search_rows
from pipelines.stages.tune import search_inputs
from pipelines.storage import Storage, run_layout
from pipelines.storage.metric_log import read_history
from tests.faults.scorecard.commands import in_process, refusal_fault
from tests.faults.scorecard.parts import Measures, Part, Row, of_all
from tests.pipelines.conftest import SMALL, gan

RUN, MODEL = "small-run", "gan-small"
LEFT_BEFORE_FLIP = 5  # of so many trials one cuts the file, the others flip a bit
# Kinds of files, below the storage. Left out: pictures and pages, which nothing of ours reads again; Ray's own
# folders, whose snapshot is F8; MLflow's database, whose pages have no checksum; the code that lies beside a model;
# environment.json and tune/perturbations.json, which tell people of a run and decide nothing.
KINDS = {
    "run.json": f"runs/{RUN}/run.json",
    "records": f"runs/{RUN}/records/*.json",
    "history": f"runs/{RUN}/history/*.jsonl",
    "checkpoints": f"runs/{RUN}/checkpoints/*/*",
    "search": f"runs/{RUN}/tune/findings/**/*.*",
    "table": f"runs/{RUN}/{Path(run_layout.TABLE).with_suffix('.*')}",
    "model": "mlartifacts/**/artifacts/generator/*.*",
}


@dataclass(frozen=True)
class Reading:
    """What a reader gave: an answer, or a refusal, and the warnings on the way."""

    answer: Any
    refused: str = ""
    warnings: tuple[str, ...] = ()


@dataclass
class FinishedRun:
    """A storage with a finished run, what its readers say of it undisturbed, and the seed of the flips."""

    storage: Path
    yaml: Path
    work: Path
    seed: int
    undisturbed: dict[str, Reading] = field(default_factory=dict)

    def command(self, *arguments: object) -> Reading:
        """A command's JSON and exit code; a refusal that is not one line of its own is an error of ours."""
        output = self.work / "samples.npy"
        output.unlink(missing_ok=True)
        answer = in_process(*arguments, "--storage", self.storage, "--json")
        fault = refusal_fault(answer, (0, 2, 4, 5))
        if fault:
            raise AssertionError(fault)
        if answer.code:
            return Reading(None, answer.err.strip().splitlines()[-1])
        drawn = output.read_bytes() if output.exists() else b""
        unreadable = [run["reason"] for run in answer.json.get("runs", []) if isinstance(run, dict) and "reason" in run]
        return Reading(None, unreadable[0]) if unreadable else Reading((answer.json, drawn))

    def reused(self) -> list[Any]:
        """What a search that is started again finds of the run's own; in a copy, for results of others are removed."""
        copy = self.work / "run"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.storage / "runs" / RUN / "tune" / "findings", copy / "tune" / "findings")
        configuration = config.resolve(config.load(self.yaml, []), RUN)
        inputs = search_inputs(configuration, load(DataSettings("digits")).digest)
        results, known = open_results(Storage.at(copy), inputs)
        return [known, sorted(name for name in results.names() if not name.startswith("."))]

    def readers(self) -> dict[str, Callable[[], Reading]]:
        """All that reads a run again, by name."""
        command, sample = self.command, ("-n", 8, "--output", self.work / "samples.npy")
        folder = Storage.at(self.storage).child("runs", RUN)
        return {
            "list": lambda: command("runs", "list"),
            "status": lambda: command("runs", "status", RUN),
            "compare": lambda: command("runs", "compare", RUN, RUN),
            "sample": lambda: command("sample", RUN, *sample),
            "table1": lambda: command("table", "table1", RUN),
            "same": lambda: command("run", self.yaml, "--name", RUN, "--dry-run"),
            "continue": lambda: command(
                "run", self.yaml, "--name", "more", "--continue-from", RUN, "--set", "algorithm.steps=400",
                "--set", "tune.candidates=0", "--dry-run", "--quiet",  # else its plan has seconds, which are never the same
            ),
            "version": lambda: command("sample", f"{MODEL}/1", *sample),
            "history": lambda: _called(lambda: read_history(folder.child(run_layout.HISTORY))),
            "table": lambda: _called(lambda: search_rows(folder)),
            "reuse": lambda: _called(self.reused),
            "search": lambda: _called(lambda: [_segment(one) for one in segments(folder.child("tune", "findings"))]),
        }  # fmt: skip


READERS = {
    "run.json": ("list", "status", "compare", "sample", "table1", "same", "continue"),
    "records": ("list", "status", "compare", "sample", "table1", "same", "continue"),
    "history": ("history", "table1"),
    "checkpoints": ("sample", "continue"),
    "search": ("search", "reuse"),
    "table": ("table",),
    "model": ("version",),
}


def _segment(segment: TrainingSegment) -> Any:
    """All that a search that goes on reads of a segment."""
    rows = segment.rows()
    densities = [segment.log_densities(row["step"]).tobytes().hex() for row in rows if row["status"] == "finite"]
    saved = segment.weights(2**31)
    weights = tensors_digest(*(saved[name] for name in sorted(saved))) if saved else None
    return {"about": segment.about, "rows": rows, "curve": segment.curve(), "densities": densities, "weights": weights}


def _called(read: Callable[[], Any]) -> Reading:
    """What a function of ours gives, with its warnings."""
    with _warnings() as said:
        try:
            return Reading(json.dumps(read(), sort_keys=True), "", tuple(said))
        except GanError as error:
            return Reading(None, str(error), tuple(said))


@contextlib.contextmanager
def _warnings() -> Iterator[list[str]]:
    said: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    logger, kept = logging.getLogger("pipelines"), Kept(logging.WARNING)
    logger.addHandler(kept)
    try:
        yield said
    finally:
        logger.removeHandler(kept)


def finished(storage: Path, yaml: Path, work: Path, seed: int) -> FinishedRun:
    """A finished run with what its readers say of it."""
    work.mkdir(parents=True, exist_ok=True)
    run = FinishedRun(storage, yaml, work, seed)
    run.undisturbed = {name: read() for name, read in run.readers().items()}
    refused = {name: reading.refused for name, reading in run.undisturbed.items() if reading.refused}
    assert not refused, refused
    assert run.reused()[0] > 0, "the inputs are not those of the run's search"
    return run


@contextlib.contextmanager
def prepared(folder: Path, seed: int) -> Iterator[FinishedRun]:
    """The small configuration, run once by `gan run`: who comes again finds it finished."""
    yaml, storage = folder / "small.yaml", folder / "storage"
    yaml.write_text(SMALL)
    for left in folder.rglob(".undisturbed"):  # of a trial that was interrupted
        shutil.move(left, left.with_name((left.parent / ".name").read_text()))
    answer = gan("run", yaml, "--name", RUN, "--storage", storage, "--json", cwd=folder)
    assert answer.code == 0, answer.err
    yield finished(storage, yaml, folder / "work", seed)


def flip(run: FinishedRun, number: int) -> Measures:
    """Damage one file, read it by all that read its kind, and put it back."""
    random = np.random.default_rng([run.seed, number])
    kind = list(KINDS)[number % len(KINDS)]
    files = sorted(path for path in run.storage.glob(KINDS[kind]) if path.is_file() and path.stat().st_size)
    path = files[random.integers(len(files))]
    whole = path.read_bytes()
    damaged, place = bytearray(whole), int(random.integers(len(whole)))
    if random.integers(LEFT_BEFORE_FLIP) == 0:
        del damaged[place:]
        how = f"cut at {place} of {len(whole)}"
    else:
        damaged[place] ^= 1 << int(random.integers(8))
        how = f"bit {place}"
    moved, name = path.with_name(".undisturbed"), path.with_name(".name")
    name.write_text(path.name)
    path.rename(moved)
    try:
        path.write_bytes(damaged)
        faults = [fault for reader in READERS[kind] if (fault := _fault(run, reader, path))]
    finally:
        moved.rename(path)
        name.unlink()
    where = path.relative_to(run.storage)
    return {"kind": kind, "fault": f"{where}, {how}: {'; '.join(faults)}" if faults else ""}


def _fault(run: FinishedRun, reader: str, path: Path) -> str:
    """What is wrong with a reader of a damaged file; empty if it says the same, or names the file."""
    try:
        reading = run.readers()[reader]()
    except Exception as error:  # a traceback of the command's
        return f"{reader}: {type(error).__name__}: {error}"
    names = (path.name, path.parent.name)
    if reading.refused:
        return "" if any(name in reading.refused for name in names) else f"{reader} names no file: {reading.refused}"
    if reading.answer == run.undisturbed[reader].answer:
        return ""
    if any(name in warning for warning in reading.warnings for name in names):
        return ""  # left out, and said
    return f"{reader}: another answer, without a word"


def rows(measures: Sequence[Measures]) -> list[Row]:
    """The scorecard's line."""
    tracebacks = sum("Error" in one["fault"] for one in measures)
    return [
        of_all(measures, "cuts and bit flips over every file of a run: the same answers, or refused by name", "all"),
        Row("of these: uncaught errors", "0", str(tracebacks), tracebacks == 0),
    ]


PART = Part("flips", 1000, prepared, flip, rows)
