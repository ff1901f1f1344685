"""Momentum, Adam and the schedules: against formulas, torch's Adam, and one member at a time."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.optimizers import (
    AdamSettings,
    MomentumSettings,
    adam_update,
    average_update,
    decayed_rate,
    momentum_update,
    zero_moments,
)

SHAPES = [(3, 4), (4,), (1,)]
STEPS = 6
# Some ten float32 operations a step, 2^-24 each, on numbers of order 1.
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}


def drawn(seed: int, *members: int) -> list[torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(*members, *shape, generator=random) for shape in SHAPES]


def test_momentum_follows_its_formula_at_changing_rates():
    """The update is v = m v - lr g, p = p + v, at rates and momenta that change each step."""
    parameters, rates, momenta = drawn(0), [0.1, 0.2, 0.05, 0.1, 0.3, 0.1], [0.5, 0.5, 0.6, 0.7, 0.9, 0.0]
    moments = zero_moments("momentum", parameters)
    expected = [[(p, 0.0) for p in parameter.flatten().tolist()] for parameter in parameters]
    for step in range(STEPS):
        gradients = drawn(10 + step)
        momentum_update(parameters, gradients, moments, torch.tensor(rates[step]), torch.tensor(momenta[step]))
        for values, gradient in zip(expected, gradients, strict=True):
            for i, g in enumerate(gradient.flatten().tolist()):
                p, v = values[i]
                v = momenta[step] * v - rates[step] * g
                values[i] = p + v, v
    for parameter, velocity, values in zip(parameters, moments["velocity"], expected, strict=True):
        torch.testing.assert_close(parameter.flatten(), torch.tensor([p for p, _ in values]), **ROUNDING)
        torch.testing.assert_close(velocity.flatten(), torch.tensor([v for _, v in values]), **ROUNDING)


@pytest.mark.parametrize("settings", [AdamSettings(), AdamSettings(0.9, 0.99, 1e-3), AdamSettings(0.0, 0.9)])
def test_adam_is_torch_s_at_changing_rates(settings):
    parameters, theirs = drawn(0), [parameter.requires_grad_() for parameter in drawn(0)]
    moments = zero_moments("adam", parameters)
    peer = torch.optim.Adam(theirs, betas=(settings.beta1, settings.beta2), eps=settings.epsilon)
    for step in range(STEPS):
        gradients, rate = drawn(10 + step), 0.1 / (step + 1)
        adam_update(parameters, gradients, moments, torch.tensor(rate), torch.tensor(step), settings)
        for parameter, gradient in zip(theirs, gradients, strict=True):
            parameter.grad = gradient
        peer.param_groups[0]["lr"] = rate
        peer.step()
    for parameter, other in zip(parameters, theirs, strict=True):
        torch.testing.assert_close(parameter, other.detach(), **ROUNDING)
    assert not torch.allclose(parameters[0], drawn(0)[0], atol=0.1)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_members_with_own_rates_move_as_alone(optimizer):
    """Members of a population with rates of their own move as each would alone, with both optimizers."""

    def run(parameters, gradients, rate):
        moments = zero_moments(optimizer, parameters)
        for step in range(STEPS):
            if optimizer == "momentum":
                momentum_update(parameters, gradients[step], moments, rate, torch.tensor(0.6))
            else:
                adam_update(parameters, gradients[step], moments, rate, torch.tensor(step), AdamSettings())
        return parameters

    rates, gradients = torch.tensor([0.1, 0.02, 0.003]), [drawn(10 + step, 3) for step in range(STEPS)]
    together = run(drawn(0, 3), gradients, rates)
    for member, rate in enumerate(rates):
        alone = run([p[member] for p in drawn(0, 3)], [[g[member] for g in step] for step in gradients], rate)
        for ours, expected in zip(together, alone, strict=True):
            # The same operations on each element; vector and scalar code may contract a * b + c differently.
            torch.testing.assert_close(ours[member], expected, rtol=1e-6, atol=1e-6)
    moved = [(p - q).abs().mean() for p, q in zip(together[0], drawn(0, 3)[0], strict=True)]
    assert moved[0] > 3 * moved[1] > 9 * moved[2]


@pytest.mark.parametrize("decay", [0.5, 0.999])
def test_weight_average_decays_and_forgets_the_start(decay):
    """The average weighs the past by the lesser of its decay and (1 + t) / (10 + t): it forgets the start soon."""
    averages, expected = drawn(0), [parameter.double() for parameter in drawn(0)]
    for step in range(STEPS):
        parameters = drawn(10 + step)
        average_update(averages, parameters, decay, torch.tensor(step))
        kept = min(decay, (1 + step) / (10 + step))
        expected = [kept * old + (1 - kept) * new.double() for old, new in zip(expected, parameters, strict=True)]
    for average, value in zip(averages, expected, strict=True):
        torch.testing.assert_close(average.double(), value, **ROUNDING)


@given(st.integers(0, 10**7), st.floats(1e-7, 10))
def test_learning_rate_decays_to_its_floor(step, initial):
    """The rate is divided by its factor each step, down to the floor or a lower start."""
    rate = decayed_rate(initial, 1.000004, 1e-6, torch.tensor(step))
    expected = max(initial * math.exp(-step * math.log1p(0.000004)), min(initial, 1e-6))
    # The exponent is up to 40, its logarithm known to 1e-16 / 4e-6 relative; the result is float32.
    assert rate.item() == pytest.approx(expected, rel=2e-7)


def test_member_rates_decay_from_their_own_start():
    """Each member's rate decays from its own start; one below the floor stays as it is."""
    rates = decayed_rate(torch.tensor([0.1, 1e-5, 1e-8]), 2.0, 1e-6, torch.tensor(5))
    # 0.1 / 2^5; 1e-5 / 2^5 is below the floor; 1e-8 is below it from the start. float32: 2^-24 relative.
    assert rates.tolist() == pytest.approx([0.1 / 32, 1e-6, 1e-8], rel=1e-7)


@pytest.mark.parametrize(("epoch", "momentum"), [(0, 0.5), (1, 0.5), (125.5, 0.6), (250, 0.7), (1e6, 0.7)])
def test_momentum_rises_linearly_from_epoch_1_to_250(epoch, momentum):
    assert MomentumSettings().at(torch.tensor(epoch, dtype=torch.float64)).item() == pytest.approx(momentum, abs=1e-15)


@pytest.mark.parametrize("parameters", [drawn(0), drawn(0, 2)])
def test_moments_start_at_zero_one_for_each_parameter(parameters):
    for optimizer, names in (("momentum", ["velocity"]), ("adam", ["first_moment", "second_moment"])):
        moments = zero_moments(optimizer, parameters)
        assert list(moments) == names
        for tensors in moments.values():
            assert [t.shape for t in tensors] == [p.shape for p in parameters]
            assert not any(t.any() for t in tensors)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (lambda: MomentumSettings(initial=1.0), "momentum.initial"),
        (lambda: MomentumSettings(final=-0.1), "momentum.final"),
        (lambda: MomentumSettings(final=math.nan), "momentum.final"),
        (lambda: MomentumSettings(start_epoch=250), "momentum.start_epoch"),
        (lambda: AdamSettings(beta1=1.0), "adam.beta1"),
        (lambda: AdamSettings(beta2=-0.1), "adam.beta2"),
        (lambda: AdamSettings(epsilon=0.0), "adam.epsilon"),
    ],
)
def test_coefficients_out_of_range_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=f"algorithm.{named} "):
        settings()
