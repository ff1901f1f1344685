"""Retention of versions: archive, delete or prune, and never one that an alias or a recent move needs."""

import contextlib
import datetime
from collections.abc import Iterator

from gan_core.errors import RegistryError
from pipelines.registry.address import implausible_answer
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.registry import ARCHIVED_TAG, KEY_TAG, ModelVersion, Registry

RECENT_MOVES = 5  # of the champion, whose versions are kept, so that they can be undone


def archive(registry: Registry, version: ModelVersion) -> None:
    """Put a version away: it can be loaded and compared, and never becomes champion.

    Raises:
        RegistryError: If an alias is on it, or the registry does not answer.
    """
    with _unused(registry, version):
        registry.tag(version, {ARCHIVED_TAG: datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")})


def delete(registry: Registry, version: ModelVersion) -> None:
    """Delete a version and its files; its number is never used again.

    Raises:
        RegistryError: If an alias is on it, or the registry does not answer.
    """
    with _unused(registry, version):
        _delete(registry, version)


@contextlib.contextmanager
def _unused(registry: Registry, version: ModelVersion) -> Iterator[None]:
    """No alias is on the version, and none can be moved to it meanwhile."""
    with ChampionHistory(registry, version.name).lease().held() as lease:
        check_free(registry, version)
        lease.check()  # if answers took so long that others may hold it, an alias may have been moved
        yield


def to_prune(registry: Registry, name: str, keep: int) -> list[ModelVersion]:
    """Versions older than the `keep` newest, without an alias, that the champion's last moves do not name."""
    kept = needed(registry, name)
    return [version for version in registry.versions(name)[keep:] if version.version not in kept]


def needed(registry: Registry, name: str) -> set[int]:
    """The versions that an alias is on, or that the champion's last moves name: what they could be undone to."""
    recent = ChampionHistory(registry, name).moves()[-RECENT_MOVES:]
    moved = {number for move in recent for number in (move.former, move.version) if number is not None}
    return moved | set(registry.aliases(name).values())


def prune(registry: Registry, name: str, keep: int) -> list[ModelVersion]:
    """Delete the versions of `to_prune`, and return them."""
    with ChampionHistory(registry, name).lease().held() as lease:
        pruned = to_prune(registry, name, keep)
        for version in pruned:
            check_free(registry, version)
            lease.check()
            lease.renew()
            _delete(registry, version)
    return pruned


def check_free(registry: Registry, version: ModelVersion) -> None:
    """Refuse a version that an alias is on.

    Raises:
        RegistryError: If one is.
    """
    aliases = [alias for alias, number in registry.aliases(version.name).items() if number == version.version]
    if aliases:
        raise RegistryError(
            "version in use", version, f"it is {' and '.join(sorted(aliases))}", "a version that no alias is on"
        )


def _delete(registry: Registry, version: ModelVersion) -> None:
    key = version.tags.get(KEY_TAG)
    same = [] if key is None else registry.by_tag(KEY_TAG, key)  # a duplicate or a copy would be of the same files
    if key is not None and version not in same:  # an answer that leaves out what is there may leave out others
        raise implausible_answer(registry.uri, f"no version of the key of {version}")
    registry.backend.delete_version(version.name, version.version)
    if same == [version]:
        with contextlib.suppress(Exception):  # the version is gone; what is left of its files `mlflow gc` frees
            registry.backend.delete_files(version.source)
