"""MLflow models: register once, look up, load without executing anything the registry holds."""

import difflib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import gan_core
from gan_core.errors import CheckpointError, RegistryError
from gan_core.portable import FILES, PortableGenerator, load_generator, save_generator
from pipelines.config import digest
from pipelines.settings import MODEL_NAME
from pipelines.tracking import open_client, registry_errors

KEY_TAG, DUPLICATE_TAG = "gan.key", "gan.duplicate_of"
CHALLENGER, CHAMPION = "challenger", "champion"
FOLDER = "artifacts/generator"  # of a registered model: where the three files lie


@dataclass(frozen=True)
class ModelVersion:
    """A version as one looks it up."""

    name: str
    version: int
    aliases: tuple[str, ...]
    tags: Mapping[str, str]
    source: str

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

    A look-up never creates a database; `create` is for those about to register.
    """

    def __init__(self, uri: str, create: bool = False) -> None:
        self.uri = uri
        self.client = open_client(uri, create)

    # Look-up

    def models(self) -> list[str]:
        """Names of the registered models that hold versions of ours."""
        with registry_errors(self.uri):
            return sorted(model.name for model in self.client.search_registered_models())

    def versions(self, name: str) -> list[ModelVersion]:
        """All versions of a model, newest first."""
        with registry_errors(self.uri):
            aliases = self._aliases(name)
            found = self.client.search_model_versions(f"name='{checked_name(name)}'")
        return sorted((_version(item, aliases) for item in found), key=lambda version: -version.version)

    def resolve(self, reference: str) -> ModelVersion:
        """The version meant by NAME@ALIAS or NAME/VERSION.

        Raises:
            RegistryError: If there is none; the nearest names, or what there is, are listed.
        """
        name, separator, which = next((reference.partition(s) for s in "@/" if s in reference), (reference, "", ""))
        checked_name(name)
        names = self.models()
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3) or names[:3]
            raise RegistryError(
                "no such model", name, "not registered", f"one of {', '.join(near)}" if near else "a registered model"
            )
        versions = self.versions(name)
        if separator == "@":
            found = next((version for version in versions if which in version.aliases), None)
            if found is None:
                held = ", ".join(f"{alias} ({v.version})" for v in versions for alias in v.aliases) or "no alias"
                raise RegistryError(
                    "no such alias",
                    reference,
                    f"has {held}",
                    f"{which}; or a version: {name}/{versions[0].version if versions else 1}",
                )
            return found
        found = next((version for version in versions if str(version.version) == which), None)
        if found is None:
            numbers = ", ".join(str(version.version) for version in versions[:5]) or "none"
            raise RegistryError(
                "no such version", reference, f"has {numbers}", f"NAME/VERSION or NAME@ALIAS, such as {name}@{CHAMPION}"
            )
        return found

    def load(self, version: ModelVersion) -> PortableGenerator:
        """The version's generator: three plain files, sizes capped, digests checked, nothing executed.

        Raises:
            RegistryError: If it was not made here.
            CheckpointError: If a file is missing or damaged, or the weights are not the tagged ones.
        """
        import mlflow.artifacts

        where = f"{version.name}/{version.version}"
        if "generator_sha256" not in version.tags:
            raise RegistryError("not a model of ours", where, "no generator_sha256 tag", "a version registered by gan")
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
                "weights differ from the tag", where, model.sha256[:12], version.tags["generator_sha256"][:12]
            )
        return model

    # Registration

    def register(self, name: str, run_id: str, model: PortableGenerator, tags: Mapping[str, Any]) -> ModelVersion:
        """Register once, however often it is called: the version of this model with these tags.

        Artifacts are uploaded first, the version is created once with its key among its tags, and
        then looked for again: of two with one key, the lower stays and the other is marked.
        """
        key = digest([name, tags["run"], tags["weights_sha256"], tags["config_digest"]])
        found = self._with_key(name, key)
        if not found:
            with registry_errors(self.uri):
                self._ensure_model(name)
                source, model_id = self._upload(run_id, model, tags)
                plain = {tag: str(value) for tag, value in tags.items()}
                self.client.create_model_version(name, source, run_id, tags={**plain, KEY_TAG: key}, model_id=model_id)
            found = self._with_key(name, key)
        first, *duplicates = found
        with registry_errors(self.uri):
            for duplicate in duplicates:
                self.client.set_model_version_tag(name, str(duplicate.version), DUPLICATE_TAG, str(first.version))
        return first

    def set_alias(self, version: ModelVersion, alias: str) -> ModelVersion:
        """Move an alias to a version, and read it back."""
        with registry_errors(self.uri):
            self.client.set_registered_model_alias(version.name, alias, str(version.version))
        moved = self.resolve(f"{version.name}@{alias}")
        if moved.version != version.version:
            raise RegistryError(
                "alias was moved meanwhile", f"{version.name}@{alias}", str(moved.version), str(version.version)
            )
        return moved

    def tag(self, version: ModelVersion, tags: Mapping[str, str]) -> None:
        """Set tags of a version."""
        with registry_errors(self.uri):
            for key, value in tags.items():
                self.client.set_model_version_tag(version.name, str(version.version), key, value)

    def holder(self, name: str, alias: str) -> ModelVersion | None:
        """The version that holds an alias, if one does."""
        return next((version for version in self.versions(name) if alias in version.aliases), None)

    def _with_key(self, name: str, key: str) -> list[ModelVersion]:
        with registry_errors(self.uri):
            found = self.client.search_model_versions(f"name='{checked_name(name)}' and tags.`{KEY_TAG}`='{key}'")
            aliases = self._aliases(name) if found else {}
        return sorted((_version(item, aliases) for item in found), key=lambda version: version.version)

    def _aliases(self, name: str) -> dict[str, int]:
        # search_model_versions() leaves aliases out; the registered model has them.
        return {alias: int(number) for alias, number in self.client.get_registered_model(name).aliases.items()}

    def _ensure_model(self, name: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _upload(self, run_id: str, model: PortableGenerator, tags: Mapping[str, Any]) -> tuple[str, str]:
        """Log the model, as plain MLflow can use it, and return where it is and its id."""
        import warnings

        import mlflow
        from mlflow.models import ModelSignature
        from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

        signature = ModelSignature(
            inputs=Schema([TensorSpec(np.dtype("float32"), (-1, model.noise.size))]),
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *model.image_shape))]),
            params=ParamSchema([ParamSpec("num_samples", "long", 0), ParamSpec("seed", "long", 0)]),
        )
        mlflow.set_tracking_uri(self.uri)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
            warnings.simplefilter("ignore")
            save_generator(Path(folder) / "generator", model, {"run": tags["run"]})
            logged = mlflow.pyfunc.log_model(
                name="generator",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"generator": str(Path(folder) / "generator")},
                code_paths=[str(Path(str(gan_core.__file__)).parent)],
                signature=signature,
                pip_requirements=_requirements(),
            )
        return f"models:/{logged.model_id}", str(logged.model_id)


def checked_name(name: str) -> str:
    """A model name that any registry takes.

    Raises:
        RegistryError: If it is not one.
    """
    if not MODEL_NAME.fullmatch(name):
        raise RegistryError(
            "not a model name",
            repr(name)[:80],
            "characters or a length a registry may refuse",
            "1 to 128 of A-Z a-z 0-9 _ . -",
        )
    return name


def _version(item: Any, aliases: Mapping[str, int]) -> ModelVersion:
    number = int(item.version)
    held = tuple(sorted(alias for alias, holder in aliases.items() if holder == number))
    return ModelVersion(item.name, number, held, dict(item.tags), item.source)


def _requirements() -> list[str]:
    from importlib.metadata import version

    # What gan_core.portable imports, and MLflow itself, as they are here.
    names = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "jaxtyping", "mlflow")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
