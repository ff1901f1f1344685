"""The Parzen window: against scipy in float64, scikit-learn and closed forms; its protocols; bad input."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from sklearn.neighbors import KernelDensity

from gan_core.datasets import DataSettings, load
from gan_core.errors import DataError
from gan_core.metrics.parzen import (
    PAPER_GRID,
    POINT_TILE,
    SEARCH_GRID,
    cross_validated_protocol,
    fixed_sigma,
    fold_indices,
    mean_and_standard_error,
    paper_protocol,
    parzen_log_density,
    refined_sigma,
)

WIDE = 2304  # TFD's 48 x 48


def exact(points: np.ndarray, samples: np.ndarray, sigmas) -> np.ndarray:
    """The definition, in float64 and from differences."""
    points, samples = points.astype(np.float64), samples.astype(np.float64)
    squares = np.stack([np.square(samples - point).sum(axis=1) for point in points])
    width, count = samples.shape[1], len(samples)
    return np.stack(
        [
            logsumexp(-squares / (2 * s * s), axis=1) - math.log(count) - width * math.log(s * math.sqrt(2 * math.pi))
            for s in sigmas
        ],
        axis=1,
    )


@settings(max_examples=40)
@given(st.integers(1, 12), st.integers(1, 20), st.integers(1, 30), st.floats(0.05, 3), st.integers(0, 2**32 - 1))
def test_log_density_is_its_definition_for_any_sizes(points, samples, width, sigma, seed):
    random = np.random.default_rng(seed)
    x, s = random.random((points, width), np.float32), random.random((samples, width), np.float32)
    # Squared distances of up to 30 in float32, 2^-24 each way, over 2 sigma^2 >= 0.005; a few of them.
    np.testing.assert_allclose(parzen_log_density(x, s, [sigma, 1.0]), exact(x, s, [sigma, 1.0]), rtol=1e-6, atol=1e-3)


def uniform(random, count=2100):
    return random.random((count, WIDE))


def black_or_white(random, whites=210):
    """Images all black or all white but for one pixel: all of a kind are nearly as far from the points."""
    images = np.repeat([[0.0], [1.0]], [2100 - whites, whites], axis=0) * np.ones(WIDE)
    images[np.arange(2100), random.integers(0, WIDE, 2100)] = 0.5
    return np.r_[np.zeros((15, WIDE)), np.ones((15, WIDE))], images


def sphere(random, radius=3.0):
    """Samples all as far from the points, which are all but one."""
    directions = random.standard_normal((2100, WIDE))
    centre = uniform(random, 1)
    directions *= radius / np.linalg.norm(directions, axis=1, keepdims=True)
    return centre + 1e-5 * uniform(random, 30), centre + directions


def two_shades(random):
    images = np.where(np.arange(2130)[:, None] % 2, 0.2, 0.8) + 0.02 * random.standard_normal((2130, WIDE))
    return images[:30], images[30:]


def near(images, random, distance):
    return images[:30] + distance / 48 * random.standard_normal((30, WIDE)), images


HARD = {
    "random": lambda random: (uniform(random, 30), uniform(random)),
    "on samples": lambda random: near(uniform(random), random, 0.0),
    "very near samples": lambda random: near(uniform(random), random, 1e-3),
    "near samples that come in pairs": lambda random: near(np.tile(uniform(random, 1050), (2, 1)), random, 0.1),
    "samples on a sphere about the points": sphere,
    "black or white but for one pixel": black_or_white,
    "two shades of grey": two_shades,
    "binary": lambda random: (uniform(random, 30) < 0.5, uniform(random) < 0.5),
    "norms of 55, as CIFAR-10's": lambda random: [55 / 27.7 * (uniform(random, n) - 0.5) for n in (30, 2100)],
    "far from zero": lambda random: (uniform(random, 30) + 20, uniform(random) + 20),
}


@pytest.mark.parametrize("case", HARD)
def test_log_density_is_accurate_to_a_millinat(case):
    """In float32 the log-density is right to 1e-3 nats at 48 x 48 pixels, in cases of hard cancellation."""
    points, samples = (array.astype(np.float32) for array in HARD[case](np.random.default_rng(0)))
    error = np.abs(parzen_log_density(points, samples, [0.1, 0.2]) - exact(points, samples, [0.1, 0.2]))
    # The promise; the values themselves are thousands of nats.
    assert error.mean(axis=0).max() <= 1e-3
    assert error.max() <= 1e-2


def test_log_density_is_scikit_learn_s_kernel_density():
    random = np.random.default_rng(1)
    samples, points = random.random((300, 20)).astype(np.float32), random.random((100, 20)).astype(np.float32)
    for sigma in (0.1, 0.5):
        # One leaf for all samples: over several, its sums of logarithms cancel and are wrong by tens of nats.
        peer = KernelDensity(bandwidth=sigma, leaf_size=300).fit(samples).score_samples(points)
        # Squared distances of some units in float32, over 2 sigma^2 = 0.02.
        np.testing.assert_allclose(parzen_log_density(points, samples, [sigma])[:, 0], peer, atol=2e-4)


def test_parzen_window_has_its_closed_forms():
    """One sample gives a Gaussian, and many of a Gaussian approach its convolution with the window."""
    point, sample_ = np.array([[0.3, 0.1, 0.7]], np.float32), np.array([[0.1, 0.4, 0.2]], np.float32)
    squares = float(np.square(point.astype(np.float64) - sample_).sum())
    closed = -squares / (2 * 0.25) - 1.5 * math.log(2 * math.pi * 0.25)
    assert parzen_log_density(point, sample_, [0.5])[0, 0] == pytest.approx(closed, abs=1e-6)  # float32 inputs
    random = np.random.default_rng(0)
    samples, points = (random.standard_normal((count, 2)).astype(np.float32) for count in (5_000, 1_000))
    values = parzen_log_density(points, samples, [0.3])[:, 0]
    variance = 1 + 0.3**2  # N(0, 1) blurred by N(0, sigma^2); its cross-entropy with N(0, 1):
    expected = -math.log(2 * math.pi * variance) - 1 / variance
    # 1,000 points whose log-densities have standard deviation 1 / variance (chi-square of two, halved):
    # five standard errors, and 0.03 for 5,000 samples' own noise.
    assert values.mean() == pytest.approx(expected, abs=5 / variance / math.sqrt(1000) + 0.03)


def test_rescaling_pixels_shifts_log_density():
    """Pixels rescaled by a factor a shift the log-density by -d log a, as a change of variables does."""
    random = np.random.default_rng(2)
    samples, points = random.random((100, 30)).astype(np.float32), random.random((50, 30)).astype(np.float32)
    shifted = parzen_log_density(points * 4, samples * 4, [0.8]) + 30 * math.log(4)
    # A power of two changes no digit of a float32.
    np.testing.assert_allclose(shifted, parzen_log_density(points, samples, [0.2]), atol=1e-9)


def test_tiles_in_any_order_have_the_same_bits(one_thread):
    """Blocks of whole tiles in any order have the same bits, so tasks can share the points."""
    random = np.random.default_rng(3)
    samples, points = random.random((2500, 64)).astype(np.float32), random.random((1300, 64)).astype(np.float32)
    whole = parzen_log_density(points, samples, [0.1, 0.3])
    for start in (1000, 0, 500):
        block = parzen_log_density(points[start : start + POINT_TILE], samples, [0.1, 0.3])
        assert np.array_equal(block, whole[start : start + POINT_TILE])
    assert np.array_equal(parzen_log_density(points[500:], samples, [0.1, 0.3]), whole[500:])
    assert np.array_equal(parzen_log_density(points, samples, [0.3])[:, 0], whole[:, 1])


ROW = np.zeros((1, 3), np.float32)


@pytest.mark.parametrize(
    ("points", "samples", "sigmas", "message"),
    [
        (ROW, ROW, [0.0], "sigma out of range .*: 0.0; expected a positive number"),
        (ROW, ROW, [0.1, -0.2], "sigma out of range .*: -0.2"),
        (ROW, ROW, [math.nan], "sigma out of range .*: nan"),
        (ROW, ROW, [math.inf], "sigma out of range .*: inf"),
        (ROW, ROW, [1e-170], "sigma out of range .*: 1e-170"),
        (ROW, ROW + 1, [1e-25], "not finite .*: 1 of 1"),
        (ROW, np.stack([ROW[0], ROW[0] + np.float32(1e30)]), [0.1], "not finite .*: 1 of 1"),
        (ROW, ROW * np.nan, [0.1], "samples are not finite .*: 3 values"),
        (np.array([[0, np.inf, 0]], np.float32), ROW, [0.1], "points are not finite .*: 1 values"),
        (ROW, ROW[:0], [0.1], r"no samples .*: an array of shape \[0, 3\]"),
        (ROW[:0], ROW, [0.1], "no points"),
        (ROW, ROW[:, :2], [0.1], "widths differ .*: points of 3 and samples of 2"),
    ],
)
def test_what_has_no_log_density_is_refused(points, samples, sigmas, message):
    with pytest.raises(DataError, match=message):
        parzen_log_density(points, samples, sigmas)
    assert np.isfinite(parzen_log_density(ROW, ROW, [0.1])).all()


def test_log_densities_far_out_are_finite():
    far = parzen_log_density(ROW + 1000, ROW, [0.05])[0, 0]
    # -|x - s|^2 / 2 sigma^2 at |x - s|^2 = 3e6; the nearest samples' differences are float64.
    assert far == pytest.approx(-3e6 / 0.005 - 1.5 * math.log(2 * math.pi * 0.0025), rel=1e-9)


def curve_density(curve):
    """A log-density that is a curve over sigma, the same at every point."""
    return lambda points, sigmas: np.array([[curve(sigma) for sigma in sigmas]] * len(points), dtype=np.float64)


def test_paper_grid_is_ten_powers_and_first_tie_wins():
    """The paper's grid is ten powers from 0.1 to 1, and of equal sigmas the first is chosen."""
    assert pytest.approx([10 ** (i / 9 - 1) for i in range(10)], rel=1e-12) == PAPER_GRID
    tied = {PAPER_GRID[3]: 5.0, PAPER_GRID[4]: 5.0, PAPER_GRID[7]: 5.0}
    score = paper_protocol(curve_density(lambda sigma: tied.get(sigma, 0.0)), np.zeros((4, 1)), np.zeros((9, 1)), 100)
    assert score.sigma == PAPER_GRID[3]
    assert (score.protocol, score.grid, score.fold_sigmas) == ("paper", PAPER_GRID, ())
    assert (score.samples, score.validation_points, score.points) == (100, 4, 9)
    assert (score.log_likelihood, score.standard_error) == (5.0, 0.0)


