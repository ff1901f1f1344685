"""A run's MLflow runs: opened by the stages that write to them, and a training's curves copied while it goes on."""

import contextlib
from collections.abc import Callable
from concurrent.futures import Future

from gan_core.checkpoint import checkpoint_step
from gan_core.errors import GanError
from pipelines.registry import Registry
from pipelines.registry.tracking import Tracking
from pipelines.runs.run import Run
from pipelines.storage import checkpoint_names, run_layout
from pipelines.storage.metric_log import read_history


def curves_follower(run: Run, registry: "Future[Registry]") -> Callable[[], None]:
    """A function that copies a training's new history rows into MLflow, for those who watch.

    Nothing depends on it: `publish` copies all of it again, which changes nothing.
    """
    copied, failed = 0, failed_trainings(run)

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
                run_tracking(run, registry.result()).curves(run.name, rows, failed)
                copied = int(rows[-1]["step"])

    return copy


def run_tracking(run: Run, registry: Registry) -> Tracking:
    """The MLflow runs of a run of ours, under its model's experiment."""
    model = run.configuration.registry.model
    return Tracking(registry.backend, model, run.name, run.storage.child("mlartifacts"))


def failed_trainings(run: Run) -> int:
    """How many choices of the run's search were trained in vain."""
    return len((run.record("tune") or {}).get("failed_trainings", ()))
