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
def test_gradient_sizes_are_those_of_the_losses(loss, logit):
    """The gradient of each generator loss by the logit, by autograd, has the size that `theory` gives."""
    at = torch.tensor([logit], dtype=torch.float64, requires_grad=True)
    (found,) = torch.autograd.grad(GENERATOR_LOSSES[loss](at), at)
    assert gradient_by_logit(loss, torch.sigmoid(at).detach().numpy())[0] == pytest.approx(-found.item(), abs=1e-12)


@given(st.floats(0.001, 0.999))
def test_gradients_by_d_have_closed_forms(d):
    """By D itself the gradients are 1 / (1 - D) for minimax, 1 / D non-saturating, and their mean for the blend."""
    at = np.array([d])
    assert gradient_by_probability("minimax", at)[0] == pytest.approx(1 / (1 - d), rel=1e-12)
    assert gradient_by_probability("non_saturating", at)[0] == pytest.approx(1 / d, rel=1e-12)
    assert gradient_by_probability("blend", at)[0] == pytest.approx((1 / d + 1 / (1 - d)) / 2, rel=1e-12)


@given(st.floats(1e-12, 1 - 1e-12))
def test_losses_pull_in_the_ratio_of_the_odds(d):
    """The non-saturating gradient is minimax's times the odds (1 - D) / D: equal where D is 1/2."""
    at = np.array([d])
    ratio = gradient_by_logit("non_saturating", at) / gradient_by_logit("minimax", at)
    assert ratio[0] == pytest.approx((1 - d) / d, rel=1e-9)


def test_minimax_pull_is_d_itself():
    """Where D is one in a thousand, minimax pulls with a thousandth, and the other loss with 0.999."""
    d = np.array([0.001])
    assert gradient_by_logit("minimax", d)[0] == 0.001
    assert gradient_by_logit("non_saturating", d)[0] == 0.999
