"""Logarithms of sums of Gaussian kernels, in tiles: float32 where it is exact enough, float64 where it is not."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

SAMPLE_TILE, EXACT = 2000, 8
RESIDENT_BYTES = 2**28  # of samples that are kept centred
TOLERANCE = 1e-3  # nats
NEGLIGIBLE = 100.0  # bits: 10^9 terms of 2^-100 are 10^-21 of the sum


class KernelSums:
    """Sums of Gaussian kernels centred on samples, streamed over tiles of samples."""

    def __init__(self, samples: np.ndarray, sigmas: Sequence[float], device: str) -> None:
        self.samples, self.device = samples, device
        self.centre = samples.mean(axis=0, dtype=np.float64)
        parts = tiles(len(samples), SAMPLE_TILE)
        # Few enough samples are centred once, more of them at each use, so that memory is bounded.
        small = samples.size * 4 <= RESIDENT_BYTES
        self.resident = torch.cat([self.centred(samples[tile]) for tile in parts]) if small else None
        self.squares = torch.empty(len(samples), dtype=torch.float64, device=device)
        for tile in parts:
            # Into one tensor: many small results between large passing ones keep these from being reused.
            self.squares[tile] = self.rows(tile).double().square().sum(dim=1)
        # -|x - s|^2 / 2 sigma^2 = rate |x - s|^2
        self.rates = [-0.5 / sigma**2 for sigma in sigmas]

    def centred(self, rows: np.ndarray) -> Tensor:
        """Rows minus the samples' mean, in float32.

        Distances do not change when both sides are centred, but products of centred values are
        smaller, and so are their errors.
        """
        return torch.from_numpy((rows - self.centre).astype(np.float32)).to(self.device)

    def rows(self, chosen: slice | Tensor) -> Tensor:
        """Some of the samples, centred."""
        if self.resident is not None:
            return self.resident[chosen]
        return self.centred(self.samples[chosen if isinstance(chosen, slice) else chosen.cpu().numpy()])

    def log_sum(self, points: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """logsumexp_i(-|x - s_i|^2 / 2 sigma^2), (points, sigmas) in float64.

        Every term comes from |x|^2 + |s|^2 - 2 x.s in float32. That form loses digits where points
        and samples are long compared with their distance, so the `EXACT` nearest samples' terms,
        which carry the sum where sigma is small, are taken out again and put back from
        differences in float64. How far off they were says what the other terms are worth: where
        these may cost more than `TOLERANCE` (many samples nearly as near, all of them far from the
        centre), everything is done again in float64.
        """
        count, rates = len(points), torch.tensor(self.rates, dtype=torch.float64, device=points.device)
        points, squares = points.to(dtype), points.double().square().sum(dim=1).to(dtype)
        nearest = torch.full((count, EXACT), math.inf, dtype=dtype, device=points.device)
        index = torch.zeros((count, EXACT), dtype=torch.int64, device=points.device)
        reference = torch.full((count,), math.inf, dtype=dtype, device=points.device)
        total = torch.zeros((count, len(self.rates)), dtype=torch.float64, device=points.device)
        for tile in tiles(len(self.samples), SAMPLE_TILE):
            samples = self.rows(tile).to(dtype)
            distances = torch.addmm(self.squares[tile].to(dtype), points, samples.T, alpha=-2)
            distances.add_(squares[:, None])
            found, at = distances.topk(min(EXACT, len(samples)), dim=1, largest=False)
            nearest, kept = torch.cat([nearest, found], dim=1).topk(EXACT, dim=1, largest=False)
            index = torch.cat([index, at + tile.start], dim=1).gather(1, kept)
            # Sums are kept relative to the nearest sample so far: exp() of at most 0.
            closer = torch.minimum(reference, nearest[:, 0])
            shift = torch.where(torch.isinf(reference), 0, reference - closer)
            total *= torch.exp(shift.double()[:, None] * rates)
            reference = closer
            total += self._kernel_sums(distances.sub_(reference[:, None]))
        result, doubt = self._with_exact_terms(points, total, reference, nearest, index, rates)
        return self.log_sum(points, torch.float64) if dtype == torch.float32 and doubt > TOLERANCE else result

    def _kernel_sums(self, excess: Tensor) -> Tensor:
        buffer, sums = torch.empty_like(excess), []
        for rate in self.rates:
            # exp(x) = 2^(x / log 2), the faster of the two; what is below 2^-NEGLIGIBLE of the nearest
            # sample's term counts for nothing, but as a denormal number takes ten times as long.
            torch.mul(excess, rate / math.log(2), out=buffer).clamp_(min=-NEGLIGIBLE)
            sums.append(torch.exp2(buffer, out=buffer).sum(dim=1))
        return torch.stack(sums, dim=1).double()

    def _with_exact_terms(
        self, points: Tensor, total: Tensor, reference: Tensor, nearest: Tensor, index: Tensor, rates: Tensor
    ) -> tuple[Tensor, float]:
        """The sums' logarithms, and by how much the terms that are not exact may have changed one."""
        present = torch.isfinite(nearest)
        approximate = torch.where(present, nearest - reference[:, None], math.inf)
        differences = points[:, None, :].double() - self.rows(index).double()
        exact = torch.where(present, differences.square().sum(dim=2), math.inf)
        closest = exact.min(dim=1).values
        off = torch.where(present, nearest - exact, 0).abs().max(dim=1).values
        result, doubt = torch.empty_like(total), 0.0
        for column, rate in enumerate(self.rates):
            removed = torch.exp(approximate * rate).double().sum(dim=1)
            rest = (total[:, column] - removed).clamp(min=0) * torch.exp((reference.double() - closest) * rate)
            whole = rest + torch.exp((exact - closest[:, None]) * rate).sum(dim=1)
            result[:, column] = closest * rate + torch.log(whole)
            doubt = max(doubt, float((rest / whole * off * -rate).max()))
        return result, doubt


def tiles(count: int, size: int) -> list[slice]:
    """So many rows as slices of at most `size`."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
