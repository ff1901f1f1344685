"""SIGKILL to the whole of `gan run`, at every fault point and at random moments: the same command finishes what is left."""

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
from tests.faults.scorecard.kills import HANG_SECONDS, Place, command_again, left_rows, unequal, wait
from tests.faults.scorecard.parts import Measures, Part, Row, at_most
from tests.faults.scorecard.processes import outliving, watched
from tests.pipelines.conftest import SMALL, Answer, gan, kill_group, start_gan

MODEL = "gan-small"
TIMES = {"train": ["seconds", "run", "checkpoint"], "tune": ["seconds"], "evaluate": ["seconds"]}

LATE = ", after its end"
POINTS = (
    "run.json", "tune/findings/*/*.jsonl", "records/tune.json", "checkpoints/step=*", "records/train.json",
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
    """What an undisturbed `gan run` gives, and how long it takes."""
    place = Place(folder, folder / "small.yaml", seed)
    place.yaml.write_text(SMALL)
    kept = folder / "undisturbed.json"
    if not kept.exists():
        since = time.monotonic()
        answer = gan(*_whole(place, "undisturbed"), cwd=folder, timeout=HANG_SECONDS)
        assert answer.code == 0, answer.err
        records = _records(Storage.at(folder / "undisturbed" / "runs" / "undisturbed"))
        kept.write_text(json.dumps({"records": records, "seconds": time.monotonic() - since}))
    known = json.loads(kept.read_text())
    place.whole, place.seconds = known["records"], known["seconds"]
    yield place


def _killed(place: Place, number: int, words: list[object], run: Path) -> tuple[str, list[str], list[int]]:
    """Start it and kill all of it: when, what was wrong with that, and what outlives it."""
    drawn = random.Random(f"{place.seed} run {number}")
    process, faults = start_gan(*words, cwd=place.folder), list[str]()
    with watched(process.pid) as family:
        if number < len(POINTS):
            point = POINTS[number]
            if not wait(lambda: list(run.glob(point)), process):
                faults = ["it hangs" if process.poll() is None else "never there, a fault of the scorecard"]
        else:
            seconds = drawn.uniform(0, place.seconds)
            wait(lambda: False, process, seconds)
            point = f"{seconds:.1f} s"
        if process.poll() is not None and not faults:
            point += LATE
        kill_group(process)
    return point, faults, outliving(family)


def kill_run(place: Place, number: int) -> Measures:
    """SIGKILL to the driver and all that it has started, at a fault point or any moment; the same command again."""
    name = f"run-{number}"
    run, words = Storage.at(place.folder / name / "runs" / name), _whole(place, name)
    shutil.rmtree(place.folder / name, ignore_errors=True)
    point, faults, lingering = _killed(place, number, words, place.folder / name / "runs" / name)
    before = {stage: run.read(f"records/{stage}.json") for stage in ("tune", "train", "evaluate", "register", "report")}
    answer, tries = command_again(place, words)
    if answer is None:
        faults += ["it hangs"]
    elif answer.code:
        faults += [f"exit {answer.code}: {(answer.err.strip().splitlines() or [''])[-1][:200]}"]
    faults += ["other records"] if _records(run) != place.whole else []
    repeated = [stage for stage, record in before.items() if record and run.read(f"records/{stage}.json") != record]
    faults += [f"repeated: {', '.join(repeated)}"] if repeated else []
    opened, versions = _open_runs(place.folder / name, answer)
    faults += [f"{opened} runs left open"] if opened else []
    faults += [f"{versions} versions"] if versions != 1 else []
    faults += [f"{len(lingering)} processes outlive it"] if lingering else []
    shutil.rmtree(place.folder / name, ignore_errors=True)
    return {
        "fault": f"killed at {point}: {'; '.join(faults)}" if faults else "",
        "equal": not unequal(faults), "hung": "it hangs" in faults, "leaked": len(lingering), "again": tries,
        "repeated": len(repeated), "open": opened, "late": point.endswith(LATE),
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
    equal = sum(one["equal"] for one in measures)
    points, late = min(len(POINTS), len(measures)), sum(one["late"] for one in measures)
    what = f"{points} fault points and {len(measures) - points} random moments ({late} after its end)"
    return [
        Row(f"`gan run` killed at {what}: finishes, bit-equal", "all", f"{equal} of {len(measures)}", equal == len(measures)),
        Row("stages repeated", "0", str(repeated), not repeated),
        Row("MLflow runs left open", "0", str(opened), not opened),
        at_most(measures, "again", "the same command until it ends well", 1, ""),
        *left_rows(measures, "SIGKILL in `gan run`"),
    ]  # fmt: skip


PIPELINE = Part("run", len(POINTS) + 50, run_whole, kill_run, _run_rows)
