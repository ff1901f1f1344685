"""The training driver: Ray Train's workers run a training's steps, followed, saved, resumed from the last checkpoint."""

import itertools
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from gan_core.datasets import Examples
from gan_core.errors import CheckpointError, Diverged, GanError, last_line
from gan_core.training import Report
from pipelines.config import TrainSettings
from pipelines.runs.resume import TrainingSpec, resume
from pipelines.runtime import liveness, ray_session
from pipelines.runtime.lost_resources import own_groups
from pipelines.runtime.progress import Progress
from pipelines.runtime.prometheus import Gauges
from pipelines.storage import run_layout, save_checkpoint
from pipelines.storage.metric_log import append_history

POLL_SECONDS = 0.5  # between rank 0's readings of a request to stop
STOP_SECONDS = 8.0  # what a preempted driver waits for its workers' last checkpoint


def run_training(
    spec: TrainingSpec,
    data: Examples,
    log: Callable[[str], None],
    on_progress: Callable[[], None] | None = None,
) -> str:
    """Train on the cluster, from the last verified checkpoint to the last step, and return rank 0's device.

    `on_progress` is called every few seconds while they train.

    Raises:
        Diverged: If the metrics stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the workers failed more often than `train.max_failures`, or cannot resume.
        Lost: If a Ray started here has lost what they wait for; on another one the training goes on.
    """
    import ray
    import ray.train

    resume(spec.initial_state(data), spec)  # what the workers could not resume is an error now
    use_gpu, settings = uses_gpu(spec.train), spec.train
    spec.folder.write_json(run_layout.STOP, False)
    spec.folder.delete(run_layout.LIVE)
    required = {"CPU": settings.workers * settings.threads_per_worker, "GPU": settings.workers * int(use_gpu)}
    with Progress(spec.folder, spec.stage, spec.progress_line, required, log, on_progress) as progress:
        try:
            outcome = _fit(spec, ray.put((spec, data)), use_gpu, progress)
        except (SystemExit, KeyboardInterrupt):
            if liveness.lost_part() is None:  # else no worker is there to save
                _save_before_leaving(spec)
            raise
        except (ray.train.TrainingFailedError, *controller_died()) as error:
            raise _cause(error, spec) from error
    if "diverged" in outcome:
        raise outcome["diverged"]
    return str(outcome["device"])


def uses_gpu(settings: TrainSettings) -> bool:
    """Whether each worker has a GPU: where `train.gpu` says so or, with `auto`, the cluster has one for each."""
    import ray

    if settings.gpu == "auto":
        return bool(ray.cluster_resources().get("GPU", 0) >= settings.workers)
    return settings.gpu


def _fit(spec: TrainingSpec, payload: Any, use_gpu: bool, progress: Progress) -> dict[str, Any]:
    """Let Ray Train run the workers to their end, and return what rank 0 does.

    Ray starts failed workers again, and we its controller, for which it does not: each time from the
    last verified checkpoint, and not more often than `train.max_failures`.
    """
    settings = spec.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.start_timeout_s)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(settings.hang_timeout_s)
    for failures in itertools.count(1):
        # Ray's own snapshot of the run is not what we resume from, and a damaged one would be an error.
        spec.folder.child(run_layout.RAY_TRAIN).remove()
        try:
            outcome = dict(_trainer(spec, payload, use_gpu, progress).fit().return_value)
            spec.folder.child(run_layout.RAY_TRAIN).remove()
            return outcome
        except controller_died() as error:
            if progress.lost:
                raise progress.lost from error
            if failures > settings.max_failures:
                raise
            _release_resources()
            progress.log(
                f"{spec.stage:<6} Ray Train's controller died; "
                f"started again, {failures} of at most {settings.max_failures} times"
            )
    raise AssertionError("unreachable")


def controller_died() -> tuple[type[Exception], ...]:
    """The errors of a dead controller: one that was killed for want of memory has another."""
    import ray

    return ray.exceptions.RayActorError, ray.exceptions.OutOfMemoryError


def _trainer(spec: TrainingSpec, payload: Any, use_gpu: bool, progress: Progress) -> Any:
    """Ray Train's trainer of a training."""
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback

    from pipelines.runtime.local_process_group import LocalTorchConfig
    from pipelines.stages.failure_policy import FailurePolicy

    class Trainer(TorchTrainer):  # type: ignore[misc]
        """Ray's, but Ctrl-C is the command's, where Ray's own handler would end the process as if it had succeeded.

        A Ray of our own has no server for Ray's cleaner of placement groups to ask; `_release_resources` does its work.
        """

        def _create_default_callbacks(self) -> list[Any]:
            callbacks = super()._create_default_callbacks()
            cleans = lambda callback: isinstance(callback, PlacementGroupCleanerCallback)  # noqa: E731
            return [each for each in callbacks if not (cleans(each) and ray_session.started_here())]

        def _register_sigint_handler(self, controller: Any) -> None:
            progress.controller = controller

        def _initialize_and_run_controller(self, **how: Any) -> ray.train.Result:
            policy = FailurePolicy(self.run_config.failure_config)
            return super()._initialize_and_run_controller(**{**how, "failure_policy": policy})

    settings, group = spec.train, LocalTorchConfig if ray_session.started_here() else TorchConfig
    return Trainer(
        train_loop_per_worker,
        train_loop_config={"payload": payload},
        torch_config=group(timeout_s=math.ceil(settings.hang_timeout_s)),
        scaling_config=ray.train.ScalingConfig(
            num_workers=settings.workers,
            use_gpu=use_gpu,
            resources_per_worker={"CPU": settings.threads_per_worker, "GPU": int(use_gpu)},
        ),
        run_config=ray.train.RunConfig(
            name=run_layout.RAY_TRAIN,
            storage_path=spec.folder.uri,
            failure_config=ray.train.FailureConfig(max_failures=settings.max_failures, controller_failure_limit=1),
            logging_config=ray.train.LoggingConfig(log_level="ERROR"),
        ),
    )


