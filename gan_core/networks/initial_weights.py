"""Initial weights, drawn in a net's own order from its stream of random numbers."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


@torch.no_grad()
def draw_uniform(weights: Iterable[Tensor], random: np.random.Generator, init_range: float) -> None:
    """Uniform on (-init_range, init_range), in place."""
    for weight in weights:
        weight.copy_(torch.from_numpy((random.random(weight.shape, dtype=np.float32) * 2 - 1) * np.float32(init_range)))


@torch.no_grad()
def draw_normal(weight: Tensor, random: np.random.Generator, fan_in: float, gain: float) -> None:
    """Normal with variance gain^2 / fan_in, in place: each unit's input keeps its size (He et al. 2015)."""
    deviation = np.float32(gain / math.sqrt(fan_in))
    weight.copy_(torch.from_numpy(random.standard_normal(weight.shape, dtype=np.float32) * deviation))


@torch.no_grad()
def draw_sparse(weight: Tensor, random: np.random.Generator, nonzeros: int) -> None:
    """Of each unit's incoming weights, `nonzeros` at places of its own from N(0, 1), and the others zero."""
    inputs, units = weight.shape
    drawn = np.zeros((inputs, units), np.float32)
    for unit in range(units):
        chosen = random.choice(inputs, nonzeros, replace=False)
        drawn[chosen, unit] = random.standard_normal(nonzeros, dtype=np.float32)
    weight.copy_(torch.from_numpy(drawn))


@torch.no_grad()
def set_marginal_bias(bias: Tensor, settings: Any, pixel_means: np.ndarray | None) -> None:
    """Make G's output bias the logits of the training pixels' means, where the settings of a sigmoid ask for it."""
    if settings.marginal_bias and settings.output == "sigmoid" and pixel_means is not None:
        bias.copy_(torch.logit(torch.from_numpy(pixel_means.astype(np.float64)).clamp(1e-7, 1 - 1e-7)))
