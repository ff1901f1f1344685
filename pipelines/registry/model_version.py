"""A registered model's version, as one looks it up, and the best of several."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

KEY_TAG, DUPLICATE_TAG, ARCHIVED_TAG = "gan.key", "gan.duplicate_of", "gan.archived"


@dataclass(frozen=True)
class ModelVersion:
    """A version as one looks it up."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str
    created: int = 0  # milliseconds since 1970

    def __str__(self) -> str:
        return f"{self.name}/{self.version}"

    @property
    def archived(self) -> bool:
        """Whether it was put away: it can be loaded, and never becomes champion."""
        return ARCHIVED_TAG in self.tags

    def metric(self, name: str) -> float | None:
        """One of its numbers, if it has it."""
        value = json.loads(self.tags.get("metrics", "{}")).get(name)
        return float(value) if isinstance(value, int | float) else None

    def to_json(self) -> dict[str, Any]:
        """The contract of `gan models show --json`."""
        metrics = json.loads(self.tags.get("metrics", "{}"))
        named = {key: self.tags.get(key, "") for key in ("generator_sha256", "data_digest", "config_digest", "commit")}
        return {
            "name": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "tags": dict(self.tags),
            "metrics": metrics,
            **named,
        }


def version_of(item: Any, aliases: Mapping[str, Any]) -> ModelVersion:
    """MLflow's entity, with the aliases of its model."""
    number = int(item.version)  # an int from sqlite, text from a server; so are the aliases'
    held = tuple(sorted(alias for alias, holder in aliases.items() if int(holder) == number))
    return ModelVersion(item.name, number, held, dict(item.tags), item.source, int(item.creation_timestamp))


def best_of(versions: Sequence[ModelVersion], metric: str) -> ModelVersion | None:
    """The version with the highest value of a metric, the older of equal ones; archived and duplicate ones left out."""
    scored = [
        (value, -version.version, version)
        for version in versions
        if not version.archived and DUPLICATE_TAG not in version.tags
        if (value := version.metric(metric)) is not None
    ]
    return max(scored, key=lambda entry: entry[:2])[2] if scored else None
