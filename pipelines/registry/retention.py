"""Versions put away: archived, deleted or pruned, and never one that an alias or a recent move needs."""

import datetime

from gan_core.errors import RegistryError
from pipelines.mlflow_client import registry_errors
from pipelines.registry.lookup import ARCHIVED_TAG, ModelVersion, Registry
from pipelines.registry.moves import Moves

RECENT = 5  # moves of the champion whose versions are kept, so that they can be undone


def archive(registry: Registry, version: ModelVersion) -> None:
    """Put a version away: it can be loaded and compared, and never becomes champion.

    Raises:
        RegistryError: If an alias is on it.
    """
    moves = Moves(registry, version.name)
    with moves.lease().held():
        check_free(registry, version)
        registry.tag(version, {ARCHIVED_TAG: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")})


def delete(registry: Registry, version: ModelVersion) -> None:
    """Delete a version; its number is never used again, its files stay until `mlflow gc`.

    Raises:
        RegistryError: If an alias is on it.
    """
    moves = Moves(registry, version.name)
    with moves.lease().held():
        check_free(registry, version)
        _delete(registry, version)


def to_prune(registry: Registry, name: str, keep: int) -> list[ModelVersion]:
    """Versions older than the `keep` newest, without an alias, that the champion's last moves do not name."""
    recent = Moves(registry, name).history()[-RECENT:]
    needed = {number for move in recent for number in (move.former, move.version)}
    return [
        version for version in registry.versions(name)[keep:] if not version.aliases and version.version not in needed
    ]


def prune(registry: Registry, name: str, keep: int) -> list[ModelVersion]:
    """Delete the versions of `to_prune`, and return them."""
    moves = Moves(registry, name)
    with moves.lease().held():
        pruned = to_prune(registry, name, keep)
        for version in pruned:
            _delete(registry, version)
    return pruned


def check_free(registry: Registry, version: ModelVersion) -> None:
    """Refuse a version that an alias is on.

    Raises:
        RegistryError: If one is.
    """
    held = [alias for alias, number in registry.aliases(version.name).items() if number == version.version]
    if held:
        raise RegistryError(
            "version in use", version, f"it is {' and '.join(sorted(held))}", "a version that no alias is on"
        )


def _delete(registry: Registry, version: ModelVersion) -> None:
    with registry_errors(registry.uri):
        registry.client.delete_model_version(version.name, str(version.version))
