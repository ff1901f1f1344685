"""The least squares losses of Mao et al. 2017 (arXiv 1611.04076), with the labels of their Eq. 9."""

from jaxtyping import Float
from torch import Tensor

from gan_core.objectives.base import Objective

FAKE, REAL, WANTED = 0.0, 1.0, 1.0  # a, b and c: what D is to say of the fake, of the real, and G to make it say


def discriminator_loss(
    real_logits: Float[Tensor, "*members batch"], fake_logits: Float[Tensor, "*members batch"]
) -> Float[Tensor, "*members"]:
    """E_data[(D(x) - b)^2] / 2 + E_z[(D(G(z)) - a)^2] / 2, their Eq. 2, D being the logit.

    Equals 1/4 where D is 1/2 everywhere, which is then optimal if p_g = p_data, and 1/2 where it is 0.
    """
    return ((real_logits - REAL).square() / 2 + (fake_logits - FAKE).square() / 2).mean(dim=-1)


def generator_loss(fake_logits: Float[Tensor, "*members batch"]) -> Float[Tensor, "*members"]:
    """E_z[(D(G(z)) - c)^2] / 2, their Eq. 2: a sample pulls by its distance from c, on either side."""
    return (fake_logits - WANTED).square().mean(dim=-1) / 2


OBJECTIVE = Objective(discriminator_loss, generator_loss, decision=(FAKE + REAL) / 2)
