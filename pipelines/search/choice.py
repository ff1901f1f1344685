"""The choice of a search: its best candidate replaces the configuration only if a paired test finds it better."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gan_core.metrics.paired_test import Comparison, compare
from pipelines.config import ResolvedConfiguration
from pipelines.search.ranking import mean_over_seeds, rung_of

Row = Mapping[str, Any]
# Of a test before the last seed: the Haybittle-Peto boundary, which costs the last test next to nothing.
INTERIM_CONFIDENCE = 0.999


@dataclass(frozen=True)
class Finalists:
    """The configuration (`default`, or None) and a search's best few, at one rung, with the seeds that there are.

    `step` is the rung, as `tune.rungs` counts; `log_densities` gives a finite row's there: of sets of samples by validation points, in nats. The search's own
    seed chooses who the best few are, so it has no part in a test over several seeds, which is of the others. One that
    diverged, or covers too little, is behind one that did not.
    """

    configuration: ResolvedConfiguration
    step: int
    default: int | None
    rows: Sequence[Row]
    log_densities: Callable[[Row], np.ndarray]

    @property
    def confidence(self) -> float:
        """Of the last test: the promotion gate's, divided among the candidates of whom the best is tested (Bonferroni)."""
        tune, gate = self.configuration.tune, self.configuration.registry.gate
        return 1 - (1 - gate.confidence) / (tune.confirm.best if tune.confirm.seeds > 1 else 1)

    def leader(self, candidates: Sequence[int]) -> int:
        """The best of these by mean over the seeds that all of them have, equal ones in the order of candidates."""
        common = set.intersection(*(set(self._by_seed(candidate)) for candidate in candidates))
        return max(candidates, key=lambda candidate: (self._score(candidate, common), -candidate))

    def compare(self, candidate: int, other: int, confidence: float | None = None) -> Comparison | None:
        """Candidate minus other, on the same validation points; None if there is nothing to test, or one diverged.

        Of one seed the sets of samples are the test's sets: which of two trained nets is better. Of several the seeds
        are, each the mean over its sets: which settings are. The degrees of freedom are the sets' or seeds' less one.
        """
        mine, theirs, seeds = self._by_seed(candidate), self._by_seed(other), self.seeds(candidate, other)
        if not seeds or any(row["status"] == "diverged" for row in (*mine.values(), *theirs.values())):
            return None
        first, second = ([self.log_densities(of[seed]) for seed in seeds] for of in (mine, theirs))
        if self.configuration.tune.confirm.seeds > 1:
            first, second = ([np.stack([sets.mean(axis=0) for sets in of])] for of in (first, second))
        if len(first[0]) < 2:
            return None
        return compare(first[0], second[0], confidence or self.confidence)

    def seeds(self, candidate: int, other: int) -> list[int]:
        """The seeds of a comparison: those that both have, without the search's own where there are to be more."""
        common = self._by_seed(candidate).keys() & self._by_seed(other).keys()
        alone = self.configuration.tune.confirm.seeds == 1
        return sorted(seed for seed in common if alone or seed != self.configuration.seed)

    def better(self, candidate: int, other: int, confidence: float | None = None) -> bool:
        """Whether a candidate is better than another: it alone has not failed, or the test says so."""
        failed, other_failed = self._failed(candidate), self._failed(other)
        if failed or other_failed:
            return other_failed and not failed
        comparison = self.compare(candidate, other, confidence)
        return comparison is not None and comparison.better_by(0.0)

    def undecided(self, candidates: Sequence[int]) -> list[int]:
        """Whom a further seed may decide between, of these; nobody, once the choice is clear."""
        challengers = [candidate for candidate in candidates if candidate != self.default]
        if not challengers:
            return []
        best = self.leader(challengers)
        close = [other for other in challengers if other == best or not self.better(best, other, INTERIM_CONFIDENCE)]
        if self.default is not None:
            if self.better(self.default, best, INTERIM_CONFIDENCE):
                return []
            if not self.better(best, self.default, INTERIM_CONFIDENCE):
                return [self.default, *close]
        return close if len(close) > 1 else []

    def _score(self, candidate: int, seeds: set[int]) -> tuple[bool, float]:
        """Enough coverage, and log-likelihood (nats), means over seeds."""
        log_likelihood, covered = mean_over_seeds(candidate, self.rows, self.step, seeds)
        return covered >= self.configuration.tune.min_coverage, log_likelihood

    def _failed(self, candidate: int) -> bool:
        rows = self._by_seed(candidate)
        return any(row["status"] == "diverged" for row in rows.values()) or not self._score(candidate, set(rows))[0]

    def _by_seed(self, candidate: int) -> dict[int, Row]:
        """A candidate's rows at the step, or where it diverged."""
        return {
            row["seed"]: row
            for row in self.rows
            if row["candidate"] == candidate and (rung_of(row) == self.step or row["status"] == "diverged")
        }


def described(comparison: Comparison, seeds: int) -> str:
    """A comparison with the configuration in words."""
    over = f"{seeds} seeds" if seeds > 1 else f"{comparison.sample_sets} sets of samples of one seed"
    return (
        f"{comparison.difference:+.1f} ± {comparison.standard_error:.1f} nats over {over}, "
        f"between {comparison.lower_bound:+.1f} and {comparison.upper_bound:+.1f}, each bound at {100 * comparison.confidence:g} %"
    )
