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
def test_no_discriminator_beats_equation_2(both, data):
    """No discriminator has a higher value than the optimal one of Eq. 2."""
    p_data, p_g = both
    logits = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(p_data), max_size=len(p_data))))
    assert value(p_data, p_g, logits) <= criterion(p_data, p_g) + 1e-10


@given(pairs())
def test_the_optimal_logits_are_those_of_equation_2(both):
    p_data, p_g = both
    np.testing.assert_allclose(optimal_discriminator(p_data, p_g), expit(optimal_logits(p_data, p_g)), atol=1e-10)


@given(pairs())
def test_value_of_equation_1_is_minus_d_loss(both):
    # Every point as often as it is likely: 1,000 real examples and 1,000 samples, and the same V by value_function.py.
    """The value of Eq. 1 is minus the loss that trains D, on points as frequent as they are likely."""
    real, fake = (np.random.default_rng(0).multinomial(1000, p) for p in both)
    logits = np.linspace(-3, 4, len(real))
    rows = [torch.from_numpy(np.repeat(logits, counts)) for counts in (real, fake)]
    expected = -float(value_function.discriminator_loss(*rows))
    assert value(real / 1000, fake / 1000, logits) == pytest.approx(expected, abs=1e-10)


def test_optimal_d_is_half_without_mass_else_certain():
    """D is 1/2 where neither distribution has mass, and 0 or 1 where only one has."""
    found = optimal_discriminator(np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0]))
    assert found.tolist() == [0, 1, 0.5]
    assert optimal_logits(np.array([0.0, 1.0, 0.0]), np.array([1.0, 0.0, 0.0])).tolist() == [-np.inf, np.inf, 0]


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (1.5, 0.4), (-2.0, 2.0)])
def test_value_of_normals_equals_adaptive_integral(mean, deviation):
    """Between two normal densities the criterion is scipy's adaptive integral."""

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
