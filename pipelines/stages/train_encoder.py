"""Train the inference net of a finished generator on a Ray task, resumed from its last checkpoint."""

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch

from gan_core.conditions.settings import InferenceSettings
from gan_core.datasets import Dataset, Examples
from gan_core.errors import CheckpointError, GanError
from gan_core.extensions.inference import (
    EncoderState,
    initial_encoder,
    judge,
    train_encoder,
)
from gan_core.portable import PortableGenerator
from pipelines import config
from pipelines.config import TrainSettings
from pipelines.runs.records import InferRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import ENCODER, trained_inference
from pipelines.storage import Storage, latest_checkpoint, save_checkpoint
from pipelines.storage.metric_log import append_history

SAY_SECONDS = 10.0


@dataclass(frozen=True)
class Job:
    """What the task is told."""

    run: Storage
    model: PortableGenerator
    settings: InferenceSettings
    train: TrainSettings
    seed: int
    data_digest: str

    def about(self) -> dict[str, Any]:
        """What a checkpoint notes, and a resumed training must agree with."""
        settings = config.to_plain(self.settings)
        return {"generator_sha256": self.model.sha256, "data_digest": self.data_digest, "seed": self.seed, **settings}


def infer_run(run: Run, dataset: Dataset, say: Callable[[str], None]) -> InferRecord:
    """Train the encoder of the run's generator, and measure it.

    Raises:
        Diverged: If its errors stopped being finite.
        CheckpointError: If the task failed more often than `train.max_failures`, or a checkpoint is of other settings.
    """
    import ray

    started = time.monotonic()
    settings, seed = run.configuration, run.configuration.seed
    job = Job(run.folder, run.generator(), settings.extension.inference, settings.train, seed, dataset.digest)
    _resume(initial_encoder(job.settings, job.model, seed), job)  # what the task could not resume is an error now
    use_gpu = settings.train.gpu is True or (settings.train.gpu == "auto" and ray.cluster_resources().get("GPU", 0) > 0)
    task = ray.remote(_train).options(
        num_cpus=settings.train.threads_per_worker, num_gpus=int(use_gpu), max_retries=settings.train.max_failures
    )
    device = _result(task.remote(job, ray.put(dataset.train), use_gpu), job, say)
    inference = trained_inference(run)
    found = judge(inference, dataset, seed, settings.evaluate.samples)
    say(
        f"infer  |G(E(G(z))) - G(z)| {found.cycle_distance:.3f}, of a random z {found.random_distance:.3f}; "
        f"test images' squared error {found.error:.2f}, nearest sample's {found.nearest_sample_error:.2f}, "
        f"mean image's {found.mean_image_error:.2f}"
    )
    seconds = time.monotonic() - started
    return InferRecord(job.settings.steps, inference.sha256, job.model.sha256, asdict(found), device, seconds)


def _result(task: Any, job: Job, say: Callable[[str], None]) -> str:
    """Wait for the task, and say now and then how far it is."""
    import ray

    said = -1
    while not ray.wait([task], timeout=SAY_SECONDS)[0]:
        row = job.run.read_json(f"{ENCODER}/live.json") or {"step": -1}
        if row["step"] > said:
            said = row["step"]
            errors = "  ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in row if name.endswith("_error"))
            say(f"infer  step {said}/{job.settings.steps}  {errors}")
    try:
        return str(ray.get(task))
    except ray.exceptions.RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, GanError):
            raise cause from error
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1]
        expected = "a task that lives; the last checkpoint is kept: run the same command again"
        raise CheckpointError("the encoder's training failed", job.run.uri, reason, expected) from error


def _train(job: Job, data: Examples, use_gpu: bool) -> str:
    """What the task runs: the loop of gan_core, with checkpoints and history."""
    torch.set_num_threads(job.train.threads_per_worker)
    device = torch.device("cuda" if use_gpu else "cpu")
    state = initial_encoder(job.settings, job.model, job.seed).to(device)
    _resume(state, job)
    folder, every, rows, saved = job.run.within(ENCODER), job.train.report_every, [], time.monotonic()
    for report in train_encoder(job.model, job.settings, job.seed, data, state, lambda step: step % every == 0):
        rows.append({"step": report.step, **report.metrics})
        folder.write_json("live.json", rows[-1])
        at_checkpoint = report.step % job.train.checkpoint_every == 0 or report.step == job.settings.steps
        if at_checkpoint or time.monotonic() - saved >= job.train.checkpoint_seconds:
            append_history(folder.within("history"), rows)
            save_checkpoint(folder, report.step, state.tensors(), job.about(), job.train.keep_checkpoints)
            rows, saved = [], time.monotonic()
    return str(device)


def _resume(state: EncoderState, job: Job) -> None:
    """Take over the encoder's last verified checkpoint, if it has one."""
    saved = latest_checkpoint(job.run.within(ENCODER))
    if saved is None:
        return
    name, manifest, tensors = saved
    changed = config.first_difference(job.about(), manifest.about)
    if changed:
        key, ours, theirs = changed
        raise CheckpointError(
            "checkpoint of another training", f"{ENCODER}/{name}", f"{key} was {theirs}", f"{ours}; remove the folder"
        )
    state.load(tensors, f"{ENCODER}/{name}")
