"""Where a data set's files are: under the given folder as published, or one level too deep or too high."""

from collections.abc import Callable, Iterable
from pathlib import Path

from gan_core.errors import DataError


def find_folder(root: Path, inside: Iterable[str], holds: Callable[[Path], bool], name: str) -> Path | None:
    """The folder of a data set: `root` with the first of `inside`, which is as published, or one near it.

    Near are `root`, the folder around it and those in it, each with any of `inside`; a folder that `holds` the files is it.

    Raises:
        DataError: If several are near, and none is where it should be.
    """
    first, *others = inside
    if holds(root / first):
        return root / first
    below = sorted(path for path in root.iterdir() if path.is_dir()) if root.is_dir() else []
    near = [base / part for base in (root, root.absolute().parent, *below) for part in (first, *others)]
    found = list({path.resolve(): path for path in reversed(near) if holds(path)}.values())
    if len(found) > 1:
        several = ", ".join(sorted(map(str, found)))
        raise DataError(f"several folders of {name}", root, several, "one of them: --set data.root=PATH")
    return found[0] if found else None
