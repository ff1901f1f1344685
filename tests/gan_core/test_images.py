"""The user's own images: read in order, made one size and one kind of colour, split; faults named by file."""

import io
import os
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from gan_core.datasets import DataSettings, load
from gan_core.datasets.image_listing import list_folder
from gan_core.datasets.images import decode_all, load_images, split_images
from gan_core.errors import DataError

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (60, 6, 4), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (60, 6, 4, 3), dtype=np.uint8)


def encoded(image: np.ndarray, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def write(folder, images, name: Callable[[int], str] = "{:03}.png".format):
    for index, image in enumerate(images):
        path = folder / name(index)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(image))
    return str(folder)


def rows(dataset):
    return {part.images[i].tobytes() for part in dataset.splits().values() for i in range(len(part))}


@pytest.mark.parametrize(("images", "shape"), [(GREY, (6, 4)), (COLOUR, (6, 4, 3))], ids=["grey", "colour"])
def test_folder_of_any_depth_becomes_one_data_set(tmp_path, images, shape):
    """All images at any depth are in the data set once each; other files are not."""
    root = write(tmp_path, images, lambda i: f"{'abc'[i % 3]}/{i:03}.{'png' if i % 2 else 'PNG'}")
    (tmp_path / "a" / "notes.txt").write_text("not an image")
    dataset = load(DataSettings("images", root))
    assert (dataset.name, dataset.shape) == ("images", shape)
    assert rows(dataset) == {(image.reshape(-1) / np.float32(255)).tobytes() for image in images}
    assert {name: len(part) for name, part in dataset.splits().items()} == {
        "train": 30, "validation": 10, "gate": 10, "test": 10,
    }  # fmt: skip
    assert {part.images.dtype for part in dataset.splits().values()} == {np.dtype(np.float32)}


def test_digest_depends_on_paths_and_pixels_alone(tmp_path):
    """The data set depends on paths and pixels, and not on the order in which the files were written."""
    first = load_images(write(tmp_path / "a", GREY), None, None)
    for index in reversed(range(60)):
        write(tmp_path / "b", GREY[index : index + 1], lambda _, index=index: f"{index:03}.png")
    assert load_images(str(tmp_path / "b"), None, None).digest == first.digest
    (tmp_path / "b" / "000.png").rename(tmp_path / "b" / "zzz.png")
    assert load_images(str(tmp_path / "b"), None, None).digest != first.digest


def test_a_thousand_images_are_split_80_4_6_10():
    dataset = split_images(RANDOM.integers(0, 256, (1000, 2, 2), dtype=np.uint8), "here")
    assert [len(part) for part in dataset.splits().values()] == [800, 40, 60, 100]


def test_39_images_are_too_few_and_40_are_not(tmp_path):
    with pytest.raises(
        DataError, match=r"too few images \(here\): 39; expected at least 40, 10 for each of four splits"
    ):
        split_images(GREY[:39], "here")
    assert [len(part) for part in split_images(GREY[:40], "here").splits().values()] == [10, 10, 10, 10]


def test_differing_sizes_are_refused_unless_resized(tmp_path):
    """Sizes that differ are an error that names both files; `data.size` makes them one."""
    write(tmp_path, GREY)
    (tmp_path / "100.png").write_bytes(encoded(np.zeros((5, 9), np.uint8)))
    with pytest.raises(DataError, match=r"100.png\): 5 x 9 where .*000.png is 6 x 4; expected one: --set data.size="):
        load_images(str(tmp_path), None, None)
    assert load_images(str(tmp_path), (3, 2), None).shape == (3, 2)
    # An image that is of the size already is left as it is.
    sized = load_images(write(tmp_path / "one", GREY), (6, 4), None)
    assert sized.digest == load_images(str(tmp_path / "one"), None, None).digest


