"""What `min_margin` and `sample_sets` rest on: simulated years of equal models, judged by the gate itself."""

import dataclasses

import numpy as np
import pytest

from pipelines.config import GateSettings
from tests.pipelines.nights import EASY, HARD, USUAL, first_night_rate, year

DEFAULT, NO_MARGIN = GateSettings(), GateSettings(min_margin=0.0)
ENOUGH = 5  # promotions in a year of equal models


def same_seeds(noise):
    """The noise of models that are equal exactly: seeds make no difference."""
    return dataclasses.replace(noise, seeds=0)


def promotions(noise, years, settings=DEFAULT, points=90):
    return [year(seed, settings, noise, points).promotions for seed in range(years)]


@pytest.mark.parametrize("noise", [EASY, USUAL, HARD, same_seeds(HARD)], ids=str)
def test_year_of_equal_models_promotes_five_at_most(noise):
    """A year of nights of equal models moves the champion five times at most, at each noise."""
    assert max(promotions(noise, 20)) <= ENOUGH


def test_without_margin_chance_alone_promotes():
    """Without a margin chance alone moves the champion, so the margin is what stops it."""
    alone, stopped = (promotions(same_seeds(USUAL), 4, settings) for settings in (NO_MARGIN, DEFAULT))
    assert sum(alone) >= 4
    assert sum(stopped) == 0


@pytest.mark.parametrize("noise", [EASY, USUAL, HARD], ids=str)
def test_model_ten_nats_better_passes_on_first_night(noise):
    # 200 trials of a rate of 0.95 have a standard error of 0.015.
    """A model that is ten nats better passes on its first night in more than 95 % of trials."""
    assert first_night_rate(0, 10, DEFAULT, noise, 200) > 0.95


def test_gap_equal_to_margin_passes_at_most_at_level():
    # Three standard errors of 5 % over 300 trials.
    """A model better by the margin alone passes no more often than the test's level of 5 %."""
    assert first_night_rate(0, DEFAULT.min_margin, DEFAULT, USUAL, 300) < 0.05 + 3 * 0.0126


@pytest.mark.slow
@pytest.mark.parametrize("noise", [EASY, USUAL, HARD, same_seeds(USUAL), same_seeds(HARD)], ids=str)
def test_hundred_years_of_equal_models_rarely_promote(noise):
    """A hundred years of equal models at MNIST's standard errors promote rarely and do not drift."""
    found = [year(seed, DEFAULT, noise) for seed in range(100)]
    assert max(one.promotions for one in found) <= ENOUGH
    # Selection drift: what the champion's score owes to the gate's points, in nats, stays below the margin.
    assert abs(np.mean([one.luck for one in found])) < 0.5 < DEFAULT.min_margin
    assert np.mean([one.gain for one in found]) >= 0
    assert first_night_rate(1, 10, DEFAULT, noise, 2000) > 0.95


@pytest.mark.slow
def test_year_on_all_mnist_points_is_alike():
    """A year on all of MNIST's 9,000 points is like one on the few points of the other tests."""
    assert max(promotions(USUAL, 2, points=9000)) <= ENOUGH
    assert first_night_rate(0, 10, DEFAULT, HARD, 200, points=9000) > 0.95
