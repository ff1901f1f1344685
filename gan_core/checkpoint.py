"""Weights as data: safetensors files and a manifest, verified on load, committed atomically."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from gan_core.bounded_reading import read_bounded
from gan_core.errors import CheckpointError

SCHEMA = 1
MANIFEST = "MANIFEST.json"

MAX_JSON = 2**22  # bytes of a manifest or a description: ours have kilobytes, and it is parsed before anything is known
MAX_HEADER = 2**22  # bytes of the list of tensors before the tensors of a file

# What reading a JSON document of any other form raises.
MALFORMED = (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds: its step, each file's size and SHA-256, and what its writer noted."""

    step: int
    files: Mapping[str, Mapping[str, Any]]
    about: Mapping[str, Any]


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any] | None = None
) -> Manifest:
    """Write each group of tensors into `folder` (created), the manifest last, all flushed to disk.

    Raises:
        CheckpointError: If the storage refuses, a full disk included.
    """
    contents = {f"{group}.safetensors": serialize_tensors(_on_cpu(named)) for group, named in tensors.items()}
    files = {name: {"bytes": len(content), "sha256": _sha256(content)} for name, content in contents.items()}
    manifest = json.loads(json.dumps({"schema": SCHEMA, "step": step, "files": files, "about": dict(about or {})}))
    manifest["sha256"] = _document_sha256(manifest)
    contents[MANIFEST] = json.dumps(manifest, indent=1, sort_keys=True).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            write_durably(folder / name, content)
        _flush_folder(folder)
    except OSError as error:
        wanted = sum(len(content) for content in contents.values())
        raise storage_error(folder, error, wanted) from error
    return Manifest(step, files, dict(about or {}))


def commit_checkpoint(
    parent: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any] | None = None
) -> Path:
    """Write a checkpoint beside its final name and rename it there: it exists whole or not at all."""
    final, staged = parent / checkpoint_name(step), parent / f".tmp-{step}-{uuid.uuid4().hex[:8]}"
    try:
        written = write_checkpoint(staged, step, tensors, about)
        if final.exists():
            if _holds(final, written):  # a replayed step: never a moment without it
                return final
            shutil.rmtree(final)
        staged.rename(final)
        _flush_folder(parent)
    except OSError as error:
        raise storage_error(final, error) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return final


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
        if digest != _document_sha256(document):
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


def read_checkpoint(folder: Path, groups: Iterable[str] | None = None) -> tuple[Manifest, dict[str, dict[str, Tensor]]]:
    """The manifest and the tensors (of all groups, or those named), size and SHA-256 verified first.

    Raises:
        CheckpointError: If a file is missing, cut, extended or changed in a single bit.
    """
    manifest = read_manifest(folder)
    tensors = {}
    for name in [f"{group}.safetensors" for group in groups] if groups is not None else manifest.files:
        tensors[name.removesuffix(".safetensors")] = _read_verified(folder, name, manifest)
    return manifest, tensors


def _read_verified(folder: Path, name: str, manifest: Manifest) -> dict[str, Tensor]:
    path = folder / name
    if name not in manifest.files:
        raise CheckpointError("not in the manifest", path, "no such file", ", ".join(manifest.files))
    expected = manifest.files[name]
    try:
        size = path.stat().st_size
        if size != expected["bytes"]:
            raise CheckpointError("damaged checkpoint", path, f"{size} bytes", f"{expected['bytes']}")
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError("unreadable checkpoint", path, error.strerror or str(error), "a readable file") from error
    digest = _sha256(content)
    if digest != expected["sha256"]:
        raise CheckpointError("damaged checkpoint", path, f"SHA-256 {digest[:12]}", f"{expected['sha256'][:12]}")
    try:
        if int.from_bytes(content[:8], "little") > MAX_HEADER:
            raise SafetensorError(f"a list of tensors of over {MAX_HEADER:,} bytes")
        return parse_tensors(content)
    except SafetensorError as error:
        raise CheckpointError("not safetensors", path, str(error), "a file written by this package") from error


def tensors_digest(*groups: Mapping[str, Tensor]) -> str:
    """SHA-256 over tensors in name order: names, types, shapes and bytes."""
    hasher = hashlib.sha256()
    for named in groups:
        for name in sorted(named):
            tensor = named[name].detach().cpu().contiguous()
            hasher.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
            hasher.update(tensor.numpy().tobytes())
    return hasher.hexdigest()


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


def _on_cpu(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder's checkpoint is this one, and whole."""
    try:
        return read_checkpoint(folder)[0] == manifest
    except CheckpointError:
        return False


def _is_plain(name: str) -> bool:
    return Path(name).name == name and name.isprintable() and name.endswith(".safetensors")


def _document_sha256(document: object) -> str:
    return _sha256(json.dumps(document, sort_keys=True).encode())


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