def test_resizing_averages_pixels_of_the_whole_image():
    """An image is resized as a whole, each pixel an average: a plane gives its values at block centres."""
    rows, columns = np.mgrid[:64, :96]
    ramp = (rows + 2 * columns).astype(np.uint8)
    found = decode_all([("here", encoded(ramp))], (8, 12), None)[0]
    # A symmetric filter of a plane gives the plane at each block's centre, except where it ends at an edge.
    exact = (8 * np.arange(8) + 3.5)[:, None] + 2 * (8 * np.arange(12) + 3.5)
    assert found.shape == (8, 12)
    assert np.abs(found - exact)[3:-3, 3:-3].max() <= 0.5


def test_channels_convert_and_default_to_colour_if_any():
    """Channels convert as asked; without a setting, one colour image makes all of them colour."""
    grey, colour = encoded(GREY[0]), encoded(COLOUR[0])
    assert decode_all([("a", grey), ("b", grey)], None, None).shape == (2, 6, 4)
    mixed = decode_all([("a", grey), ("b", colour)], None, None)
    assert np.array_equal(mixed[0], np.repeat(GREY[0][..., None], 3, axis=2))
    assert np.array_equal(mixed[1], COLOUR[0])
    assert np.array_equal(decode_all([("a", grey), ("b", colour)], None, "colour"), mixed)
    as_grey = decode_all([("a", grey), ("b", colour)], None, "grey")
    # ITU-R 601 luma, rounded.
    luma = COLOUR[0] @ np.array([0.299, 0.587, 0.114])
    assert np.array_equal(as_grey[0], GREY[0])
    assert np.abs(as_grey[1] - luma).max() <= 1


def test_jpeg_is_upright():
    """A JPEG is turned as its EXIF entry says."""
    tall = np.repeat(np.repeat(RANDOM.integers(0, 256, (2, 4), dtype=np.uint8), 8, axis=0), 8, axis=1)
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to see it
    found = decode_all([("here", encoded(tall, "jpeg", exif=exif, quality=95))], None, None)[0]
    assert found.shape == (32, 16)
    assert np.abs(found.astype(int) - np.rot90(tall, -1)).mean() < 5  # JPEG is not exact


def test_transparency_is_what_one_sees_on_white():
    """What lies under it is not trained on: a pixel is a * colour + (1 - a) * white, rounded."""
    alpha = RANDOM.integers(0, 256, (6, 4), dtype=np.uint8)
    alpha[0] = 255, 0, 255, 0
    for image, colours in ((COLOUR[0], COLOUR[0]), (GREY[0], GREY[0][..., None])):
        found = decode_all([("here", encoded(np.dstack([image, alpha])))], None, None)[0]
        share = alpha[..., None] / 255
        expected = (share * colours + (1 - share) * 255).reshape(image.shape)
        assert found.shape == image.shape
        assert np.abs(found - expected).max() <= 1
        assert np.array_equal(found[0, ::2], image[0, ::2])  # where it is opaque, to the bit
    palette = Image.fromarray(COLOUR[0]).quantize(8)
    palette.info["transparency"] = palette.getpixel((0, 0))
    buffer = io.BytesIO()
    palette.save(buffer, "png")
    assert decode_all([("here", buffer.getvalue())], None, None)[0, 0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "bmp", "gif", "tiff"])
def test_pillows_formats_are_read_by_content(tmp_path, kind):
    """Every format is read, whatever suffix of an image its file has; those without loss are the same data set."""
    write(tmp_path, GREY[:59])
    options = {"lossless": True} if kind == "webp" else {}
    (tmp_path / "059.jfif").write_bytes(encoded(GREY[59], kind, **options))
    dataset = load_images(str(tmp_path), None, "grey")
    if kind != "jpeg":
        assert dataset.digest == load_images(write(tmp_path / "png", GREY), None, None).digest


