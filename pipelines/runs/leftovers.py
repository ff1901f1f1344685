"""What killed commands have left behind: sessions of Ray, temporary folders, half-written files; nobody holds any of it."""

import contextlib
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gan_core.errors import CheckpointError
from pipelines.runs import status
from pipelines.runs.recorded_run import RecordedRun, run_names
from pipelines.runtime import own_session
from pipelines.storage import Storage, run_layout

HOUR, DAY = 3600.0, 86400.0
# Of a checkpoint or a removal that was cut short; of a write, whose name is no date; what Ray proves with that it may write.
HALF_MADE = re.compile(r"\.tmp-\d+-[0-9a-f]{8}|\.removed-[0-9a-f]{32}")
HALF_MADE_FILE = re.compile(r"\..+-(?!(19|20)\d{6})[0-9a-f]{8}|\.validate_storage_marker")
OTHERS = ("mlartifacts",)  # in a storage: MLflow's


@dataclass(frozen=True)
class Leftover:
    """A file or folder that nobody needs: what kind, how large (bytes), and for how long it was not written (seconds)."""

    path: Path
    kind: str
    bytes: int
    age: float
    run: str | None = None  # whose folder it is in


def leftovers(storage: Storage) -> Iterator[Leftover]:
    """What is left on this machine and, where it is a folder of a disk, in the storage. It writes nothing.

    Never what a process holds or has open: sessions of Ray have a lock of their command's; a run that somebody works
    on is left out whole; of Python's multiprocessing, whose folders may be another program's, only those that hold
    nothing but sockets on which nobody listens, for an hour, or nothing, for a day.
    """
    from ray._common.utils import get_default_ray_temp_dir

    used, temporary = _in_use(), Path(tempfile.gettempdir())
    for place, pattern in ((Path(get_default_ray_temp_dir()), "session_*"), (temporary, f"{own_session.TEMPORARY}*")):
        yield from (_of(path, "Ray session") for path in own_session.unheld(place, pattern) if not _within(path, used))
    for path in temporary.glob("pymp-*"):
        with contextlib.suppress(OSError):  # it has gone meanwhile, or is another user's
            inside = [one.lstat().st_mode for one in path.iterdir()]
            ours = path.lstat().st_uid == os.getuid() and not path.is_symlink() and all(map(stat.S_ISSOCK, inside))
            if (
                ours
                and (found := _of(path, "multiprocessing")).age > (HOUR if inside else DAY)
                and not _within(path, used)
            ):
                yield found
    if storage.local is not None:
        yield from _in_storage(storage, storage.local)


def remove(leftover: Leftover, storage: Storage) -> bool:
    """Remove it, unless it may not be, or somebody has begun to work on its run meanwhile; whether it was removed."""
    with contextlib.suppress(OSError, CheckpointError):  # another user's
        return _remove(leftover, storage)
    return False


def _remove(leftover: Leftover, storage: Storage) -> bool:
    if leftover.run is None:
        return _removed(leftover.path)
    folder = RecordedRun(leftover.run, storage).folder
    if leftover.path == folder.local:
        return status.remove(RecordedRun(leftover.run, storage))
    with folder.lock() as free:
        return free and _removed(leftover.path)


def _in_storage(storage: Storage, root: Path) -> Iterator[Leftover]:
    """Half-made files and folders an hour old, those of active runs left out, and runs that never were begun."""
    for run in run_names(storage):
        folder = storage.child("runs", run)
        if folder.local is None or folder.held() or not folder.local.is_dir():
            continue
        if not (folder.local / run_layout.RUN).exists():
            found = [_of(folder.local, "run not begun", run)]
        else:
            found = [_of(path, "half-made", run) for path in _half_made(folder.local)]
        yield from (one for one in found if one.age > HOUR)
    beside = (_of(path, "half-made") for path in _half_made(root, but=(*OTHERS, *run_names(storage))))
    yield from (one for one in beside if one.age > HOUR)


def _half_made(root: Path, but: tuple[str, ...] = ()) -> Iterator[Path]:
    for place, folders, files in os.walk(root):
        yield from (Path(place, name) for name in (*folders, *files) if HALF_MADE.fullmatch(name))
        written = (name for name in files if HALF_MADE_FILE.fullmatch(name) and not HALF_MADE.fullmatch(name))
        yield from (Path(place, name) for name in written)
        folders[:] = [name for name in folders if not HALF_MADE.fullmatch(name) and name not in but]


def _of(path: Path, kind: str, run: str | None = None) -> Leftover:
    """What is known of a path; links are not followed."""
    size, written = 0, 0.0
    for one in (path, *(path.rglob("*") if path.is_dir() and not path.is_symlink() else ())):
        with contextlib.suppress(OSError):
            found = one.lstat()
            size, written = size + found.st_size * stat.S_ISREG(found.st_mode), max(written, found.st_mtime)
    return Leftover(path, kind, size, time.time() - written, run)


def _in_use() -> list[str]:
    """Paths of open files, of working folders and of sockets on which somebody listens."""
    paths = []
    for link in (*Path("/proc").glob("[0-9]*/fd/*"), *Path("/proc").glob("[0-9]*/cwd")):
        with contextlib.suppress(OSError):  # it has ended, or is another user's
            paths.append(os.readlink(link))
    with contextlib.suppress(OSError):
        paths += [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/" in line]
    return paths


def _within(folder: Path, paths: list[str]) -> bool:
    return any(path == str(folder) or path.startswith(f"{folder}/") for path in paths)


def _removed(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
    return not path.exists()
