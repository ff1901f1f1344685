"""The user's own images: a folder of image files, or one .npy array; one size, grey or colour."""

import io
import os
import stat
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from gan_core.bounded_reading import read_bounded
from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.datasets.image_listing import FORMATS, KINDS, list_folder
from gan_core.errors import DataError, first_line
from gan_core.randomness import stream

if TYPE_CHECKING:
    from PIL import Image

SHARES = {"validation": 0.04, "gate": 0.06, "test": 0.10}  # the rest trains
SMALLEST = 10  # images of a split
ROWS_AT_ONCE = 256  # of a transparent image
MOST_BYTES = 2**29  # of an encoded image: more than the largest that is decoded, 89 million pixels, has raw
NEEDED = SMALLEST * (len(SHARES) + 1)
GREY_MODES, COLOUR_MODES = ("1", "L", "LA"), ("P", "PA", "RGB", "RGBA", "CMYK", "YCbCr")

Channels = Literal["grey", "colour"]


def load_images(root: str, size: Sequence[int] | None, channels: Channels | None) -> Dataset:
    """The images under `root`: a folder, at any depth and in the order of their paths, or a .npy file.

    Raises:
        DataError: If there are none or too few, one cannot be read, or their sizes differ and `size`
            does not say which one to give them all.
    """
    path = Path(root).expanduser()
    if path.suffix.lower() == ".npy":
        return split_images(load_array(path, size, channels), path)
    if not path.is_dir():
        raise DataError("no images", path, "a file" if path.exists() else "no such folder", _expected())
    listing = list_folder(path)
    if not listing.images:
        left_out = listing.described()
        raise DataError("no images", path, f"no {KINDS} file at any depth{left_out and '; '}{left_out}", _expected())
    files = map(Path, listing.images)
    return split_images(decode_all(((file, read_image(file)) for file in files), size, channels), path)


def decode_all(
    encoded: Iterable[tuple[object, bytes]], size: Sequence[int] | None, channels: Channels | None
) -> np.ndarray:
    """Files' contents, each with the place it came from, as bytes (count, height, width[, 3]).

    They are resized to `size` (height, width) as a whole, and made grey or colour by `channels`; without
    it they are colour if one of them is.

    Raises:
        DataError: If one cannot be read, or their sizes differ and there is no `size`.
    """
    images: list[np.ndarray] = []
    first: object = None
    for where, content in encoded:
        image = _decoded(content, where, size, channels)
        if images and image.shape[:2] != images[0].shape[:2]:
            sizes = f"{_size(image)} where {first} is {_size(images[0])}"
            raise DataError("images of different sizes", where, sizes, "one: --set data.size=[HEIGHT,WIDTH]")
        first = first or where
        images.append(image)
    if any(image.ndim == 3 for image in images):
        images = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    return np.stack(images) if images else np.empty((0, 0, 0), np.uint8)


def split_images(images: np.ndarray, where: object) -> Dataset:
    """Split 80 / 4 / 6 / 10 % into train, validation, gate and test, by a permutation that is always the same.

    The three small splits have at least 10 images each.

    Raises:
        DataError: If there are too few for that, or they cannot be trained on.
    """
    parts = split_order(len(images), where)
    return Dataset("images", tuple(images.shape[1:]), *(_examples(images[part], where) for part in parts))


def split_order(count: int, where: object, most: int | None = None) -> list[np.ndarray]:
    """Which images are in train, validation, gate and test; `most` bounds each of the last three.

    Raises:
        DataError: If there are too few for 10 in each.
    """
    sizes = [size if most is None else min(size, most) for size in [*split_sizes(count, where).values()][1:]]
    order = stream(0, "images split").permutation(count)
    return np.split(order, np.cumsum([count - sum(sizes), *sizes])[:-1])


def split_sizes(count: int, where: object) -> dict[str, int]:
    """How many of so many images are in train, validation, gate and test.

    Raises:
        DataError: If there are too few for 10 in each.
    """
    if count < NEEDED:
        raise DataError("too few images", where, str(count), f"at least {NEEDED}, {SMALLEST} for each of four splits")
    small = {split: max(SMALLEST, int(share * count)) for split, share in SHARES.items()}
    return {"train": count - sum(small.values()), **small}


def _examples(images: np.ndarray, where: object) -> Examples:
    pixels = images.reshape(len(images), -1).astype(np.float32)
    if images.dtype == np.uint8:
        pixels /= np.float32(255)
    check_images(pixels, where)
    return Examples(pixels, np.zeros(len(images), np.int64))  # all of one kind