def test_a_folder_is_what_one_sees_in_it(tmp_path):
    """Links are followed, hidden files and what systems leave are skipped, a folder named a.png is none; all is counted."""
    root = tmp_path / "root"
    write(root, GREY[:20])
    write(tmp_path / "elsewhere", GREY[20:])
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(root)  # a circle
    (root / "a.png").mkdir()
    write(root / ".thumbnails", GREY[:3])
    write(root / "__MACOSX", GREY[:1], "._{:03}.png".format)
    (root / "._000.png").write_bytes(b"not an image")
    (root / "notes.txt").touch()
    os.mkfifo(root / "endless.png")
    (root / "zero.png").symlink_to("/dev/zero")
    (root / "gone.png").symlink_to(tmp_path / "gone")
    listing = list_folder(root)
    assert len(listing.images) == 60
    assert {reason: len(paths) for reason, paths in listing.left_out.items()} == {
        "hidden": 5,
        "no files": 3,
        "not images": 1,
    }
    assert listing.described().startswith("9 files left out: 5 hidden (.")
    assert rows(load_images(str(root), None, None)) == {
        (image.reshape(-1) / np.float32(255)).tobytes() for image in GREY
    }
    (root / "table.parquet").touch()
    with pytest.raises(
        DataError, match=r"two kinds of data \(.*\): 60 image files and 1 Parquet files, table.parquet for one"
    ):
        list_folder(root)


def test_an_image_too_large_to_be_one_is_refused_unread(tmp_path):
    """Its size is in its header: 13,000 x 13,000 pixels of nothing are refused before they are decoded."""
    write(tmp_path, GREY)
    for side in (13_000, 20_000):
        Image.new("1", (side, side)).save(tmp_path / "031.png")
        with pytest.raises(DataError, match=r"unreadable image \(.*031.png\): over 89,478,485 pixels"):
            load_images(str(tmp_path), (6, 4), None)


