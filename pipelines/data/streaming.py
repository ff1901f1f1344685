"""Images that need not fit in memory: decoded once by Ray Data into rows of bytes in the storage, and read from there."""

import functools
import hashlib
import itertools
import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.fs

from gan_core import errors
from gan_core.datasets import Dataset, DataSettings
from gan_core.datasets.examples import Examples, check_images
from gan_core.datasets.image_listing import KINDS, Listing, list_folder, sort_out
from gan_core.datasets.images import decode_all, split_order
from gan_core.datasets.memory_mapped import StoredImages
from gan_core.errors import DataError, GanError
from pipelines import config
from pipelines.data import image_files
from pipelines.runtime import liveness, ray_session
from pipelines.storage import Storage, image_cache, uri

MOST = 10_000  # images of a split that scores are made on, which is in memory
FILES_AT_A_TIME = 1000  # of a folder, that one task decodes
IMAGES_AT_A_TIME = 200  # that a task has in memory beside a file of rows
FILE_BYTES = 64 * 2**20  # of rows, at most

# Why not streamed from Ray Data into the workers: its iterators cannot be entered at a step, and their order
# depends on the number of workers. Rows have positions, so a minibatch is what it is in memory, to the bit.


def load(settings: DataSettings, storage: Storage, log: Callable[[str], None], reader: str) -> Dataset:
    """The data set of the settings: in memory, or with `data.streaming` over rows that are in the storage afterwards.

    `reader` is the run that it is for: its rows stay as long as it does.

    Raises:
        DataError: If its files are missing, damaged or not what they should be.
    """
    if not settings.streaming:
        return image_files.load(settings, log)
    assert settings.size is not None  # DataSettings has seen to it
    chunks, files, listing = _chunks(settings)
    made_from = [list(settings.size), settings.channels, files]
    name = config.digest(made_from)[:32]
    folder, about = storage.child(image_cache.ROWS, name), image_cache.description(storage, name, reader)
    if about is None:
        log(f"data   decoding {settings.root} once, by {len(chunks)} Ray Data tasks, into {folder.uri}")
        rows = _decode(chunks, settings, folder)
        about = {"files": rows, **_statistics(settings, folder, rows)}
        folder.write_json(image_cache.ABOUT, about)  # last: without it all is done again
    log(image_files.used(sum(count for _, count, _ in about["files"]), listing))
    return _dataset(settings, folder, about)


def _chunks(settings: DataSettings) -> tuple[list[dict[str, Any]], list[list[Any]], Listing]:
    """What each task decodes, in the order of the images, what tells whether the files are still the same, and the listing."""
    address = uri.checked_address(settings.root)
    filesystem, root = uri.open_place(address)
    with uri.answering(address):
        info = filesystem.get_file_info(root)
        if info.type == pyarrow.fs.FileType.NotFound:
            raise DataError(
                "no images", settings.root, "no such folder", f"a folder of {KINDS} files, or of Parquet files"
            )
        if info.is_file:
            listing = sort_out([(root, Path(root).name, True)], settings.root)
        elif isinstance(filesystem, pyarrow.fs.LocalFileSystem):  # of which Arrow follows no links
            listing = list_folder(Path(root))
        else:
            entries = filesystem.get_file_info(pyarrow.fs.FileSelector(root, recursive=True))
            below = len(root) + 1
            listing = sort_out(((e.path, e.path[below:], True) for e in entries if e.is_file), settings.root)
        paths = list(listing.parquet or listing.images)
        files = [[info.path, info.size, info.mtime_ns] for info in filesystem.get_file_info(paths)]
    if not paths:
        raise DataError("no images", settings.root, f"no {KINDS} file, and no Parquet file, at any depth", "some")
    if not listing.parquet:
        groups = [paths[start : start + FILES_AT_A_TIME] for start in range(0, len(paths), FILES_AT_A_TIME)]
        return [{"number": number, "paths": group} for number, group in enumerate(groups)], files, listing
    parts = [(path, group) for path in paths for group in range(image_files.row_groups(filesystem, path))]
    chunks = [{"number": number, "paths": [path], "group": group} for number, (path, group) in enumerate(parts)]
    return chunks, files, listing


def _decode(chunks: list[dict[str, Any]], settings: DataSettings, folder: Storage) -> list[list[Any]]:
    """Let Ray Data decode the chunks wherever there is room; the files of rows: name, rows, SHA-256, in order."""
    with ray_session.cluster(), liveness.watched():
        import logging

        import ray.data

        logging.getLogger("ray.data").setLevel(logging.ERROR)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        work = functools.partial(_answer, settings=settings, folder=folder)
        items = [{"chunk": json.dumps(chunk)} for chunk in chunks]
        made = []
        try:
            for row in ray.data.from_items(items, override_num_blocks=len(items)).map(work).iter_rows():
                answer = json.loads(row["answer"])
                if "fault" in answer:
                    kind, *parts = answer["fault"]
                    raise getattr(errors, kind)(*parts)  # the tasks that are left are not started
                made.append(answer)
        except (ray.exceptions.RayError, RuntimeError) as error:
            raise DataError(
                "images were not decoded",
                settings.root,
                errors.last_line(error),
                "tasks that live; the same command tries again",
            ) from error
    return [file for answer in sorted(made, key=lambda answer: int(answer["number"])) for file in answer["files"]]