@pytest.fixture(scope="module")
def arrays():
    """Samples, validation points and test points of one distribution, and the exact log-density."""
    random = np.random.default_rng(4)
    blurred = [0.5 + 0.15 * random.standard_normal((count, 6)).astype(np.float32) for count in (400, 90, 110)]
    return blurred, lambda points, sigmas: parzen_log_density(points, blurred[0], sigmas)


def test_paper_protocol_selects_on_validation_points(arrays):
    """The paper's protocol chooses sigma on validation points and scores the other points."""
    (samples, validation, points), density = arrays
    sigma = max(PAPER_GRID, key=lambda s: exact(validation, samples, [s]).mean())
    values = exact(points, samples, [sigma])[:, 0]
    score = paper_protocol(density, validation, points, len(samples))
    assert score.sigma == sigma
    # float32 distances of about 1, over 2 sigma^2 >= 0.02.
    assert score.log_likelihood == pytest.approx(values.mean(), abs=1e-4)
    assert score.standard_error == pytest.approx(values.std() / math.sqrt(110), abs=1e-4)
    fixed = fixed_sigma(density, 0.4, points, len(samples))
    assert (fixed.protocol, fixed.sigma) == ("fixed", 0.4)
    assert fixed.log_likelihood == pytest.approx(exact(points, samples, [0.4]).mean(), abs=1e-4)


