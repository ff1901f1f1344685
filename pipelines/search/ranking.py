"""Who leads a search: the rows that can be compared, means over seeds, and how well a rung predicts the end."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

Rows = Sequence[dict[str, Any]]


def at_step(rows: Rows, step: int, min_coverage: float = 0.0) -> list[dict[str, Any]]:
    """The finite rows of a step whose coverage is enough."""
    return [
        row for row in rows if row["step"] == step and row["status"] == "finite" and row["coverage"] >= min_coverage
    ]


def deciding_step(rows: Rows, rungs: Sequence[int], out_of_time: bool) -> int:
    """The rung at which candidates are compared: the last or, if time is over, the farthest that one has reached."""
    reached = [row["step"] for row in rows if row["status"] == "finite"]
    return max(reached, default=rungs[-1]) if out_of_time else rungs[-1]


def without_diverged(rows: Rows) -> list[dict[str, Any]]:
    """The rows of candidates that have not diverged: one that did so after a good score is no choice."""
    diverged = {row["candidate"] for row in rows if row["status"] == "diverged"}
    return [row for row in rows if row["candidate"] not in diverged]


def best_rows(rows: Rows, count: int) -> list[dict[str, Any]]:
    """The `count` best rows by log-likelihood, equal ones in the order of candidates."""
    return sorted(rows, key=lambda row: (-row["log_likelihood"], row["candidate"]))[:count]


def mean_over_seeds(candidate: int, rows: Rows, step: int) -> tuple[float, float]:
    """Mean log-likelihood and coverage over a candidate's seeds; a seed that diverged counts as the worst."""
    mine = [
        row for row in rows if row["candidate"] == candidate and (row["step"] == step or row["status"] == "diverged")
    ]
    return float(np.mean([row["log_likelihood"] for row in mine])), float(np.mean([row["coverage"] for row in mine]))


def rung_correlation(rows: Rows, rungs: Iterable[int]) -> dict[int, float]:
    """Spearman's rank correlation of each earlier rung's scores with the last one's.

    Over the (candidate, seed) pairs that reached both; where a scheduler has cut, these are the better
    ones only, whose ranks agree less. A rung with fewer than three such pairs, or equal scores, is left out.
    """
    from scipy.stats import spearmanr

    *earlier, last = rungs
    scores = {
        (row["candidate"], row["seed"], row["step"]): row["log_likelihood"] for row in rows if row["status"] == "finite"
    }
    correlations = {}
    for step in earlier:
        pairs = [
            (score, scores[candidate, seed, last])
            for (candidate, seed, at), score in scores.items()
            if at == step and (candidate, seed, last) in scores
        ]
        if len(pairs) >= 3 and all(len(set(side)) > 1 for side in zip(*pairs, strict=True)):
            correlations[step] = float(spearmanr(*zip(*pairs, strict=True)).statistic)
    return correlations
