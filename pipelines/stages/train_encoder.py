"""The training of the inference net of a finished generator, from its last verified checkpoint, and its measures."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from gan_core.conditions.settings import InferenceSettings
from gan_core.datasets import Dataset, Examples
from gan_core.extensions.inference import EncoderState, initial_encoder, judge, train_encoder
from gan_core.portable import PortableGenerator
from gan_core.training import Report
from pipelines import config
from pipelines.config import TrainSettings
from pipelines.runs.records import InferRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import ENCODER, trained_inference
from pipelines.runs.training_spec import TrainingSpec
from pipelines.stages.training_driver import run_training
from pipelines.storage import Storage


@dataclass(frozen=True)
class EncoderTraining(TrainingSpec[EncoderState]):
    """The encoder of a generator: what decides its weights, and where the run keeps them."""

    run: Storage
    model: PortableGenerator
    settings: InferenceSettings
    train: TrainSettings
    seed: int
    data_digest: str

    stage = "infer"
    title = "the encoder's training"
    label = f"{ENCODER}/"
    remedy = "remove the folder"

    @property
    def folder(self) -> Storage:
        return self.run.within(ENCODER)

    @property
    def checkpoints(self) -> Storage:
        return self.folder

    @property
    def steps(self) -> int:
        return self.settings.steps

    def about(self) -> dict[str, Any]:
        settings = config.to_plain(self.settings)
        return {"generator_sha256": self.model.sha256, "data_digest": self.data_digest, "seed": self.seed, **settings}

    def initial_state(self, data: Examples) -> EncoderState:
        return initial_encoder(self.settings, self.model, self.seed)

    def reports(
        self, data: Examples, state: EncoderState, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report[EncoderState]]:
        return train_encoder(self.model, self.settings, self.seed, data, state, report_due)

    def progress_line(self, row: Mapping[str, Any]) -> str:
        errors = "  ".join(f"{name.replace('_', ' ')} {row[name]:.3f}" for name in row if name.endswith("_error"))
        return f"step {row['step']}/{self.steps}  {errors}"


def infer_run(run: Run, dataset: Dataset, log: Callable[[str], None]) -> InferRecord:
    """Train the encoder of the run's generator, by one worker, and measure it.

    Raises:
        Diverged: If its errors stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the worker failed more often than `train.max_failures`, or a checkpoint is of other settings.
        Lost: If a Ray started here has lost what it waits for; on another one the training goes on.
    """
    started = time.monotonic()
    settings, seed = run.configuration, run.configuration.seed
    assert isinstance(seed, int)
    one_worker = replace(settings.train, workers=1)
    spec = EncoderTraining(
        run.folder, run.generator(), settings.extension.inference, one_worker, seed, dataset.digest
    )
    device = run_training(spec, spec.initial_state(dataset.train), dataset.train, log)
    inference = trained_inference(run)
    measures = judge(inference, dataset, seed, settings.evaluate.samples)
    log(
        f"infer  |G(E(G(z))) - G(z)| {measures.cycle_distance:.3f}, of a random z {measures.random_distance:.3f}; "
        f"test images' squared error {measures.error:.2f}, nearest sample's {measures.nearest_sample_error:.2f}, "
        f"mean image's {measures.mean_image_error:.2f}"
    )
    seconds = time.monotonic() - started
    return InferRecord(spec.steps, inference.sha256, spec.model.sha256, asdict(measures), device, seconds)
