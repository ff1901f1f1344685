"""A checkpoint's manifest, verified; files flushed to disk: what a folder of weights is known by, without reading them."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_core.bounded_reading import read_bounded
from gan_core.errors import CheckpointError

# Without torch, whose import takes seconds: what lists runs reads names and manifests alone.
SCHEMA = 1
MANIFEST = "MANIFEST.json"
MAX_JSON = 2**22  # bytes of a manifest or a description: ours have kilobytes, and it is parsed before anything is known

# What reading a JSON document of any other form raises.
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds: its step, each file's size and SHA-256, and what its writer noted."""

    step: int
    files: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]


def checkpoint_name(step: int) -> str:
    """The folder name of a step's checkpoint; names sort as steps do."""
    return f"step={step:08d}"


def checkpoint_step(name: str) -> int:
    """The step of a checkpoint's folder name."""
    return int(name.removeprefix("step="))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, verified and parsed strictly; the other files are not read.

    Raises:
        CheckpointError: If there is none, or it is not one of ours.
    """
    path = folder / MANIFEST
    try:
        document = json.loads(read_bounded(path, MAX_JSON))
        schema = document["schema"]
        if schema != SCHEMA:
            raise CheckpointError(
                "unknown schema", path, f"schema {schema!r}", f"{SCHEMA}, or a newer version of this package"
            )
        digest = document.pop("sha256")
        if digest != document_sha256(document):
            raise CheckpointError("damaged manifest", path, "another content", f"SHA-256 {str(digest)[:12]}")
        files = {
            str(name): {"bytes": int(f["bytes"]), "sha256": str(f["sha256"])} for name, f in document["files"].items()
        }
        if not files or not all(map(_is_plain, files)):
            raise CheckpointError(
                "manifest lists a strange file",
                path,
                ", ".join(files) or "no file",
                "plain names ending in .safetensors",
            )
        step = document["step"]
        if type(step) is not int or not 0 <= step < 2**63:
            raise ValueError(f"step {str(step)[:40]}")
        return Manifest(step, files, dict(document["about"]))
    except FileNotFoundError as error:
        raise CheckpointError(
            "no such checkpoint", folder, f"no {MANIFEST}", "a folder written by this package"
        ) from error
    except MALFORMED as error:
        raise CheckpointError(
            "unreadable manifest", path, f"{type(error).__name__}: {error}", "a manifest of this package"
        ) from error


def write_durably(path: Path, content: bytes) -> None:
    """Write a file and flush it to disk."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def storage_error(path: Path, error: OSError, wanted: int | None = None) -> CheckpointError:
    """What a storage refused, with the bytes wanted and the bytes free."""
    parent = next((folder for folder in [path, *path.parents] if folder.exists()), Path("/"))
    free = shutil.disk_usage(parent).free
    room = f"; {wanted:,} bytes wanted, {free:,} free" if wanted is not None else f"; {free:,} bytes free"
    return CheckpointError(
        "storage refused", path, (error.strerror or str(error)) + room, "a writable folder with room"
    )


def document_sha256(document: object) -> str:
    """SHA-256 of plain data, in whatever order its keys stand."""
    return sha256(json.dumps(document, sort_keys=True).encode())


def sha256(content: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(content).hexdigest()


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name.isprintable() and name.endswith(".safetensors")
