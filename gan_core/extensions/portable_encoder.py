"""An encoder in its generator's folder: encoder.safetensors, described in MANIFEST.json."""

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.checkpoint import MALFORMED, MANIFEST, read_checkpoint, read_manifest
from gan_core.errors import CheckpointError
from gan_core.extensions.inference import Inference, encoder_of
from gan_core.portable import MAX_BYTES, PortableGenerator, load_generator, save_generator
from gan_core.state import load_tensors

ENCODER = "encoder"  # the group of tensors, and what the manifest's notes call it
WEIGHTS = f"{ENCODER}.safetensors"


def save_inference(folder: Path, inference: Inference, about: Mapping[str, Any] | None = None) -> None:
    """Write a generator's folder, with the encoder in it."""
    described = {**(about or {}), ENCODER: {"hidden": list(inference.hidden)}}
    save_generator(folder, inference.model, described, {ENCODER: dict(inference.encoder.state_dict())})


def load_inference(folder: Path) -> Inference:
    """Read such a folder, trusting nothing in it, as `load_generator` does.

    Raises:
        CheckpointError: If there is no encoder in it, or a file is damaged, too large, or not what this package writes.
    """
    model, manifest = load_generator(folder), read_manifest(folder)
    path = folder / WEIGHTS
    if path.is_symlink() or not path.is_file() or ENCODER not in manifest.about:
        raise CheckpointError(
            "no inference net", folder, f"no {WEIGHTS}", "a model trained with extension.name inference"
        )
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError("file too large", path, f"{path.stat().st_size} bytes", f"at most {MAX_BYTES}")
    hidden = _hidden(manifest.about[ENCODER], model, folder / MANIFEST)
    _, tensors = read_checkpoint(folder, [ENCODER])
    encoder = encoder_of(model, hidden)
    load_tensors(encoder.state_dict(), tensors[ENCODER], path)
    return Inference(model, encoder.eval(), hidden)


def _hidden(described: Any, model: PortableGenerator, where: Path) -> tuple[int, ...]:
    try:
        if described.keys() != {"hidden"}:
            raise ValueError(f"keys {', '.join(sorted(described))}")
        hidden = tuple(described["hidden"])
        widths = [math.prod(model.image_shape), *hidden, model.noise.size]
        weights = sum(inputs * outputs for inputs, outputs in itertools.pairwise(widths))
        if not hidden or any(type(width) is not int or width < 1 for width in hidden) or 4 * weights > MAX_BYTES:
            raise ValueError(f"layers of {widths}")
        return hidden
    except MALFORMED as error:
        raise CheckpointError(
            "unreadable encoder", where, f"{type(error).__name__}: {error}", "what this package writes"
        ) from error
