"""Gradient rules on tensors, momentum (the paper's) and Adam, a moving average, schedules of the step."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.optim.adam import adam

OptimizerName = Literal["momentum", "adam"]
Moments = dict[str, list[Tensor]]


@dataclass(frozen=True)
class MomentumSettings:
    """Momentum, linear in the epoch from `initial` at `start_epoch` to `final` at `saturate_epoch`."""

    initial: float = 0.5
    final: float = 0.7
    start_epoch: float = 1
    saturate_epoch: float = 250

    def __post_init__(self) -> None:
        for name in ("initial", "final"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"algorithm.momentum.{name} {getattr(self, name)} is not in [0, 1)")
        if not self.start_epoch < self.saturate_epoch:
            raise ValueError(
                f"algorithm.momentum.start_epoch {self.start_epoch} is not before saturate_epoch {self.saturate_epoch}"
            )

    def at(self, epoch: Tensor) -> Tensor:
        """The momentum coefficient in a given epoch."""
        ramp = ((epoch - self.start_epoch) / (self.saturate_epoch - self.start_epoch)).clamp(0, 1)
        return self.initial + (self.final - self.initial) * ramp


@dataclass(frozen=True)
class AdamSettings:
    """Adam (Kingma and Ba 2014): decay of the two moments, and epsilon."""

    beta1: float = 0.5
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        for name in ("beta1", "beta2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"algorithm.adam.{name} {getattr(self, name)} is not in [0, 1)")
        if not self.epsilon > 0:
            raise ValueError(f"algorithm.adam.epsilon {self.epsilon} is not positive")


def decayed_rate(initial: float | Tensor, decay: float, minimum: float, step: Tensor) -> Tensor:
    """lr_0 / decay^t after t updates, and never less than `minimum` (unless lr_0 is)."""
    rate = initial / decay ** step.to(torch.float64)
    floor = torch.minimum(torch.as_tensor(initial, dtype=torch.float64), rate.new_tensor(minimum))
    return torch.maximum(rate, floor).to(torch.float32)


def zero_moments(optimizer: OptimizerName, parameters: Sequence[Tensor]) -> Moments:
    """The moments an optimizer starts with."""
    names = {"momentum": ("velocity",), "adam": ("first_moment", "second_moment")}[optimizer]
    return {name: [torch.zeros_like(parameter) for parameter in parameters] for name in names}


@torch.no_grad()
def momentum_update(
    parameters: Sequence[Tensor], gradients: Sequence[Tensor], moments: Moments, rate: Tensor, momentum: Tensor
) -> None:
    """Classical momentum, in place: v <- m v - lr g, p <- p + v."""
    for parameter, gradient, velocity in zip(parameters, gradients, moments["velocity"], strict=True):
        velocity.mul_(momentum).addcmul_(gradient, _like(rate, parameter), value=-1)
        parameter.add_(velocity)


@torch.no_grad()
def adam_update(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    moments: Moments,
    rate: Tensor,
    updates: Tensor,
    settings: AdamSettings,
) -> None:
    """Adam, in place; `updates` counts from 0 and corrects the moments' bias.

    One rate for all is PyTorch's fused kernel, nine times faster than the same in separate operations;
    a rate per member, which that kernel does not take, is those.
    """
    first_moments, second_moments = moments["first_moment"], moments["second_moment"]
    if not rate.dim():
        counts = [updates.to(torch.float32, copy=True) for _ in parameters]  # the kernel adds 1 to each
        adam(
            list(parameters), list(gradients), first_moments, second_moments, [], counts,
            fused=True, amsgrad=False, beta1=settings.beta1, beta2=settings.beta2, lr=rate, weight_decay=0.0,
            eps=settings.epsilon, maximize=False,
        )  # fmt: skip
        return
    count = updates.to(torch.float64) + 1
    first_scale = (1 / (1 - settings.beta1**count)).to(torch.float32)
    second_scale = (1 / (1 - settings.beta2**count)).to(torch.float32)
    for parameter, gradient, first, second in zip(parameters, gradients, first_moments, second_moments, strict=True):
        first.lerp_(gradient, 1 - settings.beta1)
        second.mul_(settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
        denominator = (second * second_scale).sqrt_().add_(settings.epsilon)
        parameter.sub_(first * (_like(rate, parameter) * first_scale) / denominator)


@torch.no_grad()
def average_update(averages: Sequence[Tensor], parameters: Sequence[Tensor], decay: float, step: Tensor) -> None:
    """An exponential moving average of the parameters, in place: a <- d a + (1 - d) p.

    d = min(decay, (1 + t) / (10 + t)) after t steps, so that the first weights are soon forgotten.
    """
    weight = torch.clamp(9 / (10 + step.to(torch.float64)), min=1 - decay).to(torch.float32)
    torch._foreach_lerp_(list(averages), list(parameters), [weight] * len(averages))


def _like(rate: Tensor, parameter: Tensor) -> Tensor:
    """A rate per member, shaped to multiply that member's parameters."""
    return rate.reshape(rate.shape + (1,) * (parameter.dim() - rate.dim())) if rate.dim() else rate
