"""Populations: each member is the GAN that it would have been alone, whatever its own settings and the others'."""

from dataclasses import replace

import pytest
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.conditions.settings import ExtensionSettings, conditions_of
from gan_core.datasets import DataSettings, load
from gan_core.errors import Diverged
from gan_core.networks.convolutional import ConvolutionalSettings
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.optimizers import AdamSettings, MomentumSettings
from gan_core.population import Member, program_of, train_population
from gan_core.threads import one_thread
from gan_core.training import TrainingSettings, initial_state, train

STEPS = 200


@pytest.fixture(scope="module")
def digits():
    return load(DataSettings("digits"))


def settings(seed, noise=8, network=None, **algorithm):
    generator, discriminator = DenseGeneratorSettings((24, 17)), DenseDiscriminatorSettings((13, 16), 3, 0.05)
    return TrainingSettings(
        seed,
        NoiseSettings("uniform", noise),
        network or NetworkSettings(generator=generator, discriminator=discriminator),
        AlgorithmSettings(**{"batch_size": 40, **algorithm}),
    )


def other_dropout(keep, norm=None):
    discriminator = DenseDiscriminatorSettings((13, 16), 3, 0.02, keep, keep, norm)
    return NetworkSettings(generator=DenseGeneratorSettings((24, 17), init_range=0.1), discriminator=discriminator)


# Every setting that may differ differs: seed, noise (size and prior), initial weights, dropout, constraint, optimizer, rates,
# their decay and floor, momentum, Adam's decays, the scale of D's loss, the average.
MEMBERS = [
    settings(1),
    settings(1, 5, learning_rate_decay=1.01, minimum_learning_rate=0.02, momentum=MomentumSettings(0.2, 0.8, 0, 3)),
    settings(2, 11, other_dropout(0.9, 0.7), discriminator_loss_scale=1.0, generator_learning_rate=0.03),
    settings(
        3, 8, optimizer="adam", generator_learning_rate=2e-3, discriminator_learning_rate=1e-3, generator_average=0.9,
        adam=AdamSettings(0.1, 0.99),
    ),
    replace(settings(4), noise=NoiseSettings("normal", 3)),
]  # fmt: skip


def alone(member, data, steps):
    state = initial_state(member, data.train)
    reports = list(train(member, data.train, state, steps, lambda step: step % 50 == 0))
    return state, reports


def together(members, data, steps):
    found = [Member(member, initial_state(member, data.train)) for member in members]
    reports = list(train_population(found, data.train, steps, lambda step: step % 50 == 0))
    return [member.state for member in found], reports


def differences(state, other, begun):
    """By tensor, the largest difference in units of the largest change of a training."""
    mine, theirs, first = state.tensors(), other.tensors(), begun.tensors()
    return {
        (group, name): float((tensor - theirs[group][name]).abs().max())
        / max(1e-6, float((tensor - first[group][name]).abs().max()))
        for group, named in mine.items()
        for name, tensor in named.items()
    }


@pytest.mark.parametrize(
    "scheme",
    [
        {},
        {"scheme": "algorithm1", "discriminator_steps": 2, "share_draws": False},
        {"share_draws": False, "generator_loss": "minimax"},
    ],
)
def test_members_are_what_they_are_alone(digits, scheme):
    """Over 200 steps each member moves as alone, with every setting of its own at once.

    Rounding differs, and training enlarges it: 3e-5 of a tensor's change was seen, and a member with another one's rate,
    noise or seed differs by more than half of it. The first step has no rounding to enlarge: 1e-5 are a hundred roundings.
    """
    members = [replace(member, algorithm=replace(member.algorithm, **scheme)) for member in MEMBERS]
    with one_thread():
        for steps, tolerance in ((1, 1e-5), (STEPS, 1e-2)):
            states, reports = together(members, digits, steps)
            for number, member in enumerate(members):
                expected, said = alone(member, digits, steps)
                found = differences(expected, states[number], initial_state(member, digits.train))
                assert max(found.values()) < tolerance, max(found, key=found.__getitem__)
                for report, of_all in zip(said, reports, strict=True):
                    mine = of_all[number]
                    assert mine.step == report.step
                    assert mine.metrics["value"] == pytest.approx(report.metrics["value"], abs=1e-3)
                    assert mine.metrics["epoch"] == report.metrics["epoch"]


