"""A run as it goes on, seen from its own files: stages with their time, candidates, training, and what is left."""

import statistics
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gan_core.manifest import MALFORMED, checkpoint_name, checkpoint_step
from pipelines.runs import run_lease
from pipelines.runs.recorded_run import RecordedRun, damaged_run, read_run
from pipelines.runs.time_left import RAY_START, TRIALS_START, jobs_of_rungs, seconds_left
from pipelines.storage import Storage, run_layout
from pipelines.storage.metric_log import read_history

# Without torch, as every look-up: `gan runs watch` shows its first line at once.
RATES = 5  # of which a training's speed is the median


@dataclass(frozen=True)
class StageProgress:
    """A stage of a run, and its seconds so far; None where it has not begun, or its record does not say."""

    name: str
    state: Literal["done", "running", "waiting"]
    seconds: float | None = None


@dataclass(frozen=True)
class Observation:
    """What a look at a run has found."""

    run: str
    state: Literal["running", "stopped", "done"]
    stage: str | None  # that is worked on
    stages: tuple[StageProgress, ...]
    seconds: float  # since its owner began or, of a run that nobody works on, of its stages
    seconds_left: float | None
    steps: int  # of the training
    rungs: tuple[int, ...]
    expected: tuple[int, ...]  # candidates of each rung
    candidates: list[dict[str, Any]]  # each score of each, by candidate and step
    training: dict[str, Any]  # the newest report of the stage that trains
    records: dict[str, dict[str, Any]]

    @property
    def best(self) -> dict[str, Any] | None:
        """The best score of the farthest rung that a candidate has reached, confirmations left out."""
        finite = [row for row in self.candidates if row["status"] == "finite" and row["search"]]
        farthest = max((row["step"] for row in finite), default=0)
        at_rung = [row for row in finite if row["step"] == farthest]
        return max(at_rung, key=lambda row: row["log_likelihood"], default=None)

    def to_json(self) -> dict[str, Any]:
        """The same as one object: of the records only the result."""
        score, registered = self.records.get("evaluate", {}), self.records.get("register", {})
        plain = {key: value for key, value in asdict(self).items() if key not in ("records", "rungs", "expected")}
        plain["seconds"] = round(self.seconds, 1)
        plain["seconds_left"] = None if self.seconds_left is None else round(self.seconds_left, 1)
        plain |= {"best": self.best, "log_likelihood": score.get("log_likelihood"), "alias": registered.get("alias")}
        return {**plain, "report": self.records.get("report", {}).get("report")}


