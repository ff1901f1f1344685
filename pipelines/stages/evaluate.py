"""Score a generator on Ray tasks: Parzen log-likelihood by both protocols, coverage, reference rows."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

import numpy as np
import torch

from gan_core.datasets import Dataset
from gan_core.extensions.measures import described_measures, extension_measures
from gan_core.metrics.parzen import (
    POINT_TILE,
    LogDensity,
    Score,
    cross_validated_protocol,
    paper_protocol,
    parzen_log_density,
)
from gan_core.metrics.sample_quality import Quality, quality, reference_samples, repeated
from gan_core.portable import PortableGenerator
from pipelines.config import EvaluateSettings
from pipelines.evaluation.scores import described
from pipelines.runs.records import EvaluateRecord


def evaluate_generator(
    model: PortableGenerator,
    dataset: Dataset,
    settings: EvaluateSettings,
    seed: int,
    log: Callable[[str], None],
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
    log(f"score  paper protocol: {_nats(paper)}")
    refined = cross_validated_protocol(log_density, validation, points, len(samples), settings.folds)
    log(f"score  cross-validated: {_nats(refined)}")
    quality = _quality(samples, dataset, settings)
    drawn = {name: other.draw(settings.samples, seed) for name, other in (beside or {}).items()}
    rows_of = {
        **{name: images.reshape(len(images), -1) for name, images in drawn.items()},
        **reference_samples(dataset.train.references, settings.samples, settings.neighbours + 1),
    }
    references = {name: _reference_row(rows, dataset, settings) for name, rows in rows_of.items()}
    for name, row in references.items():
        log(
            f"score  reference, {name}: {row['log_likelihood']:.1f} ± {row['standard_error']:.1f} nats, coverage {row['coverage']:.2f} (of {row['count']})"
        )
    log(f"score  {described(**asdict(quality))}")
    measures = extension_measures(model, dataset, settings.samples, seed)
    for line in described_measures(measures):
        log(f"score  {line}")
    return EvaluateRecord(
        log_likelihood=paper.log_likelihood,
        standard_error=paper.standard_error,
        sigma=paper.sigma,
        paper=asdict(paper),
        cross_validated=asdict(refined),
        coverage=quality.coverage,
        references=references,
        data_digest=dataset.digest,
        generator_sha256=model.sha256,
        seconds=time.monotonic() - started,
        quality=asdict(quality),
        weights=settings.weights or "last",
        extension=measures,
    )


def _nats(score: Score) -> str:
    return f"{score.log_likelihood:.1f} ± {score.standard_error:.1f} nats at sigma {score.sigma:.4f}"


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
