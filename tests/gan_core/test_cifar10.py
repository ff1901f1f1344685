"""CIFAR-10: both published formats, the split, the order of pixels; nothing is unpickled, damage is named."""

import hashlib
import pickle
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.datasets import DataSettings, load
from gan_core.datasets.cifar10 import BINARY, PYTHON, load_cifar10, parse_binary, parse_pickled
from gan_core.errors import DataError


def batch(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), np.uint8), random.integers(0, 10, count, np.uint8)


def binary(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """Records as the binary version's description has them: the label, then the pixels."""
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(pixels, labels, strict=True))


def text(content: bytes) -> bytes:
    """A byte string in pickle protocol 2, as Python 2 writes it."""
    return (b"U" + bytes([len(content)]) if len(content) < 256 else b"T" + struct.pack("<I", len(content))) + content


def python(pixels: np.ndarray, labels: np.ndarray) -> bytes:
    """The dictionary of a published batch in pickle protocol 2, as Python 2's cPickle and numpy wrote it."""
    numbers = [b"K" + bytes([label]) for label in labels]
    lists = b"".join(b"(" + b"".join(numbers[i : i + 1000]) + b"e" for i in range(0, len(numbers), 1000))
    dtype = b"cnumpy\ndtype\nq\x0d" + text(b"u1") + b"q\x0eK\x00K\x01\x87q\x0fRq\x10(K\x03" + text(b"|")
    dtype += b"q\x11NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x12b"
    shape = b"M" + struct.pack("<H", len(pixels)) + b"M" + struct.pack("<H", 3072) + b"\x86q\x0c"
    array = b"cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\x09" + text(b"b")
    array += b"q\x0a\x87q\x0bR(K\x01" + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"q\x13tq\x14b"
    names = b"]q\x15(" + b"".join(text(b"leptodactylus_%d.png" % i) for i in range(len(labels))) + b"e"
    return (
        b"\x80\x02}q\x01(" + text(b"batch_label") + b"q\x02" + text(b"training batch 1 of 5") + b"q\x03"
        + text(b"labels") + b"q\x04]q\x05" + lists + text(b"data") + b"q\x06" + array
        + text(b"filenames") + names + b"u."
    )  # fmt: skip


VERSIONS = {"binary": (BINARY, binary), "python": (PYTHON, python)}


def test_pickle_written_here_reads_as_published_ones():
    """The pickle that these tests write is one that Python reads as it does the published batches."""
    pixels, labels = batch(1003)
    # What torchvision does with a published file; this one was written above.
    content = pickle.loads(python(pixels, labels).replace(b"numpy.core", b"numpy._core"), encoding="latin1")
    assert np.array_equal(content["data"], pixels)
    assert content["labels"] == labels.tolist()
    assert set(content) == {"batch_label", "labels", "data", "filenames"}


@pytest.mark.parametrize("parse", [parse_binary, parse_pickled])
@given(st.integers(1, 7), st.integers(0, 99))
def test_a_batch_round_trips(parse, count, seed):
    pixels, labels = batch(count, seed)
    written = (binary if parse is parse_binary else python)(pixels, labels)
    found = parse(written, "here")
    assert np.array_equal(found[0], pixels)
    assert np.array_equal(found[1], labels)


@given(st.integers(1, 3), st.data())
def test_binary_batch_of_partial_records_is_refused(count, data):
    """A binary batch that is cut or extended within a record, or empty, is refused with its size."""
    content = binary(*batch(count))
    cut = data.draw(st.integers(1, 3072))
    for wrong in (content[:-cut], content + bytes(cut), b""):
        with pytest.raises(
            DataError, match=r"not a CIFAR-10 batch \(here\): \d+ bytes; expected a positive multiple of 3073"
        ):
            parse_binary(wrong, "here")


@given(st.integers(1, 3), st.data())
def test_a_pickled_batch_cut_anywhere_is_refused(count, data):
    content = python(*batch(count))
    with pytest.raises(DataError, match=r"not a CIFAR-10 batch \(here\): not a whole pickle"):
        parse_pickled(content[: data.draw(st.integers(0, len(content) - 1))], "here")


@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_as_pickled_batch_are_refused(content, framed):
    """Any bytes in a pickled batch's place, framed as a pickle or not, give our error."""
    with pytest.raises(DataError, match="not a CIFAR-10 batch"):
        parse_pickled(b"\x80\x02" + content + b"." if framed else content, "here")


