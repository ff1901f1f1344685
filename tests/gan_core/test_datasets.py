"""Data sets: the embedded digits, what a digest sees, checks, contrast normalisation and the settings."""

from itertools import combinations

import numpy as np
import pytest
from sklearn.datasets import load_digits as read_digits

from gan_core.datasets import Dataset, DataSettings, Examples, load
from gan_core.datasets.digits import load_digits
from gan_core.datasets.examples import check_images
from gan_core.datasets.preprocessing import normalise_contrast
from gan_core.errors import DataError

DIGITS = "a692212ad6be0b5b0ab2e00a168b55274f65159657a805131471ad6c43026fb1"


def sizes(dataset: Dataset) -> dict[str, int]:
    return {name: len(examples) for name, examples in dataset.splits().items()}


def rows(examples: Examples) -> list[bytes]:
    return [image.tobytes() + bytes([label]) for image, label in zip(examples.images, examples.labels, strict=True)]


def test_digits_are_all_1797_once_each_in_disjoint_splits():
    dataset, source = load_digits(), read_digits()
    assert sizes(dataset) == {"train": 1000, "validation": 200, "gate": 300, "test": 297}
    assert dataset.shape == (8, 8)
    scaled = Examples((source.data / 16).astype(np.float32), source.target)
    assert sorted(row for examples in dataset.splits().values() for row in rows(examples)) == sorted(rows(scaled))
    # No two of the images are equal, so disjoint rows are disjoint examples.
    assert all(not set(rows(a)) & set(rows(b)) for a, b in combinations(dataset.splits().values(), 2))


def test_digits_are_shuffled_unit_floats_of_all_classes():
    """Digits are float32 in [0, 1], shuffled: every split has about a tenth of each class."""
    for examples in load_digits().splits().values():
        assert examples.images.dtype == np.float32
        assert examples.labels.dtype == np.int64
        assert (examples.images.min(), examples.images.max()) == (0, 1)
        # About a tenth each: five standard errors of a share of 1/10.
        shares = np.bincount(examples.labels, minlength=10) / len(examples)
        assert shares == pytest.approx(0.1, abs=5 * np.sqrt(0.09 / len(examples)))


def test_the_digest_is_of_all_content_and_stable():
    dataset = load(DataSettings("digits"))
    # Pinned: another value means that the data, their split or their order have changed.
    assert dataset.digest == load_digits().digest == DIGITS
    for split in dataset.splits():
        for name in ("images", "labels"):
            other = load_digits()
            getattr(getattr(other, split), name)[-1] = 0.5 if name == "images" else 11
            assert other.digest != DIGITS


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((0, 4), np.float32), r"no images \(here\): an array of shape \[0, 4\]"),
        (np.array([[0.0, np.nan]]), "pixels are not finite"),
        (np.array([[0.0, np.inf]]), "pixels are not finite"),
        (np.array([[0.0, 1.01]]), "pixels out of range .*: 0 to 1.01"),
        (np.array([[-0.5, 1.0]]), "pixels out of range .*: -0.5 to 1"),
        (np.full((3, 4), 0.25), "all images are constant .*0.25"),
    ],
)
def test_images_that_cannot_be_trained_on_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        check_images(images, "here")
    check_images(np.array([[0.0, 1.0]]), "here")


def test_contrast_normalisation_equals_its_definition():
    """Each row is centred and scaled to norm 55, as the definition written out, across blocks."""
    images = np.random.default_rng(0).random((2003, 12), dtype=np.float32)  # more than two blocks
    normalised = normalise_contrast(images)
    assert normalised.dtype == np.float32
    for image, result in zip(images[[0, 999, 1000, 2002]], normalised[[0, 999, 1000, 2002]], strict=True):
        centred = [float(pixel) - sum(map(float, image)) / 12 for pixel in image]
        norm = sum(pixel**2 for pixel in centred) ** 0.5
        # Rounded to float32 once.
        np.testing.assert_allclose(result, [55 * pixel / norm for pixel in centred], rtol=1e-6, atol=1e-6)
    # Twelve roundings of pixels of up to 50.
    assert np.linalg.norm(normalised, axis=1) == pytest.approx(55, abs=1e-4)
    assert normalised.sum(axis=1) == pytest.approx(0, abs=1e-4)


def test_contrast_normalisation_ignores_scale_and_shift():
    """Neither brightness nor contrast changes the result, and a constant image becomes zero."""
    images = np.random.default_rng(0).random((5, 12)).astype(np.float32)
    # Pixels of float32, of which 0.3 x + 0.2 is not exact.
    np.testing.assert_allclose(normalise_contrast(images * 0.3 + 0.2), normalise_contrast(images), rtol=0, atol=1e-3)
    assert not normalise_contrast(np.full((2, 12), 0.3, np.float32)).any()


def test_contrast_normalised_data_set_has_its_own_digest():
    """Any data set can be contrast normalised; its digest then differs, as it is another data set."""
    plain = load(DataSettings("digits"))
    normalised = load(DataSettings("digits", preprocessing="global_contrast_normalisation"))
    for name, examples in plain.splits().items():
        other = normalised.splits()[name]
        assert np.array_equal(other.images, normalise_contrast(examples.images))
        assert np.array_equal(other.labels, examples.labels)
    assert normalised.digest != plain.digest == DIGITS
    assert (DataSettings().pixels, DataSettings(preprocessing="global_contrast_normalisation").pixels) == (
        "unit",
        "contrast_normalised",
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": 5}, "data.fold 5 is not a fold; use 0 to 4"),
        ({"fold": -1}, "data.fold -1 is not a fold"),
        ({"size": (0, 8)}, r"data.size \[0, 8\] is not"),
        ({"fold": 1}, "data.fold 1 is for data.name tfd, not digits"),
        ({"name": "tfd", "size": (8, 8)}, "data.size .* is for data.name images, not tfd"),
        ({"name": "mnist", "channels": "grey"}, "data.channels grey is for data.name images"),
    ],
)
def test_settings_out_of_range_are_refused_by_name(settings, message):
    with pytest.raises(ValueError, match=message):
        DataSettings(**settings)
