"""Look registered models up by number, alias, score or digest; load them, and execute nothing that the registry holds."""

import contextlib
import difflib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from gan_core.errors import CheckpointError, RegistryError
from gan_core.extensions.inference import Inference
from gan_core.extensions.portable_encoder import WEIGHTS as ENCODER_FILE
from gan_core.extensions.portable_encoder import load_inference
from gan_core.portable import FILES, PortableGenerator, load_generator
from pipelines.registry.backend import backend_of
from pipelines.registry.model_version import (
    ARCHIVED_TAG,
    DUPLICATE_TAG,
    KEY_TAG,
    ModelVersion,
    RegisteredModel,
    best_of,
)
from pipelines.registry.polling import changes, ignore_failure
from pipelines.registry.reference import checked_alias, checked_name, parse_reference

__all__ = ["ARCHIVED_TAG", "CHALLENGER", "CHAMPION", "DUPLICATE_TAG", "KEY_TAG", "ModelVersion", "Registry"]
CHALLENGER, CHAMPION = "challenger", "champion"
DIGEST = re.compile(r"[A-Za-z0-9]{1,128}")
Loaded = TypeVar("Loaded", PortableGenerator, Inference)


class Registry:
    """The model registry behind a tracking URI: `backend` is what it is kept in.

    A look-up never creates a database; `create` is for those about to register.
    """

    def __init__(self, uri: str, create: bool = False) -> None:
        self.uri, self.backend = uri, backend_of(uri).open(uri, create)

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
            if digest is not None:
                tagged = self.by_tag(tag, digest, name)
                versions = tagged if versions is None else [version for version in versions if version in tagged]
        if versions is None:
            versions = self.backend.versions(name)
        if best is None:
            return versions
        of_each = (best_of([version for version in versions if version.name == model], best) for model in names)
        return [version for version in of_each if version is not None]

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

    def load(self, version: ModelVersion) -> PortableGenerator:
        """The version's generator: three plain files, sizes capped, digests checked, nothing executed.

        Raises:
            RegistryError: If it was not made here.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        if "generator_sha256" not in version.tags:
            raise RegistryError(
                "not a model of ours", version, "no generator_sha256 tag", "a version registered by gan"
            )
        with self._files(version, FILES) as folder:
            model = load_generator(folder)
        return _checked(model, "generator_sha256", version)

    def load_inference(self, version: ModelVersion) -> Inference:
        """The version's generator with its encoder, loaded as the generator alone is.

        Raises:
            RegistryError: If it was registered without an encoder.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        if "encoder_sha256" not in version.tags:
            raise RegistryError(
                "no inference net", version, "registered without an encoder", "a run with extension.name inference"
            )
        with self._files(version, (*FILES, ENCODER_FILE)) as folder:
            inference = load_inference(folder)
        _checked(inference.model, "generator_sha256", version)
        return _checked(inference, "encoder_sha256", version)

    @contextlib.contextmanager
    def _files(self, version: ModelVersion, names: Sequence[str]) -> Iterator[Path]:
        """These files of a version, in a private folder."""
        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o700)
            self.backend.download(version.source, names, Path(folder))
            first = next(Path(folder).rglob(FILES[0]), None)
            yield first.parent if first else Path(folder)

    def watch(
        self, reference: str, seconds: float = 30.0, on_failure: Callable[[RegistryError, float], None] = ignore_failure
    ) -> Iterator[ModelVersion]:
        """The version meant by NAME@ALIAS, now and whenever it is another one, looked up every `seconds`.

        It never ends by itself: see `polling.changes`, also for `on_failure`.
        """
        return changes(lambda: self.resolve(reference), str, seconds, on_failure)

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        for key, value in tags.items():
            self.backend.set_version_tag(version.name, version.version, key, value)


def _checked(loaded: Loaded, tag: str, version: ModelVersion) -> Loaded:
    """What was loaded, if its weights are the tagged ones."""
    if loaded.sha256 != version.tags[tag]:
        raise CheckpointError("weights differ from the tag", version, loaded.sha256[:12], version.tags[tag][:12])
    return loaded
