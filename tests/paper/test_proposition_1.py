"""Eq. 1 and 2, Proposition 1: for a fixed G, V(D, G) is largest at D* = p_data / (p_data + p_g)."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats
from scipy.special import expit

from gan_core.objectives import value_function
from gan_core.theory import criterion, optimal_discriminator, optimal_logits, quadrature, value
from tests.paper.distributions import pairs


@given(pairs(), st.data())
def test_no_discriminator_has_a_higher_value_than_the_one_of_equation_2(both, data):
    p_data, p_g = both
    logits = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(p_data), max_size=len(p_data))))
    assert value(p_data, p_g, logits) <= criterion(p_data, p_g) + 1e-10


@given(pairs())
def test_the_optimal_logits_are_those_of_equation_2(both):
    p_data, p_g = both
    np.testing.assert_allclose(optimal_discriminator(p_data, p_g), expit(optimal_logits(p_data, p_g)), atol=1e-10)


@given(pairs())
def test_the_value_of_equation_1_is_the_loss_that_trains_d(both):
    # Every point as often as it is likely: 1,000 real examples and 1,000 samples, and the same V by value_function.py.
    real, fake = (np.random.default_rng(0).multinomial(1000, p) for p in both)
    logits = np.linspace(-3, 4, len(real))
    rows = [torch.from_numpy(np.repeat(logits, counts)) for counts in (real, fake)]
    expected = -float(value_function.discriminator_loss(*rows))
    assert value(real / 1000, fake / 1000, logits) == pytest.approx(expected, abs=1e-10)


def test_d_is_a_half_where_neither_has_mass_and_certain_where_only_one_has():
    found = optimal_discriminator(np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert found.tolist() == [0, 1, 0.5]
    assert optimal_logits(np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])).tolist() == [-np.inf, np.inf, 0]


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 0.4), (-2.0, 2.0)])
def test_between_two_normal_densities_the_value_is_scipys_adaptive_integral(mean, deviation):
    def density(x, centre, width):
        return math.exp(-(((x - centre) / width) ** 2) / 2) / (width * math.sqrt(2 * math.pi))

    def integrand(x):
        p, q = density(x, 0, 1), density(x, mean, deviation)
        return sum(mass * math.log(mass / (p + q)) for mass in (p, q) if mass > 0)

    # Beyond eight deviations p and q have less than 1e-14 of their mass.
    low, high = min(-8, mean - 8 * deviation), max(8, mean + 8 * deviation)
    expected, _ = integrate.quad(integrand, low, high, points=[0, mean], epsabs=1e-12, epsrel=1e-12, limit=200)
    nodes, weights = quadrature(low, high)
    densities = (stats.norm.pdf(nodes), stats.norm.pdf(nodes, mean, deviation))
    assert criterion(*densities, weights) == pytest.approx(expected, abs=1e-10)
