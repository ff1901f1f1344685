"""A trained D bounds JSD(p_data || p_g) from below, by Theorem 1: sharply if it is D*, and never beyond."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gan_core.draws import dropout_mask
from gan_core.networks.dense import DenseDiscriminator, DenseDiscriminatorSettings
from gan_core.one_dimension import ALONE, Branch, GameSettings, spread_kinks
from gan_core.randomness import stream
from gan_core.theory import (
    estimate_jensen_shannon,
    jensen_shannon,
    jensen_shannon_bound,
    optimal_logits,
    quadrature,
    value,
)
from gan_core.threads import one_thread
from gan_core.training import initial_state
from tests.paper.distributions import pairs

GRID = quadrature(-6, 6, panels=40)  # beyond which the densities below are next to nothing


@given(pairs(), st.data())
def test_the_bound_of_any_discriminator_is_below_the_divergence(both, data):
    logits = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(both[0]), max_size=len(both[0]))))
    assert jensen_shannon_bound(value(*both, logits)) <= jensen_shannon(*both) + 1e-10


@given(pairs())
def test_optimal_discriminator_bound_is_the_divergence(both):
    """The bound of the optimal discriminator is the Jensen-Shannon divergence itself."""
    assert jensen_shannon_bound(value(*both, optimal_logits(*both))) == pytest.approx(jensen_shannon(*both), abs=1e-10)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_random_masks_lower_the_mean_logit_bound(both, seed):
    # Dropout: V averaged over masks, against V of the average. V is concave in the logits.
    """The value is concave in the logits, so random masks give a lower bound than their mean logit."""
    masked = np.random.default_rng(seed).normal(0, 3, (20, len(both[0])))
    average = np.mean([value(*both, logits) for logits in masked])
    assert jensen_shannon_bound(average) <= jensen_shannon_bound(value(*both, masked.mean(axis=0))) + 1e-10


def test_estimate_is_unbiased_with_its_standard_error():
    """The estimate has no bias of its own and the standard error that it says, over 2,000 repeats."""
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


def bounds(discriminator, points, p, q, weights, masks):
    """The bound that D gives with dropout off, and one for each of `masks`, which hold for every point alike."""
    inputs = torch.from_numpy(points.astype(np.float32))

    def bound(masks=()):
        with torch.no_grad():
            logits = discriminator(inputs, inputs.new_empty(len(inputs), 0), masks)
        return jensen_shannon_bound(value(p, q, logits.double().numpy(), weights))

    return bound(), np.array([bound(tuple(mask.expand(len(inputs), -1) for mask in each)) for each in masks])


def trained(keep):
    """D of 128 maxout units trained against a G that is held, x = z; the bounds it gives, and the divergence."""
    settings = GameSettings()
    discriminator = replace(settings.training.network.discriminator, hidden_keep=keep)
    network = replace(settings.training.network, discriminator=discriminator)
    training = replace(settings.training, network=network)
    data = settings.data.draw(50_000, 0)
    state = initial_state(training, data)
    spread_kinks(state, settings, 0)
    with torch.no_grad():  # x = relu(z) - relu(-z)
        for parameter in state.generator.parameters():
            parameter.zero_()
        state.generator.weights[0][0, :2] = state.generator.weights[1][:2, 0] = torch.tensor([1.0, -1.0])
    branch = Branch(replace(training, algorithm=replace(training.algorithm, **ALONE)), data, state)
    with one_thread():
        branch.train("discriminator", 250)
    random, dropout = stream(0, "masks"), branch.state.discriminator.dropout
    masks = [[dropout_mask(random, (1, width), keep)[0] for width, keep in dropout] for _ in range(200)]
    p, q = settings.data.density(GRID.nodes), stats.norm.pdf(GRID.nodes)
    off, on = bounds(branch.state.discriminator, GRID.nodes[:, None], p, q, GRID.weights, masks)
    return off, on, jensen_shannon(p, q, GRID.weights)


def test_dropout_on_lowers_the_bound_of_a_trained_d():
    """For a D trained with dropout the bound is lower with dropout on than off; both are below the divergence."""
    without, _, exact = trained(keep=1)
    off, on, _ = trained(keep=0.5)
    # Expectations over x are integrals; over masks, means of 200, within five of their standard errors.
    error = 5 * on.std() / math.sqrt(len(on))
    assert 0 < on.mean() < on.mean() + error < off < without < exact
    assert on.max() < exact  # each mask is a D of its own
    # The docstring's figures, to the digits that another machine's rounding leaves.
    assert [on.mean(), off, without, exact] == pytest.approx([0.019, 0.0256, 0.0288, 0.0295], abs=0.002)


@given(pairs(), st.integers(0, 2**32 - 1))
def test_hidden_dropout_never_raises_the_bound(both, seed):
    """Dropout of the last hidden layer's units never raises the bound."""
    net = DenseDiscriminator(1, 0, DenseDiscriminatorSettings((3,), 2, input_keep=1, hidden_keep=0.5))
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 2, generator=random)
    points = np.random.default_rng(seed).normal(size=(len(both[0]), 1))
    masks = [[torch.ones(1), torch.tensor(kept)] for kept in itertools.product([0.0, 2.0], repeat=3)]
    off, on = bounds(net, points, *both, 1.0, masks)
    assert on.mean() <= off + 1e-5  # logits in float32


def test_dropout_before_a_maxout_can_raise_the_bound():
    # |x_1 - x_2| is 0 at (1, 1), where the data is, as at the fakes' (0, 0); but with one of the two dropped it is 2.
    """Dropout of a maxout's inputs can raise the bound, as this pair of distributions shows."""
    net = DenseDiscriminator(2, 0, DenseDiscriminatorSettings((1,), 2, input_keep=0.5, hidden_keep=1))
    with torch.no_grad():
        net.weights[0].copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        net.weights[1].fill_(1.0)
        net.biases[1].fill_(-0.5)
    masks = [[torch.tensor(kept), torch.ones(1)] for kept in itertools.product([0.0, 2.0], repeat=2)]
    points, p, q = np.array([[1.0, 1.0], [0.0, 0.0]]), np.array([1.0, 0.0]), np.array([0.0, 1.0])
    off, on = bounds(net, points, p, q, 1.0, masks)
    assert off < on.mean() - 0.1
    assert on.max() < jensen_shannon(p, q) == pytest.approx(math.log(2))
