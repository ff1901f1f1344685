"""A pair of losses on D's logits: what every objective says of itself."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

# Losses reduce only the last axis, so that each member of a population has its own: no other member's
# logits change a bit of it. To the loss of that member alone it is equal within batch + 8 roundings (eps) of the
# mean size of its terms, and not to the bit: whether vector code or the scalar code for a remainder computes
# softplus depends on where an element lies in the whole tensor, and they differ in the last two bits; and
# the order of a sum may depend on the shape.


@dataclass(frozen=True)
class Objective:
    """What D minimises, of its logits of real and of fake examples, and G, of those of the fake ones.

    Logits are (*members, batch), losses (*members).
    """

    discriminator_loss: Callable[[Tensor, Tensor], Tensor]  # of (real logits, fake logits)
    generator_loss: Callable[[Tensor], Tensor]  # of the fake logits
    decision: float = 0.0  # the logit above which D takes an example for real
    has_value: bool = False  # D's loss is -V(D, G) of Eq. 1, so that there is a V, and Theorem 1's bound by it
