"""A run's MLflow runs: opened by the stages that write to them, and a training's curves copied while it goes on."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from typing import Any

from gan_core.checkpoint import checkpoint_step
from gan_core.errors import GanError
from pipelines.registry import Registry
from pipelines.registry.tracked_run import RunSource, SamplePicture
from pipelines.registry.tracking import Span, Tracking
from pipelines.runs.run import Run
from pipelines.stages.training_samples import read_strip
from pipelines.storage import checkpoint_names, run_layout
from pipelines.storage.metric_log import read_history


def curves_follower(run: Run, registry: "Future[Registry]") -> Callable[[], None]:
    """A function that copies a training's new history rows and samples into MLflow, for those who watch.

    Nothing depends on it: `publish` copies all of it again, which changes nothing.
    """
    copied, failed, started_ms = 0, failed_trainings(run), _now_ms()

    def copy() -> None:
        nonlocal copied
        with contextlib.suppress(GanError):
            # Steps after the last checkpoint may be repeated, at another time of day: not yet.
            kept = max(
                (checkpoint_step(name) for name in checkpoint_names(run.folder.child(run_layout.CHECKPOINTS))),
                default=0,
            )
            rows = [row for row in read_history(run.folder.child(run_layout.HISTORY)) if copied < row["step"] <= kept]
            if rows and registry.done():
                tracking = run_tracking(run, registry.result())
                tracking.curves(run.name, rows, failed, started_ms)
                tracking.pictures([picture for picture in sample_pictures(run, rows) if picture.step > copied])
                copied = int(rows[-1]["step"])

    return copy


def run_tracking(run: Run, registry: Registry) -> Tracking:
    """The MLflow runs of a run of ours, under its model's experiment, from when it was begun."""
    model, begun = run.configuration.registry.model, None
    with contextlib.suppress(GanError, KeyError, TypeError, ValueError):  # of an earlier version, or damaged
        environment = run.folder.read_json(run_layout.ENVIRONMENT)
        begun = round(datetime.fromisoformat(environment["begun"]).timestamp() * 1000)
    source = RunSource(command(run), run.commit)
    return Tracking(registry.backend, model, run.name, run.storage.child("mlartifacts"), source, begun)


def command(run: Run) -> str:
    """What makes the run again from its `configuration.yaml`."""
    origin = f" --continue-from {run.origin.reference}" if run.origin else ""
    return f"gan run configuration.yaml --name {run.name}{origin}"


def stage_span(run: Run, stage: str, record: Mapping[str, Any]) -> Span:
    """When a finished stage worked: until its record was written, for the seconds that this says."""
    written = run.folder.mtime(run_layout.record(stage))
    ended = _now_ms() if written is None else round(written * 1000)
    return Span(ended - round(record["seconds"] * 1000), ended)


def sample_pictures(run: Run, history: Sequence[Mapping[str, Any]]) -> list[SamplePicture]:
    """The run's samples of one z at the history's steps."""
    times = {int(row["step"]): round(row["time_ms"]) for row in history if "time_ms" in row}
    strip = read_strip(run.folder) if times else []
    return [SamplePicture(step, times[step], png) for step, png in strip if step in times]


def failed_trainings(run: Run) -> int:
    """How many choices of the run's search were trained in vain."""
    return len((run.record("tune") or {}).get("failed_trainings", ()))


def _now_ms() -> int:
    return round(time.time() * 1000)
