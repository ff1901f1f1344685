"""Register a model once, however often it is asked for: upload, create with a key, look again."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gan_core.errors import RegistryError
from gan_core.extensions.inference import Inference
from gan_core.extensions.portable_encoder import save_inference
from gan_core.portable import PortableGenerator, save_generator
from pipelines.config import digest
from pipelines.registry.address import implausible_answer
from pipelines.registry.lease import Lease, LeaseLost
from pipelines.registry.reference import checked_name
from pipelines.registry.registry import DUPLICATE_TAG, KEY_TAG, ModelVersion, Registry

LEASE_PREFIX = "gan.registering."
TERM = 30.0  # seconds, after which a silent process counts as dead
MAX_LEASES_LOST = 3  # by a registry that answers slowly, before a registration is given up


@contextlib.contextmanager
def registering(registry: Registry, name: str, run: str, about_model: str = "") -> Iterator[Lease]:
    """Be the one process, on any machine, that registers this run; its model is created, so described, if it is not there.

    Raises:
        RegistryError: If the registry does not answer, or another process is registering it for long.
    """
    registry.backend.create_model(checked_name(name), about_model)
    lease = Lease(registry.backend, name, TERM, f"{LEASE_PREFIX}{digest(run)[:16]}.")
    with lease.held(), lease.kept_alive():
        yield lease


def register(
    registry: Registry, name: str, run_id: str, model: PortableGenerator | Inference, tags: Mapping[str, Any],
    description: str = "",
) -> ModelVersion:  # fmt: skip
    """The version of this model (with its encoder, if it has one) with these tags: the one there is, or a new one.

    One process at a time looks for it, uploads the artifacts, creates the version with its key among its tags, and
    looks again: of two with one key, which only a request that was sent twice can leave, the lower stays and the
    other is marked.

    Raises:
        RegistryError: If the registry does not answer or refuses; again, it completes what was begun.
    """
    key = digest([checked_name(name), tags["run"], tags["weights_sha256"], tags["config_digest"]])
    versions, lost = _with_key(registry, name, key), 0
    while not versions:
        with registering(registry, name, tags["run"]) as lease:
            try:
                versions = _with_key(registry, name, key) or _created(
                    registry, name, run_id, model, tags, description, key, lease
                )
            except LeaseLost:
                lost += 1
                if lost == MAX_LEASES_LOST:
                    raise
    first, *duplicates = versions
    for duplicate in duplicates:
        registry.tag(duplicate, {DUPLICATE_TAG: str(first.version)})
    return first


def _created(
    registry: Registry, name: str, run_id: str, model: PortableGenerator | Inference, tags: Mapping[str, Any],
    description: str, key: str, lease: Lease,
) -> list[ModelVersion]:  # fmt: skip
    """Upload the model and create its version under the lease; the versions with its key afterwards."""
    source = _upload(registry, run_id, model, tags["run"])
    lease.check()
    plain = {tag: str(value) for tag, value in tags.items()}
    failure = None
    try:
        registry.backend.create_version(name, source, {**plain, KEY_TAG: key}, run_id, description)
    except RegistryError as error:  # it may have been created all the same: look
        failure = error
    versions = _with_key(registry, name, key)
    if not versions:
        raise failure or implausible_answer(registry.uri, f"nothing of a version of {name}, which it has created")
    return versions


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
