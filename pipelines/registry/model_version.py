"""A registered model's version, as one looks it up, and the best of several."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gan_core.errors import RegistryError
from pipelines.config import MODEL_NAME

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

    def metrics(self) -> dict[str, Any]:
        """Its numbers, of which a version that was not made here may have none.

        Raises:
            RegistryError: If its name or its tags are not of a kind that gan writes.
        """
        if not MODEL_NAME.fullmatch(self.name):
            raise RegistryError("not a model name of ours", self, "others' model", "letters, digits, _ . -")
        text = self.tags.get("metrics", "{}")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(map(_finite, found.values())):
            raise RegistryError("unreadable metrics", self, text[:80], "a JSON object of finite numbers")
        sigma = self.tags.get("sigma", found.get("sigma", 1.0))
        if not _positive(sigma) or not _positive(found.get("sigma", 1.0)):
            raise RegistryError("unreadable sigma", self, f"{sigma}"[:80], "a positive number")
        return found

    def metric(self, name: str) -> float | None:
        """One of its numbers, if it has it and all can be read."""
        try:
            value = self.metrics().get(name)
        except RegistryError:
            return None
        return None if value is None else float(value)

    def to_json(self) -> dict[str, Any]:
        """The contract of `gan models show --json`; of a version that cannot be read, `unreadable` says why."""
        try:
            metrics, unreadable = self.metrics(), {}
        except RegistryError as error:
            metrics, unreadable = {}, {"unreadable": str(error)}
        named = {key: self.tags.get(key, "") for key in ("generator_sha256", "data_digest", "config_digest", "commit")}
        return {
            "name": self.name,
            "version": self.version,
            "aliases": list(self.aliases),
            "tags": dict(self.tags),
            "metrics": metrics,
            **named,
            **unreadable,
        }


def _finite(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and math.isfinite(value))


def _positive(value: Any) -> bool:
    try:
        return math.isfinite(float(value)) and float(value) > 0
    except (ValueError, TypeError):
        return False


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
