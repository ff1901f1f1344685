"""The search's candidates: drawn from the space as a function of the seed, or the points of its grid."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gan_core.errors import ConfigurationError
from gan_core.randomness import stream
from pipelines import config
from pipelines.config.schema import Configuration, ResolvedConfiguration
from pipelines.config.tune_schema import TuneSettings, grid_values


def draw_candidates(configuration: ResolvedConfiguration) -> list[dict[str, Any]]:
    """The candidates, by configuration key, as a function of the seed: the same on every machine.

    First the configuration itself (with `tune.include_default`), then `tune.points`, then the searcher's. More
    candidates leave the first ones as they were. Those of `tpe` are not known up front: of it, this draws what it
    might suggest.

    Raises:
        ConfigurationError: If a grid has too few points, or the configuration no value of a searched setting.
    """
    settings, seed = configuration.tune, configuration.seed
    if not settings.candidates:
        return []
    known = known_candidates(configuration)
    if settings.searcher == "grid":
        keys = sorted(settings.space)
        product = itertools.product(*(grid_values(settings.space[key]) for key in keys))
        points = (point for values in product if (point := dict(zip(keys, values, strict=True))) not in known)
        candidates = [*known, *itertools.islice(points, settings.candidates - len(known))]
        if len(candidates) < settings.candidates:
            raise ConfigurationError(
                "too many candidates", "tune.candidates", f"{settings.candidates}",
                f"at most {len(candidates)}, the grid's points and those given that are none of them",
            )  # fmt: skip
        return candidates
    drawn = [
        {
            key: draw_value(dict(distribution), stream(seed, f"candidate {key}", index))
            for key, distribution in settings.space.items()
        }
        for index in range(len(known), settings.candidates)
    ]
    return [*known, *drawn]


def known_candidates(configuration: Configuration) -> list[dict[str, Any]]:
    """The candidates that are given: the configuration itself and `tune.points`, each with every searched setting.

    Raises:
        ConfigurationError: If the configuration has no value of a searched setting.
    """
    settings = configuration.tune
    if not settings.known_points:
        return []
    default = {}
    for key in settings.space:
        value: Any = config.to_plain(configuration)
        for part in key.split("."):
            if not isinstance(value, Mapping) or part not in value:
                raise ConfigurationError(
                    "not a setting of the configuration", "tune.space", f"{key} has no value of its own to start from",
                    "one in the configuration, or tune.include_default false and no tune.points",
                )  # fmt: skip
            value = value[part]
        default[key] = value
    return [*([default] if settings.include_default else []), *({**default, **point} for point in settings.points)]


def in_space(space: Mapping[str, Mapping[str, list[Any]]], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings as the space has them, each a choice's own value or a number; None if one of them is not in the space."""
    inside: dict[str, Any] = {}
    for key, distribution in space.items():
        (kind, bounds), *_ = distribution.items()
        if key not in values:
            return None
        value = values[key]
        if kind == "choice":
            if value not in bounds:
                return None
            inside[key] = bounds[bounds.index(value)]
        elif not isinstance(value, int | float) or not bounds[0] <= value <= bounds[1]:
            return None
        else:
            inside[key] = value
    return inside


def rung_steps(candidate: Configuration, rungs: Sequence[int]) -> tuple[int, ...]:
    """The steps at which a candidate is at these rungs, which are steps or, by `tune.rung_unit`, updates of D and G."""
    updates = 1 if candidate.tune.rung_unit == "steps" else candidate.algorithm.discriminator_steps + 1
    return tuple(max(1, round(rung / updates)) for rung in rungs)


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
    candidates = [config.override(configuration, candidate) for candidate in draw_candidates(configuration)]
    for candidate in candidates:
        if len(set(steps := rung_steps(candidate, settings.rungs))) < len(steps):
            raise ConfigurationError(
                "rungs too close", "tune.rungs",
                f"{list(settings.rungs)} updates are steps {list(steps)} with k = {candidate.algorithm.discriminator_steps}",
                "rungs that are a step or more apart",
            )  # fmt: skip
    if settings.searcher == "tpe" or settings.scheduler == "population_based":
        for key, value in _ends(settings):
            config.override(configuration, {key: value})
    return candidates


def _ends(settings: TuneSettings) -> Iterator[tuple[str, Any]]:
    for key, distribution in settings.space.items():
        (values,) = distribution.values()
        yield from ((key, value) for value in values)
