"""A run's history: JSON lines in immutable files, each named by its first and last step and ended by its SHA-256."""

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.storage.store import Storage

logger = logging.getLogger(__name__)
DIGEST = b'{"sha256": "'  # how the last line begins; files of versions before 0.3 have none


def append_history(folder: Storage, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, in rising order of step, as one more file."""
    rows = list(rows)
    if rows:
        name = f"{rows[0]['step']:08d}-{rows[-1]['step']:08d}.jsonl"
        content = "".join(json.dumps(row) + "\n" for row in rows).encode()
        folder.write(name, content + DIGEST + hashlib.sha256(content).hexdigest().encode() + b'"}\n')


def read_history(folder: Storage, stop_at_damage: bool = False) -> list[dict[str, Any]]:
    """All rows, one for each step, in order: steps repeated after a restart appear once.

    A damaged file is left out with a warning, and with `stop_at_damage` all after it.
    """
    rows: dict[int, dict[str, Any]] = {}
    for name in folder.names():
        if name.endswith(".jsonl") and not name.startswith("."):
            try:
                rows |= {row["step"]: row for row in _verified(name, folder.read(name) or b"")}
            except (ValueError, KeyError, TypeError) as error:
                logger.warning(
                    f"damaged file ({folder.child(name).uri}): {error or 'cut short'}; its rows are left out"
                )
                if stop_at_damage:
                    break
    return [rows[step] for step in sorted(rows)]


def _verified(name: str, content: bytes) -> list[dict[str, Any]]:
    """The rows of a file.

    Raises:
        ValueError, KeyError, TypeError: If they are not those that were written.
    """
    *lines, last = content.splitlines(keepends=True) or [b""]
    if last.startswith(DIGEST):
        if last != DIGEST + hashlib.sha256(b"".join(lines)).hexdigest().encode() + b'"}\n':
            raise ValueError("its SHA-256 is another")
    else:
        lines.append(last)
    rows = [json.loads(line) for line in lines]
    if name != f"{rows[0]['step']:08d}-{rows[-1]['step']:08d}.jsonl":
        raise ValueError("it does not end where its name says")
    return rows
