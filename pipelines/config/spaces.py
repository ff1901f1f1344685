"""Search spaces by name, around a configuration's own settings, so that nobody has to invent ranges."""

from collections.abc import Callable
from typing import Any

from pipelines.config.schema import Configuration

Space = dict[str, dict[str, list[Any]]]

RATES = ("algorithm.generator_learning_rate", "algorithm.discriminator_learning_rate")


def rates(configuration: Configuration) -> Space:
    """Both learning rates, from half to twice the configuration's."""
    return _rates(configuration, 2.0)


def recipe(configuration: Configuration) -> Space:
    """k, both learning rates within a factor of 3, the size of the noise and, of Adam, its first moment.

    k and the noise are also the doubles of the configuration's, the noise also its half.
    """
    algorithm, size = configuration.algorithm, configuration.noise.size
    space = {
        "algorithm.discriminator_steps": {"choice": [algorithm.discriminator_steps, 2 * algorithm.discriminator_steps]},
        **_rates(configuration, 3.0),
        "noise.size": {"choice": sorted({max(1, size // 2), size, 2 * size})},
    }
    if algorithm.optimizer == "adam":
        space["algorithm.adam.beta1"] = {"choice": sorted({0.0, 0.5, algorithm.adam.beta1})}
    return space


SPACES: dict[str, Callable[[Configuration], Space]] = {"rates": rates, "recipe": recipe}


def _rates(configuration: Configuration, factor: float) -> Space:
    own = (configuration.algorithm.generator_learning_rate, configuration.algorithm.discriminator_learning_rate)
    return {key: {"log_uniform": _around(rate, factor)} for key, rate in zip(RATES, own, strict=True)}


def _around(rate: float, factor: float) -> list[float]:
    return [float(f"{rate / factor:.4g}"), float(f"{rate * factor:.4g}")]
