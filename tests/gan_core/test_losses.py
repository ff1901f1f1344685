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


def test_each_member_of_a_population_has_its_own_loss():
    real, fake = torch.randn(3, 7), torch.randn(3, 7)
    together = discriminator_loss(real, fake)
    assert together.shape == (3,)
    for member in range(3):
        assert torch.equal(together[member], discriminator_loss(real[member], fake[member]))
