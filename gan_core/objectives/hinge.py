"""The hinge losses of a maximum margin: Lim and Ye 2017 (arXiv 1705.02894), as Miyato et al. 2018 write them."""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import relu

from gan_core.objectives.base import Objective


def discriminator_loss(
    real_logits: Float[Tensor, "*members batch"], fake_logits: Float[Tensor, "*members batch"]
) -> Float[Tensor, "*members"]:
    """E_data[max(0, 1 - D(x))] + E_z[max(0, 1 + D(G(z)))], Eq. 16 of Miyato et al. (arXiv 1802.05957), D being the logit.

    An example beyond its margin (a real one above 1, a fake one below -1) counts for nothing. Equals 2 where
    D is 0 everywhere.
    """
    return (relu(1 - real_logits) + relu(1 + fake_logits)).mean(dim=-1)


def generator_loss(fake_logits: Float[Tensor, "*members batch"]) -> Float[Tensor, "*members"]:
    """-E_z[D(G(z))], Eq. 17: every sample pulls alike, whatever D makes of it."""
    return -fake_logits.mean(dim=-1)


OBJECTIVE = Objective(discriminator_loss, generator_loss)
