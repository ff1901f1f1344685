"""Score a generator on Ray tasks: Parzen log-likelihood by both protocols, coverage, reference rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from gan_core.datasets import Dataset
from gan_core.errors import DataError
from gan_core.extensions.measures import described_measures, extension_measures
from gan_core.parzen import (
    POINT_TILE,
    LogDensity,
    Score,
    cross_validated_protocol,
    fixed_sigma,
    mean_and_standard_error,
    paper_protocol,
    parzen_log_density,
)
from gan_core.portable import PortableGenerator
from gan_core.quality import Quality, equally_many, quality, reference_samples, repeated
from pipelines.records import EvaluateRecord
from pipelines.settings import EvaluateSettings

ARRAYS = EvaluateSettings()  # what scores arrays, which have no run


def evaluate_generator(
    model: PortableGenerator,
    dataset: Dataset,
    settings: EvaluateSettings,
    seed: int,
    say: Callable[[str], None],
    beside: Mapping[str, PortableGenerator] | None = None,
) -> EvaluateRecord:
    """Both protocols on the test set, sigma from the validation points, and the reference rows.

    `beside` names other generators (G's averaged weights, where the last ones are scored), a row each.
    """
    started = time.monotonic()
    samples = model.draw(settings.samples, seed).reshape(settings.samples, -1)
    validation, points = dataset.validation.images, dataset.test.images
    log_density = on_cluster(samples)
    paper = paper_protocol(log_density, validation, points, len(samples))
    say(
        f"score  paper protocol: {paper.log_likelihood:.1f} ± {paper.standard_error:.1f} nats at sigma {paper.sigma:.4f}"
    )
    refined = cross_validated_protocol(log_density, validation, points, len(samples), settings.folds)
    say(
        f"score  cross-validated: {refined.log_likelihood:.1f} ± {refined.standard_error:.1f} nats at sigma {refined.sigma:.4f}"
    )
    seen = _quality(samples, dataset, settings)
    drawn = {name: other.draw(settings.samples, seed) for name, other in (beside or {}).items()}
    rows_of = {
        **{name: images.reshape(len(images), -1) for name, images in drawn.items()},
        **reference_samples(dataset.train.references, settings.samples, settings.neighbours + 1),
    }
    references = {name: _reference_row(rows, dataset, settings) for name, rows in rows_of.items()}
    for name, row in references.items():
        say(
            f"score  reference, {name}: {row['log_likelihood']:.1f} ± {row['standard_error']:.1f} nats, coverage {row['coverage']:.2f} (of {row['count']})"
        )
    say(f"score  {described(**asdict(seen))}")
    measures = extension_measures(model, dataset, settings.samples, seed)
    for line in described_measures(measures):
        say(f"score  {line}")
    return EvaluateRecord(
        log_likelihood=paper.log_likelihood,
        standard_error=paper.standard_error,
        sigma=paper.sigma,
        paper=asdict(paper),
        cross_validated=asdict(refined),
        coverage=seen.coverage,
        references=references,
        data_digest=dataset.digest,
        generator_sha256=model.sha256,
        seconds=time.monotonic() - started,
        quality=asdict(seen),
        weights=settings.weights or "last",
        extension=measures,
    )


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


def on_cluster(samples: np.ndarray) -> LogDensity:
    """The Parzen log-density on these samples, its points shared among Ray tasks.

    Tasks take whole tiles of points and their results are put back in order, so the bits are the
    same for any number of tasks, in any order, retried or not.
    """
    import ray

    stored = ray.put(samples)
    task = ray.remote(_block_log_density)

    def log_density(points: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
        tasks = max(1, int(ray.cluster_resources().get("CPU", 1)))
        tiles = -(-len(points) // POINT_TILE)
        size = -(-tiles // tasks) * POINT_TILE
        blocks = [points[start : start + size] for start in range(0, len(points), size)]
        return np.concatenate(ray.get([task.remote(block, stored, list(sigmas)) for block in blocks]))

    return log_density


def _block_log_density(points: np.ndarray, samples: np.ndarray, sigmas: list[float]) -> np.ndarray:
    torch.set_num_threads(1)
    return parzen_log_density(points, samples, sigmas)


def _quality(rows: np.ndarray, dataset: Dataset, settings: EvaluateSettings) -> Quality:
    """Of every row by one number of samples and test images: as many as there are of test, training and drawn images."""
    training = dataset.train.references
    count = min(len(dataset.test), len(training), settings.samples)
    return quality(dataset.test.images[:count], repeated(rows, count), training, settings.neighbours)


def _reference_row(rows: np.ndarray, dataset: Dataset, settings: EvaluateSettings) -> dict[str, float]:
    score: Score = paper_protocol(on_cluster(rows), dataset.validation.images, dataset.test.images, len(rows))
    return {
        **asdict(_quality(rows, dataset, settings)),
        "log_likelihood": score.log_likelihood,
        "standard_error": score.standard_error,
        "sigma": score.sigma,
        "samples": len(rows),
    }


def load_array(path: str, where: str) -> np.ndarray:
    """A `.npy` array of images, flattened to one a row, as float32.

    Raises:
        DataError: If the file is missing, not an array of numbers, or pickled.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            "unreadable array", f"{where} {path}", str(error), "a .npy file of numbers, one image a row"
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu" or array.ndim < 2 or not array.size:
        raise DataError(
            "not an array of images",
            f"{where} {path}",
            f"{getattr(array, 'dtype', type(array).__name__)} of shape {list(getattr(array, 'shape', ()))}",
            "numbers, one image a row",
        )
    return np.ascontiguousarray(array.reshape(len(array), -1), dtype=np.float32)
