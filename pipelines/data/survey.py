"""A first look at images of one's own, before there is a configuration: how many, how large, in which colours."""

import io
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gan_core.datasets.image_listing import KINDS, PARQUET, Listing, list_folder
from gan_core.datasets.images import Channels, decode_all, load_array, read_image, split_images
from gan_core.errors import DataError
from pipelines.data import image_files

LARGEST = 64  # pixels of a side that is proposed; larger nets take days without a GPU
HEADERS, DECODED = 300, 24  # images of which the size is looked at, and the pixels
ALIKE = 6  # of 255: colours that differ less are grey, saved as a JPEG in colour
EXTREME = 0.8  # of the pixels nearly black or white: strokes, as of handwriting
ROTATED, ORIENTATION = (5, 6, 7, 8), 0x0112  # of EXIF: the camera was held upright


@dataclass(frozen=True)
class Survey:
    """What was seen; `size` is the (height, width) that is proposed, `seen` the commonest there is."""

    images: int
    seen: tuple[int, int]
    sizes: int  # how many different ones were seen
    size: tuple[int, int]
    channels: Channels
    strokes: bool
    classes: dict[str, int]  # images by subfolder
    left_out: str  # in words; empty if nothing was
    reading: float  # seconds that decoding all of them takes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image as it will be trained on."""
        return (*self.size, 3) if self.channels == "colour" else self.size

    def __str__(self) -> str:
        height, width = self.seen
        sizes = (
            f"{self.sizes} sizes, {height} x {width} the commonest" if self.sizes > 1 else f"{height} x {width} pixels"
        )
        classes = f", {len(self.classes)} subfolders" if self.classes else ""
        return f"{self.images:,} images, {sizes}, {self.channels}{classes}"


def survey(root: Path) -> Survey:
    """Look at a folder of image files or of Parquet files, at a Parquet file, or at a .npy array.

    Raises:
        DataError: If there are no images, or one of those looked at cannot be read.
    """
    if root.suffix.lower() == ".npy":
        return _of_array(root)
    parquet = root.suffix.lower() == PARQUET and root.is_file()
    if not root.is_dir() and not parquet:
        expected = f"a folder of {KINDS} or Parquet files, or a .npy file"
        raise DataError("no images", root, "a file" if root.exists() else "no such folder", expected)
    listing = list_folder(root) if root.is_dir() else Listing((), (str(root),), {})
    count, encoded = _some(listing)
    if not encoded:
        left_out = listing.described()
        raise DataError(
            "no images", root, f"none at any depth{left_out and '; '}{left_out}", f"{KINDS} or Parquet files"
        )
    sizes = Counter(_size(where, content) for where, content in encoded)
    seen = sizes.most_common(1)[0][0]
    size, few = proposed(seen), encoded[:: -(-len(encoded) // DECODED)]
    started = time.perf_counter()
    pixels = decode_all(few, size, "colour").astype(np.int16)
    reading = (time.perf_counter() - started) / len(few) * count
    grey = max(int(np.ptp(image, axis=-1).max()) for image in pixels) <= ALIKE
    classes = listing.by_subfolder(root) if listing.images else {}
    channels: Channels = "grey" if grey else "colour"
    return Survey(count, seen, len(sizes), size, channels, _strokes(pixels), classes, listing.described(), reading)


def proposed(seen: tuple[int, int]) -> tuple[int, int]:
    """A (height, width) of at most `LARGEST` pixels a side, of about these proportions, in steps of four if made smaller."""
    if max(seen) <= LARGEST:
        return seen
    height, width = (max(8, 4 * round(side * LARGEST / max(seen) / 4)) for side in seen)
    return height, width


def _some(listing: Listing) -> tuple[int, list[tuple[str, bytes]]]:
    """How many images there are, and some of them, spread over all files."""
    if listing.images:
        paths: Sequence[str] = listing.images[:: -(-len(listing.images) // HEADERS)]
        return len(listing.images), [(path, read_image(Path(path))) for path in paths]
    rows = sum(map(image_files.count_rows, listing.parquet))
    each = -(-HEADERS // max(1, len(listing.parquet)))
    some = (image for path in listing.parquet for _, image in zip(range(each), image_files.images(path), strict=False))
    return rows, list(some)


def _size(where: object, content: bytes) -> tuple[int, int]:
    """(height, width) as one sees it, from the header alone; what has none is refused as a run would refuse it."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content)) as file:
            turned = file.getexif().get(ORIENTATION) in ROTATED
            return (file.width, file.height) if turned else (file.height, file.width)
    except Exception:  # of many types: decoding it says in our words what is wrong
        height, width = decode_all([(where, content)], None, None).shape[1:3]
        return height, width


def _strokes(pixels: np.ndarray) -> bool:
    return bool(((pixels < 26) | (pixels > 229)).mean() > EXTREME)


def _of_array(path: Path) -> Survey:
    """Of an array, which is never resized; what a run would refuse is refused, as there."""
    array = load_array(path, None, None)
    split_images(array, path)
    count, height, width, *colours = array.shape
    channels: Channels = "colour" if colours else "grey"
    some = array[:DECODED] if array.dtype == np.uint8 else array[:DECODED] * 255
    return Survey(count, (height, width), 1, (height, width), channels, _strokes(some), {}, "", 0.0)
