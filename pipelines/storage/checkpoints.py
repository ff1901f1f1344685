"""A folder's checkpoints: each a folder, committed whole; the newest that verifies is read."""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gan_core.errors import CheckpointError
from gan_core.manifest import MANIFEST, Manifest, checkpoint_name, read_manifest
from pipelines.storage.store import Storage, Tensors

if TYPE_CHECKING:
    from torch import Tensor

# `gan_core.checkpoint`, and so torch, is imported where tensors are read or written: names alone are listed at once.
logger = logging.getLogger(__name__)


def save_checkpoint(
    folder: Storage, step: int, tensors: "Mapping[str, Mapping[str, Tensor]]", about: Mapping[str, Any], keep: int
) -> None:
    """Commit a checkpoint and then remove all but the `keep` newest."""
    from gan_core.checkpoint import commit_checkpoint, write_checkpoint

    if folder.local is not None:
        commit_checkpoint(folder.local, step, tensors, about)
    else:
        with tempfile.TemporaryDirectory() as staged:
            write_checkpoint(Path(staged), step, tensors, about)
            names = sorted(os.listdir(staged), key=lambda name: (name == MANIFEST, name))
            for name in names:
                folder.child(checkpoint_name(step)).write(name, (Path(staged) / name).read_bytes())
    for old in checkpoint_names(folder)[:-keep]:
        folder.child(old).remove()


def checkpoint_names(folder: Storage) -> list[str]:
    """Names of the folder's checkpoints, oldest first."""
    return [name for name in folder.names() if name.startswith("step=")]


def latest_checkpoint(folder: Storage) -> tuple[str, Manifest, Tensors] | None:
    """The newest checkpoint that verifies, with its name; None if there has never been one.

    Damaged ones are passed over with one warning.

    Raises:
        CheckpointError: If there are checkpoints and none is valid: never a silent fresh start.
    """
    from gan_core.checkpoint import read_checkpoint

    names = checkpoint_names(folder)
    faults = []
    for name in reversed(names):
        try:
            with local_copy(folder.child(name)) as path:
                manifest, tensors = read_checkpoint(path)
        except CheckpointError as error:
            faults.append(str(error))
            continue
        if faults:
            logger.warning(f"passed over {len(faults)} damaged checkpoint(s), using {name}: {faults[0]}")
        return name, manifest, tensors
    if faults:
        raise CheckpointError(
            "no valid checkpoint", folder.uri, faults[0], "a whole one; remove the folder to start afresh"
        )
    return None


@contextlib.contextmanager
def local_copy(checkpoint: Storage) -> Iterator[Path]:
    """A checkpoint's folder as a local path, downloaded if it is elsewhere."""
    if checkpoint.local is not None:
        yield checkpoint.local
        return
    with tempfile.TemporaryDirectory() as folder:
        manifest = checkpoint.read(MANIFEST)
        if manifest is not None:
            (Path(folder) / MANIFEST).write_bytes(manifest)
            for name in read_manifest(Path(folder)).files:
                content = checkpoint.read(name)
                if content is not None:
                    (Path(folder) / name).write_bytes(content)
        yield Path(folder)
