"""The random draws of a step: noise and dropout masks, for the global batch, sliced by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from gan_core.noise import NoiseSettings, draw_noise
from gan_core.randomness import stream

Masks = tuple[Float[Tensor, "*members batch _"], ...]  # one as wide as each layer's input of D; none: no dropout


class Draw(NamedTuple):
    """What one update draws: z, and D's dropout masks for the real and for the fake examples."""

    noise: Float[Tensor, "*members batch size"]
    real_masks: Masks
    fake_masks: Masks

    def rows(self, rows: slice) -> "Draw":
        """The draws of some examples of the batch."""
        return Draw(
            self.noise[..., rows, :],
            tuple(mask[..., rows, :] for mask in self.real_masks),
            tuple(mask[..., rows, :] for mask in self.fake_masks),
        )


class Draws(NamedTuple):
    """What one step draws: one draw for each update of D, and G's."""

    discriminator: tuple[Draw, ...]
    generator: Draw


@dataclass(frozen=True)
class DrawSource:
    """Draws of any step, as a function of (seed, purpose, step) and of nothing else.

    They are made on the CPU, for the whole batch: neither the device, nor the number of workers,
    nor a resumed training changes them.
    """

    seed: int
    noise: NoiseSettings
    dropout: Sequence[tuple[int, float]]  # (width, probability to keep) of each of D's layers
    batch_size: int
    discriminator_steps: int
    shared: bool  # G's update reuses the last draw of D's
    device: torch.device = torch.device("cpu")

    def at(self, step: int, rows: slice = slice(None)) -> Draws:
        """The draws of one step, restricted to the given rows of the batch."""
        first = step * self.discriminator_steps
        discriminator = tuple(
            self._draw("discriminator", first + k, rows, sides=2) for k in range(self.discriminator_steps)
        )
        generator = discriminator[-1] if self.shared else self._draw("generator", step, rows, sides=1)
        return Draws(discriminator, generator)

    def _draw(self, purpose: str, index: int, rows: slice, sides: int) -> Draw:
        noise = draw_noise(stream(self.seed, f"{purpose} noise", index), self.batch_size, self.noise)
        random = stream(self.seed, f"{purpose} dropout", index)
        fake, *real = [self._masks(random, rows) for _ in range(sides)]
        return Draw(noise[rows].to(self.device), real[0] if real else (), fake)

    def _masks(self, random: np.random.Generator, rows: slice) -> Masks:
        if all(keep == 1 for _, keep in self.dropout):
            return ()
        return tuple(
            dropout_mask(random, (self.batch_size, width), keep)[rows].to(self.device) for width, keep in self.dropout
        )


def dropout_mask(random: np.random.Generator, shape: tuple[int, int], keep: float) -> Float[Tensor, "batch width"]:
    """1/keep with probability `keep`, else 0: inverted dropout, resolved to 2^-16."""
    count = shape[0] * shape[1]
    bits = random.bit_generator.random_raw(-(-count // 4)).astype("<u8", copy=False).view(np.uint16)[:count]
    mask = torch.from_numpy(bits < min(round(keep * 2**16), 2**16)).to(torch.float32) if keep < 1 else torch.ones(count)
    return mask.mul_(1 / keep).view(shape)
