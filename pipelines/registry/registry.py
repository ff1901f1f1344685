"""MLflow models: look up by number, alias, score or digest, and load without executing anything the registry holds."""

import contextlib
import difflib
import os
import re
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from gan_core.errors import CheckpointError, RegistryError
from gan_core.extensions.inference import Inference
from gan_core.extensions.portable_encoder import WEIGHTS as ENCODER_FILE
from gan_core.extensions.portable_encoder import load_inference
from gan_core.portable import FILES, PortableGenerator, load_generator
from pipelines.registry.mlflow_client import open_client, redacted, registry_errors
from pipelines.registry.model_version import ARCHIVED_TAG, DUPLICATE_TAG, KEY_TAG, ModelVersion, best_of, version_of
from pipelines.registry.polling import changes, ignored
from pipelines.registry.reference import checked_alias, checked_name, parse_reference

__all__ = ["ARCHIVED_TAG", "CHALLENGER", "CHAMPION", "DUPLICATE_TAG", "KEY_TAG", "ModelVersion", "Registry"]
CHALLENGER, CHAMPION = "challenger", "champion"
FOLDER = "artifacts/generator"  # of a registered model: where the files lie
DIGEST = re.compile(r"[A-Za-z0-9]{1,128}")
Loaded = TypeVar("Loaded", PortableGenerator, Inference)


class Registry:
    """The model registry behind a tracking URI.

    A look-up never creates a database; `create` is for those about to register. Searches ask for
    `page_size` entries at a time, and for all pages.

    An empty answer is not believed alone. A server says `{}` where a search finds nothing, and so does much
    that is no registry, or is not up yet; MLflow's client reads it as an empty list, or as a model without a name.
    """

    def __init__(self, uri: str, create: bool = False, page_size: int = 200) -> None:
        self.uri, self.page_size = uri, page_size
        self.client = open_client(uri, create)

    def models(self) -> list[str]:
        """Names of the registered models."""
        with registry_errors(self.uri):
            names = sorted(model.name for model in self._pages(self.client.search_registered_models))
        if not names:  # no version either, and only a registry says of a name that there is no such model
            if found := self.search(""):
                raise unusable(self.uri, f"no models, and {len(found)} versions")
            self._model(f"gan-{uuid.uuid4().hex}")
        return names

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        found = self.search(f"name='{checked_name(name)}'")
        if not found and (model := self._model(name)) is not None and model.latest_versions:
            raise unusable(self.uri, f"no versions of {name}, whose latest is {model.latest_versions[0].version}")
        return found

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
            item = _existing(lambda: self.client.get_model_version(name, str(number)))
        if item is None:
            return None
        if (item.name, str(item.version)) != (name, str(number)):
            raise unusable(self.uri, f"nothing about {name}/{number}")
        return version_of(item, self.aliases_of(name))

    def holder(self, name: str, alias: str) -> ModelVersion | None:
        """The version that holds an alias, if one does."""
        number = self.aliases(name).get(checked_alias(alias))
        return None if number is None else self.version(name, number)

    def best(self, name: str, metric: str = "log_likelihood") -> ModelVersion | None:
        """The version with the highest value of a metric, the older of equal ones; archived and duplicate ones left out.

        MLflow cannot order versions by what is in a tag, so this reads them all.
        """
        return best_of(self.versions(name), metric)

    def find(
        self, name: str | None = None, data_digest: str | None = None, config_digest: str | None = None,
        best: str | None = None,
    ) -> list[ModelVersion]:  # fmt: skip
        """Versions of one model or of all, on the data or of the configuration of a digest, newest first.

        With `best`, a metric's name, the best of them of each model, as `best()` chooses.
        """
        names = self.models() if name is None else [self.registered(name).name]
        found: list[ModelVersion] | None = None
        for tag, digest in {"data_digest": data_digest, "config_digest": config_digest}.items():
            if digest is not None:
                of_tag = self.by_tag(tag, digest, name)
                found = of_tag if found is None else [version for version in found if version in of_tag]
        if found is None:
            found = self.search("") if name is None else self.versions(name)
        if best is None:
            return found
        chosen = (best_of([version for version in found if version.name == one], best) for one in names)
        return [version for version in chosen if version is not None]

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
        """Versions by MLflow's own filter ("": all), all pages of them, by name and then newest first."""
        with registry_errors(self.uri):
            found = self._pages(self.client.search_model_versions, filter_string=query or None)
        # search_model_versions() leaves aliases out; the registered model has them.
        aliases = {name: self.aliases_of(name) for name in {item.name for item in found}}
        versions = [version_of(item, aliases[item.name]) for item in found]
        return sorted(versions, key=lambda version: (version.name, -version.version))

    def aliases(self, name: str) -> dict[str, int]:
        """The model's aliases and the versions that hold them."""
        self.registered(name)
        return self.aliases_of(name)

    def aliases_of(self, name: str) -> dict[str, int]:
        """The same, of a model of any name, also one that gan would not give it; none if it is gone."""
        model = self._model(name)
        return {alias: int(number) for alias, number in model.aliases.items()} if model is not None else {}

    def _model(self, name: str) -> Any:
        """MLflow's entity of a registered model of any name, or None if there is none."""
        with registry_errors(self.uri):
            found = _existing(lambda: self.client.get_registered_model(name))
        if found is not None and found.name != name:
            raise unusable(self.uri, f"nothing about {name}")
        return found

    def registered(self, name: str) -> Any:
        """MLflow's entity of a registered model: its aliases and tags, as of one moment.

        Raises:
            RegistryError: If there is none; the nearest names are listed.
        """
        found = self._model(checked_name(name))
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
        import mlflow.artifacts

        with tempfile.TemporaryDirectory() as folder:
            os.chmod(folder, 0o700)
            with registry_errors(self.uri):
                # Not by models:/NAME/VERSION, which MLflow would look up in its global registry.
                place = self.client.get_logged_model(version.source.removeprefix("models:/")).artifact_location
                for name in names:
                    mlflow.artifacts.download_artifacts(
                        artifact_uri=f"{place}/{FOLDER}/{name}", dst_path=folder, tracking_uri=self.uri
                    )
            found = next(Path(folder).rglob(FILES[0]), None)
            yield found.parent if found else Path(folder)

    def watch(
        self, reference: str, seconds: float = 30.0, trouble: Callable[[RegistryError, float], None] = ignored
    ) -> Iterator[ModelVersion]:
        """The version meant by NAME@ALIAS, now and whenever it is another one, looked up every `seconds`.

        It never ends by itself: see `watching.changes`, also for `trouble`.
        """
        return changes(lambda: self.resolve(reference), str, seconds, trouble)

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


def _checked(loaded: Loaded, tag: str, version: ModelVersion) -> Loaded:
    """What was loaded, if its weights are the tagged ones."""
    if loaded.sha256 != version.tags[tag]:
        raise CheckpointError("weights differ from the tag", version, loaded.sha256[:12], version.tags[tag][:12])
    return loaded


def unusable(uri: str, answer: str) -> RegistryError:
    """The error of a registry whose answers cannot be true."""
    return RegistryError("no registry's answer", redacted(uri), answer, "an MLflow server that is up: gan doctor")


def _existing(get: Callable[[], Any]) -> Any:
    """What `get` gives, or None if MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
