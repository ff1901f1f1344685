"""CIFAR-10: 60,000 colour images of 32x32 pixels, from its binary or its python version, verified by MD5."""

import hashlib
import itertools
import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.bounded_reading import read_bounded
from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.datasets.places import find_folder
from gan_core.errors import DataError

SHAPE = (32, 32, 3)  # of an image here; the files hold the three colours one after the other, (3, 32, 32)
PIXELS = 3072
MOST_BYTES = 2**26  # of a batch: those that are published have 31 million
# What stands between the labels of a pickled list, and numbers the objects for later reference.
WITHIN_LIST = ("EMPTY_LIST", "MARK", "BININT1", "APPEND", "APPENDS")
MEMO = ("PUT", "BINPUT", "LONG_BINPUT")

Batch = tuple[np.ndarray, np.ndarray]  # pixels (count, 3072) and labels (count,), both uint8


@dataclass(frozen=True)
class BatchFiles:
    """One published version of CIFAR-10: its folder, how a file is read, and the files' MD5s."""

    folder: str
    parse: Callable[[bytes, object], Batch]
    digests: Mapping[str, str]  # the last file is the test set
    train: int = 40_000
    validation: int = 1_000


def parse_binary(content: bytes, where: object) -> Batch:
    """A batch of the binary version: records of one byte, the label, and 3,072, the pixels.

    Raises:
        DataError: If it is not a whole number of records.
    """
    if not content or len(content) % (PIXELS + 1):
        expected = f"a positive multiple of {PIXELS + 1}, a label and {PIXELS} pixels"
        raise DataError("not a CIFAR-10 batch", where, f"{len(content)} bytes", expected)
    records = np.frombuffer(content, np.uint8).reshape(-1, PIXELS + 1)
    return records[:, 1:], records[:, 0]


def parse_pickled(content: bytes, where: object) -> Batch:
    """A batch of the python version, which is a pickle: its instructions are listed, none is executed.

    Of a dictionary as Python 2 wrote it, two things are taken: the list of numbers after the text
    `labels`, and the pixels, which are the longest text.

    Raises:
        DataError: If there are no such two, or their lengths differ.
    """
    try:
        listed = [(code.name, value) for code, value, _ in pickletools.genops(content) if code.name not in MEMO]
    except Exception as error:  # of many types, and none says more than that this is no pickle
        raise DataError("not a CIFAR-10 batch", where, f"not a whole pickle: {error}", "a published batch") from error
    texts = [str(value).encode("latin-1") for name, value in listed if name in ("SHORT_BINSTRING", "BINSTRING")]
    pixels = max(texts, key=len, default=b"")
    labels = np.array(_labels(listed), np.uint8)
    if not len(labels) or len(pixels) != len(labels) * PIXELS:
        given = f"{len(labels)} labels and {len(pixels)} bytes of pixels"
        raise DataError("not a CIFAR-10 batch", where, given, f"labels, and {PIXELS} bytes for each")
    return np.frombuffer(pixels, np.uint8).reshape(-1, PIXELS), labels


BINARY = BatchFiles(
    "cifar-10-batches-bin",
    parse_binary,
    {
        "data_batch_1.bin": "5dd7e06a14cb22eb9f671a540d1b7c25",
        "data_batch_2.bin": "5ea93a67294ea407fff1d09f752e9692",
        "data_batch_3.bin": "942cd6a4bcdd0dd3c604fbe906cb4421",
        "data_batch_4.bin": "ae636b3ba5c66a11e91e8cb52e771fcb",
        "data_batch_5.bin": "53f37980c15c3d472c316c40844f3f0d",
        "test_batch.bin": "803d5f7f4d78ea53de84dbe85f74fb6d",
    },
)
# torchvision's layout, and its digests.
PYTHON = BatchFiles(
    "cifar-10-batches-py",
    parse_pickled,
    {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
    },
)


def load_cifar10(root: str, download: bool, versions: tuple[BatchFiles, ...] = (BINARY, PYTHON)) -> Dataset:
    """CIFAR-10, split as the original: 40,000 to train; of the next 10,000 the first 1,000 choose sigma.

    `versions` are looked for in this order.

    Raises:
        DataError: If a file is missing (and cannot be downloaded), damaged or not the published one.
    """
    folder = Path(root).expanduser()
    found = _complete(folder, versions)
    if found is None:
        if not download:
            expected = f"{_expected()}; or data.download true, but a dry run downloads nothing"
            raise DataError("CIFAR-10 is missing", folder, "no complete set of batches", expected)
        _download(root)
        found = _complete(folder, versions)
    if found is None:
        raise DataError("CIFAR-10 is missing", folder, "no complete set of batches after the download", _expected())
    version, place = found
    *batches, test = [_batch(version, place / name) for name in version.digests]
    train = Examples(*(np.concatenate(parts) for parts in zip(*batches, strict=True)))
    end = version.train + version.validation
    parts = train[: version.train], train[version.train : end], train[end:], Examples(*test)
    return Dataset("cifar10", SHAPE, *(_scaled(part, place) for part in parts))


def _complete(root: Path, versions: tuple[BatchFiles, ...]) -> tuple[BatchFiles, Path] | None:
    """The first of the versions that is there, and its folder."""
    for version in versions:
        holds = lambda folder: all((folder / name).is_file() for name in version.digests)  # noqa: B023, E731
        if (folder := find_folder(root, (version.folder, ""), holds, "CIFAR-10")) is not None:
            return version, folder
    return None


def _batch(version: BatchFiles, path: Path) -> Batch:
    """A file's pixels and labels, read only once the file is known to be the published one."""
    try:
        content = read_bounded(path, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError("unreadable file", path, reason, "a CIFAR-10 batch") from error
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != version.digests[path.name]:
        raise DataError("not the published file", path, "another MD5", version.digests[path.name])
    pixels, labels = version.parse(content, path)
    if labels.max() > 9:
        raise DataError("label out of range", path, str(labels.max()), "0 to 9")
    return pixels, labels


def _scaled(part: Examples, where: Path) -> Examples:
    planes = part.images.reshape(-1, SHAPE[2], *SHAPE[:2])
    images = planes.transpose(0, 2, 3, 1).reshape(-1, PIXELS).astype(np.float32)
    images /= np.float32(255)
    check_images(images, where)
    return Examples(images, part.labels.astype(np.int64))


def _labels(listed: list[tuple[str, Any]]) -> list[int]:
    """The numbers of the list that follows the text `labels`."""
    after = itertools.dropwhile(lambda item: item[1] != "labels", listed)
    within = itertools.takewhile(lambda item: item[0] in WITHIN_LIST, itertools.islice(after, 1, None))
    return [value for name, value in within if name == "BININT1"]


def _download(root: str) -> None:
    from torchvision.datasets.utils import download_and_extract_archive  # its import takes seconds

    try:
        # Not torchvision's CIFAR10, which would unpickle what it has downloaded.
        download_and_extract_archive(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz", root, md5="c32a1d4ab5d03f1284b67883e8d87530"
        )
    except Exception as error:  # torchvision raises what its mirrors raise, of many types
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError("CIFAR-10 could not be downloaded", root, reason, _expected()) from error


def _expected() -> str:
    return "cifar-10-batches-bin/*.bin or cifar-10-batches-py/* under data.root: --set data.root=PATH"
