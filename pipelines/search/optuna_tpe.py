"""Candidates that Optuna suggests one after another, from the scores of those before."""

import json
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from pipelines.config.candidates import within
from pipelines.config.tune_schema import TuneSettings
from pipelines.storage import Storage

SUGGESTED = "suggested"


class Suggestions(Searcher):  # type: ignore[misc]
    """Optuna's tree-structured Parzen estimator, its suggestions numbered and kept as they are made.

    A search that is started again makes the same suggestions under the same numbers, and goes on from there.
    """

    def __init__(self, settings: TuneSettings, seed: int, results: Storage) -> None:
        super().__init__(metric="log_likelihood", mode="max")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.settings, self.seed, self.folder = settings, seed, results.child(SUGGESTED)
        self.number = 0
        self.inner = OptunaSearch(
            space={key: optuna_distribution(dict(value)) for key, value in settings.space.items()},
            metric="log_likelihood",
            mode="max",
            sampler=optuna.samplers.TPESampler(seed=seed % 2**32),
            points_to_evaluate=[self.folder.read_json(name) for name in self.folder.names()],
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        if self.number == self.settings.candidates:
            return Searcher.FINISHED  # type: ignore[no-any-return]
        point = self.inner.suggest(trial_id)
        number, self.number = self.number, self.number + 1
        self.folder.write_json(f"{number:06d}.json", point)
        values = {key: from_optuna(dict(self.settings.space[key]), value) for key, value in point.items()}
        return {"job": {"candidate": number, "seed": self.seed, **values}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        self.inner.on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.inner.on_trial_complete(trial_id, result, error)

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
