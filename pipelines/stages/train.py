"""Ray Train: data-parallel adversarial training, resumed from the last verified checkpoint."""

import itertools
import math
import os
import time
from collections.abc import Callable
from typing import Any

import torch

from gan_core.checkpoint import Manifest, tensors_digest
from gan_core.conditions.settings import conditions_of
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, Examples
from gan_core.errors import CheckpointError, Diverged, GanError
from gan_core.state import AVERAGED
from gan_core.training import Report, initial_state, train
from pipelines.config import ResolvedConfiguration, TrainSettings
from pipelines.runs.records import TrainRecord
from pipelines.runs.resume import CHECKPOINTS, Job, begin, resume
from pipelines.runtime import liveness
from pipelines.runtime.lost_resources import own_groups
from pipelines.runtime.progress import LIVE, Progress
from pipelines.runtime.prometheus import Gauges
from pipelines.storage import Storage, Tensors, latest_checkpoint, save_checkpoint
from pipelines.storage.metric_log import append_history

HISTORY, STOP = "history", "stop.json"
LOOK_SECONDS = 0.5  # between looks of rank 0 for a request to stop
STOP_SECONDS = 9.0  # what a preempted driver waits for its workers' last checkpoint


def train_run(
    configuration: ResolvedConfiguration,
    dataset: Dataset,
    run: Storage,
    say: Callable[[str], None],
    follow: Callable[[], None] | None = None,
) -> TrainRecord:
    """Train G and D on the cluster and return where the weights are.

    `follow` is called now and then while the workers train, to copy the history elsewhere.

    Raises:
        Diverged: If the losses stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the workers failed more often than `train.max_failures`.
        Lost: If a Ray started here has lost what they wait for; on another one the training goes on.
    """
    import ray
    import ray.train

    started = time.monotonic()
    settings = configuration.train
    use_gpu = settings.gpu is True or (
        settings.gpu == "auto" and ray.cluster_resources().get("GPU", 0) >= settings.workers
    )
    conditions = conditions_of(configuration.extension, dataset)
    job = Job(run, configuration.training(), settings, dataset.digest, dataset.shape, conditions)
    initial = initial_state(job.training, dataset.train, dataset.shape, conditions)
    begin(initial, job)
    resume(initial, job)  # what the workers could not resume is an error now
    run.write_json(STOP, False)
    run.delete(LIVE)
    wanted = {"CPU": settings.workers * settings.threads_per_worker, "GPU": settings.workers * int(use_gpu)}
    with Progress(run, configuration.algorithm.steps, wanted, say, follow or (lambda: None)) as progress:
        try:
            outcome = _fit(job, ray.put(dataset.train), use_gpu, progress)
        except (SystemExit, KeyboardInterrupt):
            if liveness.lost_part() is None:  # else no worker is there to save
                _save_before_leaving(run, say)
            raise
        except (ray.train.TrainingFailedError, ray.exceptions.RayActorError) as error:
            raise _cause(error, run, settings) from error
    if "diverged" in outcome:
        raise outcome["diverged"]
    name, manifest, tensors = _trained(run)
    return TrainRecord(
        run=run.name,
        step=manifest.step,
        checkpoint=run.within(CHECKPOINTS, name).uri,
        weights_sha256=tensors_digest(tensors["generator"], tensors["discriminator"]),
        generator_sha256=tensors_digest(tensors["generator"]),
        device=outcome["device"],
        seconds=time.monotonic() - started,
        averaged_sha256=tensors_digest(tensors[AVERAGED]) if AVERAGED in tensors else None,
    )


def _fit(job: Job, data: Any, use_gpu: bool, progress: Progress) -> dict[str, Any]:
    """Let Ray Train run the workers to their end, and return what rank 0 does.

    Ray starts failed workers again, and we its controller, for which it does not: each time from the
    last verified checkpoint, and not more often than `train.max_failures`.
    """
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    class Trainer(TorchTrainer):  # type: ignore[misc]
        """Ray's, but Ctrl-C is the command's: Ray's own handler would end the process as if it had succeeded."""

        def _register_sigint_handler(self, controller: Any) -> None:
            progress.controller = controller

    settings = job.train
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = str(settings.start_timeout_s)
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(settings.hang_timeout_s)
    for failures in itertools.count(1):
        # Ray's own snapshot of the run is not what we resume from, and a damaged one would be an error.
        job.run.within("ray-train").remove()
        trainer = Trainer(
            train_loop_per_worker,
            train_loop_config={"job": job, "data": data},
            torch_config=TorchConfig(timeout_s=math.ceil(settings.hang_timeout_s)),
            scaling_config=ray.train.ScalingConfig(
                num_workers=settings.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": settings.threads_per_worker, "GPU": int(use_gpu)},
            ),
            run_config=ray.train.RunConfig(
                name="ray-train",
                storage_path=job.run.uri,
                failure_config=ray.train.FailureConfig(max_failures=settings.max_failures, controller_failure_limit=1),
                logging_config=ray.train.LoggingConfig(log_level="ERROR"),
            ),
        )
        try:
            return dict(trainer.fit().return_value)
        except ray.exceptions.RayActorError as error:
            if progress.lost:
                raise progress.lost from error
            if failures > settings.max_failures:
                raise
            _release_resources()
            progress.say(
                f"train  Ray Train's controller died; started again, {failures} of at most {settings.max_failures} times"
            )
    raise AssertionError("unreachable")


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