def test_difference_of_settings_is_seen(digits):
    """The tolerance is no blank cheque: each member differs from each other one's training by far more."""
    with one_thread():
        states, _ = together(MEMBERS[:2], digits, STEPS)
        expected, _ = alone(replace(MEMBERS[0], algorithm=MEMBERS[1].algorithm), digits, STEPS)
    assert max(differences(expected, states[0], initial_state(MEMBERS[0], digits.train)).values()) > 0.1


def test_penalised_members_move_as_alone(digits):
    """A gradient penalty of each member's own: twenty steps, whose second derivatives enlarge rounding faster."""
    members = [settings(1, gradient_penalty=0.1), settings(2, 5, gradient_penalty=2.0)]
    with one_thread():
        states, _ = together(members, digits, 20)
        for member, state in zip(members, states, strict=True):
            expected, _ = alone(member, digits, 20)
            assert max(differences(expected, state, initial_state(member, digits.train)).values()) < 1e-2


def test_classes_reach_every_member(digits):
    """Conditional members have the classes of their own minibatches."""
    members = [replace(settings(seed), extension=ExtensionSettings("conditional")) for seed in (1, 2)]
    conditions = conditions_of(members[0].extension, digits)
    with one_thread():
        found = [Member(member, initial_state(member, digits.train, None, conditions)) for member in members]
        list(train_population(found, digits.train, 30, lambda step: False, conditions))
        for member in found:
            state = initial_state(member.settings, digits.train, None, conditions)
            list(train(member.settings, digits.train, state, 30, lambda step: False, conditions=conditions))
            begun = initial_state(member.settings, digits.train, None, conditions)
            assert max(differences(state, member.state, begun).values()) < 1e-2


def test_diverged_member_is_left_out(digits):
    """One that diverges is said once and costs nothing from then on; the others go on as beside a sound one."""
    ruined = settings(9, discriminator_learning_rate=1e20)
    with one_thread():
        states, reports = together([MEMBERS[0], ruined, MEMBERS[3]], digits, 150)
        beside, _ = together([MEMBERS[0], settings(9), MEMBERS[3]], digits, 150)
    assert [type(found[1]) for found in reports] == [Diverged, type(None), type(None)]
    assert all(found[0] is not None and found[2] is not None for found in reports)
    assert [int(state.step) for state in states] == [150, 50, 150]
    for number in (0, 2):
        assert (
            max(
                differences(
                    states[number], beside[number], initial_state(MEMBERS[0 if number == 0 else 3], digits.train)
                ).values()
            )
            < 1e-2
        )
        assert all(bool(torch.isfinite(parameter).all()) for parameter in states[number].generator.parameters())


def test_population_goes_on_from_any_step(digits):
    """A population that is made anew from its members' states, or from some of them, goes on as it would have."""
    with one_thread():
        states, _ = together(MEMBERS, digits, 60)
        begun, _ = together(MEMBERS, digits, 30)
        kept = [(member, state) for member, state in zip(MEMBERS, begun, strict=True)][1:4]
        resumed = [Member(member, initial_state(member, digits.train)) for member, _ in kept]
        for member, (_, state) in zip(resumed, kept, strict=True):
            member.state.load({group: dict(named) for group, named in state.tensors().items()})
        list(train_population(resumed, digits.train, 60, lambda step: False))
    for member, state in zip(resumed, states[1:4], strict=True):
        found = differences(state, member.state, initial_state(member.settings, digits.train))
        assert max(found.values()) < 1e-2


def test_program_is_what_shapes_it():
    """Members of one program differ in what is theirs; k, nets, batch and objective make another; others have none."""
    assert len({program_of(member) for member in MEMBERS}) == 1
    others = [
        settings(1, discriminator_steps=2), settings(1, batch_size=50), settings(1, generator_loss="hinge"),
        settings(1, scheme="algorithm1"), settings(1, gradient_penalty=1.0), replace(settings(1), virtual_shards=2),
        settings(1, network=NetworkSettings()), replace(settings(1), extension=ExtensionSettings("conditional")),
    ]  # fmt: skip
    assert len({program_of(member) for member in [MEMBERS[0], *others]}) == 1 + len(others)
    assert program_of(settings(1, network=ConvolutionalSettings())) is None


def test_members_of_two_programs_are_refused(digits):
    members = [Member(each, initial_state(each, digits.train)) for each in (settings(1), settings(1, batch_size=50))]
    with pytest.raises(ValueError, match="one program and one step"):
        next(train_population(members, digits.train, 10, lambda step: False))
