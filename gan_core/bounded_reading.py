"""Read a file that others may have put there: no more than it can have, no pipe and no device."""

import stat
from pathlib import Path


def read_bounded(path: Path, most: int) -> bytes:
    """The content of a file of at most so many bytes.

    Raises:
        OSError: If it is not there, or cannot be read.
        ValueError: If it is larger, or no file of content: a pipe would be waited for, a device has no end.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("no file of content")
    if status.st_size > most:
        raise ValueError(f"{status.st_size:,} bytes, of at most {most:,}")
    return path.read_bytes()
