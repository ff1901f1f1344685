"""A run's history: JSON lines in immutable segments, each named by its first and last step."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from pipelines.storage.store import Storage


def append_history(folder: Storage, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows, in rising order of step, as one more segment."""
    rows = list(rows)
    if rows:
        name = f"{rows[0]['step']:08d}-{rows[-1]['step']:08d}.jsonl"
        folder.write(name, "".join(json.dumps(row) + "\n" for row in rows).encode())


def read_history(folder: Storage) -> list[dict[str, Any]]:
    """All rows, one for each step, in order: steps repeated after a restart appear once."""
    rows: dict[int, dict[str, Any]] = {}
    for name in folder.names():
        if name.endswith(".jsonl") and not name.startswith("."):
            for line in (folder.read(name) or b"").decode().splitlines():
                row = json.loads(line)
                rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]
