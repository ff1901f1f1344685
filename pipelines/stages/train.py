"""The training of G and D by Algorithm 1, data-parallel, from its last verified checkpoint or the run's origin."""

import time
from collections.abc import Callable, Iterator, Mapping

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.conditions.settings import conditions_of, described
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, Examples
from gan_core.errors import CheckpointError
from gan_core.state import AVERAGED, State
from gan_core.training import Report, TrainingSettings, initial_state, train
from pipelines import config
from pipelines.config import ResolvedConfiguration, TrainSettings
from pipelines.runs.records import TrainRecord
from pipelines.runs.resume import TrainingSpec, begin
from pipelines.stages.training_driver import run_training
from pipelines.storage import Storage, latest_checkpoint, run_layout


def gan_training(
    run: Storage,
    training: TrainingSettings,
    train_settings: TrainSettings,
    data_digest: str,
    image_shape: tuple[int, ...],
    conditions: Conditions = UNCONDITIONAL,
) -> TrainingSpec:
    """Algorithm 1 on a data set, for the training driver."""
    algorithm = training.algorithm

    def reports(
        data: Examples, state: State, report_due: Callable[[int], bool], rank: int, workers: int
    ) -> Iterator[Report]:
        shards = Shards(algorithm.batch_size, training.virtual_shards, workers, rank)
        return train(training, data, state, algorithm.steps, report_due, shards, conditions)

    return TrainingSpec(
        stage="train",
        title="training",
        remedy="start a new run: --name NAME",
        run=run,
        folder=run,
        checkpoints=run.child(run_layout.CHECKPOINTS),
        train=train_settings,
        steps=algorithm.steps,
        about={
            "data_digest": data_digest,
            "image_shape": list(image_shape),
            "training": config.to_plain(training),
            **({"conditions": described(conditions)} if conditions.size else {}),
        },
        initial_state=lambda data: initial_state(training, data, image_shape, conditions),
        reports=reports,
        progress_line=lambda row: progress_line(row, algorithm.steps),
        timed_history=True,  # MLflow's curves have it
    )


def progress_line(row: Mapping[str, float], steps: int) -> str:
    """A report of a training of so many steps, for people: V(D, G), or D's loss where the objective has no V."""
    left = (steps - row["step"]) / row["steps_per_second"]
    loss = f"V(D,G) {row['value']:.3f}" if "value" in row else f"D's loss {row['discriminator_loss']:.3f}"
    return (
        f"step {row['step']}/{steps}  {loss}  D right on real {row['real_accuracy']:.0%}, "
        f"fake {row['fake_accuracy']:.0%}  {row['images_per_second']:,.0f} images/s  about {left:.0f} s left"
    )


def train_run(
    configuration: ResolvedConfiguration,
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
    training, conditions = configuration.training(), conditions_of(configuration.extension, dataset)
    spec = gan_training(run, training, configuration.train, dataset.digest, dataset.shape, conditions)
    begin(spec, dataset.train)
    device = run_training(spec, dataset.train, log, on_progress)
    saved = latest_checkpoint(spec.checkpoints)
    if saved is None:
        raise CheckpointError("no checkpoint", run.uri, "none was written", "at least one after a training")
    name, manifest, tensors = saved
    return TrainRecord(
        run=run.name,
        step=manifest.step,
        checkpoint=spec.checkpoints.child(name).uri,
        weights_sha256=tensors_digest(tensors["generator"], tensors["discriminator"]),
        generator_sha256=tensors_digest(tensors["generator"]),
        device=device,
        seconds=time.monotonic() - started,
        averaged_sha256=tensors_digest(tensors[AVERAGED]) if AVERAGED in tensors else None,
    )
