"""What a run continues from: another run's whole state, or a registered model's generator."""

import json
from collections.abc import Callable, Collection
from typing import Any

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, ConfigurationError
from gan_core.networks import architecture_of
from gan_core.networks.dense import DenseGeneratorSettings
from gan_core.noise import NoiseSettings
from gan_core.portable import PortableGenerator
from gan_core.state import load_tensors
from gan_core.strict_json import read_settings
from gan_core.training import initial_state
from pipelines import config
from pipelines.config import Configuration, ResolvedConfiguration
from pipelines.config.candidates import candidate_configurations
from pipelines.registry import Registry
from pipelines.registry.reference import is_model_reference
from pipelines.runs.records import Origin
from pipelines.runs.resume import GENERATOR, LAYERS, WHOLE_STATE, replaced, training_settings_from_manifest
from pipelines.runs.run import Run
from pipelines.runs.run_name import checked_run_name
from pipelines.storage import Storage, Tensors, latest_checkpoint, run_layout

# Functions of the step, and the number of steps: in these a continued training may differ.
SCHEDULES = tuple(
    f"algorithm.{key}"
    for key in (
        "steps", "generator_learning_rate", "discriminator_learning_rate", "learning_rate_decay",
        "minimum_learning_rate", "momentum.initial", "momentum.final", "momentum.start_epoch",
        "momentum.saturate_epoch",
    )
)  # fmt: skip
INITIAL = tuple(  # of weights that are replaced, and what is done to them in training
    f"generator.{key}"
    for key in (
        "init_range", "init_scale", "marginal_bias", "hidden_biases", "output_init_range", "output_nonzeros",
        "pretrained_layers", "max_column_norm",
    )
)  # fmt: skip
PRETRAINED = "network.generator.pretrained_layers"


def recorded(reference: str, name: str | None, storage: Storage) -> Origin | None:
    """The origin that the run of this name was started with, if it was by this reference: an alias may have moved."""
    if name is None or storage.child("runs", checked_run_name(name)).read(run_layout.RUN) is None:
        return None
    origin = Run.open(name, storage).origin
    return origin if origin is not None and origin.reference == reference else None


def find(
    reference: str, storage: Storage, tracking_uri: Callable[[], str], wanting: Configuration | None = None
) -> tuple[Origin, Tensors]:
    """What a reference means now, and the tensors that are taken from it.

    A run's whole state is taken, and with it what its search chose; of NAME@ALIAS or NAME/VERSION the
    generator's weights. For a configuration `wanting` pretrained layers, those of a G that has so many
    layers are taken; one that has them as its own last ones is continued like any other.

    Raises:
        CheckpointError: If the run has no checkpoint.
        RegistryError: If there is no such model.
    """
    if is_model_reference(reference):
        registry = Registry(tracking_uri())
        version = registry.resolve(reference)
        model = registry.load(version)
        taken = LAYERS if wanting and _wants(wanting, model) else GENERATOR
        return _of_generator(model, taken, reference, f"{version.name}/{version.version}")
    run = Run.open(reference, storage)
    saved = latest_checkpoint(run.folder.child(run_layout.CHECKPOINTS))
    if saved is None:
        raise CheckpointError("not trained yet", reference, "no checkpoint", "a run that has trained")
    name, manifest, tensors = saved
    if wanting and _pretrained_layers(wanting) and _wants(wanting, model := run.generator()):
        return _of_generator(model, LAYERS, reference, f"{reference}/{name}")
    settings = training_settings_from_manifest(manifest.about, f"{reference}: {name}")
    searched = run.record("tune")
    return Origin(
        reference, WHOLE_STATE, f"{reference}/{name}", manifest.step, tensors_digest(*tensors.values()),
        str(manifest.about.get("data_digest")), settings, dict(searched["chosen"]) if searched else {},
    ), tensors  # fmt: skip


def _wants(configuration: Configuration, model: PortableGenerator) -> bool:
    """Whether the configuration's pretrained layers are to be this G's: it has fewer layers than the configured one."""
    mine, other = configuration.network.generator, model.network
    if not isinstance(mine, DenseGeneratorSettings) or mine.pretrained_layers is None:
        return False
    return not isinstance(other, DenseGeneratorSettings) or len(other.hidden) < len(mine.hidden)


def _pretrained_layers(configuration: Configuration) -> int:
    return getattr(configuration.network.generator, "pretrained_layers", None) or 0


def _all_configurations(run: Run) -> list[ResolvedConfiguration]:
    """The run's configuration, and its candidates' that are known up front."""
    return [run.configuration, *candidate_configurations(run.configuration)]


def _of_generator(model: PortableGenerator, taken: str, reference: str, resolved: str) -> tuple[Origin, Tensors]:
    tensors = {"generator": dict(model.generator.state_dict())}
    settings = {
        "noise": config.to_plain(model.noise),
        "architecture": architecture_of(model.network),
        "generator": config.to_plain(model.network),
    }
    return Origin(reference, taken, resolved, 0, tensors_digest(*tensors.values()), None, settings), tensors


