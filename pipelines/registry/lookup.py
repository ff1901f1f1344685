"""Look registered models up by number, alias, score or digest."""

import difflib
import re
from collections.abc import Callable, Iterator

from gan_core.errors import RegistryError
from pipelines.registry.backend import ModelReader, backend_of
from pipelines.registry.mlflow_database import MlflowDatabase
from pipelines.registry.model_version import ModelVersion, RegisteredModel, best_of
from pipelines.registry.polling import changes, ignore_failure
from pipelines.registry.reference import checked_alias, checked_name, parse_reference

CHALLENGER, CHAMPION = "challenger", "champion"
DIGEST = re.compile(r"[A-Za-z0-9]{1,128}")


class Lookup:
    """What can be asked of a registry that is only read."""

    def __init__(self, uri: str, backend: ModelReader) -> None:
        self.uri, self.backend = uri, backend

    @classmethod
    def at(cls, uri: str) -> "Lookup":
        """Open a registry that is there, for look-ups alone: a database in a file without MLflow's client.

        Raises:
            RegistryError: If it cannot be reached, or is not there.
        """
        return cls(uri, MlflowDatabase.open(uri) or backend_of(uri).open(uri))

    def models(self) -> list[str]:
        """Names of the registered models."""
        return self.backend.models()

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        return self.backend.versions(checked_name(name))

    def resolve(self, reference: str) -> ModelVersion:
        """The version meant by NAME@ALIAS or NAME/VERSION.

        Raises:
            RegistryError: If there is none; the nearest names, or what there is, are listed.
        """
        name, alias, number = parse_reference(reference)
        aliases = self.aliases(name)
        if alias is not None:
            number = aliases.get(alias)
        version = None if number is None else self.version(name, number)
        if version is not None:
            return version
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
        return self.backend.version(name, number)

    def holder(self, name: str, alias: str) -> ModelVersion | None:
        """The version that holds an alias, if one does."""
        number = self.aliases(name).get(checked_alias(alias))
        return None if number is None else self.version(name, number)

    def find(
        self, name: str | None = None, data_digest: str | None = None, config_digest: str | None = None,
        best: str | None = None,
    ) -> list[ModelVersion]:  # fmt: skip
        """Versions of one model or of all, on the data or of the configuration of a digest, newest first.

        With `best`, a metric's name, the best of them of each model, as `best_of()` chooses.
        """
        names = self.models() if name is None else [self.registered(name).name]
        versions: list[ModelVersion] | None = None
        for tag, digest in {"data_digest": data_digest, "config_digest": config_digest}.items():
            if digest is None:
                continue
            if versions is None:
                versions = self.by_tag(tag, digest, name)
            else:
                versions = [version for version in versions if version.tags.get(tag) == digest]
        if versions is None:
            versions = self.backend.versions(name)
        if best is None:
            return versions
        of_model: dict[str, list[ModelVersion]] = {model: [] for model in names}
        for version in versions:
            of_model.setdefault(version.name, []).append(version)
        best_ones = (best_of(of_one, best) for of_one in of_model.values())
        return [version for version in best_ones if version is not None]

    def by_tag(self, tag: str, digest: str, name: str | None = None) -> list[ModelVersion]:
        """Versions with this digest in a tag, of one model or of all, newest first.

        Raises:
            RegistryError: If it is no digest.
        """
        if not DIGEST.fullmatch(digest):
            raise RegistryError(
                "not a digest", repr(digest)[:80], "other characters, or too many", "letters and digits"
            )
        return self.backend.versions(None if name is None else checked_name(name), (tag, digest))

    def aliases(self, name: str) -> dict[str, int]:
        """The model's aliases and the versions that hold them."""
        return dict(self.registered(name).aliases)

    def aliases_of(self, name: str) -> dict[str, int]:
        """The same, of a model of any name, also one that gan would not give it; none if it is gone."""
        model = self.backend.model(name)
        return dict(model.aliases) if model is not None else {}

    def registered(self, name: str) -> RegisteredModel:
        """A registered model: its aliases and tags, as of one moment.

        Raises:
            RegistryError: If there is none; the nearest names are listed.
        """
        model = self.backend.model(checked_name(name))
        if model is None:
            names = self.models()
            near = difflib.get_close_matches(name, names, n=3) or names[:3]
            raise RegistryError(
                "no such model", name, "not registered", f"one of {', '.join(near)}" if near else "a registered model"
            )
        return model

    def watch(
        self, reference: str, seconds: float = 30.0, on_failure: Callable[[RegistryError, float], None] = ignore_failure
    ) -> Iterator[ModelVersion]:
        """The version meant by NAME@ALIAS, now and whenever it is another one, looked up every `seconds`.

        It never ends by itself: see `polling.changes`, also for `on_failure`.
        """
        return changes(lambda: self.resolve(reference), str, seconds, on_failure)
