"""Examples and the four splits of a data set, checked."""

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from gan_core.datasets.memory_mapped import BLOCK, StoredImages
from gan_core.errors import DataError

REFERENCES = 10_000  # of images that are not in memory: how many others are compared with


@dataclass(frozen=True)
class Examples:
    """Images, one a row, as float32; and their labels."""

    images: Any  # (count, pixels): an array, or StoredImages, which stand for one that does not fit in memory
    labels: np.ndarray  # (count,)

    def __len__(self) -> int:
        return len(self.images)

    @cached_property
    def pixel_means(self) -> np.ndarray:
        """The mean image, in float64."""
        if isinstance(self.images, StoredImages):
            return self.images.means()
        return np.asarray(self.images.mean(axis=0, dtype=np.float64))

    @cached_property
    def total_variance(self) -> float:
        """The variance of the images, summed over pixels; in blocks, since the whole may be large in float64.

        NumPy's own sum, whose order is fixed: the last bits of a BLAS product depend on the number of threads.
        """
        if isinstance(self.images, StoredImages):
            return self.images.total_variance()
        blocks = (self.images[start : start + BLOCK] - self.pixel_means for start in range(0, len(self), BLOCK))
        return sum(float(np.square(block).sum()) for block in blocks) / len(self)

    @property
    def references(self) -> np.ndarray:
        """What samples are compared with: all images, or of stored ones so many of the first; their order is random."""
        return np.asarray(self.images[:REFERENCES] if isinstance(self.images, StoredImages) else self.images)

    def __getitem__(self, chosen: slice | np.ndarray) -> "Examples":
        return Examples(self.images[chosen], self.labels[chosen])


@dataclass(frozen=True)
class Dataset:
    """A data set's splits, each for one use.

    `train` trains; `validation` chooses sigma and candidates; `gate` compares a model with the
    champion, on points that nothing has used; `test` is reported once and decides nothing.
    """

    name: str
    shape: tuple[int, ...]  # of one image, (height, width) or (height, width, 3)
    train: Examples
    validation: Examples
    gate: Examples
    test: Examples
    noted_digest: str | None = field(
        default=None, kw_only=True
    )  # of stored images: what their digest was when they were written

    def splits(self) -> dict[str, Examples]:
        """The splits by name."""
        return {name: getattr(self, name) for name in ("train", "validation", "gate", "test")}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all splits' images and labels."""
        if self.noted_digest is not None:
            return self.noted_digest
        hasher = hashlib.sha256(f"{self.name} {self.shape}".encode())
        for name, examples in self.splits().items():
            hasher.update(f"{name} {len(examples)}".encode())
            for start in range(0, len(examples), BLOCK):
                hasher.update(np.ascontiguousarray(examples.images[start : start + BLOCK]).data)
            hasher.update(np.ascontiguousarray(examples.labels).data)
        return hasher.hexdigest()


def check_images(images: np.ndarray, where: object) -> None:
    """Refuse images that cannot be trained on.

    Raises:
        DataError: If there are none, or pixels are not finite, outside [0, 1] or all the same.
    """
    if images.size == 0:
        raise DataError("no images", where, f"an array of shape {list(images.shape)}", "at least one image")
    low, high = float(images.min()), float(images.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise DataError("pixels are not finite", where, f"a range of {low} to {high}", "numbers in [0, 1]")
    if low < 0 or high > 1:
        raise DataError("pixels out of range", where, f"{low:.9g} to {high:.9g}", "numbers in [0, 1]")
    if low == high:
        raise DataError("all images are constant", where, f"every pixel is {low:g}", "images that differ")
