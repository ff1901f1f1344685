"""Images that stay in files, a row of bytes each, and are read when a minibatch asks for them."""

import mmap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gan_core.errors import DataError

BLOCK = 1000  # images that are in memory at a time where all are looked at


class StoredImages:
    """What a training asks of an array of images, (count, pixels) float32 in [0, 1], over mapped files of bytes.

    The i-th image is row `order[i]`, counted through the files. Only what is asked for is in memory;
    what the system keeps of the files beside it goes when others need the room.
    """

    def __init__(
        self,
        locate: Callable[[], Sequence[Path]],
        counts: Sequence[int],
        width: int,
        order: np.ndarray,
        means: np.ndarray | None = None,
        total_variance: float | None = None,
    ) -> None:
        """`locate` gives the files where this is used: it travels to other machines, what is open does not."""
        self.locate, self.counts, self.width, self.order = locate, tuple(counts), width, order
        self.known_means, self.known_variance = means, total_variance
        self._starts = np.cumsum([0, *counts])
        self._files: list[np.ndarray] = []

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_files": []}

    def __len__(self) -> int:
        return len(self.order)

    @property
    def shape(self) -> tuple[int, int]:
        """(count, pixels)."""
        return len(self.order), self.width

    def __getitem__(self, chosen: slice | np.ndarray) -> np.ndarray:
        """Some images, as an array in memory."""
        rows = self.order[chosen]
        images = np.empty((len(rows), self.width), np.float32)
        files = self._opened()
        of_row = np.searchsorted(self._starts, rows, side="right") - 1
        for file in np.unique(of_row):
            here = of_row == file
            images[here] = files[file][rows[here] - self._starts[file]]
        images /= np.float32(255)
        return images

    def blocks(self) -> Iterator[np.ndarray]:
        """All images, a block at a time."""
        for start in range(0, len(self), BLOCK):
            yield self[start : start + BLOCK]

    def means(self) -> np.ndarray:
        """The mean image in float64, to the bits of NumPy's `mean(axis=0)` of all of them: row is added to row."""
        if self.known_means is None:
            total = np.zeros(self.width)
            for block in self.blocks():
                total = np.add.reduce(np.concatenate([total[None], block]), axis=0, dtype=np.float64)
            self.known_means = total / len(self)
        return self.known_means

    def total_variance(self) -> float:
        """The variance of the images, summed over pixels."""
        if self.known_variance is None:
            mean = self.means()
            differences = (block - mean for block in self.blocks())
            self.known_variance = sum(float(np.square(one).sum()) for one in differences) / len(self)
        return self.known_variance

    def _opened(self) -> list[np.ndarray]:
        if not self._files:
            self._files = [
                _mapped(path, count, self.width) for path, count in zip(self.locate(), self.counts, strict=True)
            ]
        return self._files


def _mapped(path: Path, count: int, width: int) -> np.ndarray:
    """A file's rows, (count, width) bytes, without reading them.

    Raises:
        DataError: If it is not there, or of another size.
    """
    try:
        with path.open("rb") as file:
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        raise DataError(
            "unreadable rows", path, str(error), "the rows as they were written; remove their folder"
        ) from error
    if len(content) != count * width:
        expected = f"{count * width}, as it was written; remove its folder to decode the images again"
        raise DataError("rows cut short", path, f"{len(content)} bytes", expected)
    content.madvise(mmap.MADV_RANDOM)  # rows are asked for in random order: what lies behind one is not read with it
    return np.frombuffer(content, np.uint8).reshape(count, width)