def train_loop_per_worker(told: dict[str, Any]) -> dict[str, Any]:
    """What each Ray Train worker runs: the loop of gan_core on its shards, checkpoints by rank 0."""
    import ray
    import ray.train
    from ray.train.torch import get_device

    job: Job = told["job"]
    data: Examples = ray.get(told["data"])
    torch.set_num_threads(job.train.threads_per_worker)
    context = ray.train.get_context()
    rank, workers = context.get_world_rank(), context.get_world_size()
    device = get_device()
    algorithm = job.training.algorithm
    state = initial_state(job.training, data, job.image_shape, job.conditions).to(device)
    resume(state, job)
    shards = Shards(algorithm.batch_size, job.training.virtual_shards, workers, rank)
    every, last, conditions = job.train.report_every, algorithm.steps, job.conditions
    keeper = _Keeper(job) if rank == 0 else None
    try:
        for report in train(job.training, data, state, last, lambda step: step % every == 0, shards, conditions):
            at_checkpoint = report.step % job.train.checkpoint_every == 0 or report.step == last
            if keeper:
                keeper.keep(report, at_checkpoint)
            if at_checkpoint:  # every rank, or the others would wait for it
                ray.train.report({"step": report.step, **report.metrics})
    except Diverged as error:
        return {"diverged": error}
    return {"step": int(state.step), "device": str(device)}


class _Keeper:
    """What rank 0 does with a report: history, gauges, a live line for the driver, checkpoints."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.rows: list[dict[str, float]] = []
        self.saved = self.shown = time.monotonic()
        self.looked = 0.0
        self.gauges = Gauges(job.run.name)

    def keep(self, report: Report, at_checkpoint: bool) -> None:
        self.rows.append({"step": report.step, "time_ms": time.time() * 1000 // 1, **report.metrics})
        now = time.monotonic()
        stopping = False
        if now - self.looked >= LOOK_SECONDS:  # a report can be milliseconds, and an answer of a store as long
            stopping, self.looked = self.job.run.read_json(STOP) is True, now
        if at_checkpoint or stopping or now - self.saved >= self.job.train.checkpoint_seconds:
            append_history(self.job.run.within(HISTORY), self.rows)
            folder, keep = self.job.run.within(CHECKPOINTS), self.job.train.keep_checkpoints
            save_checkpoint(folder, report.step, report.state.tensors(), self.job.about(), keep)
            self.rows.clear()
            self.saved = now
        if stopping:
            self.job.run.write_json(STOP, report.step)
        if now - self.shown >= 1:
            self.gauges.show({"step": report.step, **report.metrics})
            self.job.run.write_json(LIVE, {"step": report.step, **report.metrics})
            self.shown = now


def _save_before_leaving(run: Storage, say: Callable[[str], None]) -> None:
    """The last request to rank 0 of a driver that was preempted or interrupted: a checkpoint, now."""
    run.write_json(STOP, True)
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline:
        if (step := run.read_json(STOP)) is not True:
            say(f"train  stopped; step {step} is saved, the same command resumes")
            return
        time.sleep(0.1)
    say("train  stopped before a last checkpoint; the same command resumes from the one before")


def _trained(run: Storage) -> tuple[str, Manifest, Tensors]:
    saved = latest_checkpoint(run.within(CHECKPOINTS))
    if saved is None:
        raise CheckpointError("no checkpoint", run.uri, "none was written", "at least one after a training")
    return saved


def _cause(error: Exception, run: Storage, settings: TrainSettings) -> GanError:
    """A worker's own error in our words, or the failure with the place to look."""
    if type(getattr(error, "controller_failure", None)).__name__ == "WorkerGroupStartupTimeoutError":
        return CheckpointError(
            "workers could not start", run.uri, f"not within {settings.start_timeout_s:g} s (train.start_timeout_s)",
            f"room for {settings.workers} on the cluster; the last checkpoint is kept: run the same command again",
        )  # fmt: skip
    for failure in getattr(error, "worker_failures", {}).values():
        for cause in (failure, getattr(failure, "cause", None), failure.__cause__):
            if isinstance(cause, GanError):
                return cause
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return CheckpointError(
        "training failed",
        run.uri,
        lines[-1],
        "workers that live; the last checkpoint is kept: run the same command again",
    )