whole = encoded(COLOUR[0])
BAD_FILES = {
    "empty": b"",
    "text": b"not an image",
    "cut": whole[: len(whole) // 2],
    "only a header": whole[:30],
    "a bit flipped": whole[:60] + bytes([whole[60] ^ 1]) + whole[61:],
    "a page": b"<!DOCTYPE html><html>",
    "an icon": encoded(COLOUR[0], "ico"),
    "16 bits": encoded(GREY[0].astype(np.uint16)),
}


@pytest.mark.parametrize("fault", BAD_FILES)
@pytest.mark.parametrize("channels", [None, "grey", "colour"])
def test_unreadable_image_is_named(tmp_path, fault, channels):
    """An image that cannot be read is an error of exit code 3 that names its file."""
    write(tmp_path, COLOUR)
    (tmp_path / "031.png").write_bytes(BAD_FILES[fault])
    with pytest.raises(
        DataError, match=r"unreadable image \(.*031.png\): .*; expected a whole PNG, JPEG, WebP"
    ) as raised:
        load_images(str(tmp_path), (6, 4), channels)
    assert raised.value.exit_code == 3


def test_missing_or_empty_folder_says_what_is_expected(tmp_path):
    """No folder, no image in it, or constant images only: each error says what is expected."""
    (tmp_path / "notes.txt").touch()
    left_out = r"no PNG, .* at any depth; 1 files left out: 1 not images \(notes.txt\)"
    for root, message in (
        (tmp_path / "none", "no such folder"),
        (tmp_path / "notes.txt", "a file"),
        (tmp_path, left_out),
    ):
        with pytest.raises(
            DataError, match=rf"no images \(.*\): {message}; expected a folder of PNG, JPEG, .*data.root=PATH"
        ):
            load_images(str(root), None, None)
    write(tmp_path, np.zeros((40, 2, 2), np.uint8))
    with pytest.raises(DataError, match="all images are constant"):
        load_images(str(tmp_path), None, None)


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (GREY, (6, 4)),
        (GREY[..., None], (6, 4)),
        (COLOUR, (6, 4, 3)),
        (GREY / np.float32(255), (6, 4)),
        (COLOUR.astype(np.float64) / 255, (6, 4, 3)),
    ],
)
def test_array_is_the_same_data_set_as_its_files(tmp_path, array, shape):
    """An array of bytes or floats is the same data set as the files of its images."""
    np.save(tmp_path / "images.npy", array)
    dataset = load(DataSettings("images", str(tmp_path / "images.npy")))
    assert dataset.shape == shape
    root = write(tmp_path / "files", GREY if len(shape) == 2 else COLOUR)
    for part, other in zip(dataset.splits().values(), load_images(root, None, None).splits().values(), strict=True):
        np.testing.assert_allclose(part.images, other.images, rtol=0, atol=1e-7)  # a float32's last digit


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (
            GREY.astype(np.int64),
            r"not an array of images \(.*npy\): int64 of shape \[60, 6, 4\]; expected \(count, height",
        ),
        (GREY[0], r"not an array of images .*\[6, 4\]"),
        (np.zeros((60, 6, 4, 2), np.uint8), r"not an array of images .*\[60, 6, 4, 2\]"),
        (np.zeros((10**12, 0, 8), np.uint8), r"not an array of images .*\[1000000000000, 0, 8\]"),
        (GREY / 100, "pixels out of range"),
        (np.where(GREY > 9, np.nan, 0.5), "pixels are not finite"),
        (GREY[:0], "too few images .*: 0"),
        (GREY / np.float32(255) * np.float32(1.0000001), r"pixels out of range \(.*\): 0 to 1.00000012"),
        (GREY % 2, r"bytes of 0 and 1 \(.*\): .*; expected bytes of 0 to 255"),
        (
            np.array([{}], dtype=object),
            r"unreadable array \(.*\): an array of Python objects, or no .npy file; expected \(count",
        ),
    ],
)
def test_an_array_of_something_else_is_refused(tmp_path, array, message):
    np.save(tmp_path / "images.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=message):
        load_images(str(tmp_path / "images.npy"), None, None)


def test_an_array_larger_than_memory_is_refused_unread(tmp_path):
    """A sparse file of 2^43 bytes, and an archive and an upper-case name, are errors of one line at once."""
    path = tmp_path / "images.NPY"
    np.save(tmp_path / "images.npy", GREY)
    (tmp_path / "images.npy").rename(path)
    assert load_images(str(path), None, None).shape == (6, 4)
    os.truncate(path, 2**43)
    with pytest.raises(DataError, match=r"unreadable array \(.*NPY\): 8192.0 GiB where the machine has"):
        load_images(str(path), None, None)
    np.savez(tmp_path / "archive.npz", GREY)
    (tmp_path / "archive.npz").rename(tmp_path / "archive.npy")
    with pytest.raises(DataError, match=r"unreadable array \(.*\): an archive of several arrays"):
        load_images(str(tmp_path / "archive.npy"), None, None)


def test_array_is_neither_resized_nor_recoloured(tmp_path):
    """An array is not changed to another size or colour, and one that cannot be read is named."""
    np.save(tmp_path / "images.npy", GREY)
    path = str(tmp_path / "images.npy")
    assert load_images(path, (6, 4), "grey").digest == load_images(path, None, None).digest
    with pytest.raises(DataError, match=r"an array is not resized .*data.size \[3, 2\] and images of \[6, 4\]"):
        load_images(path, (3, 2), None)
    with pytest.raises(DataError, match=r"an array keeps its colours .*data.channels colour, images in grey"):
        load_images(path, None, "colour")
    (tmp_path / "images.npy").write_bytes(b"")
    with pytest.raises(DataError, match=r"unreadable array \(.*images.npy\)"):
        load_images(path, None, None)
    with pytest.raises(DataError, match=r"unreadable array \(.*none.npy\): No such file"):
        load_images(str(tmp_path / "none.npy"), None, None)
