"""The Parzen-window log-likelihood of section 5: log-density, choice of sigma, standard errors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from gan_core.errors import DataError
from gan_core.metrics.kernel_sums import KernelSums, tiles
from gan_core.randomness import stream

PAPER_GRID = tuple(float(sigma) for sigma in np.logspace(-1, 0, 10))
# Where a refined sigma is looked for: steps of 8 %, on which the curve is smooth (CURVE below).
SEARCH_GRID = tuple(float(sigma) for sigma in np.geomspace(0.05, 1.0, 40))

POINT_TILE = 500  # points at a time


def parzen_log_density(
    points: Float[np.ndarray, "points width"],
    samples: Float[np.ndarray, "samples _"],
    sigmas: Sequence[float],
    device: str = "cpu",
) -> Float[np.ndarray, "points sigmas"]:
    """Log-density of each point, for each sigma, under a Gaussian Parzen window on the samples.

        log p(x) = logsumexp_i(-|x - s_i|^2 / 2 sigma^2) - log n - (d / 2) log(2 pi sigma^2)

    In nats, for pixels in [0, 1]; rescaling pixels by a shifts it by -d log a. All sigmas share one
    pass over the distances, in tiles: under 1 GiB beside the inputs, whatever their sizes. Tiles of `POINT_TILE` points
    know nothing of each other, so points can be shared among tasks in blocks of whole tiles without
    changing a bit. Distances are float32, and float64 in tiles where that may cost over 1e-3 nats (`kernel_sums.py`).

    Raises:
        DataError: If a sigma is not positive, the widths differ, or a value or a result is not finite.
    """
    _check(points, samples, sigmas)
    width = samples.shape[1]
    sums = KernelSums(samples, sigmas, device)
    result = np.empty((len(points), len(sigmas)))
    for tile in tiles(len(points), POINT_TILE):
        result[tile] = sums.log_sum(sums.centred(points[tile])).cpu().numpy()
    result -= math.log(len(samples)) + width / 2 * np.log(2 * math.pi * np.square(sigmas))
    if not np.isfinite(result).all():
        raise DataError(
            "log-densities are not finite",
            "Parzen window",
            f"{int((~np.isfinite(result)).sum())} of {result.size}",
            "values, and a sigma, within what float32 can square",
        )
    return result


@dataclass(frozen=True)
class Score:
    """A log-likelihood: mean and standard error over points, in nats, and the protocol behind it."""

    protocol: str
    log_likelihood: float
    standard_error: float
    sigma: float
    grid: tuple[float, ...]
    fold_sigmas: tuple[float, ...]
    samples: int
    validation_points: int
    points: int
    curve: tuple[float, ...] = ()  # mean log-likelihood of the points that sigma was chosen on, along the grid


LogDensity = Callable[[np.ndarray, Sequence[float]], np.ndarray]  # (points, sigmas) -> (points, sigmas)


def paper_protocol(log_density: LogDensity, validation: np.ndarray, points: np.ndarray, samples: int) -> Score:
    """The original's: the best sigma of its grid on all validation points (first of ties), then the points."""
    curve = log_density(validation, PAPER_GRID).mean(axis=0)
    sigma = PAPER_GRID[int(curve.argmax())]
    score = fixed_sigma(log_density, sigma, points, samples, "paper", PAPER_GRID, len(validation))
    return replace(score, curve=tuple(map(float, curve)))


def parzen_log_likelihood(
    samples: Float[np.ndarray, "samples width"],
    validation: Float[np.ndarray, "_ width"],
    points: Float[np.ndarray, "points width"],
    device: str = "cpu",
) -> Score:
    """The log-likelihood of points, in nats, under a Parzen window on samples of G, by the paper's protocol.

    Raises:
        DataError: If the widths differ, or a value is not finite.
    """
    return paper_protocol(
        lambda rows, sigmas: parzen_log_density(rows, samples, sigmas, device), validation, points, len(samples)
    )


def fixed_sigma(
    log_density: LogDensity,
    sigma: float,
    points: np.ndarray,
    samples: int,
    protocol: str = "fixed",
    grid: tuple[float, ...] = (),
    validation_points: int = 0,
) -> Score:
    """The score at one sigma, however it was chosen."""
    mean, error = mean_and_standard_error(log_density(points, [sigma])[:, 0])
    return Score(protocol, mean, error, sigma, grid, (), samples, validation_points, len(points))


