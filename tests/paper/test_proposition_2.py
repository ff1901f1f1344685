"""Proposition 2: with D at its optimum at every step, a descent in p_g itself takes p_g to p_data."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.theory import convex_descent, criterion, jensen_shannon, kullback_leibler, optimal_discriminator
from tests.paper.distributions import pairs, pairs_with_positive_p_g

RATES = st.floats(0.05, 1.0)
STEPS = 35


def path(p_data, p_g, rate):
    return [p_g, *itertools.islice(convex_descent(p_data, p_g, rate), STEPS)]


@given(pairs_with_positive_p_g(), RATES)
def test_no_step_raises_the_criterion(both, rate):
    values = [criterion(both[0], p_g) for p_g in path(*both, rate)]
    assert max(np.diff(values)) <= 1e-10


@given(pairs_with_positive_p_g(), RATES)
def test_criterion_gap_is_bounded_by_divergence_over_t(both, rate):
    """After t steps the criterion is within the first divergence over (rate t) of its minimum."""
    first = kullback_leibler(*both)
    for step, p_g in enumerate(path(*both, rate)):
        if step:
            assert criterion(both[0], p_g) + math.log(4) <= first / (rate * step) + 1e-10


@given(pairs())
def test_rate_one_halves_the_distance_each_step(both):
    """At rate 1 each step halves the distance to p_data, even from disjoint supports."""
    p_data, start = both
    for step, p_g in enumerate(path(p_data, start, 1.0)):
        np.testing.assert_allclose(p_g - p_data, (start - p_data) / 2**step, atol=1e-10)
    assert jensen_shannon(p_data, p_g) < 1e-10


@given(pairs_with_positive_p_g(), RATES)
def test_step_descends_the_value_with_d_held(both, rate):
    """A step goes against the slope of the value in p_g with D held, and p_g stays a distribution."""
    p_data, p_g = both
    moved = next(convex_descent(p_data, p_g, rate))
    held = np.log1p(-optimal_discriminator(p_data, p_g), where=p_g > 0, out=np.zeros_like(p_g))
    # With D held, V is linear in p_g: the change is the slope times the move, and never upward.
    assert np.dot(held, moved - p_g) <= 1e-10
    assert moved.sum() == pytest.approx(1, abs=1e-10)
    assert (moved >= 0).all()


@given(pairs(), pairs(), st.floats(0, 1))
def test_the_criterion_is_convex_in_p_g(both, others, share):
    p_data, first = both
    second = np.resize(others[0], len(p_data))
    second = second / second.sum() if second.sum() > 0 else first
    mixed = share * first + (1 - share) * second
    chord = share * criterion(p_data, first) + (1 - share) * criterion(p_data, second)
    assert criterion(p_data, mixed) <= chord + 1e-10


@pytest.mark.parametrize("rate", [0, -0.5, 1.01, math.nan])
def test_a_rate_outside_0_to_1_is_refused(rate):
    with pytest.raises(ValueError, match="rate"):
        next(convex_descent(np.ones(1), np.ones(1), rate))


def test_p_g_missing_a_data_point_is_refused():
    """A p_g that misses a point of p_data is refused at a rate where it could never come back."""
    p_data, p_g = np.array([0.5, 0.5]), np.array([1.0, 0.0])
    with pytest.raises(ValueError, match="never leaves"):
        next(convex_descent(p_data, p_g, 0.5))
    assert next(convex_descent(p_data, p_g, 1.0)).tolist() == [0.75, 0.25]
