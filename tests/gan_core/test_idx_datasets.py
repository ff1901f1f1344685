"""MNIST and Fashion-MNIST: split as the original, and every kind of bad file refused by name."""

import gzip
import hashlib
import shutil
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gan_core.datasets import Dataset, DataSettings, load
from gan_core.datasets.fashion_mnist import FASHION_MNIST, load_fashion_mnist
from gan_core.datasets.idx import IdxFiles, load_idx, parse_idx
from gan_core.datasets.mnist import MNIST, load_mnist
from gan_core.errors import DataError

MNIST_DIGEST = "2f410d8a049d24e1ac6821af383eacb5cdde489c4e1dc5b1c12ca052dd914336"


def sizes(dataset: Dataset) -> dict[str, int]:
    return {name: len(examples) for name, examples in dataset.splits().items()}


def test_mnist_is_split_as_the_original_did(mnist_root):
    dataset = load(DataSettings("mnist", mnist_root, download=False))
    assert sizes(dataset) == {"train": 50_000, "validation": 1_000, "gate": 9_000, "test": 10_000}
    assert dataset.shape == (28, 28)
    assert dataset.train.images.shape == (50_000, 784)
    assert dataset.digest == MNIST_DIGEST
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
def test_any_bytes_are_an_idx_file_or_refused(content, dimensions):
    """Any bytes are an IDX file that is written back to the same bytes, or our error."""
    for start in (b"", bytes([0, 0, 8, dimensions])):
        try:
            array = parse_idx(start + content, dimensions, "here")
        except DataError:
            continue
        assert idx(array) == start + content


IMAGES = np.random.default_rng(0).integers(0, 256, (20, 28, 28), dtype=np.uint8)
LABELS = np.arange(20, dtype=np.uint8) % 10


def write_idx(root: Path, dataset: str, **changes: bytes | None) -> Path:
    """Four small files in torchvision's layout, some of them changed, left out (None) or gzipped (a .gz name)."""
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
    folder = root / dataset / "raw"
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
    "not the published": (
        {},
        "not the published file .*train-images-idx3-ubyte.*: another (SHA-256; expected ba891046|MD5; expected f4a8712d)",
    ),
    "not the published, gzipped": ({"train_labels_gz": packed}, "not the published file .*train-images"),
}


@pytest.mark.parametrize("fault", BAD_FILES)
@pytest.mark.parametrize(("folder", "read"), [("MNIST", load_mnist), ("FashionMNIST", load_fashion_mnist)])
def test_bad_files_are_refused_by_name(tmp_path, folder, read, fault):
    changes, message = BAD_FILES[fault]
    with pytest.raises(DataError, match=message) as raised:
        read(str(write_idx(tmp_path, folder, **changes)), download=False)
    assert raised.value.exit_code == 3


@pytest.mark.parametrize("files", [MNIST, FASHION_MNIST], ids=["mnist", "fashion_mnist"])
def test_expected_files_are_split_in_order(tmp_path, files):
    """Files with the expected digests are split in order, gzipped or not."""
    write_idx(tmp_path, files.folder, train_labels_gz=packed)
    digests = {
        name: hashlib.new(files.algorithm, idx(IMAGES if "images" in name else LABELS)).hexdigest()
        for name in files.digests
    }
    dataset = load_idx(replace(files, digests=digests, train=12, validation=3), str(tmp_path), download=False)
    assert (dataset.name, dataset.shape) == (files.name, (28, 28))
    assert sizes(dataset) == {"train": 12, "validation": 3, "gate": 5, "test": 20}
    pixels = IMAGES.reshape(20, 784) / np.float32(255)
    for split, rows in (("train", slice(12)), ("validation", slice(12, 15)), ("gate", slice(15, 20))):
        examples = dataset.splits()[split]
        assert np.array_equal(examples.images, pixels[rows])
        assert examples.labels.tolist() == LABELS[rows].tolist()


def small_mnist(tmp_path: Path) -> tuple[IdxFiles, Path]:
    """The files of a set of ten images, and a folder that has them as published, beside Fashion-MNIST's."""
    write_idx(tmp_path, "MNIST")
    digests = {name: hashlib.sha256(idx(IMAGES if "images" in name else LABELS)).hexdigest() for name in MNIST.digests}
    return replace(MNIST, digests=digests, train=12, validation=3), tmp_path


@pytest.mark.parametrize("root", ["", "MNIST", "MNIST/raw", "around", "around/MNIST", "inner"])
def test_files_one_level_up_or_down_are_found(root, tmp_path):
    """`data.root` may be the folder of the files, or one too deep or too high: the data are the same, and nothing is made."""
    files, place = small_mnist(tmp_path / "around")
    (place / "inner").mkdir()
    expected = load_idx(files, str(place), download=False)
    roots = {"around": tmp_path, "around/MNIST": place / "MNIST", "inner": place / "inner"}
    before = sorted(tmp_path.rglob("*"))
    found = load_idx(files, str(roots.get(root, place / root)), download=True)
    assert found.digest == expected.digest
    assert sorted(tmp_path.rglob("*")) == before


def test_several_folders_near_are_listed(tmp_path):
    files, place = small_mnist(tmp_path / "a")
    shutil.copytree(place, tmp_path / "b")
    with pytest.raises(DataError, match=r"several folders of MNIST .*a/MNIST/raw, .*b/MNIST/raw; expected one of them"):
        load_idx(files, str(tmp_path), download=True)
    shutil.copytree(place / "MNIST", tmp_path / "MNIST")
    assert len(load_idx(files, str(tmp_path), download=False).test) == 20  # where it should be: the others do not count


def test_another_set_of_the_same_names_is_not_taken(tmp_path):
    """Fashion-MNIST's files are called as MNIST's are, and lie beside them."""
    files, place = small_mnist(tmp_path)
    shutil.move(place / "MNIST", place / "FashionMNIST")
    other = replace(files, digests={**files.digests, "t10k-labels-idx1-ubyte": "0" * 64})
    with pytest.raises(
        DataError, match=r"MNIST is missing .*MNIST/raw\): no complete set .* a dry run downloads nothing"
    ):
        load_idx(other, str(place), download=False)


def test_a_failed_download_is_told_whole(tmp_path, monkeypatch):
    """What torchvision says begins with a line that ends with a colon."""
    from torchvision import datasets

    def refuse(root, download):
        raise RuntimeError("Error downloading x.gz:\nTried http://a.example/, got:\n<urlopen error>\n")

    monkeypatch.setattr(datasets, "MNIST", refuse)
    with pytest.raises(
        DataError, match=r"Error downloading x.gz: Tried http://a.example/, got: <urlopen error>; expected"
    ):
        load_mnist(str(tmp_path), download=True)


def test_the_published_counts_are_the_original_s_for_both():
    for files in (MNIST, FASHION_MNIST):
        assert (files.train, files.validation, len(files.digests)) == (50_000, 1_000, 4)
