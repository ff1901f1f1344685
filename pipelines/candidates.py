"""The search's candidates, drawn up front from the space, as a function of the seed."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_core.randomness import stream
from pipelines import config
from pipelines.settings import Configuration, TuneSettings


def draw_candidates(settings: TuneSettings, seed: int) -> list[dict[str, Any]]:
    """The candidates, by configuration key, as a function of the seed: the same on every machine."""
    return [
        {
            key: draw_value(dict(distribution), stream(seed, f"candidate {key}", index))
            for key, distribution in settings.space.items()
        }
        for index in range(settings.candidates)
    ]


def draw_value(distribution: Mapping[str, list[Any]], random: np.random.Generator) -> Any:
    """One draw: a choice's own value, or a number rounded to four digits."""
    (kind, values), *_ = distribution.items()
    if kind == "choice":
        return values[int(random.integers(len(values)))]
    low, high = values
    if kind == "integer":
        return int(random.integers(low, high + 1))
    if kind == "log_uniform":
        value = math.exp(random.uniform(math.log(low), math.log(high)))
    else:
        value = random.uniform(low, high)
    return min(max(float(f"{value:.4g}"), low), high)


def candidate_configurations(configuration: Configuration) -> list[Configuration]:
    """Each candidate as a whole configuration, validated before any trial starts."""
    assert isinstance(configuration.seed, int)
    return [
        config.override(configuration, candidate)
        for candidate in draw_candidates(configuration.tune, configuration.seed)
    ]
