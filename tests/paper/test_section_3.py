"""Section 3: where G is bad and D rejects its samples, log(1 - D) hardly moves G and -log D does."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gan_core.objectives.value_function import GENERATOR_LOSSES
from gan_core.theory import gradient_by_logit, gradient_by_probability


@pytest.mark.parametrize("loss", GENERATOR_LOSSES)
@given(st.floats(-15, 15))
def test_the_gradients_of_the_losses_that_train_g_have_these_sizes(loss, logit):
    at = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(GENERATOR_LOSSES[loss](at), at)
    assert gradient_by_logit(loss, torch.sigmoid(at).detach().numpy())[0] == pytest.approx(-found.item(), abs=1e-12)


@given(st.floats(0.001, 0.999))
def test_by_d_itself_the_sizes_are_one_over_1_minus_d_and_one_over_d(d):
    at = np.array([d])
    assert gradient_by_probability("minimax", at)[0] == pytest.approx(1 / (1 - d), rel=1e-12)
    assert gradient_by_probability("non_saturating", at)[0] == pytest.approx(1 / d, rel=1e-12)
    assert gradient_by_probability("blend", at)[0] == pytest.approx((1 / d + 1 / (1 - d)) / 2, rel=1e-12)


@given(st.floats(1e-12, 1 - 1e-12))
def test_the_two_losses_pull_alike_where_d_is_a_half_and_by_the_odds_elsewhere(d):
    at = np.array([d])
    ratio = gradient_by_logit("non_saturating", at) / gradient_by_logit("minimax", at)
    assert ratio[0] == pytest.approx((1 - d) / d, rel=1e-9)


def test_where_d_gives_a_sample_one_in_a_thousand_minimax_pulls_a_thousandth():
    d = np.array([0.001])
    assert gradient_by_logit("minimax", d)[0] == 0.001
    assert gradient_by_logit("non_saturating", d)[0] == 0.999
