"""Data sets: their splits and digests, and every kind of bad file refused by name."""

import gzip
import struct
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn.datasets import load_digits as read_digits

from gan_core.datasets import Dataset, DataSettings, Examples, load
from gan_core.datasets.digits import load_digits
from gan_core.datasets.examples import check_images
from gan_core.datasets.mnist import load_mnist, parse_idx
from gan_core.errors import DataError

DIGITS = "a692212ad6be0b5b0ab2e00a168b55274f65159657a805131471ad6c43026fb1"
MNIST = "2f410d8a049d24e1ac6821af383eacb5cdde489c4e1dc5b1c12ca052dd914336"


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


def test_digits_are_shuffled_floats_in_0_to_1_with_every_class_in_every_split():
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


def test_mnist_is_split_as_the_original_did(mnist_root):
    dataset = load(DataSettings("mnist", mnist_root, download=False))
    assert sizes(dataset) == {"train": 50_000, "validation": 1_000, "gate": 9_000, "test": 10_000}
    assert dataset.shape == (28, 28)
    assert dataset.train.images.shape == (50_000, 784)
    assert dataset.digest == MNIST
    raw = gzip.decompress((Path(mnist_root) / "MNIST/raw/train-images-idx3-ubyte.gz").read_bytes())
    for split, first in (("train", 0), ("validation", 50_000), ("gate", 51_000)):
        pixels = np.frombuffer(raw, np.uint8, 784, 16 + 784 * first)
        assert getattr(dataset, split).images[0].tolist() == (pixels / np.float32(255)).tolist()
    assert (dataset.test.images.min(), dataset.test.images.max()) == (0, 1)


def idx(array: np.ndarray) -> bytes:
    """An IDX file of unsigned bytes, as its format says."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


bytes_arrays = arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))


@given(bytes_arrays)
def test_idx_round_trip(array):
    parsed = parse_idx(idx(array), array.ndim, "here")
    assert parsed.shape == array.shape
    assert np.array_equal(parsed, array)


@given(bytes_arrays, st.data())
def test_an_idx_file_cut_or_extended_anywhere_is_refused(array, data):
    content = idx(array)
    with pytest.raises(DataError, match=r"cut short|not this IDX file"):
        parse_idx(content[: data.draw(st.integers(0, len(content) - 1))], array.ndim, "here")
    with pytest.raises(DataError, match="extra bytes"):
        parse_idx(content + data.draw(st.binary(min_size=1, max_size=4)), array.ndim, "here")


@given(st.binary(max_size=24), st.integers(1, 3))
def test_any_bytes_are_an_idx_file_or_refused_by_our_error(content, dimensions):
    for start in (b"", bytes([0, 0, 8, dimensions])):
        try:
            array = parse_idx(start + content, dimensions, "here")
        except DataError:
            continue
        assert idx(array) == start + content


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


def write_mnist(root: Path, **changes: bytes | None) -> Path:
    """Four small files in MNIST's layout, some of them changed, left out (None) or gzipped (a .gz name)."""
    contents = {
        f"{part}-{kind}-ubyte": idx(array)
        for part in ("train", "t10k")
        for kind, array in (("images-idx3", IMAGES), ("labels-idx1", LABELS))
    }
    for key, content in changes.items():
        name = next(name for name in contents if key.removesuffix("_gz").replace("_", "-") in name)
        del contents[name]
        if content is not None:
            contents[name + (".gz" if key.endswith("_gz") else "")] = content
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return root


packed = gzip.compress(idx(LABELS))
BAD_FILES = {
    "missing": ({"t10k_labels": None}, r"MNIST is missing .*raw\): no complete set of IDX files; expected .*data.root"),
    "labels as images": (
        {"train_images": idx(LABELS)},
        "not this IDX file .*train-images.*0x00000801; expected 0x00000803",
    ),
    "images as labels": (
        {"t10k_labels": idx(IMAGES)},
        "not this IDX file .*t10k-labels.*0x00000803; expected 0x00000801",
    ),
    "empty": ({"train_labels": b""}, "not this IDX file .*train-labels.*nothing"),
    "header cut": ({"train_images": idx(IMAGES)[:15]}, "cut short .*train-images.*15 bytes; expected a header of 16"),
    "truncated": ({"train_images": idx(IMAGES)[:-1]}, r"cut short .*15695 bytes; expected 15696 for \[20, 28, 28\]"),
    "extra bytes": ({"t10k_images": idx(IMAGES) + b"x"}, "extra bytes .*t10k-images.*15697 bytes; expected 15696"),
    "gzip cut": ({"train_labels_gz": packed[:-9]}, "unreadable file .*train-labels.*gz.*; expected a whole IDX file"),
    "gzip body": (
        {"train_labels_gz": packed[:10] + b"\xff" + packed[11:]},
        "unreadable file .*train-labels.*gz.*invalid block type",
    ),
    "gzip checksum": ({"train_labels_gz": packed[:-8] + b"0000" + packed[-4:]}, "unreadable file .*CRC check failed"),
    "no gzip": ({"t10k_images_gz": idx(IMAGES)}, "unreadable file .*t10k-images.*gz.*Not a gzipped file"),
    "counts differ": ({"train_labels": idx(LABELS[:-1])}, "counts differ .*: 20 images and 19 labels"),
    "label out of range": ({"t10k_labels": idx(LABELS + 1)}, "label out of range .*t10k-labels.*: 10; expected 0 to 9"),
    "wrong shape": ({"train_images": idx(IMAGES[:, 1:])}, r"wrong shape .*: images of \[27, 28\]; expected 28 x 28"),
    "constant": ({"t10k_images": idx(IMAGES * 0 + 51)}, "all images are constant .*t10k-images.*: every pixel is 0.2"),
    "no images": ({"t10k_images": idx(IMAGES[:0]), "t10k_labels": idx(LABELS[:0])}, "no images .*t10k-images"),
    "not the published": ({}, "not the published file .*train-images-idx3-ubyte.*: another SHA-256; expected ba891046"),
    "not the published, gzipped": ({"train_labels_gz": packed}, "not the published file .*train-images"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
def test_bad_mnist_files_are_refused_by_name(tmp_path, fault):
    changes, message = BAD_FILES[fault]
    with pytest.raises(DataError, match=message) as raised:
        load_mnist(str(write_mnist(tmp_path, **changes)), download=False)
    assert raised.value.exit_code == 3


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
