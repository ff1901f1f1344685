"""Quality on the features of a small classifier of the data set's own labels: a Fréchet distance, which is not Inception's FID."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from gan_core.datasets import Dataset
from gan_core.metrics.classifier import Classifier
from gan_core.metrics.sample_quality import Quality, quality


@dataclass(frozen=True)
class FeatureQuality:
    """How samples compare with the test images on a classifier's features, beside as many training images.

    The features are the last hidden layer of a classifier trained here, on this data set alone: the numbers
    compare models of one data set, and with nobody's published FID. A Fréchet distance of few samples is
    too high, which is why the training images' own stands beside it.
    """

    frechet_distance: float
    training_images: float  # the same of training images instead of samples
    samples: int  # of G, and training images
    quality: Quality
    classifier_accuracy: float


def feature_quality(
    classifier: Classifier, dataset: Dataset, generated: Float[np.ndarray, "samples width"], neighbours: int = 5
) -> FeatureQuality:
    """Compare samples with the test images on the features of a classifier of the training images."""
    count = min(len(generated), len(dataset.train))
    real, drawn, training = (
        classifier.features(images) for images in (dataset.test.images, generated[:count], dataset.train.images[:count])
    )
    return FeatureQuality(
        frechet_distance=frechet_distance(real, drawn),
        training_images=frechet_distance(real, training),
        samples=count,
        quality=quality(real, drawn, neighbours=neighbours),
        classifier_accuracy=classifier.accuracy(dataset.test),
    )


def frechet_distance(a: Float[np.ndarray, "rows width"], b: Float[np.ndarray, "others width"]) -> float:
    """The squared Fréchet distance of two sets of rows, each taken for a normal distribution.

        |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))

    Dowson and Landau 1982; of features, Heusel et al. 2017 (arXiv 1706.08500, Eq. 6). The trace of the root is
    the sum of the roots of the eigenvalues of C_a^(1/2) C_b C_a^(1/2), which is symmetric.
    """
    (mean_a, covariance_a), (mean_b, covariance_b) = (_moments(rows) for rows in (a, b))
    values, vectors = np.linalg.eigh(covariance_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    shared = np.sqrt(np.linalg.eigvalsh(root @ covariance_b @ root).clip(min=0)).sum()
    distance = np.square(mean_a - mean_b).sum() + np.trace(covariance_a) + np.trace(covariance_b) - 2 * shared
    return float(distance)


def _moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    exact = rows.astype(np.float64)
    return exact.mean(axis=0), np.cov(exact, rowvar=False)
