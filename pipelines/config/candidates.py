"""The search's candidates: drawn from the space as a function of the seed, or the points of its grid."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gan_core.randomness import stream
from pipelines import config
from pipelines.config.schema import ResolvedConfiguration
from pipelines.config.tune_schema import TuneSettings, grid_values


def draw_candidates(settings: TuneSettings, seed: int) -> list[dict[str, Any]]:
    """The candidates, by configuration key, as a function of the seed: the same on every machine.

    More candidates leave the first ones as they were. Those of `tpe` are not known up front: of it,
    this draws what it might suggest.
    """
    if settings.searcher == "grid":
        keys = sorted(settings.space)
        points = itertools.product(*(grid_values(settings.space[key]) for key in keys))
        return [dict(zip(keys, point, strict=True)) for point in itertools.islice(points, settings.candidates)]
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
    return within(distribution, value)


def within(distribution: Mapping[str, list[Any]], value: Any) -> Any:
    """A value brought into its distribution's bounds and, if it is a fraction, rounded to four digits."""
    (kind, values), *_ = distribution.items()
    if kind == "choice":
        return value
    low, high = values
    return min(max(round(value) if kind == "integer" else float(f"{value:.4g}"), low), high)


def candidate_configurations(configuration: ResolvedConfiguration) -> list[ResolvedConfiguration]:
    """Each candidate as a whole configuration, validated before any trial starts.

    Where a candidate's settings are decided during the search, each end and choice of the space is
    validated too, one at a time.
    """
    settings = configuration.tune
    candidates = [
        config.override(configuration, candidate) for candidate in draw_candidates(settings, configuration.seed)
    ]
    if settings.searcher == "tpe" or settings.scheduler == "population_based":
        for key, value in _ends(settings):
            config.override(configuration, {key: value})
    return candidates


def _ends(settings: TuneSettings) -> Iterator[tuple[str, Any]]:
    for key, distribution in settings.space.items():
        (values,) = distribution.values()
        yield from ((key, value) for value in values)
