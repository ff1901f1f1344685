"""The training of G and D by Algorithm 1, data-parallel, from its last verified checkpoint or the run's origin."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from gan_core.checkpoint import Manifest, tensors_digest
from gan_core.conditions.base import NOTHING, Conditions
from gan_core.conditions.settings import conditions_of, described
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, Examples
from gan_core.errors import CheckpointError
from gan_core.state import AVERAGED, State
from gan_core.training import Report, TrainingSettings, initial_state, train
from pipelines import config
from pipelines.config import Configuration, TrainSettings
from pipelines.runs.records import TrainRecord
from pipelines.runs.resume import CHECKPOINTS, begin, training_settings_from_manifest
from pipelines.runs.training_spec import TrainingSpec
from pipelines.stages.training_driver import run_training
from pipelines.storage import Storage, latest_checkpoint


@dataclass(frozen=True)
class GanTraining(TrainingSpec[State]):
    """Algorithm 1 on a data set: what decides its weights, and where the run keeps them."""

    run: Storage
    training: TrainingSettings
    train: TrainSettings
    data_digest: str
    image_shape: tuple[int, ...]
    conditions: Conditions = NOTHING

    stage = "train"
    title = "training"
    remedy = "start a new run: --name NAME"
    may_differ = ("training.algorithm.steps",)
    timed_history = True  # MLflow's curves are drawn over it

    @property
    def folder(self) -> Storage:
        return self.run

    @property
    def checkpoints(self) -> Storage:
        return self.run.within(CHECKPOINTS)

    @property
    def steps(self) -> int:
        return self.training.algorithm.steps

    def about(self) -> dict[str, Any]:
        return {
            "data_digest": self.data_digest,
            "image_shape": list(self.image_shape),
            "training": config.to_plain(self.training),
            **({"conditions": described(self.conditions)} if self.conditions.size else {}),
        }

    def noted(self, manifest: Manifest, where: str) -> dict[str, Any]:
        return {**manifest.about, "training": training_settings_from_manifest(manifest.about, where)}

    def initial_state(self, data: Examples) -> State:
        return initial_state(self.training, data, self.image_shape, self.conditions)

    def reports(
        self, data: Examples, state: State, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report[State]]:
        shards = Shards(self.training.algorithm.batch_size, self.training.virtual_shards, workers, rank)
        return train(self.training, data, state, self.steps, report_due, shards, self.conditions)

    def progress_line(self, row: Mapping[str, Any]) -> str:
        left = (self.steps - row["step"]) / row["steps_per_second"]
        return (
            f"step {row['step']}/{self.steps}  V(D,G) {row['value']:.3f}  D right on real {row['real_accuracy']:.0%}, "
            f"fake {row['fake_accuracy']:.0%}  {row['images_per_second']:,.0f} images/s  about {left:.0f} s left"
        )


def train_run(
    configuration: Configuration,
    dataset: Dataset,
    run: Storage,
    log: Callable[[str], None],
    on_progress: Callable[[], None] | None = None,
) -> TrainRecord:
    """Train G and D on the cluster and return where the weights are.

    `on_progress` is called now and then while the workers train, to copy the history elsewhere.

    Raises:
        Diverged: If the losses stopped being finite; the last finite checkpoint is kept.
        CheckpointError: If the workers failed more often than `train.max_failures`.
        Lost: If a Ray started here has lost what they wait for; on another one the training goes on.
    """
    started = time.monotonic()
    conditions = conditions_of(configuration.extension, dataset)
    spec = GanTraining(
        run, configuration.training(), configuration.train, dataset.digest, dataset.shape, conditions
    )
    initial = spec.initial_state(dataset.train)
    begin(initial, spec)
    device = run_training(spec, initial, dataset.train, log, on_progress)
    saved = latest_checkpoint(spec.checkpoints)
    if saved is None:
        raise CheckpointError("no checkpoint", run.uri, "none was written", "at least one after a training")
    name, manifest, tensors = saved
    return TrainRecord(
        run=run.name,
        step=manifest.step,
        checkpoint=spec.checkpoints.within(name).uri,
        weights_sha256=tensors_digest(tensors["generator"], tensors["discriminator"]),
        generator_sha256=tensors_digest(tensors["generator"]),
        device=device,
        seconds=time.monotonic() - started,
        averaged_sha256=tensors_digest(tensors[AVERAGED]) if AVERAGED in tensors else None,
    )
