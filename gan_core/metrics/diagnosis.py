"""What is wrong with a model's samples, if anything: collapse, noise or copies, seen beside real images."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage, duplicates, equally_many, to_nearest

MOST = 2000  # points and samples that are compared: a rate's standard error is then about 0.01


@dataclass(frozen=True)
class Diagnosis:
    """How a model's samples stand to held-out images and to the training images, on any data.

    `skill` is the skill score of the Parzen log-likelihood of the held-out points, each at its own best sigma
    of the paper's grid: (model - mean image) / (training images - mean image). It is 1 for samples as good as
    the training images, and 0 for a model that knows the mean image alone. `copying` compares medians: a sample's
    distance to its nearest training image, over a held-out point's; about 1 for new images, 0 for copies.
    """

    points: int  # held-out images
    count: int  # of the points that are compared with as many samples, and training images
    duplicates: float  # of samples, beside as many training images (gan_core.metrics.sample_quality): no held-out image is needed
    coverage: float  # of the held-out points, by as many samples
    reference_coverage: float  # of the same points, by as many training images
    skill: float
    copying: float

    @property
    def relative_coverage(self) -> float:
        """The samples' coverage over the training images' own."""
        return self.coverage / max(self.reference_coverage, 1e-12)


def diagnose(
    points: Float[np.ndarray, "points width"],
    generated: Float[np.ndarray, "samples width"],
    training: Float[np.ndarray, "examples width"],
    validation: Float[np.ndarray, "others width"],
    neighbours: int = 5,
) -> Diagnosis:
    """Compare samples with held-out `points`; sigmas are chosen on the `validation` points.

    Coverages are of as many samples, and training images, as points; duplicates and skill of as many samples as there
    are training images, or the other way round.

    Raises:
        ValueError: If there are not more points, or samples, than neighbours.
    """
    few, drawn, known = equally_many(points[:MOST], generated, training)
    held_out = float(np.median(to_nearest(few, training)))
    return Diagnosis(
        points=len(points),
        count=len(few),
        duplicates=duplicates(training[:MOST], generated),
        coverage=coverage(few, drawn, neighbours),
        reference_coverage=coverage(few, known, neighbours),
        skill=_skill(points[:MOST], generated, training, validation),
        copying=float(np.median(to_nearest(drawn, training))) / max(held_out, 1e-12),
    )


def _skill(points: np.ndarray, generated: np.ndarray, training: np.ndarray, validation: np.ndarray) -> float:
    """The skill score of `generated` between the mean image (0) and as many training images (1)."""

    def log_likelihood(samples: np.ndarray) -> float:
        def log_density(rows: np.ndarray, sigmas: Sequence[float]) -> np.ndarray:
            return parzen_log_density(rows, samples, sigmas)

        return paper_protocol(log_density, validation, points, len(samples)).log_likelihood

    nothing = log_likelihood(training.mean(axis=0, keepdims=True))
    model, everything = map(log_likelihood, equally_many(generated, training))
    return (model - nothing) / max(everything - nothing, 1e-12)
