"""What a stream can show: whether it is a terminal, and lines broken between words for one."""

import os
import shutil
import sys
import textwrap
from typing import Any

HANGING = 7  # columns of a line's stage, under which it goes on


def is_live(stream: Any = None) -> bool:
    """Whether a stream (stderr by default) is a terminal that can move its cursor."""
    stream = stream or sys.stderr
    plain = os.environ.get("TERM", "dumb") in ("dumb", "unknown", "")
    return bool(stream.isatty()) and not plain and "utf" in (stream.encoding or "").lower()


def size(stream: Any) -> os.terminal_size:
    """Columns and lines of the terminal that a stream is, whatever stdout is."""
    try:
        found = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return shutil.get_terminal_size()
    return found if found.columns and found.lines else shutil.get_terminal_size()


def wrapped(text: str, stream: Any) -> str:
    """Lines for a terminal, broken between words; as they are where they are not for one."""
    if not stream.isatty():
        return text
    width = max(20, size(stream).columns - 1)
    return "\n".join(
        line if len(line) <= width else textwrap.fill(
            line, width, subsequent_indent=" " * HANGING, break_long_words=False, break_on_hyphens=False,
            replace_whitespace=False, drop_whitespace=True,
        )
        for line in text.split("\n")
    )  # fmt: skip
