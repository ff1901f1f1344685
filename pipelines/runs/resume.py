"""Where a training begins: at its own last checkpoint, at another run's whole state, or with a known generator."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from gan_core.datasets import Examples
from gan_core.errors import CheckpointError
from gan_core.manifest import MALFORMED
from gan_core.networks.base import GeneratorNet
from gan_core.networks.dense import DenseGenerator
from gan_core.state import State, load_tensors
from gan_core.training import Report
from pipelines import config
from pipelines.config import TrainSettings
from pipelines.storage import Storage, checkpoint_names, latest_checkpoint, run_layout, save_checkpoint

WHOLE_STATE, GENERATOR, LAYERS = "state", "generator", "layers"  # what is taken from an origin


@dataclass(frozen=True)
class TrainingSpec:
    """What the training driver trains, and where; its workers are sent it, so it holds no state."""

    stage: str  # the first word of each log line
    title: str  # in errors
    remedy: str  # for a checkpoint of other settings
    run: Storage
    folder: Storage  # of the history, the live row and a request to stop
    checkpoints: Storage
    train: TrainSettings
    steps: int  # the last one
    about: Mapping[str, Any]  # what a checkpoint notes of its training, and a resumed one must agree with
    initial_state: Callable[[Examples], Any]  # before the first step, on the CPU: a State, or what can do the same
    # From data and a state, which it trains in place: a report at each step where one is due, as worker `rank` of many.
    reports: Callable[[Examples, Any, Callable[[int], bool], int, int], Iterator[Report]]
    progress_line: Callable[[Mapping[str, Any]], str]  # of a report's step and metrics
    on_report: Callable[[Any], None] | None = None  # what else rank 0 does with each reported state
    timed_history: bool = False  # whether the history's rows have the time of day


def begin(spec: TrainingSpec, data: Examples) -> None:
    """Make what the run's origin left in its folder the run's first checkpoint, unless it has checkpoints.

    Raises:
        CheckpointError: If the origin's generator is of another architecture.
    """
    origin = latest_checkpoint(spec.run.child(run_layout.ORIGIN))
    if origin is None or checkpoint_names(spec.checkpoints):
        return
    state: State = spec.initial_state(data)
    name, manifest, tensors = origin
    if manifest.about["taken"] == WHOLE_STATE:
        state.load(tensors, f"{run_layout.ORIGIN}/{name}")
    else:
        for generator in filter(None, (state.generator, state.averaged)):
            load_tensors(
                replaced(generator, manifest.about["taken"]), tensors["generator"], f"{run_layout.ORIGIN}/{name}"
            )
    save_checkpoint(spec.checkpoints, int(state.step), state.tensors(), spec.about, spec.train.keep_checkpoints)


def replaced(generator: GeneratorNet, taken: str) -> dict[str, Tensor]:
    """The tensors of G that an origin's take the place of (not copies), by the names they have there."""
    if taken == LAYERS and isinstance(generator, DenseGenerator) and generator.settings.pretrained_layers:
        return generator.last_layers(generator.settings.pretrained_layers)
    return dict(generator.state_dict())


def resume(state: Any, spec: TrainingSpec) -> None:
    """Take over the training's last verified checkpoint, if it has one.

    Raises:
        CheckpointError: If it comes of other settings or other data (a longer training of G and D excepted).
    """
    saved = latest_checkpoint(spec.checkpoints)
    if saved is None:
        return
    name, manifest, tensors = saved
    where = name if spec.folder == spec.run else f"{spec.folder.name}/{name}"
    noted = dict(manifest.about)
    if "training" in spec.about:
        noted["training"] = training_settings_from_manifest(noted, where)
    changed = config.first_difference(spec.about, noted, ignore=["training.algorithm.steps"])
    if changed:
        key, ours, theirs = changed
        raise CheckpointError("checkpoint of another training", where, f"{key} was {theirs}", f"{ours}; {spec.remedy}")
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
    settings = config.build({**known, "train": {"virtual_shards": shards}}, where)
    return config.to_plain(config.resolve(settings, str(where)).training())
