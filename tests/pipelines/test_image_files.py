"""Images in Parquet files: the same data set as the same images in a folder, and faults named by row."""

import io

import numpy as np
import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from gan_core import datasets
from gan_core.datasets import DataSettings
from gan_core.errors import DataError
from pipelines.data.image_files import load

IMAGES = np.random.default_rng(0).integers(0, 256, (50, 5, 4, 3), dtype=np.uint8)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


ENCODED = [png(image) for image in IMAGES]
STRUCTS = [{"bytes": content, "path": f"{index}.png"} for index, content in enumerate(ENCODED)]


def write(path, column, **more):
    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.table({"image": column, **more}), path)
    return path


@pytest.fixture
def in_a_folder(tmp_path):
    for index, content in enumerate(ENCODED):
        path = tmp_path / "folder" / f"{index:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    return load(DataSettings("images", str(tmp_path / "folder")))


@pytest.mark.parametrize("column", [ENCODED, STRUCTS, pyarrow.array(ENCODED, pyarrow.large_binary())])
def test_parquet_equals_a_folder_of_its_images(tmp_path, in_a_folder, column):
    """A Parquet file is the same data set as a folder of the same images, in each form of column."""
    path = write(tmp_path / "images.parquet", column, label=list(range(50)), text=["a"] * 50)
    assert load(DataSettings("images", str(path))).digest == in_a_folder.digest


def test_parquet_files_are_read_in_order_of_names(tmp_path, in_a_folder):
    """The files of a folder are read in the order of their names, not in that of writing."""
    write(tmp_path / "parts" / "train-00001.parquet", STRUCTS[20:])
    write(tmp_path / "parts" / "train-00000.parquet", STRUCTS[:20])
    assert load(DataSettings("images", str(tmp_path / "parts"))).digest == in_a_folder.digest


def test_size_channels_and_preprocessing_are_those_of_any_images(tmp_path):
    path = str(write(tmp_path / "images.parquet", ENCODED))
    assert load(DataSettings("images", path, size=(3, 2), channels="grey")).shape == (3, 2)
    normalised = load(DataSettings("images", path, preprocessing="global_contrast_normalisation"))
    assert np.linalg.norm(normalised.train.images, axis=1) == pytest.approx(55, rel=1e-5)


def test_other_data_sets_are_gan_cores():
    assert load(DataSettings("digits")).digest == datasets.load(DataSettings("digits")).digest


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [*ENCODED[:7], b"x", *ENCODED[8:]]}, r"unreadable image \(.*images.parquet, row 7\)"),
        ({"image": [*STRUCTS[:7], {"bytes": None, "path": "7.png"}]}, r"no image \(.*, row 7\): a row without bytes"),
        ({"image": [*ENCODED[:7], None]}, r"no image \(.*, row 7\)"),
        ({"image": ["7.png"]}, "no single image column .*: 0 of the columns image; expected one of encoded images"),
        ({"a": ENCODED, "b": ENCODED}, "no single image column .*: 2 of the columns a, b"),
        ({"image": ENCODED[:9]}, "too few images .*: 9; expected at least 40"),
    ],
)
def test_faults_are_named_by_file_and_row(tmp_path, columns, message):
    parquet.write_table(pyarrow.table(columns), tmp_path / "images.parquet")
    with pytest.raises(DataError, match=message):
        load(DataSettings("images", str(tmp_path)))


def test_a_damaged_or_missing_file_is_refused_by_name(tmp_path):
    path = write(tmp_path / "images.parquet", ENCODED)
    whole = path.read_bytes()
    for content in (b"", b"PAR1", whole[: len(whole) // 2], whole[:-1]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"unreadable file \(.*images.parquet\): .*; expected a whole Parquet file"):
            load(DataSettings("images", str(path)))
    with pytest.raises(DataError, match=r"unreadable file \(.*none.parquet\)"):
        load(DataSettings("images", str(tmp_path / "none.parquet")))
