"""A run's folder, on a disk or an object store: records and checkpoints, each written whole."""

import contextlib
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs

from gan_core.bounded_reading import read_bounded
from gan_core.errors import CheckpointError
from gan_core.manifest import storage_error, write_durably
from pipelines.storage import file_lock
from pipelines.storage.uri import (
    answering,
    check_bucket,
    checked_address,
    joined,
    local_folder,
    make_private,
    open_place,
)

if TYPE_CHECKING:  # importing torch takes seconds
    from torch import Tensor

    Tensors = dict[str, dict[str, Tensor]]
else:
    Tensors = dict[str, dict[str, Any]]


MOST_BYTES = 2**28  # of a file that is read whole; checkpoints, which may be larger, are read by their own rules
DIGEST = "sha256"  # a JSON object's, as one more key; files of versions before 0.3 have none


@dataclass(frozen=True)
class Storage:
    """A folder by its URI (a plain path is a local one). It can be sent to any worker."""

    uri: str

    @classmethod
    def at(cls, place: str | Path) -> "Storage":
        """The storage at a path or URI; a path is made absolute."""
        return cls(checked_address(place))

    @cached_property
    def _opened(self) -> tuple[pyarrow.fs.FileSystem, str]:
        return open_place(self.uri)

    @property
    def local(self) -> Path | None:
        """The local folder, if it is one."""
        return local_folder(self.uri)

    @property
    def name(self) -> str:
        """The folder's own name."""
        return self._opened[1].rstrip("/").rsplit("/", 1)[-1]

    def child(self, *parts: str) -> "Storage":
        """A folder inside."""
        return Storage(joined(self.uri, *parts))

    def names(self) -> list[str]:
        """What the folder holds, in order; nothing if there is no such folder."""
        filesystem, root = self._opened
        with answering(self.uri):
            found = filesystem.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
        return sorted(info.base_name for info in found)

    def read(self, name: str) -> bytes | None:
        """A file's content, or None if there is no such file.

        Raises:
            CheckpointError: If it cannot be read; on a disk also if it is larger than any of ours, a pipe or a device.
        """
        filesystem, root = self._opened
        try:
            with answering(self.child(name).uri):
                if self.local is not None:
                    return _read_local(self.local / name)
                with filesystem.open_input_stream(f"{root}/{name}") as stream:
                    return bytes(stream.read())
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """Write a file whole or not at all: by renaming on a disk, as one object elsewhere."""
        filesystem, root = self._opened
        if self.local is None:
            with answering(self.child(name).uri), filesystem.open_output_stream(f"{root}/{name}") as stream:
                stream.write(content)
            return
        path = self.local / name
        try:
            make_private(path.parent)
            staged = path.with_name(f".{path.name}-{uuid.uuid4().hex[:8]}")
            try:
                write_durably(staged, content)
                os.replace(staged, path)
            finally:
                staged.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(path, error, len(content)) from error

    def read_json(self, name: str) -> Any:
        """A JSON file's value, or None if there is no such file; an object is verified, if it says what its digest is.

        Raises:
            CheckpointError: If it is not JSON, or not what was written.
        """
        content = self.read(name)
        try:
            value = None if content is None else json.loads(content)
            if isinstance(value, dict):
                _verify(value)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(
                "damaged file",
                self.child(name).uri,
                str(error),
                "JSON as it was written; remove the file to redo its stage",
            ) from error
        return value

    def write_json(self, name: str, value: Any) -> None:
        """Write a JSON file, whole or not at all; an object with its digest as one more key."""
        if isinstance(value, dict):
            value = json.loads(json.dumps(value))
            value = {**value, DIGEST: _digest(value)}
        self.write(name, json.dumps(value, indent=1).encode())

    def remove(self) -> None:
        """Remove the folder, if it is there: on a disk, whoever is killed on the way leaves no half of it."""
        filesystem, root = self._opened
        if self.local is not None:
            hidden = self.local.with_name(f".removed-{uuid.uuid4().hex}")
            with contextlib.suppress(FileNotFoundError), answering(self.uri):
                os.rename(self.local, hidden)
                root = str(hidden)
        with contextlib.suppress(FileNotFoundError), answering(self.uri):
            filesystem.delete_dir(root)

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        filesystem, root = self._opened
        with contextlib.suppress(FileNotFoundError), answering(self.child(name).uri):
            filesystem.delete_file(f"{root}/{name}")

    def size_and_mtime(self) -> tuple[int, float]:
        """Bytes in the folder and the folders inside, and when the newest file was written (seconds since 1970)."""
        filesystem, root = self._opened
        with answering(self.uri):
            found = filesystem.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True, recursive=True))
        files = [info for info in found if info.is_file]
        return sum(info.size or 0 for info in files), max((info.mtime_ns or 0 for info in files), default=0) / 1e9

    def mtime(self, name: str) -> float | None:
        """When a file was written (seconds since 1970), or None if there is no such file."""
        filesystem, root = self._opened
        with answering(self.uri):
            written = filesystem.get_file_info(f"{root}/{name}").mtime_ns
        return None if written is None else written / 1e9

    @contextlib.contextmanager
    def lock(self) -> Iterator[bool]:
        """Hold the folder while in use; False if another process holds it. Local folders only."""
        with file_lock.holding(self.local) if self.local is not None else contextlib.nullcontext(True) as free:
            yield free

    def held(self) -> bool:
        """Whether a process holds the folder. Local folders only; writes nothing."""
        return self.local is not None and file_lock.held(self.local)


# Checkpoints: a folder each, the manifest last. On a disk the folder is renamed into place; on an
# object store, which cannot rename, the manifest is the commit marker.


def check_storage(storage: Storage, wanted: int) -> None:
    """Refuse a storage that cannot be written, or a disk with less room than `wanted` bytes.

    Raises:
        CheckpointError: If so. An object store is asked for its bucket, and for more by the first write.
    """
    if storage.local is None:
        check_bucket(storage.uri)
        return
    existing = next(folder for folder in [storage.local, *storage.local.parents] if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise CheckpointError(
            "storage refused", storage.local, f"{existing} cannot be written", "a folder: --storage PATH"
        )
    free = shutil.disk_usage(existing).free
    if free < wanted:
        raise CheckpointError("disk full", storage.local, f"{free:,} bytes free", f"{wanted:,} for checkpoints")


def _read_local(path: Path) -> bytes:
    try:
        return read_bounded(path, MOST_BYTES)
    except ValueError as error:
        remedy = "a file as it was written; remove it to redo its stage"
        raise CheckpointError("damaged file", path, str(error), remedy) from error


def _verify(value: dict[str, Any]) -> None:
    """Take an object's digest out of it, which stands last.

    Raises:
        ValueError: If it is not that of the others, or is there under another name.
    """
    if DIGEST in value:
        if value.pop(DIGEST) != _digest(value):
            raise ValueError("its SHA-256 is another")
    elif value and next(reversed(value.values())) == _digest(dict(list(value.items())[:-1])):
        raise ValueError(f"its SHA-256 is not named {DIGEST}")


def _digest(value: Any) -> str:
    """SHA-256 of plain data, in whatever order its keys stand."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
