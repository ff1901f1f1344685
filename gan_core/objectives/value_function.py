"""Eq. 1 and the generator objectives of section 3, on logits."""

from collections.abc import Callable
from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus

from gan_core.objectives.base import Objective

GeneratorLoss = Literal["minimax", "non_saturating", "blend"]

# With D = sigmoid(logit): log D = -softplus(-logit) and log(1 - D) = -softplus(logit), finite for any logit.


def discriminator_loss(
    real_logits: Float[Tensor, "*members batch"], fake_logits: Float[Tensor, "*members batch"]
) -> Float[Tensor, "*members"]:
    """Minus the value function, -V(D, G) of Eq. 1, in nats: minimising it ascends V.

    Equals log 4 where D is 1/2 everywhere (Theorem 1).
    """
    return (softplus(-real_logits) + softplus(fake_logits)).mean(dim=-1)


def minimax(fake_logits: Float[Tensor, "*members batch"]) -> Float[Tensor, "*members"]:
    """log(1 - D(G(z))), what G minimises in Eq. 1; its gradient vanishes where D rejects the fakes."""
    return -softplus(fake_logits).mean(dim=-1)


def non_saturating(fake_logits: Float[Tensor, "*members batch"]) -> Float[Tensor, "*members"]:
    """-log D(G(z)): section 3's objective, with a strong gradient where D rejects the fakes."""
    return softplus(-fake_logits).mean(dim=-1)


def blend(fake_logits: Float[Tensor, "*members batch"]) -> Float[Tensor, "*members"]:
    """The mean of the two objectives, minimax and non-saturating."""
    return (minimax(fake_logits) + non_saturating(fake_logits)) / 2


GENERATOR_LOSSES: dict[GeneratorLoss, Callable[[Tensor], Tensor]] = {
    "minimax": minimax,
    "non_saturating": non_saturating,
    "blend": blend,
}
OBJECTIVES: dict[str, Objective] = {
    name: Objective(discriminator_loss, loss, has_value=True) for name, loss in GENERATOR_LOSSES.items()
}