class RunObserver:
    """Looks at a run again and again; of what has not changed nothing is read twice."""

    def __init__(
        self,
        run: RecordedRun,
        stages: tuple[str, ...] | None = None,
        current: Callable[[], str] | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """`stages` are those that will be done, by default all that the run has.

        `current` says which of them is, where that is known better than from records, which there are of a stage that is
        done again.
        """
        self.current = current
        self.run, self.now = run, now
        self.settings, self.cores = _settings(run)
        self.stages = stages or run.stages
        self.candidates: list[dict[str, Any]] = []
        self.written: Any = None  # of the search's results, when they were last read
        self.slowness, self.waited = 1.0, False
        self.rates: deque[float] = deque(maxlen=RATES)
        self.estimated: tuple[Any, float, float] | None = None  # for which work, when, and what

    def look(self) -> Observation:
        """The run, now.

        Raises:
            GanError: If a file of it is damaged, or the storage does not answer.
        """
        records, owner, now = self.run.records(), run_lease.owner(self.run.folder), self.now()
        waiting = [stage for stage in self.stages if stage not in records]
        if self.current is not None:
            waiting = list(self.stages[self.stages.index(self.current()) :])
        running = owner is not None and bool(waiting)
        begun = float((owner or {}).get("since", now))
        written = self.run.folder.child("records").size_and_mtime()[1] if running else 0.0
        elapsed = max(0.0, now - max(begun, written))
        if "tune" in self.run.stages:
            self._read_candidates()
        training = self._training(waiting[0]) if running else {}
        left = self._seconds_left(waiting, training, elapsed, now) if running else None
        seconds = [records.get(stage, {}).get("seconds") for stage in self.stages]
        tune = self.settings["tune"]
        return Observation(
            run=self.run.name,
            state="running" if running else "stopped" if waiting else "done",
            stage=waiting[0] if running else None,
            stages=tuple(
                StageProgress(stage, "done", known)
                if stage not in waiting
                else StageProgress(stage, "running", elapsed)
                if running and stage == waiting[0]
                else StageProgress(stage, "waiting")
                for stage, known in zip(self.stages, seconds, strict=True)
            ),
            seconds=sum(filter(None, seconds)) if owner is None else max(0.0, now - begun),
            seconds_left=left,
            steps=self._steps(waiting[0] if running else "train"),
            rungs=tuple(tune["rungs"]) if tune["candidates"] else (),
            expected=tuple(jobs_of_rungs(tune)) if tune["candidates"] else (),
            candidates=self.candidates,
            training=training,
            records=records,
        )

    def pictures(self) -> list[int]:
        """The steps of which there are samples, in order."""
        names = self.run.folder.child(run_layout.SAMPLES).names()
        return [
            checkpoint_step(name.removesuffix(".png")) for name in names if name.endswith(".png") and name[0] != "."
        ]

    def picture(self, step: int) -> bytes:
        """The samples of a step, a PNG; nothing where there are none any more."""
        return self.run.folder.child(run_layout.SAMPLES).read(f"{checkpoint_name(step)}.png") or b""

    def _steps(self, stage: str) -> int:
        settings = self.settings["extension"]["inference"] if stage == "infer" else self.settings["algorithm"]
        return int(settings["steps"])

    def _read_candidates(self) -> None:
        """Read the scores that the search has, if anything of it was written since the last look."""
        results = self.run.folder.child(run_layout.TUNE, run_layout.RESULTS)
        written = results.size_and_mtime()
        if written == self.written:
            return
        segments = [name for name in results.names() if name.startswith("candidate-")]
        rows = [row for name in segments for row in _scores(results.child(name), name, self.settings["seed"])]
        self.candidates = sorted(rows, key=lambda row: (row["candidate"], row["seed"], row["step"]))
        self.written = written

    def _training(self, stage: str) -> dict[str, Any]:
        """What rank 0 of a training has reported last."""
        if stage not in ("train", "infer"):
            return {}
        folder = self.run.folder if stage == "train" else self.run.folder.child(run_layout.ENCODER)
        live: dict[str, Any] = folder.read_json(run_layout.LIVE) or {}
        if live.get("steps_per_second"):
            if not self.rates or not self.estimated or self.estimated[0] != (stage, live["step"]):
                self.rates.append(live["steps_per_second"])
            live["steps_per_second"] = statistics.median(self.rates)
        return live

    def _seconds_left(
        self, waiting: list[str], training: Mapping[str, Any], elapsed: float, now: float
    ) -> float | None:
        """An estimate at each change of what is done; in between, time passes."""
        work = (waiting[0], training.get("step", -1 - len(self.candidates)))  # below any step
        if waiting[0] == "tune" and self.candidates and self.waited:
            start = elapsed - max(row["seconds"] for row in self.candidates)
            self.slowness, self.waited = min(4.0, max(0.5, start / (RAY_START + TRIALS_START))), False
        elif waiting[0] == "tune" and not self.candidates:
            self.waited = True
        if self.estimated is None or self.estimated[0] != work:
            left = seconds_left(self.settings, waiting, self.candidates, training, elapsed, self.cores, self.slowness)
            if left is None:
                return None
            self.estimated = (work, now, left)
        _, at, left = self.estimated
        return max(0.0, left - (now - at))


def _settings(run: RecordedRun) -> tuple[Any, int]:
    """The configuration as plain data, and the CPUs of the machine where the run began.

    Raises:
        CheckpointError: If the run's file is damaged.
    """
    settings, environment = read_run(run.name, run.storage), run.folder.read_json(run_layout.ENVIRONMENT) or {}
    try:
        plain = settings["configuration"]
        _ = plain["tune"]["rungs"], plain["algorithm"]["steps"], plain["extension"]["inference"], plain["seed"]
        return plain, int(environment.get("machine", {}).get("cores") or 1)
    except MALFORMED as error:
        raise damaged_run(run.name, run.storage, error) from error


def _scores(folder: Storage, segment: str, seed: int) -> list[dict[str, Any]]:
    """A segment's scores: whose, at which step, and whether it belongs to the search or to a confirmation."""
    about = folder.read_json(run_layout.SEGMENT)
    if about is None:  # being made
        return []
    kept = ("step", "status", "log_likelihood", "standard_error", "coverage", "seconds")
    whose = {
        **about["job"],
        "segment": segment,
        "fresh": about["origin"] is None,
        "search": about["job"]["seed"] == seed,
    }
    return [{**whose, **{key: row.get(key) for key in kept}} for row in read_history(folder)]
