"""Scores of any samples: of arrays, in this process, and over several models."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gan_core.datasets.images import read_array
from gan_core.errors import DataError
from gan_core.metrics.parzen import (
    cross_validated_protocol,
    fixed_sigma,
    mean_and_standard_error,
    paper_protocol,
    parzen_log_density,
)
from gan_core.metrics.sample_quality import equally_many, quality
from pipelines.config import EvaluateSettings

ARRAYS = EvaluateSettings()  # what scores arrays, which have no run


def described(count: int, **seen: float | None) -> str:
    """A model's quality in a line, with the number of samples and of real images that it is of."""
    return ", ".join(f"{name} {value:.2f}" for name, value in seen.items() if value is not None) + f" (of {count})"


def evaluate_arrays(
    samples: np.ndarray,
    points: np.ndarray,
    validation: np.ndarray | None,
    sigma: float | None,
    folds: int,
    training: np.ndarray | None = None,
    neighbours: int = ARRAYS.neighbours,
) -> dict[str, Any]:
    """Parzen scores of any two arrays, in this process: the given sigma's, and both protocols'.

    Without validation points, the `paper` protocol chooses sigma on the points themselves, and says
    so by its count, and the folds are of the points. `training` images are what samples may be copies of.
    """

    def log_density(rows: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
        return parzen_log_density(rows, samples, sigmas)

    paper = paper_protocol(log_density, points if validation is None else validation, points, len(samples))
    folds_of, scored = (points, None) if validation is None else (validation, points)
    refined = cross_validated_protocol(log_density, folds_of, scored, len(samples), folds)
    fixed = None if sigma is None else fixed_sigma(log_density, sigma, points, len(samples))
    shown = fixed or paper
    compared = points if training is None else equally_many(points, training)[0]
    comparable = min(len(compared), len(samples)) > neighbours
    return {
        **({"fixed": asdict(fixed)} if fixed else {}),
        "log_likelihood": shown.log_likelihood,
        "standard_error": shown.standard_error,
        "sigma": shown.sigma,
        "paper": asdict(paper),
        "cross_validated": asdict(refined),
        "quality": asdict(quality(compared, samples, training, neighbours)) if comparable else None,
    }


def over_models(scored: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of several models' scores, by protocol, and its standard error over them: std / sqrt(models).

    TFD's number in Table 1 is this over its five folds, each model with the sigma of its own fold.
    """
    result: dict[str, Any] = {}
    for protocol in ("fixed", "paper", "cross_validated"):
        if all(protocol in score for score in scored):
            means = np.array([score[protocol]["log_likelihood"] for score in scored])
            mean, error = mean_and_standard_error(means)
            result[protocol] = {
                "protocol": protocol,
                "log_likelihood": mean,
                "standard_error": error,
                "models": len(scored),
            }
    shown = result.get("fixed") or result["paper"]
    return {"log_likelihood": shown["log_likelihood"], "standard_error": shown["standard_error"], **result}


def load_array(path: str, where: str) -> np.ndarray:
    """A `.npy` array of images, flattened to one a row, as float32.

    Raises:
        DataError: If the file is missing, not an array of numbers, or pickled.
    """
    array = read_array(path, f"{where} {path}", "a .npy file of numbers, one image a row")
    if array.dtype.kind not in "fiu" or array.ndim < 2 or not array.size:
        raise DataError(
            "not an array of images",
            f"{where} {path}",
            f"{array.dtype} of shape {list(array.shape)}",
            "numbers, one image a row",
        )
    return np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float32)
