"""Hostile files, generated: each is put into a folder, and gives the arguments of a command that reads it and the right exit codes.

Sizes are claimed or sparse, never written: the whole corpus takes a few megabytes.
"""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

Case = tuple[list[object], tuple[int, ...]]  # the command, and the exit codes that are right
EXECUTED = "executed"  # the file that a payload would make, in the folder of its case
SETTINGS = "data: {name: digits}\nalgorithm: {steps: 10}\n"
LARGE = 2**40


class Payload:
    """Unpickled, it leaves a file behind."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.folder / EXECUTED),)


def png(width: int, height: int, pixels: bytes = b"", before: bytes = b"", colour: int = 0) -> bytes:
    """A PNG of 8 bits a channel, whose header says what it likes."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """A chunk that can stand before a PNG's pixels."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def npy(header: str, content: bytes = b"", version: tuple[int, int] = (1, 0)) -> bytes:
    """An array file whose header is this text."""
    text = header.encode("latin-1") + b"\n"
    length = struct.pack("<H" if version == (1, 0) else "<I", len(text))
    return b"\x93NUMPY" + bytes(version) + length + text + content


def sparse(path: Path, size: int = LARGE, head: bytes = b"") -> None:
    """A file of this size that takes no room."""
    path.write_bytes(head)
    os.truncate(path, size)


SPECIAL = ("FIFO", "/dev/zero", "a terabyte of zeros", "folder", "a link to itself", "a socket")


def special_file(kind: str, path: Path) -> None:
    """What is not a file of content, or is without an end."""
    if kind == "FIFO":
        os.mkfifo(path)
    elif kind == "/dev/zero":
        path.symlink_to("/dev/zero")  # read only
    elif kind == "folder":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path.name)
    elif kind == "a socket":
        os.mknod(path, 0o140600)
    else:
        sparse(path)


def deep_json(depth: int = 100_000) -> bytes:
    """Brackets."""
    return b"[" * depth
