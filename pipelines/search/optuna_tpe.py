"""Candidates that Optuna suggests one after another, from the scores of those before."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pipelines.config import ResolvedConfiguration
from pipelines.config.candidates import in_space, known_candidates, within
from pipelines.storage import Storage

SUGGESTED = "suggested"


class Suggestions(Searcher):  # type: ignore[misc]
    """Optuna's tree-structured Parzen estimator, its suggestions numbered and kept as they are made.

    A search that is started again makes the same suggestions under the same numbers, and goes on from there. The
    candidates that are given come first, and Optuna learns from those that are in the space.
    """

    def __init__(
        self, configuration: ResolvedConfiguration, results: Storage, observations: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """`observations` are what earlier searches have found, as `search.learning` says."""
        super().__init__(metric="log_likelihood", mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.settings, self.seed, self.folder = configuration.tune, configuration.seed, results.child(SUGGESTED)
        self.number = 0
        self.given = known_candidates(configuration)
        self.points = [_to_optuna(self.settings.space, values) for values in self.given]
        self.unknown: set[str] = set()  # trials of candidates outside the space, of which Optuna hears nothing
        suggested = [name for name in self.folder.names() if int(name.removesuffix(".json")) >= len(self.given)]
        self.inner = OptunaSearch(
            space={key: optuna_distribution(dict(value)) for key, value in self.settings.space.items()},
            metric="log_likelihood",
            mode="max",
            sampler=optuna.samplers.TPESampler(seed=self.seed % 2**32),
            points_to_evaluate=[point for point in self.points if point] + list(map(self.folder.read_json, suggested)),
        )

        for observation in observations:
            self._learn(observation["values"], observation["scores"], observation["complete"])

    def _learn(self, values: Mapping[str, Any], scores: list[float], complete: bool) -> None:
        """Tell Optuna of a candidate by its scores from rung to rung; one that was cut is behind all that were not."""
        point = _to_optuna(self.settings.space, values)
        assert point is not None  # those outside were left out
        self.inner.add_evaluated_point(point, scores[-1], pruned=not complete, intermediate_values=scores)

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self.number == self.settings.candidates:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        number, self.number = self.number, self.number + 1
        if number < len(self.given) and self.points[number] is None:
            self.unknown.add(trial_id)
            return self._job(number, self.given[number])
        point = self.inner.suggest(trial_id)
        if number < len(self.given):
            return self._job(number, self.given[number])
        self.folder.write_json(f"{number:06d}.json", point)
        space = self.settings.space
        return self._job(number, {key: from_optuna(dict(space[key]), value) for key, value in point.items()})

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if trial_id not in self.unknown:
            self.inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        if trial_id not in self.unknown:
            self.inner.on_trial_complete(trial_id, result, error)

    def _job(self, number: int, values: Mapping[str, Any]) -> dict[str, Any]:
        return {"job": {"candidate": number, "seed": self.seed, **values}}

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the results store keeps the suggestions."""
        with open(checkpoint_path, "w") as file:
            json.dump(None, file)

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: a search that is started again reads the results store."""


def optuna_distribution(distribution: dict[str, list[Any]]) -> BaseDistribution:
    """The same distribution as Optuna's; a choice by its index, for its values may be lists."""
    (kind, values), *_ = distribution.items()
    if kind == "choice":
        return CategoricalDistribution(list(range(len(values))))
    if kind == "integer":
        return IntDistribution(*values)
    low, high = values
    return FloatDistribution(low, high, log=kind == "log_uniform")


def from_optuna(distribution: dict[str, list[Any]], value: Any) -> Any:
    """The setting that Optuna's number stands for."""
    return distribution["choice"][value] if "choice" in distribution else within(distribution, value)


def _to_optuna(space: Mapping[str, Mapping[str, list[Any]]], values: Mapping[str, Any]) -> dict[str, Any] | None:
    """Settings as Optuna's numbers; None if one of them is not in the space."""
    inside = in_space(space, values)
    if inside is None:
        return None
    return {
        key: space[key]["choice"].index(value) if "choice" in space[key] else value for key, value in inside.items()
    }
