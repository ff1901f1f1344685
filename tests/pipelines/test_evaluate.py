"""Scores: the same bits on Ray tasks as in one process, both protocols' contract, arrays from outside."""

import contextlib
import json
import math
import pickle
from dataclasses import asdict, replace

import numpy as np
import prdc
import pytest
from scipy.special import logsumexp

from gan_core.errors import DataError
from gan_core.metrics.parzen import PAPER_GRID, POINT_TILE, SEARCH_GRID, parzen_log_density
from gan_core.metrics.sample_quality import coverage, quality, reference_samples
from pipelines.config import EvaluateSettings
from pipelines.evaluation.scores import evaluate_arrays, load_array, over_models
from pipelines.stages.evaluate import evaluate_generator, on_cluster
from tests.pipelines.conftest import principal_generator


def images(count, width=16, seed=0):
    return np.random.default_rng(seed).random((count, width), dtype=np.float32)


def log_density(points, samples, sigma):
    """The definition of section 5, in float64 and without tiles."""
    squares = ((points[:, None, :].astype(np.float64) - samples[None, :, :].astype(np.float64)) ** 2).sum(axis=2)
    width = points.shape[1]
    return (
        logsumexp(-squares / (2 * sigma**2), axis=1)
        - math.log(len(samples))
        - width / 2 * math.log(2 * math.pi * sigma**2)
    )


@pytest.mark.parametrize("count", [1, POINT_TILE, 2 * POINT_TILE + 1, 3 * POINT_TILE + 17])
def test_ray_log_densities_equal_local_ones(count, ray_cluster, one_thread):
    """Log-densities from Ray tasks are the local ones bit for bit, for any number of tiles."""
    points, samples, sigmas = images(count), images(700, seed=1), [0.1, 0.3]
    together = on_cluster(samples)(points, sigmas)
    assert np.array_equal(together, parzen_log_density(points, samples, sigmas))


def test_log_densities_do_not_depend_on_tile_sharing(one_thread):
    """Log-densities do not depend on how tiles of points are shared out."""
    points, samples = images(4 * POINT_TILE + 3), images(700, seed=1)
    whole = parzen_log_density(points, samples, [0.2])
    for tiles in (1, 2, 3):
        size = tiles * POINT_TILE
        parts = [parzen_log_density(points[i : i + size], samples, [0.2]) for i in range(0, len(points), size)]
        assert np.array_equal(np.concatenate(parts), whole)


def test_scores_are_of_samples_beside_reference_rows(ray_cluster, digits):
    """A generator's scores are those of its samples, beside the rows of training images and k-means."""
    said = []
    model = principal_generator(digits, 2)
    record = evaluate_generator(model, digits, EvaluateSettings(samples=300, folds=3), 5, said.append)
    samples = model.draw(300, 5).reshape(300, -1)
    local = evaluate_arrays(samples, digits.test.images, digits.validation.images, None, 3)
    assert json.loads(json.dumps(record.paper)) == json.loads(json.dumps(local["paper"]))
    assert json.loads(json.dumps(record.cross_validated)) == json.loads(json.dumps(local["cross_validated"]))
    assert record.coverage == record.quality["coverage"] == coverage(digits.test.images, samples, 5)
    assert record.quality == asdict(quality(digits.test.images, samples, digits.train.images))
    assert (record.generator_sha256, record.data_digest) == (model.sha256, digits.digest)
    assert (record.log_likelihood, record.sigma) == (local["log_likelihood"], local["sigma"])
    # The data themselves cover the data, and score better than this model.
    assert set(record.references) == {"training data", "k-means"}
    assert record.references["training data"]["coverage"] > 0.9
    assert record.references["training data"]["memorisation"] == 1
    assert record.references["training data"]["log_likelihood"] > record.log_likelihood + 5 * record.standard_error
    assert all(line.startswith("score") for line in said)


