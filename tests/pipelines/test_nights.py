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
def test_a_year_of_equal_models_moves_the_champion_five_times_at_most(noise):
    assert max(promotions(noise, 20)) <= ENOUGH


def test_without_a_margin_chance_alone_moves_it_so_that_the_margin_is_what_stops_it():
    alone, stopped = (promotions(same_seeds(USUAL), 4, settings) for settings in (NO_MARGIN, DEFAULT))
    assert sum(alone) >= 4
    assert sum(stopped) == 0


@pytest.mark.parametrize("noise", [EASY, USUAL, HARD], ids=str)
def test_a_model_ten_nats_better_is_let_in_on_its_first_night(noise):
    # 200 trials of a rate of 0.95 have a standard error of 0.015.
    assert first_night_rate(0, 10, DEFAULT, noise, 200) > 0.95


def test_a_model_better_by_the_margin_alone_is_not_let_in_more_often_than_the_test_s_level():
    # Three standard errors of 5 % over 300 trials.
    assert first_night_rate(0, DEFAULT.min_margin, DEFAULT, USUAL, 300) < 0.05 + 3 * 0.0126


@pytest.mark.slow
@pytest.mark.parametrize("noise", [EASY, USUAL, HARD, same_seeds(USUAL), same_seeds(HARD)], ids=str)
def test_a_hundred_years_of_equal_models_at_mnist_s_standard_errors(noise):
    found = [year(seed, DEFAULT, noise) for seed in range(100)]
    assert max(one.promotions for one in found) <= ENOUGH
    # Selection drift: what the champion's score owes to the gate's points, in nats, stays below the margin.
    assert abs(np.mean([one.luck for one in found])) < 0.5 < DEFAULT.min_margin
    assert np.mean([one.gain for one in found]) >= 0
    assert first_night_rate(1, 10, DEFAULT, noise, 2000) > 0.95


@pytest.mark.slow
def test_a_year_on_all_of_mnist_s_points_is_like_the_small_ones():
    assert max(promotions(USUAL, 2, points=9000)) <= ENOUGH
    assert first_night_rate(0, 10, DEFAULT, HARD, 200, points=9000) > 0.95