def cross_validated_protocol(
    log_density: LogDensity, validation: np.ndarray, points: np.ndarray | None, samples: int, folds: int, seed: int = 0
) -> Score:
    """K-fold cross-validation of sigma: refined on all folds but one, scored on that one.

    Without `points`, the score is that of the held-out folds. With them, it is the points' score at
    the sigma refined on all validation points; the folds' sigmas say how well it is determined.

    Raises:
        DataError: If there are fewer validation points than folds, or fewer than two folds.
    """
    if not 2 <= folds <= len(validation):
        raise DataError(
            "too few folds or points",
            "cross-validation",
            f"{folds} folds of {len(validation)} points",
            "2 folds or more, each with a point",
        )
    curves = log_density(validation, SEARCH_GRID)
    curve = curves.mean(axis=0)
    parts = fold_indices(len(validation), folds, seed)
    sigmas = tuple(refined_sigma(np.delete(curves, part, axis=0).mean(axis=0)) for part in parts)
    if points is None:
        held_out = log_density(validation, sigmas)
        chosen = np.empty(len(validation))
        for column, part in enumerate(parts):
            chosen[part] = held_out[part, column]
        mean, error = mean_and_standard_error(chosen)
        return Score(
            "cross_validated",
            mean,
            error,
            float(np.mean(sigmas)),
            SEARCH_GRID,
            sigmas,
            samples,
            len(validation),
            len(validation),
            tuple(map(float, curve)),
        )
    sigma = refined_sigma(curve)
    mean, error = mean_and_standard_error(log_density(points, [sigma])[:, 0])
    counts = samples, len(validation), len(points)
    return Score("cross_validated", mean, error, sigma, SEARCH_GRID, sigmas, *counts, tuple(map(float, curve)))


def refined_sigma(curve: Float[np.ndarray, " sigmas"], grid: Sequence[float] = SEARCH_GRID) -> float:
    """The sigma that maximises a log-likelihood known on a grid, by bounded minimisation on log sigma.

    Between grid points the curve is a cubic spline; on SEARCH_GRID its maximum is within 0.1 % of
    the directly minimised one, and the score is flat there.
    """
    best = int(np.argmax(curve))
    logs = np.log(grid)
    spline = CubicSpline(logs, curve)
    low, high = logs[max(best - 1, 0)], logs[min(best + 1, len(logs) - 1)]
    found = minimize_scalar(
        lambda log_sigma: -spline(log_sigma), bounds=(low, high), method="bounded", options={"xatol": 1e-6}
    )
    return float(np.exp(found.x))


def fold_indices(count: int, folds: int, seed: int = 0) -> list[np.ndarray]:
    """Indices of K folds of nearly equal size, in an order drawn from the seed."""
    return np.array_split(stream(seed, "folds").permutation(count), folds)


def mean_and_standard_error(values: np.ndarray) -> tuple[float, float]:
    """The mean, and std / sqrt(n) as the original computes it."""
    return float(values.mean()), float(values.std() / math.sqrt(len(values)))


def _check(points: np.ndarray, samples: np.ndarray, sigmas: Sequence[float]) -> None:
    where = "Parzen window"
    for sigma in sigmas:
        if not (sigma > 0 and 0 < sigma * sigma < math.inf):
            raise DataError("sigma out of range", where, f"{sigma}", "a positive number")
    for name, array in (("samples", samples), ("points", points)):
        if array.ndim != 2 or not len(array):
            raise DataError(f"no {name}", where, f"an array of shape {list(array.shape)}", "one row each, at least one")
        if not np.isfinite(array.sum(dtype=np.float64)):  # no mask as large as the array unless one is wrong
            raise DataError(f"{name} are not finite", where, f"{int((~np.isfinite(array)).sum())} values", "numbers")
    if points.shape[1] != samples.shape[1]:
        raise DataError(
            "widths differ",
            where,
            f"points of {points.shape[1]} and samples of {samples.shape[1]}",
            "as wide as each other",
        )