def adapt(configuration: Configuration, origin: Origin, given: Collection[str] = ()) -> Configuration:
    """The configuration of a run with this origin.

    With a whole state come what its search chose (except for the settings in `given`), no new
    search, and the seed where that is the name's.

    Raises:
        ConfigurationError: If a setting differs that shapes the weights, or no step is left.
        CheckpointError: If the generator is of another architecture.
    """
    plain = config.to_plain(configuration)
    if origin.taken == LAYERS:
        _check_layers(configuration, origin)
        return configuration
    if origin.taken == GENERATOR:
        mine = {"noise": plain["noise"], **{key: plain["network"][key] for key in ("architecture", "generator")}}
        changed = config.first_difference(mine, {"architecture": "dense", **origin.settings}, ignore=INITIAL)
        if changed:
            key, ours, theirs = changed
            raise CheckpointError("other architecture", origin.resolved, f"{key} {theirs}", f"{ours}, as configured")
        return configuration
    taken = {key: value for key, value in origin.chosen.items() if key not in given}
    if configuration.seed == "name":
        taken["seed"] = origin.settings["seed"]
    continued = config.resolve(config.override(configuration, {"tune.candidates": 0, **taken}), origin.resolved)
    changed = config.first_difference(config.to_plain(continued.training()), origin.settings, ignore=SCHEDULES)
    if changed:
        key, ours, theirs = changed
        raise ConfigurationError("cannot be continued", origin.resolved, f"{key} was {theirs}", f"{theirs}, not {ours}")
    if continued.algorithm.steps <= origin.step:
        raise ConfigurationError(
            "nothing left to train", "algorithm.steps", str(continued.algorithm.steps),
            f"more than {origin.step}, the step of {origin.resolved}",
        )  # fmt: skip
    return continued


def _check_layers(configuration: Configuration, origin: Origin) -> None:
    """Refuse a generator that cannot be the pretrained layers, and a search, which would not begin with them.

    Raises:
        ConfigurationError, CheckpointError: If so.
    """
    mine = configuration.network.generator
    assert isinstance(mine, DenseGeneratorSettings)
    if configuration.tune.candidates:
        raise ConfigurationError(
            "a search begins with no layers of another", "tune.candidates", str(configuration.tune.candidates),
            f"0 with {PRETRAINED}",
        )  # fmt: skip
    new = len(mine.hidden) + 1 - (mine.pretrained_layers or 0)
    expected = f"noise of {mine.hidden[new - 1]} and {list(mine.hidden[new:])} {' '.join(mine.layer_activations[new:])}"
    if origin.settings["architecture"] != "dense":
        raise CheckpointError("other architecture", origin.resolved, str(origin.settings["architecture"]), expected)
    theirs = read_settings(DenseGeneratorSettings, origin.settings["generator"])
    noise = read_settings(NoiseSettings, origin.settings["noise"])
    if not mine.takes(noise.size, theirs):
        given = f"noise of {noise.size} and {list(theirs.hidden)} {' '.join(theirs.layer_activations)}"
        raise CheckpointError("other layers", origin.resolved, given, f"{expected}, {PRETRAINED} as configured")


def check_data(run: Run, dataset: Dataset) -> None:
    """Refuse to continue a state on other data, or with a generator of other shapes, or to begin without one.

    Raises:
        ConfigurationError, CheckpointError: If so.
    """
    origin = run.origin
    if origin is None:
        layers = max(map(_pretrained_layers, _all_configurations(run)))
        if layers:
            raise ConfigurationError(
                "no generator to take layers from", PRETRAINED, f"{layers}, and no --continue-from",
                "--continue-from RUN or NAME@ALIAS: a training of these layers alone",
            )  # fmt: skip
        return
    if origin.taken == WHOLE_STATE and origin.data_digest != dataset.digest:
        raise ConfigurationError(
            "cannot be continued", origin.resolved, f"trained on data {str(origin.data_digest)[:12]}",
            f"{dataset.digest[:12]}, which {dataset.name} is",
        )  # fmt: skip
    if origin.taken != WHOLE_STATE and run.origin_tensors is not None:
        for configuration in _all_configurations(run):
            conditions = conditions_of(configuration.extension, dataset)
            mine = initial_state(configuration.training(), dataset.train, dataset.shape, conditions).generator
            load_tensors(replaced(mine, origin.taken), run.origin_tensors["generator"], origin.resolved)


def changes(run: Run) -> dict[str, list[Any]]:
    """The schedules in which a continued training differs from its origin: each as it was and as it is."""
    if run.origin is None or run.origin.taken != WHOLE_STATE:
        return {}
    now, then = config.flat(config.to_plain(run.configuration.training())), config.flat(run.origin.settings)
    return {key: [then.get(key), now[key]] for key in sorted(now) if now[key] != then.get(key)}


def tags(run: Run) -> dict[str, str]:
    """What a registered version's tags say of its run's origin."""
    if run.origin is None:
        return {}
    return {
        "origin": run.origin.resolved,
        "origin_taken": run.origin.taken,
        "origin_digest": run.origin.digest,
        "origin_changes": json.dumps(changes(run)),
    }
