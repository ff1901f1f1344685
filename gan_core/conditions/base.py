"""What G and D are conditioned on: what every kind of condition offers, and nothing, the paper's own kind."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from gan_core.networks.base import GeneratorNet


class WrappedGenerator(nn.Module):
    """G within what its condition makes of its output; the weights are G's."""

    def __init__(self, within: GeneratorNet) -> None:
        super().__init__()
        self.within = within

    def initialize(self, random: np.random.Generator, pixel_means: np.ndarray | None = None) -> None:
        """Draw G's own initial weights."""
        self.within.initialize(random, pixel_means)

    def apply_weight_constraint(self) -> None:
        """G's own constraint on its weights."""
        self.within.apply_weight_constraint()


@runtime_checkable
class Conditions(Protocol):
    """One kind of condition, a row of `size` numbers for each example: where the rows come from."""

    @property
    def size(self) -> int:
        """The width of a condition."""

    def encode(self, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Tensor:
        """The conditions (count, size) of real examples: images (count, pixels) and their labels.

        What is random about them comes from `random`, drawn for the whole global minibatch.
        """

    def sample_prior(self, count: int, random: np.random.Generator) -> Tensor:
        """Conditions (count, size) for samples of p(x), which are given none."""

    def wrap(self, generator: GeneratorNet) -> GeneratorNet:
        """G as it is trained and sampled: itself, or with what such a condition makes of its output."""


@dataclass(frozen=True)
class Unconditional:
    """Conditions of width 0: the nets of the paper."""

    size: int = 0

    def encode(self, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Tensor:
        """No columns."""
        return torch.empty(len(images), 0)

    def sample_prior(self, count: int, random: np.random.Generator) -> Tensor:
        """No columns."""
        return torch.empty(count, 0)

    def wrap(self, generator: GeneratorNet) -> GeneratorNet:
        """G itself."""
        return generator


UNCONDITIONAL = Unconditional()
