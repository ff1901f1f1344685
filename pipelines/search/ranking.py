"""Who leads a search: the rows that can be compared, means over seeds, and how well a rung predicts the end."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Rows = Sequence[dict[str, Any]]


def rung_of(row: Mapping[str, Any]) -> int:
    """Where a row stands among `tune.rungs`: its step or, where these are updates, the updates of D and G."""
    return int(row.get("budget", row["step"]))


def at_step(rows: Rows, rung: int, min_coverage: float = 0.0) -> list[dict[str, Any]]:
    """The finite rows of a rung whose coverage is enough."""
    return [
        row for row in rows if rung_of(row) == rung and row["status"] == "finite" and row["coverage"] >= min_coverage
    ]


def deciding_step(rows: Rows, rungs: Sequence[int], out_of_time: bool, default: int | None = None) -> int:
    """The rung at which candidates are compared: the last or, if time is over, the farthest that one has reached.

    Where a `default` is to be compared, it is the farthest that this one has reached, if it has reached one.
    """
    if not out_of_time:
        return rungs[-1]
    finite = [row for row in rows if row["status"] == "finite"]
    of_default = [rung_of(row) for row in finite if row["candidate"] == default]
    return max(of_default or map(rung_of, finite), default=rungs[-1])


def without_diverged(rows: Rows) -> list[dict[str, Any]]:
    """The rows of candidates that have not diverged: one that did so after a good score is no choice."""
    diverged = {row["candidate"] for row in rows if row["status"] == "diverged"}
    return [row for row in rows if row["candidate"] not in diverged]


def best_rows(rows: Rows, count: int) -> list[dict[str, Any]]:
    """The `count` best rows by log-likelihood, equal ones in the order of candidates."""
    return sorted(rows, key=lambda row: (-row["log_likelihood"], row["candidate"]))[:count]


def mean_over_seeds(
    candidate: int, rows: Sequence[Mapping[str, Any]], step: int, seeds: Collection[int] | None = None
) -> tuple[float, float]:
    """Mean log-likelihood and coverage over a candidate's seeds, or some; one that diverged counts as the worst."""
    mine = [
        row
        for row in sorted(rows, key=lambda row: int(row["seed"]))  # a mean's last bits are of its order
        if row["candidate"] == candidate
        and (rung_of(row) == step or row["status"] == "diverged")
        and (seeds is None or row["seed"] in seeds)
    ]
    return float(np.mean([row["log_likelihood"] for row in mine])), float(np.mean([row["coverage"] for row in mine]))


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's rank correlation over so many pairs, and its 95 % interval."""

    rho: float
    low: float
    high: float
    pairs: int


def rung_correlation(rows: Rows, rungs: Iterable[int]) -> dict[int, RankCorrelation]:
    """Spearman's rank correlation of each earlier rung's scores with the last one's.

    Over the (candidate, seed) pairs that reached both; where a scheduler has cut, these are the better
    ones only, whose ranks agree less. A rung with fewer than three such pairs, or equal scores, is left out.
    The interval is Fisher's, atanh(rho) +- 1.96 sqrt((1 + rho^2 / 2) / (n - 3)) (Bonett and Wright 2000,
    Psychometrika 65); of three pairs it is all of [-1, 1]. Seeds of one candidate count as pairs of their own.
    """
    from scipy.stats import spearmanr

    *earlier, last = rungs
    scores = {
        (row["candidate"], row["seed"], rung_of(row)): row["log_likelihood"]
        for row in rows
        if row["status"] == "finite"
    }
    correlations = {}
    for step in earlier:
        pairs = [
            (score, scores[candidate, seed, last])
            for (candidate, seed, at), score in scores.items()
            if at == step and (candidate, seed, last) in scores
        ]
        if len(pairs) >= 3 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
            rho = float(spearmanr(*zip(*pairs, strict=True)).statistic)
            correlations[step] = RankCorrelation(rho, *_interval(rho, len(pairs)), len(pairs))
    return correlations


def _interval(rho: float, pairs: int) -> tuple[float, float]:
    """Fisher's interval; of equal or opposite ranks, that of one exchange of neighbours, open to the end."""
    if pairs <= 3:
        return -1.0, 1.0
    inner = min(abs(rho), 1 - 12 / (pairs * (pairs**2 - 1)))
    half = 1.96 * math.sqrt((1 + inner**2 / 2) / (pairs - 3))
    low, high = math.tanh(math.atanh(inner) - half), math.tanh(math.atanh(inner) + half)
    high = 1.0 if inner < abs(rho) else high
    return (low, high) if rho >= 0 else (-high, -low)


def device_seconds(rows: Rows) -> dict[int, float]:
    """By candidate, the seconds that its trainings and their scores held their devices, over all seeds."""
    last: dict[tuple[int, int], float] = {}
    for row in rows:
        trial = row["candidate"], row["seed"]
        last[trial] = max(last.get(trial, 0.0), row["device_seconds"])
    by_candidate: dict[int, float] = {}
    for (candidate, _), seconds in sorted(last.items()):
        by_candidate[candidate] = by_candidate.get(candidate, 0.0) + seconds
    return by_candidate


def seed_deviation(rows: Rows) -> dict[tuple[int, int], float]:
    """By candidate and step, the standard deviation of the log-likelihood (nats) over its seeds, of two or more."""
    scores: dict[tuple[int, int], dict[int, float]] = {}
    for row in sorted(rows, key=lambda row: int(row["seed"])):  # whose order decides in the last bits
        if row["status"] == "finite":
            scores.setdefault((row["candidate"], row["step"]), {})[row["seed"]] = row["log_likelihood"]
    return {key: float(np.std(list(of.values()), ddof=1)) for key, of in scores.items() if len(of) > 1}
