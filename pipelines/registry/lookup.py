"""MLflow models: look up by number, alias, score or digest, and load without executing anything the registry holds."""

import difflib
import json
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gan_core.errors import CheckpointError, RegistryError
from gan_core.portable import FILES, PortableGenerator, load_generator
from pipelines.registry.reference import checked_alias, checked_name, parse_reference
from pipelines.tracking import open_client, registry_errors

KEY_TAG, DUPLICATE_TAG, ARCHIVED_TAG = "gan.key", "gan.duplicate_of", "gan.archived"
CHALLENGER, CHAMPION = "challenger", "champion"
FOLDER = "artifacts/generator"  # of a registered model: where the three files lie
DIGEST = re.compile(r"[A-Za-z0-9]{1,128}")


@dataclass(frozen=True)
class ModelVersion:
    """A version as one looks it up."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str

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


class Registry:
    """The model registry behind a tracking URI.

    A look-up never creates a database; `create` is for those about to register. Searches ask for
    `page_size` entries at a time, and for all pages.
    """

    def __init__(self, uri: str, create: bool = False, page_size: int = 200) -> None:
        self.uri, self.page_size = uri, page_size
        self.client = open_client(uri, create)

    def models(self) -> list[str]:
        """Names of the registered models."""
        with registry_errors(self.uri):
            return sorted(model.name for model in self._pages(self.client.search_registered_models))

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        return self.search(f"name='{checked_name(name)}'")

    def resolve(self, reference: str) -> ModelVersion:
        """The version meant by NAME@ALIAS or NAME/VERSION.

        Raises:
            RegistryError: If there is none; the nearest names, or what there is, are listed.
        """
        name, alias, number = parse_reference(reference)
        aliases = self.aliases(name)
        if alias is not None:
            number = aliases.get(alias)
        found = None if number is None else self.version(name, number)
        if found is not None:
            return found
        numbers = [version.version for version in self.versions(name)[:5]]
        if alias is not None:
            held = ", ".join(f"{name} ({holder})" for name, holder in sorted(aliases.items())) or "no alias"
            raise RegistryError(
                "no such alias", reference, f"has {held}", f"{alias}; or a version: {name}/{(numbers or [1])[0]}"
            )
        raise RegistryError(
            "no such version",
            reference,
            f"has {', '.join(map(str, numbers)) or 'none'}",
            f"NAME/VERSION or NAME@ALIAS, such as {name}@{CHAMPION}",
        )

    def version(self, name: str, number: int) -> ModelVersion | None:
        """A version by its number, if it is there."""
        with registry_errors(self.uri):
            item = _existing(lambda: self.client.get_model_version(checked_name(name), str(number)))
            return None if item is None else _version(item, self.registered(name).aliases)

    def holder(self, name: str, alias: str) -> ModelVersion | None:
        """The version that holds an alias, if one does."""
        number = self.aliases(name).get(checked_alias(alias))
        return None if number is None else self.version(name, number)

    def best(self, name: str, metric: str = "log_likelihood") -> ModelVersion | None:
        """The version with the highest value of a metric, the older of equal ones; archived and duplicate ones left out.

        MLflow cannot order versions by what is in a tag, so this reads them all.
        """
        scored = [
            (value, -version.version, version)
            for version in self.versions(name)
            if not version.archived and DUPLICATE_TAG not in version.tags
            if (value := version.metric(metric)) is not None
        ]
        return max(scored, key=lambda entry: entry[:2])[2] if scored else None

    def by_data_digest(self, digest: str, name: str | None = None) -> list[ModelVersion]:
        """Versions that were trained and scored on the data of this digest, newest first."""
        return self.by_tag("data_digest", digest, name)

    def by_config_digest(self, digest: str, name: str | None = None) -> list[ModelVersion]:
        """Versions that were made from the configuration of this digest, newest first."""
        return self.by_tag("config_digest", digest, name)

    def by_tag(self, tag: str, digest: str, name: str | None = None) -> list[ModelVersion]:
        """Versions with this digest in a tag, found by the server; of one model or of all."""
        if not DIGEST.fullmatch(digest):
            raise RegistryError(
                "not a digest", repr(digest)[:80], "other characters, or too many", "letters and digits"
            )
        named = f"name='{checked_name(name)}' and " if name is not None else ""
        return self.search(f"{named}tags.`{tag}`='{digest}'")

    def search(self, query: str) -> list[ModelVersion]:
        """Versions by MLflow's own filter, all pages of them, by name and then newest first."""
        with registry_errors(self.uri):
            found = self._pages(self.client.search_model_versions, filter_string=query)
            # search_model_versions() leaves aliases out; the registered model has them.
            aliases = {name: self.registered(name).aliases for name in {item.name for item in found}}
        versions = [_version(item, aliases[item.name]) for item in found]
        return sorted(versions, key=lambda version: (version.name, -version.version))

    def aliases(self, name: str) -> dict[str, int]:
        """The model's aliases and the versions that hold them."""
        return {alias: int(number) for alias, number in self.registered(name).aliases.items()}

    def registered(self, name: str) -> Any:
        """MLflow's entity of a registered model: its aliases and tags, as of one moment.

        Raises:
            RegistryError: If there is none; the nearest names are listed.
        """
        checked_name(name)
        with registry_errors(self.uri):
            found = _existing(lambda: self.client.get_registered_model(name))
        if found is None:
            names = self.models()
            near = difflib.get_close_matches(name, names, n=3) or names[:3]
            raise RegistryError(
                "no such model", name, "not registered", f"one of {', '.join(near)}" if near else "a registered model"
            )
        return found

    def load(self, version: ModelVersion) -> PortableGenerator:
        """The version's generator: three plain files, sizes capped, digests checked, nothing executed.

        Raises:
            RegistryError: If it was not made here.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        import mlflow.artifacts

        if "generator_sha256" not in version.tags:
            raise RegistryError(
                "not a model of ours", version, "no generator_sha256 tag", "a version registered by gan"
            )
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o700)
            with registry_errors(self.uri):
                # Not by models:/NAME/VERSION, which MLflow would look up in its global registry.
                place = self.client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
                for name in FILES:
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=f"{place}/{FOLDER}/{name}", dst_path=folder, tracking_uri=self.uri
                    )
            found = next(Path(folder).rglob(FILES[0]), None)
            model = load_generator(found.parent if found else Path(folder))
        if model.sha256 != version.tags["generator_sha256"]:
            raise CheckpointError(
                "weights differ from the tag", version, model.sha256[:12], version.tags["generator_sha256"][:12]
            )
        return model

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with registry_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, str(version.version), key, value)

    def _pages(self, search: Callable[..., Any], **arguments: Any) -> list[Any]:
        found, token = [], None
        while True:
            page = search(max_results=self.page_size, page_token=token, **arguments)
            found += page
            token = page.token
            if not token:
                return found


def _existing(get: Callable[[], Any]) -> Any:
    """What `get` gives, or None if MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _version(item: Any, aliases: Mapping[str, Any]) -> ModelVersion:
    number = int(item.version)  # an int from sqlite, text from a server; so are the aliases'
    held = tuple(sorted(alias for alias, holder in aliases.items() if int(holder) == number))
    return ModelVersion(item.name, number, held, dict(item.tags), item.source)
