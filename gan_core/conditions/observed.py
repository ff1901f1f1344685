"""Images of which a part is observed, as a condition: G fills in the rest."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gan_core.conditions.base import WrappedGenerator
from gan_core.conditions.masks import EVERY_MASK, Masks, drawn_masks
from gan_core.networks.base import GeneratorNet


@dataclass(frozen=True)
class Observed:
    """The condition of an image some of whose pixels are missing: (x * mask, mask), the mask 1 where observed."""

    image_shape: tuple[int, ...]
    masks: tuple[Masks, ...]

    def __post_init__(self) -> None:
        if len(self.image_shape) not in (2, 3) or any(type(side) is not int or side < 1 for side in self.image_shape):
            raise ValueError(f"image shape {list(self.image_shape)} is not (height, width[, colours])")
        if not self.masks or not set(self.masks) <= set(EVERY_MASK):
            raise ValueError(f"masks {list(self.masks)} are not of {', '.join(EVERY_MASK)}")

    @property
    def size(self) -> int:
        """Twice the pixels."""
        return 2 * math.prod(self.image_shape)

    def encode(self, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Tensor:
        """Each example under a mask of its own."""
        return condition_of(images, drawn_masks(random, len(images), self.image_shape, self.masks))

    def sample_prior(self, count: int, random: np.random.Generator) -> Tensor:
        """Nothing observed: what is then completed is a sample of p(x)."""
        return torch.zeros(count, self.size)

    def wrap(self, generator: GeneratorNet) -> GeneratorNet:
        """G that keeps what is observed."""
        return Completing(generator)


class Completing(WrappedGenerator):
    """G as it fills in an image: the observed pixels are copied, and only the missing ones are its own.

    It is so in training too, where D sees whole images: a difference at observed pixels would tell D
    which is which, and nothing of how well the missing ones fit.
    """

    def forward(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Images, one a row."""
        observed, mask = condition.chunk(2, dim=-1)
        return observed + (1 - mask) * self.within(noise, condition)


def condition_of(images: np.ndarray, masks: np.ndarray) -> Float[Tensor, "count width"]:
    """The condition of images (count, pixels) of which the masks (count, *shape) or (1, *shape) leave a part."""
    masks = np.broadcast_to(masks.reshape(len(masks), -1), images.shape).astype(np.float32)
    return torch.from_numpy(np.concatenate([images * masks, masks], axis=1))
