"""Is this model better than that one: a paired, one-sided test of two models' log-likelihoods."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats


@dataclass(frozen=True)
class Comparison:
    """The challenger's mean advantage in nats, its standard error and the lower confidence bound."""

    difference: float
    standard_error: float
    lower_bound: float
    confidence: float
    points: int
    sample_sets: int

    @property
    def upper_bound(self) -> float:
        """The upper bound, at the same confidence."""
        return 2 * self.difference - self.lower_bound

    def better_by(self, margin: float) -> bool:
        """Whether the challenger is better by more than `margin` nats, at the test's confidence."""
        return self.lower_bound > margin


def compare(
    challenger: Float[np.ndarray, "sets points"], champion: Float[np.ndarray, "_ _"], confidence: float = 0.95
) -> Comparison:
    """Compare log-densities of the same points under two models, each from several sets of samples.

    A difference has two sources of chance, and both count: which points there are (n of them), and
    which samples stand for each G (R sets of each). With d_rp the difference of set r at point p,

        SE^2 = var_p(mean_r d_rp) / n + var_r(mean_p d_rp) / R

    and the bound is Student's t with R - 1 degrees of freedom, the scarcer source's: conservative.

    Raises:
        ValueError: If the two differ in shape, or there are fewer than 2 sets or points.
    """
    if challenger.shape != champion.shape or min(challenger.shape) < 2:
        raise ValueError(
            f"log-densities of shapes {challenger.shape} and {champion.shape}; expected equal ones with 2 sets and 2 points or more"
        )
    differences = challenger.astype(np.float64) - champion.astype(np.float64)
    sets, points = differences.shape
    mean, error = float(differences.mean()), standard_error(differences)
    bound = mean - float(stats.t.ppf(confidence, sets - 1)) * error
    return Comparison(mean, error, bound, confidence, points, sets)


def standard_error(log_densities: Float[np.ndarray, "sets points"]) -> float:
    """The standard error of their mean, in nats, from both sources of chance; of one set from the points' alone."""
    values = log_densities.astype(np.float64)
    sets, points = values.shape
    variance = values.mean(axis=0).var(ddof=1) / points
    if sets > 1:
        variance += values.mean(axis=1).var(ddof=1) / sets
    return math.sqrt(variance)
