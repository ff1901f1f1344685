"""Coverage against the paper that defines it, nearest neighbours, and the reference samples."""

import contextlib
import math

import numpy as np
import prdc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gan_core.datasets.digits import load_digits
from gan_core.metrics.sample_quality import (
    coverage,
    duplicates,
    memorisation,
    nearest_neighbours,
    quality,
    reference_samples,
)


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.sqrt(np.square(a[:, None].astype(np.float64) - b[None].astype(np.float64)).sum(axis=2))


def normal(count: int, seed: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)


@settings(max_examples=30)
@given(st.integers(7, 40), st.integers(7, 40), st.integers(1, 6), st.integers(0, 999))
def test_coverage_is_equation_9_of_naeem_et_al(points, samples, neighbours, seed):
    count = min(points, samples)  # of both
    real, generated = normal(points, seed)[:count], normal(samples, seed + 1)[:count]
    covered = 0
    for i, row in enumerate(distances(real, real)):
        radius = sorted(np.delete(row, i))[neighbours - 1]  # to the k-th nearest other real point
        covered += bool((distances(real[i : i + 1], generated) < radius).any())
    assert coverage(normal(points, seed), normal(samples, seed + 1), neighbours) == covered / count


@pytest.mark.parametrize(("real", "generated", "neighbours"), [(1000, 1000, 5), (250, 250, 5), (500, 500, 2)])
def test_coverage_of_same_distribution_is_closed_form(real, generated, neighbours):
    # Naeem et al.'s expectation, whatever the distribution; 1 - 2^-k for equal sizes.
    """Coverage by another sample of the same distribution has Naeem et al.'s closed form."""
    missed = math.prod((real - i) / (real + generated - i) for i in range(1, neighbours + 1))
    value = coverage(normal(real, 0), normal(generated, 1), neighbours)
    # Neighbours' events are positively correlated, about k + 1 of them alike: five standard errors.
    error = math.sqrt(missed * (1 - missed) * (neighbours + 1) / real)
    assert value == pytest.approx(1 - missed, abs=5 * error)


def test_coverage_is_one_for_data_and_low_if_collapsed():
    """Coverage is 1 for the data themselves, near 0 for one repeated image, and 0 far from the data."""
    digits = load_digits()
    assert coverage(digits.validation.images, digits.validation.images) == 1
    # One image, however true or near to all, covers the few points that it is among the 5 nearest of.
    for image, most in ((digits.train.images.mean(axis=0), 0.2), (digits.train.images[0], 0.05)):
        assert coverage(digits.validation.images, np.repeat(image[None], 500, axis=0)) < most
    assert coverage(digits.validation.images, digits.train.images[:200]) > 0.85
    assert coverage(normal(200, 0), normal(200, 1) + 100) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 60), st.integers(8, 60), st.integers(1, 6), st.integers(0, 999))
def test_quality_equals_the_prdc_package(points, samples, neighbours, seed):
    """Precision, recall, density and coverage are those of the prdc package."""
    real, generated = normal(points, seed), normal(samples, seed + 1)
    count = min(points, samples)
    with contextlib.redirect_stdout(None):
        expected = prdc.compute_prdc(real[:count], generated[:count], neighbours)
    found = quality(real, generated, neighbours=neighbours)
    assert found.count == count
    for name, value in expected.items():
        # Both count the same comparisons: equal but for the order of a sum.
        assert getattr(found, name) == pytest.approx(value, abs=1e-12), name
    assert found.coverage == coverage(real, generated, neighbours)
    assert found.memorisation is None


def test_quality_in_blocks_is_prdc_on_real_images_too():
    digits = load_digits()
    real, generated = digits.train.images, digits.gate.images  # 300 float64 a row: three blocks
    with contextlib.redirect_stdout(None):
        expected = prdc.compute_prdc(real[:300], generated, 5)
    found = quality(real, generated, working_memory=1)
    assert [getattr(found, name) for name in expected] == pytest.approx(list(expected.values()), abs=1e-12)


def test_duplicates_are_rare_unless_a_sample_repeats():
    """Duplicates are about 1 % of varied samples, however many, and all of a repeated one."""
    real = normal(2000, 0)
    # A quantile of 2,000 and a binomial of 2,000 at 0.01: standard errors of 0.002 each, and neighbours come in pairs.
    assert duplicates(real, normal(2000, 1)) == pytest.approx(0.01, abs=0.015)
    assert duplicates(real, np.repeat(real[:1], 2000, axis=0)) == 1
    half = np.concatenate([normal(1000, 2), np.repeat(real[:1], 1000, axis=0)])[
        np.random.default_rng(0).permutation(2000)
    ]
    assert duplicates(real, half) == pytest.approx(0.505, abs=0.02)
    # Ten times as many samples are nearer to each other, and are no more alike.
    assert duplicates(real, normal(20_000, 3)) == pytest.approx(0.01, abs=0.015)


def test_memorisation_is_half_if_fresh_one_for_copies():
    """Memorisation is 1/2 for fresh samples, 1 for copies, 0 for far ones, and 3/4 for half of each."""
    training, real = normal(3000, 0), normal(1500, 1)
    # The Mann-Whitney probability of equals: standard error sqrt((n + m + 1) / 12 n m) = 0.011; four of them.
    assert memorisation(real, normal(1500, 2), training) == pytest.approx(0.5, abs=0.045)
    assert memorisation(real, training[:1500], training) == 1
    assert memorisation(real, 100 + real, training) == 0
    mixed = np.concatenate([normal(750, 3), training[:750]])
    assert memorisation(real, mixed, training) == pytest.approx(0.75, abs=0.045)


def test_fewer_points_than_neighbours_are_refused():
    """No more points or samples than neighbours are refused with both numbers."""
    for points, samples in ((5, 9), (9, 5)):
        with pytest.raises(ValueError, match=f"{points} points and {samples} samples; expected more than 5"):
            quality(normal(points, 0), normal(samples, 1))


@settings(max_examples=30)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 999))
def test_nearest_neighbours_have_smallest_distances(points, examples, seed):
    """Nearest neighbours are the indices of the smallest distances, as all of them computed say."""
    found = nearest_neighbours(normal(points, seed), normal(examples, seed + 1))
    assert found.tolist() == distances(normal(points, seed), normal(examples, seed + 1)).argmin(axis=1).tolist()


def test_reference_samples_are_images_and_kmeans():
    """References are the first training images and k-means centres, which lose less than as many images."""
    images = load_digits().train.images
    references = reference_samples(images, 300)
    assert list(references) == ["training data", "k-means"]
    assert np.array_equal(references["training data"], images[:300])
    centres = references["k-means"]
    assert centres.shape == (100, 64)  # one for every ten
    assert centres.dtype == np.float32
    assert centres.min() >= 0
    assert centres.max() <= 1
    assert np.array_equal(centres, reference_samples(images, 300)["k-means"])

    def squared_error(representatives):
        return np.square(distances(images, representatives).min(axis=1)).mean()

    # Centres, unlike as many images, are where they lose least.
    assert squared_error(centres) < 0.75 * squared_error(images[:100])
    assert len(reference_samples(images[:5], 3)["k-means"]) == 1