def directly_minimised(validation: np.ndarray, samples: np.ndarray) -> float:
    found = minimize_scalar(
        lambda log_sigma: -exact(validation, samples, [math.exp(log_sigma)]).mean(),
        bounds=(math.log(0.05), 0.0),
        method="bounded",
        options={"xatol": 1e-7},
    )
    return math.exp(found.x)


def test_cross_validation_scores_the_held_out_fold(arrays):
    """Sigma is refined on all folds but one, which it then scores, as direct minimisation has it."""
    (samples, validation, points), density = arrays
    held_out = cross_validated_protocol(density, validation, None, len(samples), folds=3)
    parts = fold_indices(len(validation), 3)
    chosen = np.empty(len(validation))
    for part, sigma in zip(parts, held_out.fold_sigmas, strict=True):
        rest = np.delete(validation, part, axis=0)
        assert sigma == pytest.approx(directly_minimised(rest, samples), rel=1e-3)  # the promise
        chosen[part] = exact(validation[part], samples, [sigma])[:, 0]
    assert len(set(held_out.fold_sigmas)) == 3
    assert held_out.log_likelihood == pytest.approx(chosen.mean(), abs=1e-4)
    assert held_out.standard_error == pytest.approx(chosen.std() / math.sqrt(len(chosen)), abs=1e-4)
    assert held_out.points == held_out.validation_points == 90

    tested = cross_validated_protocol(density, validation, points, len(samples), folds=3)
    assert tested.sigma == pytest.approx(directly_minimised(validation, samples), rel=1e-3)
    assert tested.fold_sigmas == held_out.fold_sigmas
    assert tested.log_likelihood == pytest.approx(exact(points, samples, [tested.sigma]).mean(), abs=1e-4)
    assert (tested.points, tested.grid) == (110, SEARCH_GRID)


