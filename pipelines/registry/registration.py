"""Register a model once, however often it is asked for: upload, create with a key, look again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gan_core.errors import RegistryError
from gan_core.extensions.inference import Inference
from gan_core.extensions.portable_encoder import save_inference
from gan_core.portable import PortableGenerator, save_generator
from pipelines.config import digest
from pipelines.registry.reference import checked_name
from pipelines.registry.registry import DUPLICATE_TAG, KEY_TAG, ModelVersion, Registry


def register(
    registry: Registry, name: str, run_id: str, model: PortableGenerator | Inference, tags: Mapping[str, Any]
) -> ModelVersion:
    """The version of this model (with its encoder, if it has one) with these tags: the one there is, or a new one.

    Artifacts are uploaded first, the version is created once with its key among its tags, and
    then looked for again: of two with one key, the lower stays and the other is marked.
    """
    key = digest([checked_name(name), tags["run"], tags["weights_sha256"], tags["config_digest"]])
    versions = _with_key(registry, name, key)
    if not versions:
        backend = registry.backend
        backend.create_model(name)
        source = _upload(registry, run_id, model, tags["run"])
        plain = {tag: str(value) for tag, value in tags.items()}
        failure = None
        try:
            backend.create_version(name, source, {**plain, KEY_TAG: key}, run_id)
        except RegistryError as error:  # it may have been created all the same: look
            failure = error
        versions = _with_key(registry, name, key)
        if failure is not None and not versions:
            raise failure
    first, *duplicates = versions
    for duplicate in duplicates:
        registry.tag(duplicate, {DUPLICATE_TAG: str(first.version)})
    return first


def _with_key(registry: Registry, name: str, key: str) -> list[ModelVersion]:
    """The versions with this key, oldest first."""
    return registry.by_tag(KEY_TAG, key, name)[::-1]


def _upload(registry: Registry, run_id: str, model: PortableGenerator | Inference, run: str) -> str:
    """Upload the model's files, with the name of the run it is of, and return their source."""

    def save(folder: Path) -> None:
        if isinstance(model, Inference):
            save_inference(folder, model, {"run": run})
        else:
            save_generator(folder, model, {"run": run})

    generator = model.model if isinstance(model, Inference) else model
    return registry.backend.upload(run_id, save, generator.image_shape)
