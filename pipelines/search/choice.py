"""The choice of a search: its best candidate replaces the configuration only if a paired test finds it better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gan_core.metrics.paired_test import Comparison, compare
from pipelines.config import ResolvedConfiguration
from pipelines.search.ranking import mean_over_seeds

Row = Mapping[str, Any]


@dataclass
class Contest:
    """The configuration (`default`, or None) against a search's best few, at one step, over the seeds that there are.

    `log_densities` gives a finite row's at the step: of sets of samples by validation points, in nats. A seed at which
    one of two diverged decides for the other.
    """

    configuration: ResolvedConfiguration
    step: int
    default: int | None
    rows: Sequence[Row]
    log_densities: Callable[[Row], np.ndarray]

    def merit(self, candidate: int) -> tuple[bool, float]:
        """What the winner has most of, over its seeds: enough coverage, then log-likelihood (nats)."""
        log_likelihood, covered = mean_over_seeds(candidate, self.rows, self.step)
        return covered >= self.configuration.tune.min_coverage, log_likelihood

    def leader(self, candidates: Sequence[int]) -> int:
        """The best of these by mean over seeds, equal ones in the order of candidates."""
        return max(candidates, key=lambda candidate: (self.merit(candidate), -candidate))

    def compare(self, candidate: int, other: int) -> Comparison | None:
        """Candidate minus other, on the same validation points; None if there is nothing to test, or one diverged.

        Of one seed the sets of samples are the test's sets: which of two trained nets is better. Of several the seeds
        are, each the mean over its sets: which settings are. The degrees of freedom are the sets' or seeds' less one.
        """
        mine, theirs = self._by_seed(candidate), self._by_seed(other)
        seeds = sorted(mine.keys() & theirs.keys())
        if not seeds or any(row["status"] == "diverged" for row in (*mine.values(), *theirs.values())):
            return None
        first, second = ([self.log_densities(of[seed]) for seed in seeds] for of in (mine, theirs))
        if len(seeds) > 1:
            first, second = ([np.stack([sets.mean(axis=0) for sets in of])] for of in (first, second))
        if len(first[0]) < 2:
            return None
        return compare(first[0], second[0], self.configuration.registry.gate.confidence)

    def seeds(self, candidate: int, other: int) -> int:
        """How many seeds both have been trained with."""
        return len(self._by_seed(candidate).keys() & self._by_seed(other).keys())

    def better(self, candidate: int, other: int) -> bool:
        """Whether a candidate is better than another: by the test or, where there is none, by merit alone."""
        comparison = self.compare(candidate, other)
        return comparison.better_by(0.0) if comparison else self.merit(candidate) > self.merit(other)

    def undecided(self, contenders: Sequence[int]) -> list[int]:
        """Whom a further seed may decide between; nobody, once the choice is clear."""
        challengers = [candidate for candidate in contenders if candidate != self.default]
        if not challengers:
            return []
        best = self.leader(challengers)
        close = [other for other in challengers if other == best or not self.better(best, other)]
        if self.default is not None:
            if self.better(self.default, best):
                return []
            if not self.better(best, self.default):
                return [self.default, *close]
        return close if len(close) > 1 else []

    def _by_seed(self, candidate: int) -> dict[int, Row]:
        """A candidate's rows at the step, or where it diverged."""
        return {
            row["seed"]: row
            for row in self.rows
            if row["candidate"] == candidate and (row["step"] == self.step or row["status"] == "diverged")
        }


def described(comparison: Comparison, seeds: int) -> str:
    """A comparison with the configuration in words."""
    over = f"{seeds} seeds" if seeds > 1 else f"{comparison.sample_sets} sets of samples of one seed"
    return (
        f"{comparison.difference:+.1f} ± {comparison.standard_error:.1f} nats over {over}, "
        f"between {comparison.lower_bound:+.1f} and {comparison.upper_bound:+.1f}, each bound at {comparison.confidence:.0%}"
    )
