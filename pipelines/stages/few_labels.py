"""How far few labels go on what a run's nets have learned without them."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, ConfigurationError, DataError
from gan_core.extensions.inference import initial_encoder
from gan_core.extensions.semi_supervised import (
    Accuracy,
    accuracies,
    discriminator_layers,
    encoder_layers,
    feature_sets,
    few_labels,
)
from gan_core.networks.dense import DenseDiscriminator
from gan_core.state import load_tensors
from gan_core.training import initial_state
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.storage import latest_checkpoint, run_layout


def classify_run(
    run: Run, dataset: Dataset, counts: Sequence[int], draws: int, seed: int, log: Callable[[str], None]
) -> list[dict[str, Any]]:
    """The accuracy of one classifier on the features of the run's D (and E, if it has one) and on what needs neither.

    D lies in the run's checkpoint and not in the registered model, whose use is to sample. Beside each trained net
    stands the same net before its first step: what its architecture alone gives.

    Raises:
        CheckpointError: If the run is not trained yet.
        ConfigurationError: If the nets are conditioned on something, or D is of another architecture than the dense one.
        DataError: If the data set has no labels.
    """
    labels = dataset.train.labels
    if len(set(labels.tolist())) < 2 or min(labels) < 0:
        raise DataError("labels are missing", dataset.name, "one class, or none", "a data set with two classes or more")
    trained, untrained = _discriminators(run, dataset)
    nets = {"D": discriminator_layers(trained), "D untrained": discriminator_layers(untrained)}
    if run.record("infer"):
        inference, settings = trained_inference(run), run.configuration
        fresh = initial_encoder(settings.extension.inference, inference.model, settings.seed).encoder
        nets |= {"E": encoder_layers(inference.encoder), "E untrained": encoder_layers(fresh)}
    for count in counts:
        few_labels(labels, count, seed, 0)  # too many or too few is an error now
    log(f"{'features':<26}" + "".join(f"{f'{count} labels':>17}" for count in counts))
    rows: list[Accuracy] = []
    for name, pair in feature_sets(dataset, nets):
        row = accuracies(name, pair, dataset.train, dataset.test, counts, draws, seed)
        log(f"{name:<26}" + "".join(f"{_percent(accuracy):>17}" for accuracy in row))
        rows += row
    return [asdict(accuracy) for accuracy in rows]


def _percent(accuracy: Accuracy) -> str:
    return f"{accuracy.mean:.2%}" + ("" if accuracy.standard_error is None else f" ± {accuracy.standard_error:.2%}")


def _discriminators(run: Run, dataset: Dataset) -> tuple[DenseDiscriminator, DenseDiscriminator]:
    """The run's D of its last checkpoint, and as it was before the first step."""
    saved, settings = latest_checkpoint(run.folder.child(run_layout.CHECKPOINTS)), run.chosen()
    if saved is None:
        raise CheckpointError("not trained yet", run.name, "no checkpoint", "a run that has trained")
    if settings.extension.network_extension.name != "none":
        raise ConfigurationError(
            "no features", run.name, f"extension.name {settings.extension.name}, a D that is given more than an image",
            "extension.name none or inference",
        )  # fmt: skip
    untrained = initial_state(settings.training(), dataset.train, dataset.shape).discriminator
    if not isinstance(untrained, DenseDiscriminator):
        raise ConfigurationError("no features", run.name, f"a {type(untrained).__name__}", "network.architecture dense")
    name, _, tensors = saved
    trained = copy.deepcopy(untrained)
    load_tensors(trained.state_dict(), tensors.get("discriminator", {}), f"{run.name}: {name}")
    return trained.eval(), untrained.eval()
