"""What we measure against: the published MNIST step as one would write it by hand in eager PyTorch."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import softplus


def handwritten_loop(images: np.ndarray, steps: int, batch: int = 100) -> Callable[[], None]:
    """The simultaneous scheme with shared draws: the same arithmetic as ours, and nothing around it."""
    data = torch.from_numpy(images)
    g = [torch.empty(i, o).uniform_(-0.05, 0.05) for i, o in ((100, 1200), (1200, 1200), (1200, 784))]
    g += [torch.zeros(o) for o in (1200, 1200, 784)]
    d = [torch.empty(i, o).uniform_(-0.005, 0.005) for i, o in ((784, 1200), (240, 1200), (240, 1))]
    d += [torch.zeros(o) for o in (1200, 1200, 1)]
    parameters = [p.requires_grad_() for p in g + d]
    velocities = [torch.zeros_like(p) for p in parameters]
    rate, momentum = torch.tensor(0.1), torch.tensor(0.5)

    def generate(z: Tensor) -> Tensor:
        h = torch.relu(z @ g[0] + g[3])
        h = torch.relu(h @ g[1] + g[4])
        return torch.sigmoid(h @ g[2] + g[5])

    def judge(x: Tensor, masks: list[Tensor]) -> Tensor:
        h = ((x * masks[0]) @ d[0] + d[3]).unflatten(-1, (5, 240)).amax(-2)
        h = ((h * masks[1]) @ d[1] + d[4]).unflatten(-1, (5, 240)).amax(-2)
        return ((h * masks[2]) @ d[2] + d[5]).squeeze(-1)

    def loop() -> None:
        for _ in range(steps):
            real = data[torch.randint(len(data), (batch,))]
            z = (torch.rand(batch, 100) * 2 - 1) * math.sqrt(3)
            masks = [
                (torch.rand(2 * batch, w) < keep).float() / keep for w, keep in ((784, 0.8), (240, 0.5), (240, 0.5))
            ]
            logits = judge(torch.cat([real, generate(z)]), masks)
            real_logits, fake_logits = logits.split(batch)
            d_loss = 0.5 * (softplus(-real_logits) + softplus(fake_logits)).mean()
            gradients = torch.autograd.grad(softplus(-fake_logits).mean(), g, retain_graph=True)
            gradients += torch.autograd.grad(d_loss, d)
            with torch.no_grad():
                for parameter, velocity, gradient in zip(parameters, velocities, gradients, strict=True):
                    velocity.mul_(momentum).addcmul_(gradient, rate, value=-1)
                    parameter.add_(velocity)

    return loop


def broadcast_parzen(points: np.ndarray, samples: np.ndarray, sigmas: Sequence[float], block: int = 10) -> np.ndarray:
    """The estimator as the original script computed it: differences broadcast, sigma by sigma, in small batches."""
    x, s, columns = torch.from_numpy(points), torch.from_numpy(samples), []
    for sigma in sigmas:
        column = []
        for batch in x.split(block):
            exponents = -0.5 * ((batch[:, None] - s[None]) / sigma).square().sum(dim=2)
            column.append(torch.logsumexp(exponents, dim=1) - math.log(len(s)))
        columns.append(torch.cat(column) - x.shape[1] * math.log(sigma * math.sqrt(2 * math.pi)))
    return torch.stack(columns, dim=1).numpy()
