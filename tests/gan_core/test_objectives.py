"""Every pair of losses: closed forms, references of torch's own, one loss per member, and a training that learns."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.datasets.digits import load_digits
from gan_core.networks.dense import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
from gan_core.noise import NoiseSettings
from gan_core.objectives import OBJECTIVES, hinge, least_squares
from gan_core.objectives.value_function import blend, discriminator_loss, minimax, non_saturating
from gan_core.training import TrainingSettings, initial_state, train

logits = st.lists(st.floats(-30, 30), min_size=1, max_size=8).map(lambda v: torch.tensor(v, dtype=torch.float64))


def judged(name: str):
    """D's loss of this objective, where the real logits are the fake ones in reverse."""
    return lambda logits: OBJECTIVES[name].discriminator_loss(logits.flip(-1), logits)


LOSSES = {f"{name}, G": objective.generator_loss for name, objective in OBJECTIVES.items()}
LOSSES |= {f"{name}, D": judged(name) for name in ("minimax", "hinge", "least_squares")}


def gradients_of(loss, *logits: torch.Tensor) -> list[torch.Tensor]:
    leaves = [one.clone().requires_grad_() for one in logits]
    return list(torch.autograd.grad(loss(*leaves), leaves))


def test_discriminator_loss_at_one_half_is_log_four():
    """Where D is 1/2 everywhere, its loss is log 4 (Theorem 1)."""
    zeros = torch.zeros(5, dtype=torch.float64)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(math.log(4), abs=1e-15)


@given(logits)
def test_losses_equal_their_definitions_in_probabilities(fake):
    d = torch.sigmoid(fake)
    # 1 - sigmoid cancels to about 1e-16 / (1 - d); at |logit| <= 30 that is below 1e-3 relative to the log.
    assert minimax(fake).item() == pytest.approx(torch.log(torch.sigmoid(-fake)).mean().item(), rel=1e-9, abs=1e-12)
    assert non_saturating(fake).item() == pytest.approx(-torch.log(d).mean().item(), rel=1e-9, abs=1e-12)
    assert blend(fake).item() == pytest.approx((minimax(fake) + non_saturating(fake)).item() / 2, abs=1e-12)


@given(logits, st.randoms())
def test_hinge_losses_and_gradients_are_torch_s_margin_losses(fake, random):
    """max(0, 1 -+ D) is a ranking against 0 with margin 1; the subgradient is 1 short of the margin and 0 beyond."""
    real = torch.tensor(random.sample(fake.tolist(), len(fake)), dtype=torch.float64) + 0.5
    zero, one = torch.zeros_like(fake), torch.ones_like(fake)

    def reference(real, fake):
        ranked = functional.margin_ranking_loss
        return ranked(real, zero, one, margin=1.0) + ranked(fake, zero, -one, margin=1.0)

    assert hinge.discriminator_loss(real, fake).item() == pytest.approx(reference(real, fake).item(), abs=1e-12)
    of_real, of_fake = gradients_of(hinge.discriminator_loss, real, fake)
    assert torch.equal(of_real, -(real < 1).double() / len(real))
    assert torch.equal(of_fake, (fake > -1).double() / len(fake))
    assert hinge.generator_loss(fake).item() == pytest.approx(-fake.mean().item(), abs=1e-12)
    assert torch.equal(gradients_of(hinge.generator_loss, fake)[0], -one / len(fake))


@given(logits)
def test_least_squares_losses_and_gradients_are_torch_s_squared_errors(fake):
    """Half the squared errors from the labels 0 and 1, whose gradients are the errors over their number."""
    real, zero, one = fake.flip(-1) / 3, torch.zeros_like(fake), torch.ones_like(fake)
    expected = (functional.mse_loss(real, one) + functional.mse_loss(fake, zero)) / 2
    assert least_squares.discriminator_loss(real, fake).item() == pytest.approx(expected.item(), rel=1e-12)
    of_real, of_fake = gradients_of(least_squares.discriminator_loss, real, fake)
    torch.testing.assert_close(of_real, (real - 1) / len(real))
    torch.testing.assert_close(of_fake, fake / len(fake))
    loss = functional.mse_loss(fake, one) / 2
    assert least_squares.generator_loss(fake).item() == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(gradients_of(least_squares.generator_loss, fake)[0], (fake - 1) / len(fake))


