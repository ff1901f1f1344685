"""How much memory a run takes, counted without making its nets, and how much this machine has."""

import itertools
import math
import os
from collections.abc import Mapping

from pipelines.config import ResolvedConfiguration
from pipelines.runs.estimate import concurrency

# Bytes: Ray's own processes, the command itself, a worker or a trial.
RAY, DRIVER, WORKER = 0.8e9, 0.7e9, 0.9e9


def machine_memory() -> int:
    """Bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_estimate(
    configuration: ResolvedConfiguration, shape: tuple[int, ...], counts: Mapping[str, int], condition_size: int = 0
) -> float:
    """Bytes that a run has in memory at its peak: processes, nets with moments and gradients, images, scored samples."""
    algorithm, pixels = configuration.algorithm, math.prod(shape)
    generator, discriminator = configuration.network.parameter_counts(configuration.noise.size, condition_size, shape)
    copies = 2 + {"momentum": 1, "adam": 2}[algorithm.optimizer]  # weights, gradients, moments
    state = 4 * (copies * (generator + discriminator) + (generator if algorithm.generator_average else 0))
    trials = concurrency(configuration) if configuration.tune.candidates else 0
    held = sum(count for split, count in counts.items() if split != "train" or not configuration.data.streaming)
    images = 2 * 4 * pixels * held  # the driver's, and Ray's, which all workers share
    trained = max(configuration.train.workers, trials) * (WORKER + state)
    if configuration.extension.name == "inference":  # once G is finished, by one worker with Adam
        trained = max(trained, WORKER + 4 * (generator + 4 * _encoder_weights(configuration, pixels)))
    return RAY + DRIVER + trained + images + 8 * pixels * configuration.evaluate.samples


def _encoder_weights(configuration: ResolvedConfiguration, pixels: int) -> int:
    """Weights and biases of the encoder."""
    from gan_core.extensions.inference import hidden_widths
    from gan_core.networks.dense import affine_parameters

    hidden = hidden_widths(configuration.extension.inference, configuration.network.generator)
    return affine_parameters(itertools.pairwise((pixels, *hidden, configuration.noise.size)))
