"""Eq. 4-6, Theorem 1: C(G) = -log 4 + 2 JSD(p_data || p_g), which is least, -log 4, where p_g = p_data and only there."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial.distance import jensenshannon

from gan_core.theory import criterion, jensen_shannon, kullback_leibler, quadrature
from tests.paper.distributions import disjoint_pairs, distributions, pairs


@given(pairs())
def test_criterion_is_minus_log_4_plus_twice_jsd(both):
    """C(G) = -log 4 + 2 JSD(p_data, p_g) (Theorem 1)."""
    assert criterion(*both) == pytest.approx(-math.log(4) + 2 * jensen_shannon(*both), abs=1e-10)


@given(pairs())
def test_criterion_is_minus_log_4_plus_two_divergences(both):
    """C(G) = -log 4 + KL(p_data, m) + KL(p_g, m) with m their mean (Eq. 5)."""
    mean = (both[0] + both[1]) / 2
    divergences = sum(kullback_leibler(p, mean) for p in both)
    assert criterion(*both) == pytest.approx(-math.log(4) + divergences, abs=1e-10)


@given(st.integers(1, 12).flatmap(distributions))
def test_criterion_at_equilibrium_is_minus_log_4(p):
    """Where p_g is p_data, the criterion is -log 4 and the divergence 0."""
    assert criterion(p, p) == pytest.approx(-math.log(4), abs=1e-10)
    assert jensen_shannon(p, p) == 0


@given(pairs())
def test_criterion_exceeds_minimum_by_the_distance(both):
    # Pinsker's inequality for both halves of the divergence: JSD >= total variation^2 / 2.
    """The criterion is above -log 4 by at least the squared total variation (Pinsker)."""
    variation = np.abs(both[0] - both[1]).sum() / 2
    assert criterion(*both) >= -math.log(4) + variation**2 - 1e-10


@given(disjoint_pairs())
def test_disjoint_supports_have_maximal_divergence(both):
    """Disjoint supports give criterion 0, JSD log 2 and an infinite KL divergence: the most there is."""
    assert criterion(*both) == pytest.approx(0, abs=1e-10)
    assert jensen_shannon(*both) == pytest.approx(math.log(2), abs=1e-10)
    assert kullback_leibler(*both) == math.inf


@given(pairs())
def test_the_divergence_is_symmetric_and_scipys(both):
    ours = jensen_shannon(*both)
    assert ours == pytest.approx(jensen_shannon(*both[::-1]), abs=1e-10)
    assert ours == pytest.approx(jensenshannon(*both) ** 2, abs=1e-10)
    assert -1e-15 <= ours <= math.log(2) + 1e-10


@given(st.floats(-1.5, 1.5), st.floats(0.5, 1.5))
def test_divergence_of_normals_is_the_closed_form(mean, deviation):
    """Between two normal densities the KL divergence is its closed form, by quadrature."""
    nodes, weights = quadrature(-12, 12)  # seven of the widest's deviations and more: all but 3e-12 of it
    p, q = stats.norm.pdf(nodes), stats.norm.pdf(nodes, mean, deviation)
    closed = math.log(deviation) + (1 + mean**2) / (2 * deviation**2) - 0.5
    assert kullback_leibler(p, q, weights) == pytest.approx(closed, abs=1e-10)
    assert criterion(p, q, weights) == pytest.approx(-math.log(4) + 2 * jensen_shannon(p, q, weights), abs=1e-10)


@given(st.floats(0, 1))
def test_divergence_of_uniforms_is_unshared_mass_log_2(shift):
    # Uniform on (0, 1) and on (shift, 1 + shift): log 2 where one of them is zero, nothing where both are 1.
    """Between two uniform densities JSD is log 2 times the mass that they do not share."""
    ends = sorted({0.0, shift, 1.0, 1 + shift})
    parts = [quadrature(low, high, panels=1) for low, high in itertools.pairwise(ends)]
    nodes, weights = (np.concatenate(part) for part in zip(*parts, strict=True))
    p, q = stats.uniform.pdf(nodes), stats.uniform.pdf(nodes, shift)
    assert jensen_shannon(p, q, weights) == pytest.approx(shift * math.log(2), abs=1e-10)


def test_quadrature_is_exact_for_polynomials_of_its_degree():
    nodes, weights = quadrature(-1, 3, panels=2, order=3)
    assert np.sum(weights * nodes**5) == pytest.approx((3**6 - 1) / 6, rel=1e-14)
