"""Coordination of G and D: the default is Algorithm 1 to the bit, and each rule is what it says."""

import math

import pytest
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.checkpoint import tensors_digest
from gan_core.datasets import DataSettings, load
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.training import TrainingSettings, initial_state, train
from tests.paper.coordination import Coordination, Pace, train_coordinated

NETWORK = NetworkSettings(
    generator=DenseGeneratorSettings(hidden=(8,)), discriminator=DenseDiscriminatorSettings((6, 6), 2, 0.05)
)


@pytest.fixture(scope="module")
def data():
    return load(DataSettings("digits")).train


def settings(**algorithm):
    return TrainingSettings(0, NoiseSettings("uniform", 4), NETWORK, AlgorithmSettings(batch_size=50, **algorithm))


def coordinated(told, data, images, coordination):
    state = initial_state(told, data)
    return list(train_coordinated(told, data, state, images, coordination, lambda step: True)), state


@pytest.mark.parametrize("scheme", ["simultaneous", "algorithm1"])
@pytest.mark.parametrize("share", [True, False])
def test_without_rules_it_is_algorithm_1_to_the_bit(scheme, share, data):
    told = settings(scheme=scheme, share_draws=share, optimizer="adam")
    seen, state = coordinated(told, data, 600, Coordination())
    plain = initial_state(told, data)
    list(train(told, data, plain, 12, lambda step: False))
    for group, tensors in plain.tensors().items():
        assert tensors_digest(tensors) == tensors_digest(state.tensors()[group])
    assert [(one.step, one.images) for one in seen] == [(step, 50 * step) for step in range(1, 13)]


def test_k_is_two_while_d_is_behind(data):
    """D has more steps only while it is behind, and each minibatch is seen once."""
    seen, state = coordinated(settings(), data, 600, Coordination(most_steps=2, target=0.99))
    assert [one.images for one in seen] == [100, 200, 300, 400, 500, 600]
    assert int(state.step) == 6
    behind, ahead = Coordination(most_steps=3), Pace(accuracy=0.9)
    assert behind.settings(AlgorithmSettings(), Pace()).discriminator_steps == 3
    assert behind.settings(AlgorithmSettings(), ahead).discriminator_steps == 1


def test_a_d_that_wins_is_slowed_down_exponentially():
    rule, base = Coordination(gain=4.0, target=0.75), AlgorithmSettings(discriminator_learning_rate=0.1)
    rates = [rule.settings(base, Pace(accuracy)).discriminator_learning_rate for accuracy in (0.5, 0.75, 1.0)]
    assert rates == pytest.approx([0.1 * math.e, 0.1, 0.1 / math.e])


def test_noise_width_reaches_one_at_half_of_training():
    """The width of z goes linearly to 1 over the first half of the training, and stays there."""
    rule = Coordination(first_width=0.5)
    assert [rule.width(Pace(done=done)) for done in (0, 0.25, 0.5, 0.9)] == pytest.approx([0.5, 0.75, 1, 1])
    assert Coordination().width(Pace(done=0.1)) == 1.0


def test_narrow_prior_changes_the_first_step(data):
    """A narrower prior at the start changes the first step's weights of both nets."""
    told = settings()
    _, plain = coordinated(told, data, 50, Coordination())
    _, narrow = coordinated(told, data, 50, Coordination(first_width=0.1))
    for net in ("generator", "discriminator"):
        one, other = plain.tensors()[net]["weights.0"], narrow.tensors()[net]["weights.0"]
        assert not torch.equal(one, other)


def test_the_accuracy_is_a_moving_average():
    pace = Pace().after(1.0, 0.1).after(1.0, 0.2)
    assert pace.accuracy == pytest.approx(1 - 0.5 * 0.95**2)
    assert pace.done == 0.2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"most_steps": 0}, "most_steps 0"),
        ({"target": 0.5}, "target 0.5"),
        ({"gain": math.nan}, "gain nan"),
        ({"first_width": 0.0}, "first_width 0.0"),
    ],
)
def test_rules_out_of_range_are_named(given, words):
    with pytest.raises(ValueError, match=words):
        Coordination(**given)


def test_k_of_its_own_is_refused(data):
    told = settings(discriminator_steps=2)
    with pytest.raises(ValueError, match="discriminator_steps 2 is not 1"):
        next(train_coordinated(told, data, initial_state(told, data), 100, Coordination()))
