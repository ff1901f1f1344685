"""A trained D bounds JSD(p_data || p_g) from below, by Theorem 1: sharply if it is D*, and never beyond."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.theory import estimate_jensen_shannon, jensen_shannon, jensen_shannon_bound, optimal_logits, value
from tests.paper.distributions import pairs


@given(pairs(), st.data())
def test_the_bound_of_any_discriminator_is_below_the_divergence(both, data):
    logits = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(both[0]), max_size=len(both[0]))))
    assert jensen_shannon_bound(value(*both, logits)) <= jensen_shannon(*both) + 1e-10


@given(pairs())
def test_the_bound_of_the_optimal_discriminator_is_the_divergence(both):
    assert jensen_shannon_bound(value(*both, optimal_logits(*both))) == pytest.approx(jensen_shannon(*both), abs=1e-10)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_masks_at_random_lower_the_bound_below_that_of_their_mean_logit(both, seed):
    # Dropout: V averaged over masks, against V of the average. V is concave in the logits.
    masked = np.random.default_rng(seed).normal(0, 3, (20, len(both[0])))
    average = np.mean([value(*both, logits) for logits in masked])
    assert jensen_shannon_bound(average) <= jensen_shannon_bound(value(*both, masked.mean(axis=0))) + 1e-10


def test_the_estimate_has_the_standard_error_it_says_and_no_bias_of_its_own():
    random, p, q = np.random.default_rng(0), np.array([0.5, 0.3, 0.2]), np.array([0.1, 0.3, 0.6])
    logits = np.array([1.0, -0.5, -2.0])
    exact = jensen_shannon_bound(value(p, q, logits))
    found = [
        estimate_jensen_shannon(logits[random.choice(3, 400, p=p)], logits[random.choice(3, 300, p=q)])
        for _ in range(2000)
    ]
    deviations = np.array([(estimate.bound - exact) / estimate.standard_error for estimate in found])
    # 2,000 standardised errors: their mean is within 4 of its standard errors of 0, their variance of 1.
    assert abs(deviations.mean()) < 4 / math.sqrt(2000)
    assert deviations.std() == pytest.approx(1, abs=4 / math.sqrt(2 * 2000))


def test_a_discriminator_that_guesses_says_nothing():
    assert jensen_shannon_bound(-math.log(4)) == 0
    assert estimate_jensen_shannon(np.zeros(5, np.float32), np.zeros(7, np.float32)) == (pytest.approx(0), 0)
