"""Data sets of IDX files in torchvision's layout, plain or gzipped: read, verified and split as MNIST."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_core.bounded_reading import read_bounded
from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.datasets.places import find_folder
from gan_core.errors import DataError

SIDE = 28  # pixels
MOST_BYTES = 2**26  # of a file, unpacked: the largest that is published has 47 million


@dataclass(frozen=True)
class IdxFiles:
    """A published set of four IDX files: what they are called, what they hash to, how they are split."""

    name: str  # as `data.name` has it
    folder: str  # of the files under data.root, and torchvision's class for a download
    algorithm: str  # of the digests, as hashlib names it
    digests: Mapping[str, str]  # of the unzipped files, by name
    train: int = 50_000  # the first examples train,
    validation: int = 1_000  # the next choose sigma, and the rest are the gate's


def load_idx(files: IdxFiles, root: str, download: bool) -> Dataset:
    """The data set, split as the original split MNIST: 50,000 / 1,000 / 9,000, and the test files.

    Raises:
        DataError: If a file is missing (and cannot be downloaded), damaged or not the published one.
    """
    folder = _folder(files, root)
    if folder is None and not download:
        expected = f"{_expected(files)}; or data.download true, but a dry run downloads nothing"
        raise DataError(f"{files.folder} is missing", _published(files, root), "no complete set of IDX files", expected)
    if folder is None:
        _download(files, root)
        folder = _published(files, root)
    contents = {name: _read(files, folder, name) for name in files.digests}
    train = _examples("train", contents, folder)
    test = _examples("t10k", contents, folder)
    for name, content in contents.items():
        found = hashlib.new(files.algorithm, content, usedforsecurity=False).hexdigest()
        if found != files.digests[name]:
            other = "another SHA-256" if files.algorithm == "sha256" else f"another {files.algorithm.upper()}"
            raise DataError("not the published file", folder / name, other, files.digests[name])
    end = files.train + files.validation
    parts = train[: files.train], train[files.train : end], train[end:], test
    return Dataset(files.name, (SIDE, SIDE), *parts)


def parse_idx(content: bytes, dimensions: int, where: object) -> np.ndarray:
    """The array of an IDX file of unsigned bytes: a big-endian header, then the data.

    Raises:
        DataError: If the header is of another type or rank, or bytes are missing or too many.
    """
    header = 4 + 4 * dimensions
    magic = (0x0800 | dimensions).to_bytes(4, "big")
    if content[:4] != magic:
        raise DataError("not this IDX file", where, f"magic 0x{content[:4].hex() or 'nothing'}", f"0x{magic.hex()}")
    if len(content) < header:
        raise DataError("IDX file cut short", where, f"{len(content)} bytes", f"a header of {header} bytes")
    shape = tuple(int.from_bytes(content[4 + 4 * i : 8 + 4 * i], "big") for i in range(dimensions))
    size = header
    for length in shape[:1]:
        size += length * int(np.prod(shape[1:], dtype=object))
    if len(content) != size:
        problem = "IDX file cut short" if len(content) < size else "IDX file has extra bytes"
        raise DataError(problem, where, f"{len(content)} bytes", f"{size} for {list(shape)}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _examples(part: str, contents: dict[str, bytes], folder: Path) -> Examples:
    names = f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"
    images, labels = (parse_idx(contents[name], d, folder / name) for name, d in zip(names, (3, 1), strict=True))
    if len(images) != len(labels):
        raise DataError("counts differ", folder, f"{len(images)} images and {len(labels)} labels", "as many of both")
    if images.shape[1:] != (SIDE, SIDE):
        raise DataError("wrong shape", folder / names[0], f"images of {list(images.shape[1:])}", f"{SIDE} x {SIDE}")
    if labels.size and labels.max() > 9:
        raise DataError("label out of range", folder / names[1], str(labels.max()), "0 to 9")
    scaled = images.reshape(len(images), SIDE * SIDE).astype(np.float32) / np.float32(255)
    check_images(scaled, folder / names[0])
    return Examples(scaled, labels.astype(np.int64))


def _published(files: IdxFiles, root: str) -> Path:
    return Path(root).expanduser() / files.folder / "raw"


def _folder(files: IdxFiles, root: str) -> Path | None:
    """Where the files are; what is not where torchvision puts it has this set's labels of the test images at least."""
    known = "t10k-labels-idx1-ubyte"

    def holds(folder: Path) -> bool:
        if not all(_find(folder, name) for name in files.digests):
            return False
        if folder == _published(files, root):
            return True
        content = _read(files, folder, known)
        return hashlib.new(files.algorithm, content, usedforsecurity=False).hexdigest() == files.digests[known]

    inside = (f"{files.folder}/raw", files.folder, "raw", "")
    return find_folder(Path(root).expanduser(), inside, holds, files.folder)


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(files: IdxFiles, folder: Path, name: str) -> bytes:
    path = _find(folder, name)
    if path is None:
        raise DataError(f"{files.folder} is missing", folder / name, "no such file", _expected(files))
    try:
        content = read_bounded(path, MOST_BYTES)
        if path.suffix == ".gz":
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as unpacked:
                content = unpacked.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"over {MOST_BYTES:,} bytes")
        return content
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError("unreadable file", path, str(error), "a whole IDX file, plain or gzipped") from error


def _download(files: IdxFiles, root: str) -> None:
    from torchvision import datasets  # only a download needs it, and its import takes seconds

    try:
        getattr(datasets, files.folder)(root, download=True)
    except Exception as error:  # torchvision raises what its mirrors raise, of many types
        reason = " ".join(str(error).split()) or type(error).__name__  # its first line ends with a colon
        raise DataError(f"{files.folder} could not be downloaded", root, reason, _expected(files)) from error


def _expected(files: IdxFiles) -> str:
    return f"{files.folder}/raw/*-ubyte[.gz] under data.root: --set data.root=PATH"
