"""How much of a search's scores each setting explains: functional analysis of variance, by Optuna."""

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.reporting.charts import last_rungs, text_of
from pipelines.search.ranking import rung_of

FEWEST = 4  # candidates at one rung, below which there is nothing to explain


def importances(rows: Sequence[Mapping[str, Any]], space: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """Each setting's share of the variance of the scores at the last rung that all candidates reached; they add up to 1.

    Hutter et al. 2014, over a random forest with a fixed seed: the same rows, the same shares. Nothing of fewer than
    four candidates, of equal scores, or of a candidate outside the space.
    """
    first = min(map(rung_of, last_rungs(rows)), default=None)
    compared = [
        row for row in rows if row["status"] == "finite" and row.get("stage") == "search" and rung_of(row) == first
    ]
    if len(compared) < FEWEST or not space or len({row["log_likelihood"] for row in compared}) == 1:
        return {}
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions = {key: _distribution(described) for key, described in space.items()}
    study = optuna.create_study(direction="maximize")
    try:
        for row in compared:
            values = {key: text_of(row[key]) if "choice" in space[key] else row[key] for key in space}
            study.add_trial(
                optuna.trial.create_trial(params=values, distributions=distributions, value=row["log_likelihood"])
            )
    except ValueError:  # the configuration, a candidate of its own search, may lie outside the space
        return {}
    found = optuna.importance.FanovaImportanceEvaluator(seed=0).evaluate(study)
    total = sum(found.values())
    return {key: float(value / total) for key, value in found.items()} if total > 0 else {}


def _distribution(described: Mapping[str, Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    ((kind, given),) = described.items()
    if kind == "choice":
        return CategoricalDistribution(list(dict.fromkeys(map(text_of, given))))
    if kind == "integer":
        return IntDistribution(*given)
    low, high = given
    return FloatDistribution(low, high, log=kind == "log_uniform")
