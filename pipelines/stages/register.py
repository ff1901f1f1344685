"""The stage that copies a finished run into MLflow, registers its model and lets the gate decide."""

import json
from collections.abc import Callable
from typing import Any

from gan_core.datasets import Dataset
from gan_core.extensions.measures import headline
from pipelines import config
from pipelines.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from pipelines.registry.address import recorded
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.promotion_gate import judge_version
from pipelines.registry.registration import register, registering
from pipelines.runs import code_version, warm_start
from pipelines.runs.records import RegisterRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.stages.run_tracking import failed_trainings, run_tracking
from pipelines.storage import run_layout
from pipelines.storage.metric_log import read_history

RECIPE_TAG = "recipe_digest"


def publish(run: Run, registry: Registry, dataset: Dataset, log: Callable[[str], None]) -> RegisterRecord:
    """Copy the run into MLflow, register its model once, and let the gate decide on `champion`.

    Raises:
        RegistryError: If MLflow cannot be reached; everything of the run is kept.
    """
    records, model_name = run.records(), run.configuration.registry.model
    with registering(
        registry, model_name, run.name
    ):  # else six machines with one run would make six of each MLflow run
        parent = _copy(run, registry, dataset, records)
    model = trained_inference(run) if "infer" in records else run.generator()
    version = register(registry, model_name, parent, model, _tags(run, records))
    return _promote(run, registry, version, dataset, log)


def _copy(run: Run, registry: Registry, dataset: Dataset, records: dict[str, dict[str, Any]]) -> str:
    """Copy the run and its finished stages into MLflow's runs; the id of the parent."""
    settings = run.configuration
    runs = run_tracking(run, registry)
    chosen = records["tune"]["chosen"] if "tune" in records else {}
    runs.describe(
        config.to_yaml(settings), {"seed": settings.seed, **_headline(run), **chosen}, dataset, f"`{run.name}`"
    )
    history, table = read_history(run.folder.child(run_layout.HISTORY)), run.folder.read(run_layout.TABLE)
    for stage in ("tune", "train", "infer", "evaluate"):
        if stage in records:
            files = {"table.parquet": table} if stage == "tune" and table else {}
            rows, failed = (history, failed_trainings(run)) if stage == "train" else ((), 0)
            runs.stage(stage, run.name, records[stage], rows, files, failed)
    return runs.parent


def recipe_digest(run: Run) -> str:
    """Digest of what a night is made from: its configuration without the seed, its origin and our sources."""
    plain = {key: value for key, value in config.identity(run.configuration).items() if key != "seed"}
    return config.digest([plain, run.origin.digest if run.origin else None, code_version.digest()])


def unchanged(run: Run, registry: Registry, dataset: Dataset) -> ModelVersion | None:
    """The model's newest version, if another run made it from the same data by the same recipe, its seed apart."""
    name = run.configuration.registry.model
    newest = next(iter(registry.versions(name)), None)
    if newest is None or newest.tags.get("run") == run.name:
        return None
    made = (newest.tags.get("data_digest"), newest.tags.get(RECIPE_TAG))
    return newest if made == (dataset.digest, recipe_digest(run)) else None


def _promote(
    run: Run, registry: Registry, version: ModelVersion, dataset: Dataset, log: Callable[[str], None]
) -> RegisterRecord:
    history = ChampionHistory(registry, version.name)
    history.challenge(version)
    verdict = history.promote(
        version, lambda champion: judge_version(registry, version, champion, run.configuration, dataset)
    )
    log(f"gate   {version}: {verdict.reason}")
    alias = CHAMPION if verdict.promoted else CHALLENGER
    return RegisterRecord(
        version.name,
        version.version,
        alias,
        verdict.promoted,
        verdict.reason,
        verdict.collapsed,
        recorded(registry.uri),
    )


def _tags(run: Run, records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The version's tags: what it is, what it was made from, and its numbers with their protocol."""
    trained, score = records["train"], records["evaluate"]
    metrics = {key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")}
    return {
        "run": run.name,
        "data": run.configuration.data.name,
        "data_settings": json.dumps(_data_settings(run)),
        "data_digest": score["data_digest"],
        "config_digest": run.config_digest,
        RECIPE_TAG: recipe_digest(run),
        "commit": run.commit,
        "weights_sha256": trained["weights_sha256"],
        "generator_sha256": score["generator_sha256"],
        "weights": score["weights"],
        **({"encoder_sha256": records["infer"]["encoder_sha256"]} if "infer" in records else {}),
        "step": trained["step"],
        **warm_start.tags(run),
        "protocol": f"paper: {score['paper']['samples']} samples, sigma from {score['paper']['validation_points']} validation points",
        **metrics,
        "metrics": json.dumps(
            {
                **metrics,
                "cross_validated_log_likelihood": score["cross_validated"]["log_likelihood"],
                **headline(score["extension"]),
            }
        ),
    }


def _data_settings(run: Run) -> dict[str, Any]:
    """The data's section without the places of this machine: which fold, size and preprocessing it was."""
    data = config.to_plain(run.configuration.data)
    return {key: value for key, value in data.items() if key not in ("root", "download")}


def _headline(run: Run) -> dict[str, Any]:
    settings = run.configuration
    algorithm = settings.algorithm
    return {
        "data.name": settings.data.name,
        "noise.size": settings.noise.size,
        "algorithm.scheme": algorithm.scheme,
        "algorithm.discriminator_steps": algorithm.discriminator_steps,
        "algorithm.generator_learning_rate": algorithm.generator_learning_rate,
        "algorithm.discriminator_learning_rate": algorithm.discriminator_learning_rate,
        "algorithm.batch_size": algorithm.batch_size,
        "algorithm.steps": algorithm.steps,
        "train.workers": settings.train.workers,
    }
