"""The gate's test: its formula, its level between equal models, its power, its refusals."""

import math

import numpy as np
import pytest

from gan_core.metrics.paired_test import compare

TRIALS = 2000


def test_difference_standard_error_and_bound_are_their_formulas():
    challenger = np.array([[3.0, 5.0, 1.0], [4.0, 6.0, 5.0]])
    champion = np.array([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
    # Differences (2, 4, 0) and (3, 4, 2): means over sets (2.5, 4, 1) of variance 2.25, over points
    # (2, 3) of variance 0.5; SE^2 = 2.25 / 3 + 0.5 / 2 = 1. Student's t with 1 degree of freedom is
    # Cauchy's: the 95 % quantile is tan(0.45 pi).
    found = compare(challenger, champion)
    assert (found.difference, found.standard_error) == (pytest.approx(2.5), pytest.approx(1.0, abs=1e-12))
    assert found.lower_bound == pytest.approx(2.5 - math.tan(0.45 * math.pi), abs=1e-9)
    assert (found.points, found.sample_sets, found.confidence) == (3, 2, 0.95)
    mirrored = compare(champion, challenger)
    assert mirrored.difference == -2.5
    assert mirrored.lower_bound == pytest.approx(-2.5 - math.tan(0.45 * math.pi), abs=1e-9)


def test_better_by_margin_means_bound_above_margin():
    """Better by a margin means that the lower bound, not the difference alone, is above the margin."""
    random = np.random.default_rng(0)
    champion = random.standard_normal((4, 500))
    found = compare(champion + 3 + 0.1 * random.standard_normal((4, 500)), champion)
    assert 2.9 < found.lower_bound < found.difference < 3.1
    assert found.better_by(2.9)
    assert not found.better_by(found.lower_bound)
    assert not found.better_by(found.difference)
    assert compare(champion + 3, champion, confidence=0.5).lower_bound == pytest.approx(3, abs=1e-12)


def win_rate(points: float, sets: float, both: float, gap: float, sample_sets: int, count: int, margin: float = 0.0):
    """How often the challenger wins, its advantage being `gap` and its noise of three kinds."""
    random, won = np.random.default_rng(0), 0
    for _ in range(TRIALS):
        common = 50 * random.standard_normal(count)  # what makes points easy or hard, for both models
        advantage = gap + points * random.standard_normal(count)
        challenger, champion = (
            common
            + sets / math.sqrt(2) * random.standard_normal((sample_sets, 1))
            + both / math.sqrt(2) * random.standard_normal((sample_sets, count))
            for _ in range(2)
        )
        won += compare(challenger + advantage, champion).better_by(margin)
    return won / TRIALS


# Three standard errors of a rate of 5 % over 2,000 trials.
CHANCE = 3 * math.sqrt(0.05 * 0.95 / TRIALS)


@pytest.mark.parametrize(
    ("points", "sets", "both"), [(0, 1, 0), (0, 1, 1), (5, 0, 1), (5, 0.4, 3), (20, 0, 0)], ids=str
)
@pytest.mark.parametrize("sample_sets", [2, 5])
def test_equal_models_pass_at_most_at_the_level(points, sets, both, sample_sets):
    """Equal models pass no more often than the test's level, whatever varies between points and sets."""
    assert win_rate(points, sets, both, 0.0, sample_sets, 100) <= 0.05 + CHANCE


@pytest.mark.parametrize("sample_sets", [2, 5])
def test_where_sets_alone_are_noisy_the_level_is_exact(sample_sets):
    # Not only an upper bound, so that a test which never passes anything would fail here.
    assert win_rate(0, 1, 0, 0.0, sample_sets, 10) == pytest.approx(0.05, abs=CHANCE)


def test_gap_equal_to_margin_passes_at_most_at_level():
    """A gap exactly at the margin is the edge of the null hypothesis, and passes no more often than the level."""
    assert win_rate(5, 0.4, 1, 2.0, 5, 100, margin=2.0) <= 0.05 + CHANCE


def test_real_gap_is_found_and_loss_never_passes():
    # A gap of 8 standard errors, (25 / 100 + 0.16 / 5)^1/2 = 0.53, where the bound is at 2.1 to 2.9 of them.
    """A gap of eight standard errors is nearly always found, and a loss of that size never passes."""
    assert win_rate(5, 0.4, 1, 4.25, 5, 100) > 0.99
    assert win_rate(5, 0.4, 1, -4.25, 5, 100) == 0


def log_density(points: np.ndarray, samples: np.ndarray, sigma: float) -> np.ndarray:
    """A one-dimensional Parzen window for each set of samples, (sets, points)."""
    kernels = np.exp(-np.square(points[None, :, None] - samples[:, None, :]) / (2 * sigma**2))
    return np.log(kernels.mean(axis=2)) - math.log(sigma * math.sqrt(2 * math.pi))


def test_equal_generators_pass_at_level_poorer_loses():
    """On Parzen densities two equal generators pass at most at the level, and a poorer one loses."""
    random, won, lost = np.random.default_rng(1), 0, 0
    for _ in range(TRIALS // 4):
        points = random.standard_normal(60)
        one, other, poor = (log_density(points, s * random.standard_normal((4, 100)), 0.5) for s in (1, 1, 2.5))
        won += compare(one, other).better_by(0)
        lost += compare(one, poor).better_by(0)
    # Three standard errors of 5 % over 500 trials.
    assert won / (TRIALS // 4) <= 0.05 + 2 * CHANCE
    assert lost / (TRIALS // 4) > 0.95


@pytest.mark.parametrize(
    ("challenger", "champion"),
    [((2, 3), (2, 4)), ((2, 3), (3, 3)), ((1, 3), (1, 3)), ((2, 1), (2, 1)), ((0, 5), (0, 5))],
)
def test_shapes_that_differ_or_leave_no_variance_are_refused(challenger, champion):
    with pytest.raises(ValueError, match=r"log-densities of shapes .* 2 sets and 2 points or more"):
        compare(np.zeros(challenger), np.zeros(champion))