def test_a_hostile_pickle_is_listed_and_never_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return Path.touch, (tmp_path / "boom",)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        with pytest.raises(DataError, match="0 labels and"):
            parse_pickled(pickle.dumps({"labels": Bomb()}, protocol), "here")
    pixels, labels = batch(2)
    touch = b"cpathlib\nPath.touch\n"  # what pickle would call with the labels
    parse_pickled(python(pixels, labels)[:-1] + touch + b"(tR.", "here")
    assert not (tmp_path / "boom").exists()


@pytest.mark.parametrize("name", VERSIONS)
def test_both_versions_split_as_the_original(tmp_path, name):
    """Both versions have the original split, with the three colours of a pixel side by side."""
    tmp_path = tmp_path / "around" / "data"  # around it are the folders of no other test
    tmp_path.mkdir(parents=True)
    version, write = VERSIONS[name]
    batches = [batch(4, seed) for seed in range(6)]
    folder = tmp_path / version.folder
    folder.mkdir()
    digests = {}
    for file, content in zip(version.digests, (write(*part) for part in batches), strict=True):
        (folder / file).write_bytes(content)
        digests[file] = hashlib.md5(content).hexdigest()
    small = replace(version, digests=digests, train=12, validation=3)
    dataset = load_cifar10(str(tmp_path), download=False, versions=(small,))
    for near in (folder, tmp_path.parent):  # one level too deep, or too high
        assert load_cifar10(str(near), download=False, versions=(small,)).digest == dataset.digest
    assert (dataset.name, dataset.shape) == ("cifar10", (32, 32, 3))
    assert {split: len(part) for split, part in dataset.splits().items()} == {
        "train": 12, "validation": 3, "gate": 5, "test": 4,
    }  # fmt: skip
    first = dataset.train.images[0].reshape(32, 32, 3)
    for row, column, colour in ((0, 0, 0), (0, 1, 0), (1, 0, 2), (31, 31, 1)):
        assert first[row, column, colour] == np.float32(
            batches[0][0][0, colour * 1024 + row * 32 + column]
        ) / np.float32(255)
    for split, labels in (("train", [0, 1, 2]), ("test", [5])):
        assert dataset.splits()[split].labels.tolist() == np.concatenate([batches[i][1] for i in labels]).tolist()
    assert dataset.gate.labels.tolist() == [*batches[3][1][3:], *batches[4][1]]


def test_published_split_sizes_and_binary_first(tmp_path):
    """The published split is 40,000, 1,000 and 9,000, and the binary version is looked for first."""
    for version in (BINARY, PYTHON):
        assert (version.train, version.validation, len(version.digests)) == (40_000, 1_000, 6)
        for name in version.digests:
            path = tmp_path / version.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
    with pytest.raises(
        DataError, match=r"not the published file \(.*cifar-10-batches-bin/data_batch_1.bin\): another MD5"
    ):
        load(DataSettings("cifar10", str(tmp_path), download=False))


@pytest.mark.parametrize("name", VERSIONS)
def test_missing_or_changed_files_are_refused_by_name(tmp_path, name):
    version, write = VERSIONS[name]
    with pytest.raises(
        DataError, match=r"CIFAR-10 is missing .*no complete set .*cifar-10-batches-py.* data.root=PATH"
    ):
        load_cifar10(str(tmp_path), download=False)
    (tmp_path / version.folder).mkdir()
    for file in version.digests:
        (tmp_path / version.folder / file).write_bytes(write(*batch(2)))
    changed = next(iter(version.digests))
    expected = version.digests[changed]
    with pytest.raises(DataError, match=rf"not the published file \(.*/{changed}\): another MD5; expected {expected}"):
        load_cifar10(str(tmp_path), download=False)
    (tmp_path / version.folder / "test_batch").unlink(missing_ok=True)
    (tmp_path / version.folder / "test_batch.bin").unlink(missing_ok=True)
    with pytest.raises(DataError, match="CIFAR-10 is missing"):
        load_cifar10(str(tmp_path), download=False)


def test_a_label_above_nine_and_constant_images_are_refused(tmp_path):
    pixels, labels = batch(2)
    for content, message in ((binary(pixels, labels * 0 + 10), "label out of range .*: 10; expected 0 to 9"),
                             (binary(pixels * 0, labels), "all images are constant")):  # fmt: skip
        folder = tmp_path / BINARY.folder
        folder.mkdir(exist_ok=True)
        for file in BINARY.digests:
            (folder / file).write_bytes(content)
        digests = dict.fromkeys(BINARY.digests, hashlib.md5(content).hexdigest())
        small = replace(BINARY, digests=digests, train=5, validation=2)
        with pytest.raises(DataError, match=message):
            load_cifar10(str(tmp_path), download=False, versions=(small,))
