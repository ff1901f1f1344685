"""Where a training begins: at its own last checkpoint, at another run's whole state, or with a known generator."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from gan_core.checkpoint import MALFORMED
from gan_core.conditions.base import NOTHING, Conditions
from gan_core.conditions.settings import described
from gan_core.errors import CheckpointError
from gan_core.networks.dense import DenseGenerator
from gan_core.state import State, load_tensors
from gan_core.training import TrainingSettings
from pipelines import config
from pipelines.config import TrainSettings
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, save_checkpoint

CHECKPOINTS, ORIGIN = "checkpoints", "origin"
WHOLE_STATE, GENERATOR, LAYERS = "state", "generator", "layers"  # what is taken from an origin


@dataclass(frozen=True)
class Job:
    """What each worker is told."""

    run: Storage
    training: TrainingSettings
    train: TrainSettings
    data_digest: str
    image_shape: tuple[int, ...]
    conditions: Conditions = NOTHING

    def about(self) -> dict[str, Any]:
        """What a checkpoint notes of its training, and a resumed one must agree with."""
        return {
            "data_digest": self.data_digest,
            "image_shape": list(self.image_shape),
            "training": config.to_plain(self.training),
            **({"conditions": described(self.conditions)} if self.conditions.size else {}),
        }


def begin(state: State, job: Job) -> None:
    """Make what the run's origin left in its folder the run's first checkpoint, unless it has checkpoints.

    Raises:
        CheckpointError: If the origin's generator is of another architecture.
    """
    checkpoints = job.run.within(CHECKPOINTS)
    origin = latest_checkpoint(job.run.within(ORIGIN))
    if origin is None or checkpoint_names(checkpoints):
        return
    name, manifest, tensors = origin
    if manifest.about["taken"] == WHOLE_STATE:
        state.load(tensors, f"{ORIGIN}/{name}")
    else:
        for generator in filter(None, (state.generator, state.averaged)):
            load_tensors(replaced(generator, manifest.about["taken"]), tensors["generator"], f"{ORIGIN}/{name}")
    save_checkpoint(checkpoints, int(state.step), state.tensors(), job.about(), job.train.keep_checkpoints)


def replaced(generator: nn.Module, taken: str) -> dict[str, Tensor]:
    """The tensors of G that an origin's take the place of (not copies), by the names they have there."""
    if taken == LAYERS and isinstance(generator, DenseGenerator) and generator.settings.pretrained_layers:
        return generator.last_layers(generator.settings.pretrained_layers)
    return dict(generator.state_dict())


def resume(state: State, job: Job) -> None:
    """Take over the run's last verified checkpoint, if it has one.

    Raises:
        CheckpointError: If it comes of other settings or other data (a longer training excepted).
    """
    saved = latest_checkpoint(job.run.within(CHECKPOINTS))
    if saved is None:
        return
    name, manifest, tensors = saved
    noted = {**manifest.about, "training": noted_training(manifest.about, name)}
    changed = config.first_difference(job.about(), noted, but=["training.algorithm.steps"])
    if changed:
        key, ours, theirs = changed
        raise CheckpointError(
            "checkpoint of another training", name, f"{key} was {theirs}", f"{ours}; start a new run: --name NAME"
        )
    state.load(tensors, name)


def noted_training(about: Mapping[str, Any], where: object) -> dict[str, Any]:
    """The training settings a checkpoint notes; those that its version did not know have their defaults.

    Raises:
        CheckpointError: If it notes none.
    """
    try:
        known = dict(about["training"])
        shards = known.pop("virtual_shards")
    except MALFORMED as error:
        raise CheckpointError(
            "not a training's checkpoint", where, f"no {error}", "one written by a training"
        ) from error
    settings = config.build({**known, "train": {"virtual_shards": shards}}, where)
    return config.to_plain(config.resolve(settings, str(where)).training())
