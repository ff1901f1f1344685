"""A density in one dimension in closed form, a mixture of normal ones: what Fig. 1's game takes for p_data."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float
from scipy import stats

from gan_core.datasets import Examples
from gan_core.randomness import stream


@dataclass(frozen=True)
class Mixture:
    """p_data: a mixture of normal densities."""

    weights: tuple[float, ...] = (0.6, 0.4)
    means: tuple[float, ...] = (-0.6, 0.8)
    deviations: tuple[float, ...] = (0.5, 0.4)

    def _mixed(self, of_normal: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
        parts = zip(self.weights, self.means, self.deviations, strict=True)
        return np.sum([weight * of_normal(x, mean, deviation) for weight, mean, deviation in parts], axis=0)

    def density(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """p_data(x)."""
        return self._mixed(stats.norm.pdf, x)

    def cumulative(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """The probability of a value below x."""
        return self._mixed(stats.norm.cdf, x)

    def draw(self, count: int, seed: int) -> Examples:
        """Independent examples, one a row, a function of the seed."""
        random = stream(seed, "one-dimensional data")
        which = random.choice(len(self.weights), count, p=self.weights)
        values = random.normal(np.array(self.means)[which], np.array(self.deviations)[which])
        return Examples(values[:, None].astype(np.float32), np.zeros(count, np.int64))

    @cached_property
    def support(self) -> tuple[float, float]:
        """The middle 99 % of p_data, which is nowhere zero but next to nothing beyond."""
        far = 8 * max(self.deviations)
        x = np.linspace(min(self.means) - far, max(self.means) + far, 100_001)
        low, high = np.searchsorted(self.cumulative(x), [0.005, 0.995])
        return float(x[low]), float(x[high])
