"""What is wrong with samples: skill between its two anchors, coverage beside the training images', duplicates, copies."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_core.datasets.digits import load_digits
from gan_core.metrics.diagnosis import diagnose
from gan_core.metrics.parzen import PAPER_GRID, parzen_log_density
from gan_core.metrics.sample_quality import coverage, duplicates

DIGITS = load_digits()
POINTS, VALIDATION, TRAINING = DIGITS.gate.images, DIGITS.validation.images, DIGITS.train.images


def of(samples, points=POINTS):
    return diagnose(points, samples, TRAINING, VALIDATION)


def test_skill_is_one_for_training_images_zero_for_mean():
    """Skill is 1 for the training images, 0 for their mean, and negative for noise."""
    assert of(TRAINING).skill == pytest.approx(1, abs=1e-12)
    mean = np.repeat(TRAINING.mean(axis=0, keepdims=True), len(TRAINING), axis=0)
    # A window on 1,000 equal samples is the window on one of them; float32 sums of squares.
    assert of(mean).skill == pytest.approx(0, abs=1e-4)
    assert of(np.random.default_rng(0).random(TRAINING.shape, np.float32)).skill < -0.5


def test_skill_is_the_score_at_each_best_sigma():
    """Skill is the skill score of log-likelihoods, each at its own best sigma on validation images."""
    samples = np.clip(TRAINING + 0.1, 0, 1)

    def score(rows):
        sigma = max(PAPER_GRID, key=lambda one: parzen_log_density(VALIDATION, rows, [one]).mean())
        return parzen_log_density(POINTS, rows, [sigma]).mean()

    nothing, everything = score(TRAINING.mean(axis=0, keepdims=True)), score(TRAINING)
    expected = (score(samples) - nothing) / (everything - nothing)
    assert of(samples).skill == pytest.approx(expected, abs=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(10, 300), st.integers(300, 900))
def test_measures_are_of_as_many_samples_as_points(points, samples):
    drawn = DIGITS.test.images[np.arange(samples) % len(DIGITS.test)] * np.float32(0.9)
    seen = of(drawn, POINTS[:points])
    assert (seen.points, seen.count) == (points, points)
    assert seen.coverage == coverage(POINTS[:points], drawn[:points])
    assert seen.reference_coverage == coverage(POINTS[:points], TRAINING[:points])
    assert seen.duplicates == duplicates(TRAINING[:samples], drawn)
    assert seen.relative_coverage == pytest.approx(seen.coverage / seen.reference_coverage)


def test_copying_is_one_for_fresh_images_zero_for_copies():
    """Copying is 0 for training images, about 1 for fresh ones, and large for images far from any."""
    assert of(TRAINING[:300]).copying == 0
    # Medians of 300 distances whose quartiles are 12 % from them: standard errors of 1 %, twice.
    assert of(DIGITS.test.images).copying == pytest.approx(1, abs=0.1)
    assert of(DIGITS.test.images + 10).copying > 5
