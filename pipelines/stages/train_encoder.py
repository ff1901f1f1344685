"""The training of the inference net of a finished generator, from its last verified checkpoint, and its measures."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

from gan_core.conditions.settings import InferenceSettings
from gan_core.datasets import Dataset, Examples
from gan_core.extensions.inference import EncoderState, evaluate_encoder, initial_encoder, train_encoder
from gan_core.portable import PortableGenerator
from gan_core.training import Report
from pipelines import config
from pipelines.config import TrainSettings
from pipelines.runs.records import InferRecord
from pipelines.runs.resume import TrainingSpec
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.stages.training_driver import run_training
from pipelines.storage import Storage, run_layout


def encoder_training(
    run: Storage,
    model: PortableGenerator,
    settings: InferenceSettings,
    train_settings: TrainSettings,
    seed: int,
    data_digest: str,
) -> TrainingSpec:
    """The training of a generator's encoder, by one worker, for the training driver."""

    def reports(
        data: Examples, state: EncoderState, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report]:
        return train_encoder(model, settings, seed, data, state, report_due)

    def progress_line(row: Mapping[str, Any]) -> str:
        errors = "  ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in row if name.endswith("_error"))
        return f"step {row['step']}/{settings.steps}  {errors}"

    plain = config.to_plain(settings)
    return TrainingSpec(
        stage="infer",
        title="the encoder's training",
        remedy="remove the folder",
        run=run,
        folder=run.child(run_layout.ENCODER),
        checkpoints=run.child(run_layout.ENCODER),
        train=replace(train_settings, workers=1),
        steps=settings.steps,
        about={"generator_sha256": model.sha256, "data_digest": data_digest, "seed": seed, **plain},
        initial_state=lambda data: initial_encoder(settings, model, seed),
        reports=reports,
        progress_line=progress_line,
    )


def infer_run(run: Run, dataset: Dataset, log: Callable[[str], None]) -> InferRecord:
    """Train the encoder of the run's generator, by one worker, and measure it.

    Raises:
        Diverged: If its errors stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the worker failed more often than `train.max_failures`, or a checkpoint is of other settings.
        Lost: If a Ray started here has lost what it waits for; on another one the training goes on.
    """
    started = time.monotonic()
    settings, seed = run.configuration, run.configuration.seed
    model = run.generator()
    spec = encoder_training(run.folder, model, settings.extension.inference, settings.train, seed, dataset.digest)
    device = run_training(spec, dataset.train, log)
    inference = trained_inference(run)
    measures = evaluate_encoder(inference, dataset, seed, settings.evaluate.samples)
    log(
        f"infer  |G(E(G(z))) - G(z)| {measures.cycle_distance:.3f}, of a random z {measures.random_distance:.3f}; "
        f"test images' squared error {measures.error:.2f}, nearest sample's {measures.nearest_sample_error:.2f}, "
        f"mean image's {measures.mean_image_error:.2f}"
    )
    seconds = time.monotonic() - started
    return InferRecord(spec.steps, inference.sha256, model.sha256, asdict(measures), device, seconds)
