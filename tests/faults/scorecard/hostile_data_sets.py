"""Hostile files where those of published data sets are to be, and where Inception's weights are."""

import gzip
import io
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

from tests.faults.scorecard.corpus import LARGE, SPECIAL, Case, Payload, sparse, special_file

# IDX files, and others of published data sets.


def _idx(folder: Path, content: bytes, suffix: str = "") -> Case:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte{suffix}").write_bytes(content)
    (folder / "it.yaml").write_text("data: {name: mnist, root: ., download: false}\n")
    return ["run", "it.yaml", "--name", "it", "--storage", "st", "--dry-run"], (3,)


def _sparse_idx(folder: Path) -> Case:
    case = _idx(folder, b"\0\0\x08\x03")
    sparse(folder / "MNIST" / "raw" / "train-images-idx3-ubyte", 2**38, b"\0\0\x08\x03")
    return case


def _special_idx(kind: str) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        case = _idx(folder, b"\0\0\x08\x03")
        path = folder / "MNIST" / "raw" / "train-images-idx3-ubyte"
        path.unlink()
        special_file(kind, path)
        return case

    return make


def _gzip_bomb(size: int) -> bytes:
    stream = io.BytesIO()
    with gzip.GzipFile(fileobj=stream, mode="wb", compresslevel=1) as file:
        for _ in range(size >> 24):
            file.write(bytes(2**24))
    return stream.getvalue()


def _cifar(folder: Path) -> Case:
    batches = folder / "cifar-10-batches-py"
    batches.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        (batches / name).write_bytes(pickle.dumps(Payload(folder)))
    (folder / "it.yaml").write_text("data: {name: cifar10, root: ., download: false}\n")
    return ["run", "it.yaml", "--name", "it", "--storage", "st", "--dry-run"], (3,)


def _large_cifar(folder: Path) -> Case:
    case = _cifar(folder)
    sparse(folder / "cifar-10-batches-py" / "data_batch_1")
    return case


def _tfd(content: bytes, size: int | None = None) -> Callable[[Path], Case]:
    def make(folder: Path) -> Case:
        path = folder / "TFD_48x48.mat"
        path.write_bytes(content)
        if size:
            os.truncate(path, size)
        (folder / "it.yaml").write_text("data: {name: tfd, root: .}\n")
        return ["run", "it.yaml", "--name", "it", "--storage", "st", "--dry-run"], (3,)

    return make


def _mat_bomb() -> bytes:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49)
    element = struct.pack("<II", 14, 2**28) + bytes(2**28)
    return head + struct.pack("<II", 15, len(body := zlib.compress(element, 1))) + body


PUBLISHED: dict[str, Callable[[Path], Case]] = {
    "IDX of 2^31 images": lambda folder: _idx(folder, struct.pack(">IIII", 0x803, 2**31, 28, 28)),
    "IDX of 2^32 a side": lambda folder: _idx(folder, struct.pack(">IIII", 0x803, 2**32 - 1, 2**32 - 1, 2**32 - 1)),
    "IDX of 256 GB": _sparse_idx,
    "IDX packed from half a GiB": lambda folder: _idx(folder, _gzip_bomb(2**29), ".gz"),
    "IDX packed, cut short": lambda folder: _idx(folder, b"\x1f\x8b\x08\0", ".gz"),
    **{f"IDX: {kind}": _special_idx(kind) for kind in SPECIAL},
    "CIFAR-10 of pickles": _cifar,
    "CIFAR-10 of a terabyte": _large_cifar,
    "TFD, no MATLAB file": _tfd(b"x" * 1000),
    "TFD, a bomb": lambda folder: _tfd(_mat_bomb())(folder),
    "TFD of a terabyte": _tfd(b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<HH", 0x0100, 0x4D49), LARGE),
}


def weights_of_inception(folder: Path) -> Case:
    """A pickle where weights of Inception are to be."""
    (folder / "w.pth").write_bytes(pickle.dumps(Payload(folder)))
    return ["evaluate", "it", "--inception", "w.pth", "--storage", "st"], (2, 3, 4)


def data_sets() -> dict[str, Callable[[Path], Case]]:
    """All of them, by name."""
    named = {f"data set: {name}": make for name, make in PUBLISHED.items()}
    return {**named, "Inception's weights: a pickle": weights_of_inception}
