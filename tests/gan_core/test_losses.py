"""Eq. 1 and the generator objectives: closed forms, stability, and one loss per member."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.losses import blend, discriminator_loss, minimax, non_saturating

logits = st.lists(st.floats(-30, 30), min_size=1, max_size=8).map(lambda v: torch.tensor(v, dtype=torch.float64))


def test_discriminator_loss_is_log_four_where_d_is_one_half():
    zeros = torch.zeros(5, dtype=torch.float64)
    assert discriminator_loss(zeros, zeros).item() == pytest.approx(math.log(4), abs=1e-15)


@given(logits)
def test_losses_equal_their_definitions_in_probabilities(fake):
    d = torch.sigmoid(fake)
    # 1 - sigmoid cancels to about 1e-16 / (1 - d); at |logit| <= 30 that is below 1e-3 relative to the log.
    assert minimax(fake).item() == pytest.approx(torch.log(torch.sigmoid(-fake)).mean().item(), rel=1e-9, abs=1e-12)
    assert non_saturating(fake).item() == pytest.approx(-torch.log(d).mean().item(), rel=1e-9, abs=1e-12)
    assert blend(fake).item() == pytest.approx((minimax(fake) + non_saturating(fake)).item() / 2, abs=1e-12)


@pytest.mark.parametrize("loss", [minimax, non_saturating, blend])
def test_generator_losses_are_finite_with_finite_gradients_at_extreme_logits(loss):
    fake = torch.tensor([-1e4, -100.0, 0.0, 100.0, 1e4], requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(fake), fake)
    assert torch.isfinite(loss(fake))
    assert torch.isfinite(gradient).all()


def test_where_d_rejects_the_fakes_minimax_has_no_gradient_and_non_saturating_has_one():
    # d/dl log(1 - sigmoid(l)) = -sigmoid(l) and d/dl -log sigmoid(l) = -sigmoid(-l), at l = -20.
    fake = torch.tensor([-20.0], dtype=torch.float64, requires_grad=True)
    (saturated,) = torch.autograd.grad(minimax(fake), fake)
    (strong,) = torch.autograd.grad(non_saturating(fake), fake)
    assert saturated.item() == pytest.approx(-1 / (1 + math.exp(20)), rel=1e-12)
    assert strong.item() == pytest.approx(-1 / (1 + math.exp(-20)), rel=1e-12)


def judged(logits: torch.Tensor) -> torch.Tensor:
    """D's loss where the real logits are the fake ones in reverse."""
    return discriminator_loss(logits.flip(-1), logits)


def drawn(members: int, batch: int, seed: int, dtype: torch.dtype) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(members, batch, generator=random, dtype=dtype) * 10 ** (seed % 5 - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("loss", [judged, minimax, non_saturating, blend])
@given(st.integers(2, 5), st.integers(1, 130), st.integers(0, 10**6))
def test_a_member_of_a_population_has_the_loss_of_it_alone_to_rounding(loss, dtype, members, batch, seed):
    fake = drawn(members, batch, seed, dtype)
    together, alone = loss(fake), torch.stack([loss(member.clone()) for member in fake])
    # Of two softplus, each exp and each log1p is within 2 eps; of two sums in any order, each within batch / 2 eps.
    size = (non_saturating(fake) - minimax(fake)) / 2 if loss is blend else together.abs()
    limits = torch.finfo(dtype)
    assert together.shape == (members,)
    assert ((together - alone).abs() <= (batch + 8) * limits.eps * size + limits.tiny).all()


@pytest.mark.parametrize("loss", [judged, minimax, non_saturating, blend])
@given(st.integers(2, 5), st.integers(1, 130), st.integers(0, 10**6), st.sampled_from([math.nan, math.inf, 0.0, -1e30]))
def test_no_other_member_changes_a_bit_of_a_members_loss_or_gradient(loss, members, batch, seed, ruined):
    fake, mine = drawn(members, batch, seed, torch.float32), seed % members
    beside = torch.full_like(fake, ruined)
    beside[mine] = fake[mine]
    losses, gradients = [], []
    for logits in (fake.requires_grad_(), beside.requires_grad_()):
        losses.append(loss(logits))
        gradients.append(torch.autograd.grad(losses[-1].sum(), logits)[0])
    assert torch.equal(losses[0][mine], losses[1][mine])
    assert torch.equal(gradients[0][mine], gradients[1][mine])
