"""The registry in MLflow: its models; every call to MLflow's client is here and in `mlflow_runs`."""

import contextlib
import json
import os
import tempfile
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import gan_core
from gan_core.errors import RegistryError
from pipelines.registry.address import implausible_answer, redacted
from pipelines.registry.mlflow_client import one_line_errors, unless_there, without_retries
from pipelines.registry.mlflow_runs import MlflowRuns
from pipelines.registry.model_version import ModelVersion, RegisteredModel

FILES_FOLDER = "artifacts/generator"  # of a logged model
VERSIONS_TAG = "mlflow.modelVersions"  # of a logged model, which its page reads
PREDICT_PARAMETERS = {"num_samples": 0, "seed": 0, "condition": -1}  # of the model as plain MLflow loads it


@contextlib.contextmanager
def _tracked_by(uri: str) -> Iterator[None]:
    """Let MLflow's own functions work on this registry in the block; they note its address in the environment, for others."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    before = os.environ.get("MLFLOW_TRACKING_URI")
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before


class MlflowBackend(MlflowRuns):
    """A `Backend`: models and runs behind MLflow's client. Searches ask for `page_size` entries at a time, and for all pages.

    An empty answer is not believed alone. A server says `{}` where a search finds nothing, and so does much
    that is no registry, or is not up yet; MLflow's client reads it as an empty list, or as a model without a name.
    """

    page_size = 200

    @one_line_errors
    def models(self) -> list[str]:
        names = sorted(model.name for model in self._pages(self.client.search_registered_models))
        if not names:  # no version either, and only a registry says of a name that there is no such model
            if versions := self.versions():
                raise implausible_answer(self.uri, f"no models, and {len(versions)} versions")
            self._model(f"gan-{uuid.uuid4().hex}")
        return names

    @one_line_errors
    def model(self, name: str) -> RegisteredModel | None:
        model = self._model(name)
        return None if model is None else _registered(model)

    @one_line_errors
    def versions(self, name: str | None = None, tag: tuple[str, str] | None = None) -> list[ModelVersion]:
        query = [f"name='{name}'"] if name is not None else []
        query += [f"tags.`{tag[0]}`='{tag[1]}'"] if tag is not None else []
        items = self._pages(self.client.search_model_versions, filter_string=" and ".join(query) or None)
        if not items and name is not None:
            self._check_none(name, tag)
        models = self._models({item.name for item in items})
        versions = [_version_of(item, models[item.name]) for item in items]
        return sorted(versions, key=lambda version: (version.name, -version.version))

    @one_line_errors
    def version(self, name: str, number: int) -> ModelVersion | None:
        item = _existing(lambda: self.client.get_model_version(name, str(number)))
        if item is None:
            return None
        if (item.name, str(item.version)) != (name, str(number)):
            raise implausible_answer(self.uri, f"nothing about {name}/{number}")
        return _version_of(item, self.model(name))

    @one_line_errors
    def create_model(self, name: str, description: str = "") -> None:
        unless_there(lambda: self.client.create_registered_model(name, description=description or None))
        if self._model(name) is None:
            raise implausible_answer(self.uri, f"nothing of {name}, which it was to create")

    @one_line_errors
    def create_version(
        self, name: str, source: str, tags: Mapping[str, str], run_id: str | None = None, description: str = ""
    ) -> None:
        model_id = source.removeprefix("models:/") if source.startswith("models:/") else None
        with without_retries(), _tracked_by(self.uri):  # where its source is looked for
            self.client.create_model_version(
                name, source, run_id, tags=dict(tags), model_id=model_id, description=description or None
            )

    @one_line_errors
    def show_version(self, version: ModelVersion, run_id: str, metrics: Mapping[str, float], time_ms: int) -> None:
        """Link the logged model to its version: a server does so itself, MLflow's client on a database does not."""
        from mlflow.entities import Metric

        model_id = version.source.removeprefix("models:/")
        logged = self.client.get_logged_model(model_id)
        if VERSIONS_TAG not in logged.tags:
            versions = json.dumps([{"name": version.name, "version": str(version.version)}])
            self.client.set_logged_model_tags(model_id, {VERSIONS_TAG: versions})
        known = {metric.key for metric in logged.metrics or ()}
        new = [Metric(key, value, time_ms, 0, model_id) for key, value in metrics.items() if key not in known]
        if new:
            self.client.log_batch(run_id, metrics=new)

    @one_line_errors
    def delete_version(self, name: str, number: int) -> None:
        self.client.delete_model_version(name, str(number))

    @one_line_errors
    def set_version_tag(self, name: str, number: int, tag: str, value: str) -> None:
        self.client.set_model_version_tag(name, str(number), tag, value)

    @one_line_errors
    def set_alias(self, name: str, alias: str, number: int) -> None:
        self.client.set_registered_model_alias(name, alias, str(number))

    @one_line_errors
    def set_tag(self, name: str, tag: str, value: str) -> None:
        self.client.set_registered_model_tag(name, tag, value)

    @one_line_errors
    def delete_tag(self, name: str, tag: str) -> None:
        self.client.delete_registered_model_tag(name, tag)

    @one_line_errors
    def upload(self, run_id: str, save: Callable[[Path], object], image_shape: Sequence[int]) -> str:
        """Log the files as a model that plain MLflow loads and samples, with the code it needs."""
        import mlflow
        import numpy as np
        from mlflow.models import ModelSignature
        from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

        # No schema of the input: MLflow's arrays are never optional, and whoever draws by `num_samples` has no z.
        signature = ModelSignature(
            outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *image_shape))]),
            params=ParamSchema([ParamSpec(name, "long", default) for name, default in PREDICT_PARAMETERS.items()]),
        )
        with (
            tempfile.TemporaryDirectory() as folder,
            warnings.catch_warnings(),
            _tracked_by(self.uri),
            mlflow.start_run(run_id=run_id),
        ):
            warnings.simplefilter("ignore")
            files = Path(folder) / "generator"
            save(files)
            logged = mlflow.pyfunc.log_model(
                name="generator",
                python_model=str(Path(__file__).with_name("pyfunc_model.py")),
                artifacts={"generator": str(files)},
                code_paths=[str(Path(str(gan_core.__file__)).parent)],
                signature=signature,
                pip_requirements=_requirements(),
            )
        if not logged.model_id:
            raise RegistryError(
                "not uploaded", redacted(self.uri), "a model without an id", "an MLflow server that is up"
            )
        return f"models:/{logged.model_id}"

    @one_line_errors
    def download(self, source: str, names: Sequence[str], folder: Path) -> None:
        import mlflow.artifacts

        from gan_core.portable import most_bytes

        # Not by models:/NAME/VERSION, which MLflow would look up in its global registry.
        location = self.client.get_logged_model(source.removeprefix("models:/")).artifact_location
        place = f"{location}/{FILES_FOLDER}"
        for listed in mlflow.artifacts.list_artifacts(artifact_uri=place, tracking_uri=self.uri):
            name = PurePosixPath(listed.path).name
            if name in names and (listed.file_size or 0) > most_bytes(name):
                raise RegistryError(
                    "file too large", f"{place}/{name}", f"{listed.file_size:,} bytes", f"at most {most_bytes(name):,}"
                )
        for name in names:
            mlflow.artifacts.download_artifacts(
                artifact_uri=f"{place}/{name}", dst_path=str(folder), tracking_uri=self.uri
            )

    @one_line_errors
    def delete_files(self, source: str) -> None:
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        model_id = source.removeprefix("models:/")
        location = self.client.get_logged_model(model_id).artifact_location
        self.client.delete_logged_model(model_id)
        get_artifact_repository(location, tracking_uri=self.uri).delete_artifacts()

    def _models(self, names: Collection[str]) -> dict[str, RegisteredModel | None]:
        """These models, which have the aliases that a search of versions leaves out: of several, all in one search."""
        found = map(_registered, self._pages(self.client.search_registered_models)) if len(names) > 1 else ()
        listed = {model.name: model for model in found}
        return {name: listed.get(name) or self.model(name) for name in names}

    def _check_none(self, name: str, tag: tuple[str, str] | None) -> None:
        """Refuse to believe that there are no versions of a model, or none with a tag, if another answer says that there are.

        Raises:
            ImplausibleAnswer: If so.
        """
        if tag is not None and any(version.tags.get(tag[0]) == tag[1] for version in self.versions(name)):
            raise implausible_answer(self.uri, f"no versions of {name} with the {tag[0]} of one")
        if tag is None and (model := self._model(name)) and model.latest_versions:
            latest = model.latest_versions[0].version
            raise implausible_answer(self.uri, f"no versions of {name}, whose latest is {latest}")

    def _model(self, name: str) -> Any:
        """MLflow's entity of a model, or None if there is none."""
        model = _existing(lambda: self.client.get_registered_model(name))
        if model is not None and model.name != name:
            raise implausible_answer(self.uri, f"nothing about {name}")
        return model

    def _pages(self, search: Callable[..., Any], **arguments: Any) -> list[Any]:
        items, token = [], None
        while True:
            page = search(max_results=self.page_size, page_token=token, **arguments)
            items += page
            token = page.token
            if not token:
                return items


def _registered(model: Any) -> RegisteredModel:
    """What MLflow's entity of a model says of it."""
    aliases = {alias: int(number) for alias, number in model.aliases.items()}  # int from sqlite, else text
    return RegisteredModel(model.name, aliases, dict(model.tags))


def _version_of(item: Any, model: RegisteredModel | None) -> ModelVersion:
    """MLflow's entity of a version, with the aliases that its model has on it."""
    number = int(item.version)  # an int from sqlite, text from a server
    aliases = tuple(sorted(alias for alias, holder in model.aliases.items() if holder == number)) if model else ()
    return ModelVersion(item.name, number, aliases, dict(item.tags), item.source, int(item.creation_timestamp))


def _existing(get: Callable[[], Any]) -> Any:
    """What `get` gives, or None if MLflow says that there is no such thing."""
    from mlflow.exceptions import MlflowException

    try:
        return get()
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _requirements() -> list[str]:
    from importlib.metadata import version

    # What gan_core.portable imports, and MLflow itself, as they are here.
    names = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "jaxtyping", "mlflow")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