@pytest.mark.parametrize(("name", "expected"), [("minimax", math.log(4)), ("hinge", 2.0), ("least_squares", 0.25)])
def test_each_loss_of_d_at_its_decision_is_known(name, expected):
    """Where D cannot tell: log 4 of Eq. 1, 2 of the two margins, 1/4 of two halves squared."""
    undecided = torch.full((7,), OBJECTIVES[name].decision, dtype=torch.float64)
    assert OBJECTIVES[name].discriminator_loss(undecided, undecided).item() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_d_s_loss_is_least_where_it_decides_right(name):
    """A step down D's loss from its decision raises the real logits above it, and lowers the fake ones below."""
    undecided = torch.full((3,), OBJECTIVES[name].decision, dtype=torch.float64)
    of_real, of_fake = gradients_of(OBJECTIVES[name].discriminator_loss, undecided, undecided)
    assert (of_real < 0).all()
    assert (of_fake > 0).all()
    assert (gradients_of(OBJECTIVES[name].generator_loss, undecided)[0] < 0).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_are_finite_with_finite_gradients_at_extreme_logits(loss):
    fake = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(fake), fake)
    assert torch.isfinite(loss(fake))
    assert torch.isfinite(gradient).all()


def test_minimax_saturates_and_non_saturating_does_not():
    # d/dl log(1 - sigmoid(l)) = -sigmoid(l) and d/dl -log sigmoid(l) = -sigmoid(-l), at l = -20.
    """Where D rejects the fakes, minimax has next to no gradient and the non-saturating loss one of -1."""
    fake = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    (saturated,) = torch.autograd.grad(minimax(fake), fake)
    (strong,) = torch.autograd.grad(non_saturating(fake), fake)
    assert saturated.item() == pytest.approx(-1 / (1 + math.exp(20)), rel=1e-12)
    assert strong.item() == pytest.approx(-1 / (1 + math.exp(-20)), rel=1e-12)


def drawn(members: int, batch: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(members, batch, generator=random, dtype=dtype) * 10 ** (seed % 5 - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@given(st.integers(2, 5), st.integers(1, 130), st.integers(0, 10**6))
def test_member_loss_equals_its_loss_alone(loss, dtype, members, batch, seed):
    """A member of a population has the loss that it has alone, to the rounding of softplus and sums."""
    fake = drawn(members, batch, seed, dtype)
    together, alone = loss(fake), torch.stack([loss(member.clone()) for member in fake])
    # Of two softplus, each exp and each log1p is within 2 eps; of two sums in any order, each within batch / 2 eps
    # of the mean size of its terms, which where they have either sign is not the size of their mean.
    size = {blend: (non_saturating(fake) - minimax(fake)) / 2, hinge.generator_loss: fake.abs().mean(dim=-1)}
    limits = torch.finfo(dtype)
    assert together.shape == (members,)
    bound = (batch + 8) * limits.eps * size.get(loss, together.abs()) + limits.tiny
    assert ((together - alone).abs() <= bound).all()


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@given(st.integers(2, 5), st.integers(1, 130), st.integers(0, 10**6), st.sampled_from([math.nan, math.inf, 0.0, -1e30]))
def test_members_do_not_affect_each_other(loss, members, batch, seed, ruined):
    """No other member, not even one of NaN, changes a bit of a member's loss or gradient."""
    fake, mine = drawn(members, batch, seed, torch.float32), seed % members
    beside = torch.full_like(fake, ruined)
    beside[mine] = fake[mine]
    losses, gradients = [], []
    for logits in (fake.requires_grad_(), beside.requires_grad_()):
        losses.append(loss(logits))
        gradients.append(torch.autograd.grad(losses[-1].sum(), logits)[0])
    assert torch.equal(losses[0][mine], losses[1][mine])
    assert torch.equal(gradients[0][mine], gradients[1][mine])


@pytest.mark.parametrize("name", ["hinge", "least_squares"])
def test_an_objective_without_a_value_learns_digits(name, one_thread):
    """400 steps: D's loss leaves its start, samples vary, all is finite, and no report has a V or Theorem 1's bound."""
    digits, rate = load_digits(), 2e-3
    settings = TrainingSettings(
        noise=NoiseSettings(size=8),
        network=NetworkSettings(
            generator=DenseGeneratorSettings(hidden=(64,)),
            discriminator=DenseDiscriminatorSettings(units=(32, 32), pieces=2, init_range=0.05),
        ),
        algorithm=AlgorithmSettings(
            generator_loss=name, optimizer="adam", generator_learning_rate=rate, discriminator_learning_rate=rate
        ),
    )
    state = initial_state(settings, digits.train)
    first, *_, last = (report.metrics for report in train(settings, digits.train, state, 400, lambda step: step == 1))
    assert "discriminator_loss" in last
    assert not {"value", "jensen_shannon_bound"} & set(last)
    # D's logits are near 0 at first: two margins of 1, and (0 - 1)^2 / 2. Seen at the end: 1.06 and 0.18.
    assert first["discriminator_loss"] == pytest.approx({"hinge": 2.0, "least_squares": 0.5}[name], rel=0.02)
    assert last["discriminator_loss"] < 0.7 * first["discriminator_loss"]
    # The mean image only, at first; then most of the training images' own variance (seen: 0.81 and 0.71).
    assert first["sample_variance"] < 0.01
    assert 0.4 < last["sample_variance"] < 1.5
    assert last["real_accuracy"] + last["fake_accuracy"] > 1.2
    assert all(math.isfinite(value) for value in last.values())
