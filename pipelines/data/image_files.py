"""The data set of a run: gan_core's, or images in Parquet files, as Hugging Face's data sets have them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from gan_core import datasets
from gan_core.datasets import Dataset, DataSettings
from gan_core.datasets.image_listing import PARQUET, Listing, list_folder
from gan_core.datasets.images import decode_all, split_images
from gan_core.errors import DataError, first_line

# Here and not in gan_core, whose import contract leaves Arrow to the pipeline.


def load(settings: DataSettings, log: Callable[[str], None] = lambda text: None) -> Dataset:
    """The data set of the settings; `images` may also lie in Parquet files. How many are used is logged, and what is not.

    Raises:
        DataError: If its files are missing, damaged or not what they should be.
    """
    if settings.name != "images":
        return datasets.load(settings)
    root = Path(settings.root).expanduser()
    parquet = (str(root),) if root.suffix.lower() == PARQUET else ()
    if parquet and root.exists() and not root.is_file() and not root.is_dir():
        raise DataError("unreadable file", root, "a pipe or a device", "a whole Parquet file")
    listing = list_folder(root) if root.is_dir() else Listing((), parquet, {})
    if listing.parquet:
        encoded = (image for file in listing.parquet for image in images(file))
        decoded = decode_all(encoded, settings.size, settings.channels)
        dataset = datasets.preprocessed(split_images(decoded, settings.root), settings)
    else:
        dataset = datasets.load(settings)
    log(used(sum(len(part) for part in dataset.splits().values()), listing))
    return dataset


def used(images: int, listing: Listing) -> str:
    """A line that says how many images a data set has, and which files have no part in it."""
    left_out = listing.described()
    return f"data   {images:,} images{left_out and ', '}{left_out}"


def images(path: str, filesystem: Any = None, group: int | None = None) -> Iterator[tuple[str, bytes]]:
    """The encoded images of a file's image column, each with the row it comes from; of all row groups or of one."""
    from pyarrow import parquet

    with _readable(path):
        file = parquet.ParquetFile(path, filesystem=filesystem)
        column = _image_column(file.schema_arrow, path)
        groups = range(file.num_row_groups) if group is None else [group]
        row = sum(file.metadata.row_group(before).num_rows for before in range(groups[0])) if groups else 0
        for batch in file.iter_batches(batch_size=200, columns=[column], row_groups=list(groups)):
            for value in batch.column(0).to_pylist():
                content = value.get("bytes") if isinstance(value, dict) else value
                if content is None:
                    raise DataError("no image", f"{path}, row {row}", "a row without bytes", "an encoded image")
                yield f"{path}, row {row}", content
                row += 1


def count_rows(path: str) -> int:
    """How many images a Parquet file has.

    Raises:
        DataError: If it is damaged.
    """
    from pyarrow import parquet

    with _readable(path):
        return int(parquet.read_metadata(path).num_rows)


def row_groups(filesystem: Any, path: str) -> int:
    """How many parts a Parquet file has that can be read alone; it is one of images.

    Raises:
        DataError: If it is damaged, or has no single image column.
    """
    from pyarrow import parquet

    with _readable(path):
        file = parquet.ParquetFile(path, filesystem=filesystem)
        _image_column(file.schema_arrow, path)
        return int(file.num_row_groups)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    import pyarrow

    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        reason = first_line(error)
        raise DataError("unreadable file", path, reason, "a whole Parquet file") from error


def _image_column(schema: Any, path: str) -> str:
    """The one column of bytes, or of {bytes, path}."""
    from pyarrow import types

    def is_bytes(kind: Any) -> bool:
        return bool(types.is_binary(kind) or types.is_large_binary(kind))

    def holds_images(kind: Any) -> bool:
        return is_bytes(kind) or (types.is_struct(kind) and any(f.name == "bytes" and is_bytes(f.type) for f in kind))

    found = [field.name for field in schema if holds_images(field.type)]
    if len(found) != 1:
        given = f"{len(found)} of the columns {', '.join(schema.names)}"
        raise DataError("no single image column", path, given, "one of encoded images, as bytes or {bytes, path}")
    return str(found[0])
