"""Where a training begins: at its own last checkpoint, at another run's whole state, or with a known generator."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from gan_core.checkpoint import MALFORMED
from gan_core.errors import CheckpointError
from gan_core.networks.dense import DenseGenerator
from gan_core.state import State, load_tensors
from pipelines import config
from pipelines.runs.training_spec import AnyState, TrainingSpec
from pipelines.storage import checkpoint_names, latest_checkpoint, save_checkpoint

CHECKPOINTS, ORIGIN = "checkpoints", "origin"
WHOLE_STATE, GENERATOR, LAYERS = "state", "generator", "layers"  # what is taken from an origin


def begin(state: State, spec: TrainingSpec[State]) -> None:
    """Make what the run's origin left in its folder the run's first checkpoint, unless it has checkpoints.

    Raises:
        CheckpointError: If the origin's generator is of another architecture.
    """
    origin = latest_checkpoint(spec.run.within(ORIGIN))
    if origin is None or checkpoint_names(spec.checkpoints):
        return
    name, manifest, tensors = origin
    if manifest.about["taken"] == WHOLE_STATE:
        state.load(tensors, f"{ORIGIN}/{name}")
    else:
        for generator in filter(None, (state.generator, state.averaged)):
            load_tensors(replaced(generator, manifest.about["taken"]), tensors["generator"], f"{ORIGIN}/{name}")
    save_checkpoint(spec.checkpoints, int(state.step), state.tensors(), spec.about(), spec.train.keep_checkpoints)


def replaced(generator: nn.Module, taken: str) -> dict[str, Tensor]:
    """The tensors of G that an origin's take the place of (not copies), by the names they have there."""
    if taken == LAYERS and isinstance(generator, DenseGenerator) and generator.settings.pretrained_layers:
        return generator.last_layers(generator.settings.pretrained_layers)
    return dict(generator.state_dict())


def resume(state: AnyState, spec: TrainingSpec[AnyState]) -> None:
    """Take over the training's last verified checkpoint, if it has one.

    Raises:
        CheckpointError: If it comes of other settings or other data, but for those that may differ.
    """
    saved = latest_checkpoint(spec.checkpoints)
    if saved is None:
        return
    name, manifest, tensors = saved
    where = f"{spec.label}{name}"
    changed = config.first_difference(spec.about(), spec.noted(manifest, where), but=spec.may_differ)
    if changed:
        key, ours, theirs = changed
        raise CheckpointError(
            "checkpoint of another training", where, f"{key} was {theirs}", f"{ours}; {spec.remedy}"
        )
    state.load(tensors, where)


def training_settings_from_manifest(about: Mapping[str, Any], where: object) -> dict[str, Any]:
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
    return config.to_plain(config.build({**known, "train": {"virtual_shards": shards}}, where).training())