@given(st.integers(2, 60), st.integers(2, 12), st.integers(0, 99))
def test_folds_are_a_seeded_nearly_equal_partition(count, folds, seed):
    """Folds are a partition into nearly equal parts, and a function of the seed."""
    parts = fold_indices(count, folds, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    assert len(parts) == folds
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert [part.tolist() for part in fold_indices(count, folds, seed)] == [part.tolist() for part in parts]


def test_folds_of_another_seed_are_others():
    assert fold_indices(60, 2, seed=0)[0].tolist() != fold_indices(60, 2, seed=1)[0].tolist()


@pytest.mark.parametrize(("folds", "points"), [(1, 90), (0, 90), (5, 4)])
def test_too_few_folds_or_points_are_refused(arrays, folds, points):
    """Fewer than two folds, or fewer points than folds, are refused with both numbers."""
    (_, validation, _), density = arrays
    with pytest.raises(DataError, match=f"{folds} folds of {points} points"):
        cross_validated_protocol(density, validation[:points], None, 400, folds)


@given(st.floats(0.06, 0.9), st.floats(0.5, 50))
def test_refined_sigma_is_the_vertex_of_a_parabola(vertex, height):
    """On a parabola in log sigma the refined sigma is its vertex, which a cubic spline has exactly."""
    curve = np.array([-height * math.log(sigma / vertex) ** 2 for sigma in SEARCH_GRID])
    # A cubic spline is exact for a parabola; the search stops at 1e-6 in log sigma, and its quadratic
    # steps see values of 1e-16, so their square root.
    assert refined_sigma(curve) == pytest.approx(vertex, rel=2e-5)


def test_sigma_beyond_the_grid_is_refined_to_its_end():
    """Where the best sigma lies beyond the grid, the refined one is the grid's end."""
    logs = np.log(SEARCH_GRID)
    # Bounded minimisation never quite reaches its bound.
    assert refined_sigma(-logs) == pytest.approx(SEARCH_GRID[0], rel=1e-4)
    assert refined_sigma(logs) == pytest.approx(SEARCH_GRID[-1], rel=1e-4)


def test_standard_error_divides_deviation_by_root_n():
    # Of 1, 2, 3, 6: mean 3, squared deviations 4 + 1 + 0 + 9 = 14, variance 14 / 4.
    """The standard error is the population's standard deviation over the root of n."""
    assert mean_and_standard_error(np.array([1.0, 2.0, 3.0, 6.0])) == pytest.approx(
        (3, math.sqrt(14 / 4 / 4)), abs=1e-15
    )


def test_training_images_as_samples_score_243_nats_on_mnist(mnist_root, one_thread):
    mnist = load(DataSettings("mnist", mnist_root, download=False))
    scores = parzen_log_density(mnist.test.images, mnist.train.images[:10_000], [0.1777, 0.1668]).mean(axis=0)
    # Measured once, printed with two decimals.
    assert scores.tolist() == pytest.approx([243.09, 241.19], abs=0.02)


def test_uncached_centred_samples_give_the_same_bits(monkeypatch: pytest.MonkeyPatch):
    """Samples too many to be kept centred in memory give the same bits as those that are kept."""
    random = np.random.default_rng(7)
    points, samples = (random.random((count, 64), dtype=np.float32) for count in (700, 4500))
    kept = parzen_log_density(points, samples, [0.1, 0.3])
    monkeypatch.setattr("gan_core.metrics.kernel_sums.RESIDENT_BYTES", 0)
    assert np.array_equal(kept, parzen_log_density(points, samples, [0.1, 0.3]))
