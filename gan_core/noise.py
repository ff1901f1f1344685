"""The noise priors p_z."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def uniform(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform on (-sqrt 3, sqrt 3): zero mean, unit variance (the published MNIST prior)."""
    return (random.random(shape, dtype=np.float32) * 2 - 1) * np.float32(math.sqrt(3))


def normal(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal (the published prior for TFD and CIFAR-10)."""
    return random.standard_normal(shape, dtype=np.float32)


PRIORS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {"uniform": uniform, "normal": normal}


@dataclass(frozen=True)
class NoiseSettings:
    """The prior p_z(z): its family and the width of z."""

    prior: Literal["uniform", "normal"] = "uniform"
    size: int = 100

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"noise.size {self.size} is not a width; use 1 or more")


def draw_noise(random: np.random.Generator, count: int, settings: NoiseSettings) -> Float[Tensor, "count size"]:
    """`count` independent draws of z."""
    return torch.from_numpy(PRIORS[settings.prior](random, (count, settings.size)))
