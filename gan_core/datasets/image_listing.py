"""Which files of a folder are images: all that one sees in it, nothing hidden; what is left out is counted by reason."""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gan_core.errors import DataError, visible

FORMATS = {
    "PNG": (".png",),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
}
SUFFIXES = tuple(suffix for suffixes in FORMATS.values() for suffix in suffixes)
KINDS = "PNG, JPEG, WebP, BMP, GIF or TIFF"
PARQUET = ".parquet"
UNSEEN = ("__MACOSX", "@eaDir", "Thumbs.db", "desktop.ini")  # beside all that begins with a dot
SHOWN = 3  # names of what was left out for one reason


@dataclass(frozen=True)
class Listing:
    """A folder's files in the order of their paths: images or Parquet files, and by reason what is neither."""

    images: tuple[str, ...]
    parquet: tuple[str, ...]
    left_out: Mapping[str, tuple[str, ...]]  # reason -> paths below the folder

    def described(self) -> str:
        """What was left out, in words; empty if nothing was."""
        reasons = [
            f"{len(paths)} {reason} ({', '.join(map(visible, paths[:SHOWN]))}{', …' if len(paths) > SHOWN else ''})"
            for reason, paths in self.left_out.items()
        ]
        return f"{sum(map(len, self.left_out.values()))} files left out: {', '.join(reasons)}" if reasons else ""

    def by_subfolder(self, root: Path) -> dict[str, int]:
        """How many images each folder directly below has; none where all lie in the folder itself."""
        below = [Path(path).relative_to(root).parts for path in self.images]
        return dict(sorted(Counter(parts[0] for parts in below if len(parts) > 1).items()))


def list_folder(root: Path) -> Listing:
    """What is in a folder at any depth, links followed, each folder once.

    Raises:
        DataError: If it has both images and Parquet files.
    """
    found, entered = [], set[tuple[int, int]]()
    for folder, below, names in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:  # a link to where we have been
            below.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        for name in names:
            path = Path(folder) / name
            found.append((str(path), path.relative_to(root).as_posix(), path.is_file()))
    return sort_out(found, root)


def sort_out(found: Iterable[tuple[str, str, bool]], root: object) -> Listing:
    """Sort a folder's entries out: path, path below the folder, and whether it is a file that can be read.

    Raises:
        DataError: If there are both images and Parquet files.
    """
    images, parquet, left_out = list[str](), list[str](), dict[str, list[str]]()
    for path, below, readable in sorted(found, key=lambda entry: entry[1]):
        suffix = below[below.rfind(".") :].lower() if "." in below else ""
        if any(part.startswith(".") or part in UNSEEN for part in below.split("/")):
            left_out.setdefault("hidden", []).append(below)
        elif suffix not in (*SUFFIXES, PARQUET):
            left_out.setdefault("not images", []).append(below)
        elif not readable:
            left_out.setdefault("no files", []).append(below)
        else:
            (parquet if suffix == PARQUET else images).append(path)
    if images and parquet:
        given = f"{len(images)} image files and {len(parquet)} Parquet files, {visible(Path(parquet[0]).name)} for one"
        raise DataError("two kinds of data", root, given, "one of them: --set data.root=PATH")
    return Listing(tuple(images), tuple(parquet), {reason: tuple(paths) for reason, paths in left_out.items()})