def _decoded(content: bytes, where: object, size: Sequence[int] | None, channels: Channels | None) -> np.ndarray:
    from PIL import Image, ImageOps, UnidentifiedImageError  # only here

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)  # its size is in its header
            file = Image.open(io.BytesIO(content), formats=tuple(FORMATS))
        with file:
            mode = file.mode
            if mode not in GREY_MODES + COLOUR_MODES:
                raise ValueError(f"pixels of mode {mode}, not of 8 bits")
            ImageOps.exif_transpose(file, in_place=True)  # as a camera says it was held
            grey = channels == "grey" or (channels is None and mode in GREY_MODES)
            transparent = mode.endswith("A") or "transparency" in file.info
            image = _on_white(file, "L" if grey else "RGB") if transparent else file.convert("L" if grey else "RGB")
            if size is not None and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), Image.Resampling.LANCZOS)
            return np.asarray(image)
    except Exception as error:  # Pillow's decoders raise errors, and warnings, of many types
        reason = first_line(error)
        if isinstance(error, Image.DecompressionBombWarning | Image.DecompressionBombError):
            reason = f"over {Image.MAX_IMAGE_PIXELS:,} pixels"
        if isinstance(error, UnidentifiedImageError):  # whose text names a buffer
            reason = f"not recognised, it begins with {content[:12]!r}" if content else "an empty file"
        raise DataError("unreadable image", where, reason, f"a whole {KINDS} file of 8 bits a channel") from error


def _on_white(image: "Image.Image", mode: str) -> "Image.Image":
    """What one sees of a transparent image, whatever lies under it; some rows at a time, for the memory's sake."""
    from PIL import Image

    seen = image if image.mode == "RGBA" else image.convert("RGBA")
    whole = Image.new(mode, seen.size)
    for top in range(0, seen.height, ROWS_AT_ONCE):
        rows = seen.crop((0, top, seen.width, min(seen.height, top + ROWS_AT_ONCE)))
        whole.paste(Image.alpha_composite(Image.new("RGBA", rows.size, "white"), rows).convert(mode), (0, top))
    return whole


def load_array(path: Path, size: Sequence[int] | None, channels: Channels | None) -> np.ndarray:
    """The array of a .npy file, which is used as it is.

    Raises:
        DataError: If it cannot be read, is none of images, or has another size or colours.
    """
    expected = "(count, height, width[, 1 or 3]) of bytes, or of floats in [0, 1]"
    array = read_array(path, path, expected)
    fits = array.ndim == 3 or (array.ndim == 4 and array.shape[3] in (1, 3))
    fits = fits and 0 not in array.shape[1:]  # 10^12 images without a pixel take no memory
    if not fits or not (array.dtype == np.uint8 or array.dtype.kind == "f"):
        raise DataError("not an array of images", path, f"{array.dtype} of shape {list(array.shape)}", expected)
    if array.dtype == np.uint8 and array.size and array.max() == 1:
        raise DataError(
            "bytes of 0 and 1", path, "they would be nearly black", "bytes of 0 to 255, or floats in [0, 1]"
        )
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    found: Channels = "grey" if array.ndim == 3 else "colour"
    shown = [*array.shape[1:3]]
    if size is not None and [*size] != shown:
        raise DataError("an array is not resized", path, f"data.size {[*size]} and images of {shown}", f"{shown}")
    if channels not in (None, found):
        raise DataError("an array keeps its colours", path, f"data.channels {channels}, images in {found}", found)
    return array


def read_array(path: str | Path, where: object, expected: str) -> np.ndarray:
    """The array of a .npy file.

    Raises:
        DataError: If it cannot be read, needs code to be read, is no array, or is larger than the machine's memory.
    """
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise ValueError("no file of content")
        if (size := os.path.getsize(path)) > memory:
            raise MemoryError(f"{size / 2**30:.1f} GiB where the machine has {memory / 2**30:.1f} GiB of memory")
        array = np.load(path, allow_pickle=False)
    except Exception as error:  # NumPy's reader raises errors of many types, a tokenizer's for one
        reason = getattr(error, "strerror", None) or first_line(error)
        if "allow_pickle" in reason:
            reason = "an array of Python objects, or no .npy file"
        raise DataError("unreadable array", where, reason, expected) from error
    if not isinstance(array, np.ndarray):
        raise DataError("unreadable array", where, "an archive of several arrays (.npz)", expected)
    return array


def read_image(file: Path) -> bytes:
    """An image file's content, not yet decoded.

    Raises:
        DataError: If it cannot be read, or is larger than an image's can be.
    """
    try:
        return read_bounded(file, MOST_BYTES)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError("unreadable image", file, reason, f"a {KINDS} file") from error


def _size(image: np.ndarray) -> str:
    return f"{image.shape[0]} x {image.shape[1]}"


def _expected() -> str:
    return f"a folder of {KINDS} files, or of Parquet files, or a .npy file: --set data.root=PATH"
