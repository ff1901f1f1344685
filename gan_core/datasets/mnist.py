"""MNIST: IDX files in torchvision's layout, plain or gzipped, read and verified."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.errors import DataError

# SHA-256 of the four published files, unzipped.
PUBLISHED = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
TRAIN, SIGMA = 50_000, 1_000  # train[:50000]; sigma from the next 1,000; the other 9,000 for the gate


def load_mnist(root: str, download: bool) -> Dataset:
    """MNIST, split as the original: 50,000 to train, of the next 10,000 the first 1,000 choose sigma.

    Raises:
        DataError: If a file is missing (and cannot be downloaded), damaged or not the published one.
    """
    folder = Path(root).expanduser() / "MNIST" / "raw"
    if not all(_find(folder, name) for name in PUBLISHED):
        if not download:
            raise DataError("MNIST is missing", folder, "no complete set of IDX files", _expected())
        _download(root)
    contents = {name: _read(folder, name) for name in PUBLISHED}
    train = _examples("train", contents, folder)
    test = _examples("t10k", contents, folder)
    for name, content in contents.items():
        if hashlib.sha256(content).hexdigest() != PUBLISHED[name]:
            raise DataError("not the published file", folder / name, "another SHA-256", PUBLISHED[name])
    return Dataset("mnist", (28, 28), train[:TRAIN], train[TRAIN : TRAIN + SIGMA], train[TRAIN + SIGMA :], test)


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
    if images.shape[1:] != (28, 28):
        raise DataError("wrong shape", folder / names[0], f"images of {list(images.shape[1:])}", "28 x 28")
    if labels.size and labels.max() > 9:
        raise DataError("label out of range", folder / names[1], str(labels.max()), "0 to 9")
    scaled = images.reshape(len(images), 784).astype(np.float32) / np.float32(255)
    check_images(scaled, folder / names[0])
    return Examples(scaled, labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read(folder: Path, name: str) -> bytes:
    path = _find(folder, name)
    if path is None:
        raise DataError("MNIST is missing", folder / name, "no such file", _expected())
    try:
        return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError("unreadable file", path, str(error), "a whole IDX file, plain or gzipped") from error


def _download(root: str) -> None:
    from torchvision.datasets import MNIST  # only a download needs it, and its import takes seconds

    try:
        MNIST(root, download=True)
    except Exception as error:  # torchvision raises what its mirrors raise, of many types
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise DataError("MNIST could not be downloaded", root, reason, _expected()) from error


def _expected() -> str:
    return "MNIST/raw/*-ubyte[.gz] under data.root: --set data.root=PATH"
