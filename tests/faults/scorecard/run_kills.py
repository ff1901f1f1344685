"""SIGKILL to the whole of `gan run`, again and again, at fault points and random moments: the same command finishes what is left."""

import contextlib
import json
import random
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pipelines.registry import Registry
from pipelines.storage import Storage
from tests.faults.scorecard.kills import Place, command_again, end, left_rows, unequal, wait
from tests.faults.scorecard.parts import Measures, Part, Row, at_most
from tests.faults.scorecard.processes import outliving, watched
from tests.pipelines.conftest import SMALL, Answer, kill_group, start_gan

MODEL = "gan-small"
STAGES = ("tune", "train", "evaluate", "register", "report")
TIMES = {"train": ["seconds", "run", "checkpoint"], "tune": ["seconds", "device_seconds"], "evaluate": ["seconds"]}

LATE = ", after its end"
CHAINS, MOMENTS = 10, 5  # runs that are killed at random moments, and at how many each
START = "tune/findings/*/*.jsonl"  # what a command takes until there is something that it has found
POINTS = (
    "run.json", START, "records/tune.json", "checkpoints/step=*", "records/train.json",
    "records/evaluate.json", "records/register.json", "report/report.html", "records/report.json",
)  # fmt: skip


def _records(run: Storage) -> dict[str, Any]:
    records = {}
    for stage in ("tune", "train", "evaluate"):
        known = run.read_json(f"records/{stage}.json")
        if known is not None:
            records[stage] = {key: value for key, value in known["record"].items() if key not in TIMES[stage]}
    return records


def _whole(place: Place, name: str) -> list[object]:
    return ["run", place.yaml, "--name", name, "--storage", place.folder / name, "--json"]


@contextlib.contextmanager
def run_whole(folder: Path, seed: int) -> Iterator[Place]:
    """What an undisturbed `gan run` gives, when each of its stages ends, and how long it takes."""
    place = Place(folder, folder / "small.yaml", seed)
    place.yaml.write_text(SMALL)
    kept = folder / "undisturbed.json"
    if not kept.exists():
        shutil.rmtree(folder / "undisturbed", ignore_errors=True)
        run = folder / "undisturbed" / "runs" / "undisturbed"
        since, process = time.monotonic(), start_gan(*_whole(place, "undisturbed"), cwd=folder)
        ends = {}
        for point in (START, *(f"records/{stage}.json" for stage in STAGES)):
            wait(lambda point=point: list(run.glob(point)), process)
            ends[point] = time.monotonic() - since
        answer, _ = end(process)
        assert answer is not None
        assert answer.code == 0, answer.err
        kept.write_text(json.dumps({"records": _records(Storage.at(run)), "ends": ends}))
    known = json.loads(kept.read_text())
    place.whole, place.ends = known["records"], known["ends"]
    yield place


def _moment(place: Place, run: Path, drawn: random.Random) -> float:
    """Seconds from a command's start on: any of what it needs to begin and to do what is left of the run."""
    done = [second for point, second in place.ends.items() if (run / point).exists()]
    left = max(place.ends.values()) - max(done, default=place.ends[START])
    return drawn.uniform(0, place.ends[START] + left)


def _killed(words: list[object], run: Path, at: str | float, folder: Path) -> tuple[str, str, list[int]]:
    """Start it and kill all of it, at a fault point or after seconds: when, what was wrong with that, what outlives it."""
    there = isinstance(at, str) and list(run.glob(at))
    process, fault = start_gan(*words, cwd=folder), ""
    with watched(process.pid) as family:
        if isinstance(at, float):
            wait(lambda: False, process, at)
        elif not wait(lambda: not there and list(run.glob(at)), process) and not there:
            fault = "it hangs" if process.poll() is None else "never there, a fault of the scorecard"
        when = f"{at:.1f} s" if isinstance(at, float) else at
        if process.poll() is not None and not fault:
            when += LATE
            fault = "" if process.returncode == 0 else f"exit {process.returncode} before it"
        kill_group(process)
    return when, fault, outliving(family)


def kill_run(place: Place, number: int) -> Measures:
    """One run whose command is killed again and again, with all that it has started: at each fault point, or at random moments."""
    name, drawn = f"run-{number}", random.Random(f"{place.seed} run {number}")
    folder, words = place.folder / f"run-{number}", _whole(place, name)
    shutil.rmtree(folder, ignore_errors=True)
    path, run = folder / "runs" / name, Storage.at(folder / "runs" / name)
    whens, faults, lingering, before = list[str](), list[str](), 0, dict[str, bytes]()
    for point in POINTS if number == 0 else [None] * MOMENTS:
        when, fault, left = _killed(words, path, point or _moment(place, path, drawn), place.folder)
        whens.append(when)
        faults += [f"{when}: {fault}"] if fault else []
        faults += [f"{when}: {len(left)} processes outlive it"] if left else []
        lingering += len(left)
        for stage in STAGES:  # the first record that there is of a stage is the last
            if record := run.read(f"records/{stage}.json"):
                before.setdefault(stage, record)
    answer, tries = command_again(place, words)
    if answer is None:
        faults += ["it hangs"]
    elif answer.code:
        faults += [f"exit {answer.code}: {(answer.err.strip().splitlines() or [''])[-1][:200]}"]
    faults += ["other records"] if _records(run) != place.whole else []
    repeated = [stage for stage, record in before.items() if run.read(f"records/{stage}.json") != record]
    faults += [f"repeated: {', '.join(repeated)}"] if repeated else []
    opened, versions = _open_runs(folder, answer)
    faults += [f"{opened} runs left open"] if opened else []
    faults += [f"{versions} versions"] if versions != 1 else []
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "fault": f"killed at {', '.join(whens)}: {'; '.join(faults)}" if faults else "", "kills": len(whens),
        "points": len(POINTS) * (number == 0),
        "equal": not unequal(faults), "hung": any("it hangs" in fault for fault in faults), "leaked": lingering,
        "again": tries, "repeated": len(repeated), "open": opened, "late": sum(when.endswith(LATE) for when in whens),
    }  # fmt: skip


def _open_runs(folder: Path, answer: Answer | None) -> tuple[int, int]:
    if answer is None or answer.code:
        return 0, 0
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    client: Any = registry.backend.client  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name(MODEL)
    runs = client.search_runs([experiment.experiment_id])
    return sum(run.info.status == "RUNNING" for run in runs), len(registry.versions(MODEL))


def _run_rows(measures: Sequence[Measures]) -> list[Row]:
    repeated, opened = (sum(one[key] for one in measures) for key in ("repeated", "open"))
    kills, points, late = (sum(one[key] for one in measures) for key in ("kills", "points", "late"))
    equal = sum(one["kills"] for one in measures if one["equal"])
    what = f"{points} fault points and {kills - points} random moments ({late} after its end) of {len(measures)} runs"
    return [
        Row(f"`gan run` killed at {what}: finishes, bit-equal", "all", f"{equal} of {kills}", equal == kills),
        Row("stages repeated", "0", str(repeated), not repeated),
        Row("MLflow runs left open", "0", str(opened), not opened),
        at_most(measures, "again", "the same command until it ends well", 1, ""),
        *left_rows(measures, "SIGKILL in `gan run`"),
    ]  # fmt: skip


PIPELINE = Part("run", 1 + CHAINS, run_whole, kill_run, _run_rows)
