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
from tests.faults.scorecard.parts import Measures, Part, Row
from tests.faults.scorecard.processes import outliving, watched
from tests.pipelines.conftest import SMALL, Answer, gan, kill_group, start_gan

MODEL = "gan-small"
TIMES = {"train": ["seconds", "run", "checkpoint"], "tune": ["seconds"], "evaluate": ["seconds"]}

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


def kill_run(place: Place, number: int) -> Measures:
    """SIGKILL to the driver and all that it has started, at a fault point or any moment; the same command again."""
    drawn, name = random.Random(f"{place.seed} run {number}"), f"run-{number}"
    run, words = Storage.at(place.folder / name / "runs" / name), _whole(place, name)
    shutil.rmtree(place.folder / name, ignore_errors=True)
    process = start_gan(*words, cwd=place.folder)
    with watched(process.pid) as family:
        if number < len(POINTS):
            point = POINTS[number]
            wait(lambda: list((place.folder / name / "runs" / name).glob(point)), process)
        else:
            point = f"{drawn.uniform(0, place.seconds):.1f} s"
            wait(lambda: False, process, float(point.split()[0]))
        kill_group(process)
    lingering = outliving(family)
    before = {stage: run.read(f"records/{stage}.json") for stage in ("tune", "train", "evaluate", "register", "report")}
    answer, tries = command_again(place, words)
    faults = [f"exit {answer.code}: {answer.err.strip().splitlines()[-1][:200]}"] if answer.code else []
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
        "equal": not unequal(faults), "hung": False, "leaked": len(lingering), "again": tries,
        "repeated": len(repeated), "open": opened,
    }  # fmt: skip


def _open_runs(folder: Path, answer: Answer) -> tuple[int, int]:
    if answer.code:
        return 0, 0
    registry = Registry(f"sqlite:///{folder}/mlflow.db")
    client: Any = registry.backend.client  # type: ignore[attr-defined]
    experiment = client.get_experiment_by_name(MODEL)
    runs = client.search_runs([experiment.experiment_id])
    return sum(run.info.status == "RUNNING" for run in runs), len(registry.versions(MODEL))


def _run_rows(measures: Sequence[Measures]) -> list[Row]:
    repeated, opened = (sum(one[key] for one in measures) for key in ("repeated", "open"))
    equal = sum(one["equal"] for one in measures)
    points = min(len(POINTS), len(measures))
    return [
        Row(f"`gan run` killed at {points} fault points and {len(measures) - points} random moments: finishes, bit-equal", "all", f"{equal} of {len(measures)}", equal == len(measures)),
        Row("stages repeated", "0", str(repeated), not repeated),
        Row("MLflow runs left open", "0", str(opened), not opened),
        *left_rows(measures, "SIGKILL in `gan run`"),
    ]  # fmt: skip


PIPELINE = Part("run", "SIGKILL in `gan run`", len(POINTS) + 50, run_whole, kill_run, _run_rows)