def _release_resources() -> None:
    """Remove the placement groups that a dead controller of this driver has left, and with them its workers.

    Ray's own cleaner does so only where one Ray is all that runs on the machine.
    """
    import ray
    from ray.util import remove_placement_group
    from ray.util.placement_group import PlacementGroup

    for identifier, group in own_groups().items():
        if group["state"] != "REMOVED":
            remove_placement_group(PlacementGroup(ray.PlacementGroupID(bytes.fromhex(identifier))))


def train_loop_per_worker(config: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs: the training's steps from its last checkpoint on, reported by rank 0.

    `config["payload"]` refers to the training's spec and its data.
    """
    import ray
    import ray.train
    from ray.train.torch import get_device

    from pipelines.stages.failure_policy import as_worker_raises

    spec: TrainingSpec
    spec, data = ray.get(config["payload"])
    settings = spec.train
    torch.set_num_threads(settings.threads_per_worker)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = get_device()
    state = spec.initial_state(data).to(device)
    resume(state, spec)
    try:
        writer = CheckpointWriter(spec) if rank == 0 else None
        for report in spec.reports(data, state, lambda step: step % settings.report_every == 0, rank, workers):
            at_checkpoint = report.step % settings.checkpoint_every == 0 or report.step == spec.steps
            if writer:
                writer.on_report(report, at_checkpoint)
            if at_checkpoint:  # every rank, or the others would wait for it
                ray.train.report({"step": report.step, **report.metrics})
    except Diverged as error:
        return {"diverged": error}
    except CheckpointError as error:
        raise as_worker_raises(error) from error
    return {"device": str(device)}


class CheckpointWriter:
    """What rank 0 does with a report: history, gauges, a live row for the driver, checkpoints."""

    def __init__(self, spec: TrainingSpec) -> None:
        self.spec = spec
        self.rows: list[dict[str, float]] = []
        self.saved_at = self.shown_at = time.monotonic()
        self.polled_at = 0.0
        spec.folder.write_json(run_layout.LIVE, {})  # there is somebody to ask for a checkpoint
        self.gauges = Gauges(spec.run.name) if spec.stage == "train" else None  # those of the run are G's and D's

    def on_report(self, report: Report, at_checkpoint: bool) -> None:
        """Note a report; save if the step is one to save at, if it was long ago, or if the driver asks for it."""
        spec, now = self.spec, time.monotonic()
        time_of_day = {"time_ms": time.time() * 1000 // 1} if spec.timed_history else {}
        self.rows.append({"step": report.step, **time_of_day, **report.metrics})
        if spec.on_report:
            spec.on_report(report.state)
        stopping = False
        if now - self.polled_at >= POLL_SECONDS:  # a report can be milliseconds, and an answer of a store as long
            stopping, self.polled_at = spec.folder.read_json(run_layout.STOP) is True, now
        if at_checkpoint or stopping or now - self.saved_at >= spec.train.checkpoint_seconds:
            append_history(spec.folder.child(run_layout.HISTORY), self.rows)
            keep = spec.train.keep_checkpoints
            save_checkpoint(spec.checkpoints, report.step, report.state.tensors(), spec.about, keep)
            self.rows.clear()
            self.saved_at = now
        if stopping:
            spec.folder.write_json(run_layout.STOP, report.step)
        if now - self.shown_at >= 1:
            metrics = {"step": report.step, **report.metrics}
            if self.gauges:
                self.gauges.set(metrics)
            spec.folder.write_json(run_layout.LIVE, metrics)
            self.shown_at = now


def _save_before_leaving(spec: TrainingSpec) -> None:
    """The last request to rank 0 of a driver that was preempted or interrupted, if there is one yet: a checkpoint, now."""
    if spec.folder.read_json(run_layout.LIVE) is None:
        return
    spec.folder.write_json(run_layout.STOP, True)
    deadline = time.monotonic() + STOP_SECONDS
    while spec.folder.read_json(run_layout.STOP) is True and time.monotonic() < deadline:
        time.sleep(0.1)


def _cause(error: Exception, spec: TrainingSpec) -> GanError:
    """A worker's own error in our words, or the failure with the place to look."""
    from pipelines.stages.failure_policy import own_errors

    settings, kept = spec.train, "the last checkpoint is kept: run the same command again"
    if type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError":
        return CheckpointError(
            "workers could not start", spec.run.uri,
            f"not within {settings.start_timeout_s:g} s (train.start_timeout_s)",
            f"room for {settings.workers} on the cluster; {kept}",
        )  # fmt: skip
    failed = CheckpointError(f"{spec.title} failed", spec.run.uri, last_line(error), f"workers that live; {kept}")
    return next(own_errors(error), failed)
