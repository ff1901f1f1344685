"""Register a model once, however often it is asked for: upload, create with a key, look again."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import gan_core
from gan_core.errors import RegistryError
from gan_core.extensions.inference import Inference
from gan_core.extensions.portable_encoder import save_inference
from gan_core.portable import PortableGenerator, save_generator
from pipelines.config import digest
from pipelines.registry.mlflow_client import registry_errors, without_retries
from pipelines.registry.reference import checked_name
from pipelines.registry.registry import DUPLICATE_TAG, KEY_TAG, ModelVersion, Registry

PARAMETERS = {"num_samples": 0, "seed": 0, "condition": -1}  # of the model as plain MLflow loads it


def register(
    registry: Registry, name: str, run_id: str, model: PortableGenerator | Inference, tags: Mapping[str, Any]
) -> ModelVersion:
    """The version of this model (with its encoder, if it has one) with these tags: the one there is, or a new one.

    Artifacts are uploaded first, the version is created once with its key among its tags, and
    then looked for again: of two with one key, the lower stays and the other is marked.
    """
    key = digest([checked_name(name), tags["run"], tags["weights_sha256"], tags["config_digest"]])
    found = _with_key(registry, name, key)
    if not found:
        with registry_errors(registry.uri):
            _ensure_model(registry.client, name)
            source, model_id = _upload(registry.uri, run_id, model, tags)
            plain = {tag: str(value) for tag, value in tags.items()}
        failure = None
        try:
            with without_retries(), registry_errors(registry.uri):
                create = registry.client.create_model_version
                create(name, source, run_id, tags={**plain, KEY_TAG: key}, model_id=model_id)
        except RegistryError as error:  # it may have been created all the same: look
            failure = error
        found = _with_key(registry, name, key)
        if failure is not None and not found:
            raise failure
    first, *duplicates = found
    for duplicate in duplicates:
        registry.tag(duplicate, {DUPLICATE_TAG: str(first.version)})
    return first


def _with_key(registry: Registry, name: str, key: str) -> list[ModelVersion]:
    """The versions with this key, oldest first."""
    return registry.by_tag(KEY_TAG, key, name)[::-1]


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _upload(uri: str, run_id: str, model: PortableGenerator | Inference, tags: Mapping[str, Any]) -> tuple[str, str]:
    """Log the model, as plain MLflow can use it, and return where it is and its id."""
    import warnings

    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ParamSchema, ParamSpec, Schema, TensorSpec

    generator = model.model if isinstance(model, Inference) else model
    # No schema of the input: MLflow's arrays are never optional, and whoever draws by `num_samples` has no z.
    signature = ModelSignature(
        outputs=Schema([TensorSpec(np.dtype("float32"), (-1, *generator.image_shape))]),
        params=ParamSchema([ParamSpec(name, "long", default) for name, default in PARAMETERS.items()]),
    )
    mlflow.set_tracking_uri(uri)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), mlflow.start_run(run_id=run_id):
        warnings.simplefilter("ignore")
        place, about = Path(folder) / "generator", {"run": tags["run"]}
        if isinstance(model, Inference):
            save_inference(place, model, about)
        else:
            save_generator(place, model, about)
        logged = mlflow.pyfunc.log_model(
            name="generator",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"generator": str(place)},
            code_paths=[str(Path(str(gan_core.__file__)).parent)],
            signature=signature,
            pip_requirements=_requirements(),
        )
    return f"models:/{logged.model_id}", str(logged.model_id)


def _requirements() -> list[str]:
    from importlib.metadata import version

    # What gan_core.portable imports, and MLflow itself, as they are here.
    names = ("torch", "numpy", "scipy", "scikit-learn", "safetensors", "jaxtyping", "mlflow")
    return [f"{name}=={version(name).split('+')[0]}" for name in names]