def test_every_row_has_as_many_images_as_prdc_gets(ray_cluster, digits):
    """Every row is compared with as many images as there are test images, as prdc is given."""
    model, averaged = principal_generator(digits, 2), principal_generator(digits, 8)
    settings = EvaluateSettings(samples=2000, folds=2)
    record = evaluate_generator(model, digits, settings, 5, lambda line: None, {"averaged G": averaged})
    count = min(len(digits.test), len(digits.train), 2000)
    centroids = reference_samples(digits.train.images, 2000, 6)["k-means"]
    rows = {
        "training data": digits.train.images,
        "k-means": np.concatenate([centroids, centroids, centroids]),  # 100 of them, in turn
        "averaged G": averaged.draw(2000, 5).reshape(2000, -1),
    }
    found = {**record.references, "the model": record.quality}
    for name, images in {**rows, "the model": model.draw(2000, 5).reshape(2000, -1)}.items():
        with contextlib.redirect_stdout(None):
            expected = prdc.compute_prdc(digits.test.images[:count], images[:count], 5)
        assert found[name]["count"] == count == 297
        # The same comparisons, but for the order of a sum.
        assert {key: found[name][key] for key in expected} == pytest.approx(expected, abs=1e-12), name


def test_record_is_a_function_of_the_seed(ray_cluster, digits):
    """Another seed draws other samples, and the same seed gives the same record."""
    settings, model = EvaluateSettings(samples=100, folds=2), principal_generator(digits, 2)
    first, again, other = (
        replace(evaluate_generator(model, digits, settings, seed, lambda line: None), seconds=0) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.log_likelihood != other.log_likelihood


def test_array_scores_are_their_definitions():
    """Scores of two arrays are the protocols' definitions, and each says its protocol."""
    samples, points, validation = images(50), images(40, seed=1), images(30, seed=2)
    result = json.loads(json.dumps(evaluate_arrays(samples, points, validation, 0.3, 5)))
    fixed, paper, refined = result["fixed"], result["paper"], result["cross_validated"]
    exact = log_density(points, samples, 0.3)
    # 16 squares of float32 differences, divided by 2 sigma^2: errors of about 1e-6 nats.
    assert result["log_likelihood"] == fixed["log_likelihood"] == pytest.approx(exact.mean(), abs=1e-4)
    assert result["standard_error"] == fixed["standard_error"] == pytest.approx(exact.std() / math.sqrt(40), abs=1e-4)
    assert result["sigma"] == fixed["sigma"] == 0.3
    best = max(PAPER_GRID, key=lambda sigma: log_density(validation, samples, sigma).mean())
    assert (paper["protocol"], paper["sigma"], paper["grid"]) == ("paper", best, list(PAPER_GRID))
    assert paper["log_likelihood"] == pytest.approx(log_density(points, samples, best).mean(), abs=1e-4)
    assert (paper["samples"], paper["points"], paper["validation_points"]) == (50, 40, 30)
    assert (refined["protocol"], refined["grid"], len(refined["fold_sigmas"])) == (
        "cross_validated",
        list(SEARCH_GRID),
        5,
    )
    assert result["quality"] == asdict(quality(points, samples))
    assert evaluate_arrays(samples[:5], points, None, 0.3, 5)["quality"] is None  # too few for five neighbours
    # The refined sigma is no worse on the validation points than any of the grid.
    at_refined = log_density(validation, samples, refined["sigma"]).mean()
    assert at_refined >= max(log_density(validation, samples, sigma).mean() for sigma in SEARCH_GRID) - 1e-3
    assert refined["log_likelihood"] == pytest.approx(log_density(points, samples, refined["sigma"]).mean(), abs=1e-4)


def test_default_score_is_the_papers_on_folded_points():
    """Without a sigma the score shown is the paper's, and without validation images the points are folded."""
    samples, points = images(50), images(40, seed=1)
    result = evaluate_arrays(samples, points, None, None, 4)
    assert set(result) == {"log_likelihood", "quality", "standard_error", "sigma", "paper", "cross_validated"}
    assert [result[key] for key in ("log_likelihood", "standard_error", "sigma")] == [
        result["paper"][key] for key in ("log_likelihood", "standard_error", "sigma")
    ]
    assert result["paper"]["validation_points"] == result["cross_validated"]["points"] == 40
    # Each point is scored at the sigma of the folds it is not in: at most what the best single sigma gives.
    best = max(log_density(points, samples, sigma).mean() for sigma in np.geomspace(0.05, 1, 400))
    assert best - 0.5 < result["cross_validated"]["log_likelihood"] <= best + 1e-4


@pytest.mark.parametrize("sigma", [None, 0.3])
def test_several_models_have_mean_and_error(sigma):
    """Several models have the mean of their scores and its error over models, by each protocol."""
    scored = [evaluate_arrays(images(50, seed=seed), images(40, seed=9), None, sigma, 4) for seed in range(5)]
    together = over_models(scored)
    protocols = {"paper", "cross_validated"} | ({"fixed"} if sigma else set())
    assert set(together) == {"log_likelihood", "standard_error"} | protocols
    for protocol in protocols:
        means = [score[protocol]["log_likelihood"] for score in scored]
        mean = sum(means) / 5
        error = math.sqrt(sum((value - mean) ** 2 for value in means) / 5) / math.sqrt(5)
        assert together[protocol]["log_likelihood"] == pytest.approx(mean, rel=1e-12)
        assert together[protocol]["standard_error"] == pytest.approx(error, rel=1e-9)
        assert (together[protocol]["protocol"], together[protocol]["models"]) == (protocol, 5)
    shown = together["fixed" if sigma else "paper"]
    assert [together[key] for key in ("log_likelihood", "standard_error")] == [
        shown[key] for key in ("log_likelihood", "standard_error")
    ]


@pytest.mark.parametrize(
    ("samples", "points", "sigma", "folds", "words"),
    [
        (images(5), images(5), 0.0, 2, "sigma out of range"),
        (images(5), images(5), -1.0, 2, "sigma out of range"),
        (images(5), images(5), math.nan, 2, "sigma out of range"),
        (images(0), images(5), None, 2, "no samples"),
        (images(5), images(0), None, 2, "no points"),
        (np.full((5, 16), np.nan, np.float32), images(5), None, 2, "samples are not finite"),
        (images(5), np.full((5, 16), np.inf, np.float32), None, 2, "points are not finite"),
        (images(5), images(5), None, 6, "too few folds or points"),
    ],
)
def test_arrays_that_have_no_score_are_refused(samples, points, sigma, folds, words):
    with pytest.raises(DataError, match=words):
        evaluate_arrays(samples, points, None, sigma, folds)


@pytest.mark.parametrize("kind", [np.float64, np.float32, np.float16, np.uint8, np.int64])
def test_array_of_any_number_type_is_read_as_float32(kind, tmp_path):
    """An array of any kind of number is read as float32, one image a row."""
    whole = (images(6).reshape(6, 4, 4) * 9).astype(kind)
    np.save(tmp_path / "a.npy", whole)
    read = load_array(str(tmp_path / "a.npy"), "--samples")
    assert (read.dtype, read.shape) == (np.float32, (6, 16))
    assert np.array_equal(read, whole.reshape(6, 16).astype(np.float32))


class Bomb:
    """What a hostile file unpickles."""

    def __reduce__(self):
        return print, ("boom",)


def test_non_arrays_are_named_and_never_unpickled(tmp_path, capsys):
    """Files that are not arrays of images are refused by name and never unpickled."""
    np.save(tmp_path / "objects.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    (tmp_path / "pickle.npy").write_bytes(pickle.dumps(Bomb()))
    np.savez(tmp_path / "many.npz", a=images(2))
    np.save(tmp_path / "flat.npy", images(2)[0])
    np.save(tmp_path / "empty.npy", images(0))
    np.save(tmp_path / "words.npy", np.array([["a", "b"]]))
    np.save(tmp_path / "whole.npy", images(20))
    (tmp_path / "cut.npy").write_bytes((tmp_path / "whole.npy").read_bytes()[:-1])
    (tmp_path / "zero.npy").write_bytes(b"")
    for path in [*sorted(tmp_path.glob("*.np[yz]")), tmp_path / "missing.npy", tmp_path]:
        if path.name == "whole.npy":
            continue
        with pytest.raises(DataError) as caught:
            load_array(str(path), "--samples")
        assert f"--samples {path}" in str(caught.value)
        assert "one image a row" in str(caught.value)
    assert "boom" not in capsys.readouterr().out
