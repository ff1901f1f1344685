"""Weights as data: safetensors files and a manifest, verified on load, committed atomically."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as parse_tensors
from safetensors.torch import save as serialize_tensors
from torch import Tensor

from gan_core.errors import CheckpointError
from gan_core.manifest import (
    MALFORMED,
    MANIFEST,
    MAX_JSON,
    SCHEMA,
    Manifest,
    checkpoint_name,
    checkpoint_step,
    document_sha256,
    read_manifest,
    sha256,
    storage_error,
    write_durably,
)

MAX_HEADER = 2**22  # bytes of the list of tensors before the tensors of a file

__all__ = [
    "MALFORMED",
    "MANIFEST",
    "MAX_JSON",
    "Manifest",
    "checkpoint_name",
    "checkpoint_step",
    "commit_checkpoint",
    "read_checkpoint",
    "read_manifest",
    "storage_error",
    "tensors_digest",
    "write_checkpoint",
    "write_durably",
]


def write_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], about: Mapping[str, Any] | None = None
) -> Manifest:
    """Write each group of tensors into `folder` (created), the manifest last, all flushed to disk.

    Raises:
        CheckpointError: If the storage refuses, a full disk included.
    """
    contents = {f"{group}.safetensors": serialize_tensors(_on_cpu(named)) for group, named in tensors.items()}
    files = {name: {"bytes": len(content), "sha256": sha256(content)} for name, content in contents.items()}
    manifest = json.loads(json.dumps({"schema": SCHEMA, "step": step, "files": files, "about": dict(about or {})}))
    manifest["sha256"] = document_sha256(manifest)
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
    digest = sha256(content)
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


def _on_cpu(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _holds(folder: Path, manifest: Manifest) -> bool:
    """Whether the folder's checkpoint is this one, and whole."""
    try:
        return read_checkpoint(folder)[0] == manifest
    except CheckpointError:
        return False


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
