"""Rows of streamed images in the storage: which runs read them, and which no run reads any more."""

import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from pipelines.storage.store import Storage

ROWS, ABOUT, READERS = "rows", "about.json", "readers"
BUSY_SECONDS = 0.1  # between tries while some are being removed
UNUSED_SECONDS = 3600.0  # what was written or asked for since may be of a run that is about to begin


@dataclass(frozen=True)
class Unread:
    """A folder of rows that no run reads: its name, its bytes, and the seconds since anything was written there."""

    rows: str
    bytes: int
    age_seconds: float


def names(storage: Storage) -> list[str]:
    """The names of all rows there are."""
    return [name for name in storage.child(ROWS).names() if not name.startswith(".")]


def description(storage: Storage, name: str, reader: str) -> Any:
    """What is noted of the rows, None if they are to be made; and from now on the run `reader` reads them."""
    while True:
        with storage.child(ROWS).lock() as free:
            if free:
                rows = storage.child(ROWS, name)
                rows.child(READERS).write(reader, b"")
                return rows.read_json(ABOUT)
        time.sleep(BUSY_SECONDS)


def unread(storage: Storage, runs: Collection[str], older_than: float | None = None) -> list[Unread]:
    """The storage's rows that none of these runs reads, unused for an hour and so many seconds, by name.

    Rows without any reader are of an earlier version, which noted none: they count if they are older than asked.
    """
    rows = []
    for name in names(storage):
        size, written = storage.child(ROWS, name).size_and_mtime()
        age = time.time() - written
        if age >= max(UNUSED_SECONDS, older_than or 0.0) and not _wanted(storage.child(ROWS, name), runs, older_than):
            rows.append(Unread(name, size, age))
    return rows


def remove_unread(storage: Storage, runs: Collection[str], older_than: float | None = None) -> Iterator[Unread]:
    """Remove such rows. On a disk, where a lock tells, a run that asks for them meanwhile decodes its images again."""
    for unused in unread(storage, runs, older_than):
        rows = storage.child(ROWS, unused.rows)
        with storage.child(ROWS).lock() as free:
            gone = free and not _wanted(rows, runs, older_than)
            if gone:
                rows.remove()
        if gone:
            yield unused


def _wanted(rows: Storage, runs: Collection[str], older_than: float | None) -> bool:
    notes = rows.child(READERS)
    readers = notes.names()
    if not readers:
        return older_than is None
    return not set(runs).isdisjoint(readers) or time.time() - notes.size_and_mtime()[1] < UNUSED_SECONDS
