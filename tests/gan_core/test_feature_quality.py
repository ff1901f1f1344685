"""The Fréchet distance against its closed forms, and what it says of samples of real digits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from gan_core.datasets.digits import load_digits
from gan_core.metrics.classifier import train_classifier
from gan_core.metrics.feature_quality import feature_quality, frechet_distance


def rows_of(mean: np.ndarray, covariance: np.ndarray, count: int = 50, seed: int = 0) -> np.ndarray:
    """Rows whose mean and covariance are exactly these."""
    drawn = np.random.default_rng(seed).standard_normal((count, len(mean)))
    centred = drawn - drawn.mean(axis=0)
    white = centred @ np.linalg.inv(np.linalg.cholesky(np.cov(centred, rowvar=False))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def covariance(random: np.random.Generator, width: int) -> np.ndarray:
    factor = random.standard_normal((width, width))
    return factor @ factor.T + 0.1 * np.eye(width)


# The rows carry their moments to rounding; 1e-8 is a hundred times the largest error seen.
@settings(max_examples=30)
@given(st.integers(2, 6), st.integers(0, 999))
def test_frechet_distance_equals_published_formula(width, seed):
    """The distance is the published formula with scipy's matrix square root."""
    random = np.random.default_rng(seed)
    (mean_a, mean_b), (first, second) = random.standard_normal((2, width)), (covariance(random, width) for _ in "ab")
    expected = np.square(mean_a - mean_b).sum() + np.trace(first + second - 2 * sqrtm(first @ second).real)
    found = frechet_distance(rows_of(mean_a, first), rows_of(mean_b, second, seed=1))
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-8)


def test_frechet_distance_of_aligned_normals():
    """Between axis-aligned normals it is the squared distance of means plus that of standard deviations."""
    a, b = rows_of(np.zeros(3), np.diag([1.0, 4.0, 9.0])), rows_of(np.array([1.0, 0.0, 2.0]), np.eye(3), seed=1)
    assert frechet_distance(a, b) == pytest.approx(5 + 0 + 1 + 4, rel=1e-10)


def test_frechet_distance_to_itself_is_zero():
    """A set is at distance 0 from itself even where one feature never varies and the covariance is singular."""
    still = np.column_stack([np.random.default_rng(0).standard_normal(40), np.zeros(40)])
    assert frechet_distance(still, still) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_ranks_digits_blends_and_noise():
    """Training digits are nearer to test digits than blends of them, and those are nearer than noise."""
    digits = load_digits()
    classifier, train = train_classifier(digits.train), digits.train.images
    noise = np.random.default_rng(0).random(train.shape, dtype=np.float32)
    mixed = (train + train[::-1]) / 2
    themselves, between, far = (feature_quality(classifier, digits, images) for images in (train, mixed, noise))
    assert themselves.frechet_distance == themselves.training_images
    assert themselves.frechet_distance < between.frechet_distance / 3 < far.frechet_distance / 9
    assert themselves.quality.coverage > 0.9 > between.quality.coverage > far.quality.coverage
    assert themselves.classifier_accuracy > 0.95
