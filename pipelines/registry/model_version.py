"""A registered model and its versions, whichever registry holds them, and the best of several versions."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gan_core.errors import RegistryError
from pipelines.names import MODEL_NAME

KEY_TAG, DUPLICATE_TAG, ARCHIVED_TAG = "gan.key", "gan.duplicate_of", "gan.archived"


@dataclass(frozen=True)
class RegisteredModel:
    """A model's aliases, with the number of the version each is on, and its tags, as of one moment."""

    name: str
    aliases: Mapping[str, int]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class ModelVersion:
    """A version of a registered model."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str  # of its files: models:/ID
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
            metrics = json.loads(text)
        except (ValueError, RecursionError):
            metrics = None
        if not isinstance(metrics, dict) or not all(map(_finite, metrics.values())):
            raise RegistryError("unreadable metrics", self, text[:80], "a JSON object of finite numbers")
        sigma = self.tags.get("sigma", metrics.get("sigma", 1.0))
        if not _positive(sigma) or not _positive(metrics.get("sigma", 1.0)):
            raise RegistryError("unreadable sigma", self, f"{sigma}"[:80], "a positive number")
        return metrics

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


def best_of(versions: Sequence[ModelVersion], metric: str) -> ModelVersion | None:
    """The version with the highest value of a metric, the older of equal ones; archived and duplicate ones left out."""
    scored = [
        (value, -version.version, version)
        for version in versions
        if not version.archived and DUPLICATE_TAG not in version.tags
        if (value := version.metric(metric)) is not None
    ]
    return max(scored, key=lambda entry: entry[:2])[2] if scored else None