def _answer(row: Mapping[str, str], settings: DataSettings, folder: Storage) -> dict[str, str]:
    """A task: its files of rows, or its fault as data, since Ray Data hides what a task raises in its own words."""
    chunk = json.loads(row["chunk"])
    try:
        return {"answer": json.dumps({"number": chunk["number"], "files": _decode_chunk(chunk, settings, folder)})}
    except GanError as error:
        kind, parts = error.__reduce__()
        return {"answer": json.dumps({"fault": [kind.__name__, *map(str, parts)]})}


def _decode_chunk(chunk: Mapping[str, Any], settings: DataSettings, folder: Storage) -> list[list[Any]]:
    """Decode a chunk and write its rows, a file at a time: name, rows and SHA-256 of each."""
    assert settings.size is not None
    width = settings.size[0] * settings.size[1] * (3 if settings.channels == "colour" else 1)
    encoded, files = _encoded(chunk, settings), list[list[Any]]()
    for part in itertools.count():
        decoded = bytearray()
        while len(decoded) + IMAGES_AT_A_TIME * width <= max(FILE_BYTES, IMAGES_AT_A_TIME * width):
            some = list(itertools.islice(encoded, IMAGES_AT_A_TIME))
            if not some:
                break
            decoded += decode_all(some, settings.size, settings.channels).tobytes()
        if not decoded:
            break
        name, content = f"{chunk['number']:06d}-{part:03d}", bytes(decoded)
        folder.write(name, content)
        files.append([name, len(content) // width, hashlib.sha256(content).hexdigest()])
    return files


def _encoded(chunk: Mapping[str, Any], settings: DataSettings) -> Iterator[tuple[str, bytes]]:
    filesystem, _ = uri.open_place(uri.checked_address(settings.root))
    for path in chunk["paths"]:
        if chunk.get("group") is not None:
            yield from image_files.images(path, filesystem, chunk["group"])
        else:
            with filesystem.open_input_stream(path) as stream:
                yield path, bytes(stream.read())


def _statistics(settings: DataSettings, folder: Storage, files: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What is known of all images once and for all: the digest of the data set, and of `train` mean and variance."""
    train = _dataset(settings, folder, {"files": files, "digest": None, "means": None, "total_variance": None})
    return {
        "digest": train.digest,
        "means": train.train.pixel_means.tolist(),
        "total_variance": train.train.total_variance,
    }


def _dataset(settings: DataSettings, folder: Storage, about: Mapping[str, Any]) -> Dataset:
    """The four splits: `train` stays in the files, the others, of at most `MOST` images each, are read."""
    assert settings.size is not None
    shape = (*settings.size, 3) if settings.channels == "colour" else settings.size
    counts, width = [count for _, count, _ in about["files"]], int(np.prod(shape))
    locate = functools.partial(located, folder, [(name, digest) for name, _, digest in about["files"]])
    trained, *others = split_order(sum(counts), settings.root, MOST)
    means = None if about["means"] is None else np.array(about["means"])
    splits: list[Any] = [StoredImages(locate, counts, width, trained, means, about["total_variance"])]
    splits += [StoredImages(locate, counts, width, order)[:] for order in others]
    for split in splits:
        check_images(split[:MOST], settings.root)
    train, *scored = (Examples(split, np.zeros(len(split), np.int64)) for split in splits)
    return Dataset("images", shape, train, *scored, noted_digest=about["digest"])


def located(folder: Storage, files: Sequence[tuple[str, str]]) -> list[Path]:
    """The files of rows on this machine: where they are, or copied from an object store once and verified."""
    if folder.local is not None:
        return [folder.local / name for name, _ in files]
    here = Path(tempfile.gettempdir()) / f"gan-rows-{os.getuid()}" / folder.name
    here.mkdir(parents=True, exist_ok=True, mode=0o700)
    if here.parent.stat().st_uid != os.getuid():
        raise DataError("not our folder", here.parent, "it is another user's", "one of our own: another TMPDIR")
    for name, digest in files:
        if not (here / name).exists():
            content = folder.read(name)
            if content is None or hashlib.sha256(content).hexdigest() != digest:
                reason = "not there" if content is None else "its SHA-256 is another"
                raise DataError("damaged rows", folder.child(name).uri, reason, "what was written; remove its folder")
            staged = here / f".{name}-{uuid.uuid4().hex}"
            staged.write_bytes(content)
            os.replace(staged, here / name)
    return [here / name for name, _ in files]
