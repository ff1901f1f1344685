"""The stage that copies a finished run into MLflow, registers its model and lets the gate decide."""

import contextlib
import json
from collections.abc import Callable
from typing import Any

from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError
from gan_core.extensions.measures import headline
from pipelines import config
from pipelines.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from pipelines.registry.address import recorded
from pipelines.registry.champion_history import ChampionHistory
from pipelines.registry.promotion_gate import judge_version
from pipelines.registry.registration import register, registering
from pipelines.registry.tracking import Tracking
from pipelines.reporting import model_card
from pipelines.runs import code_version, warm_start
from pipelines.runs.records import RegisterRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.search.search_table import search_rows
from pipelines.stages.candidate_runs import candidate_runs, validation_curve
from pipelines.stages.run_tracking import command, failed_trainings, run_tracking, sample_pictures, stage_span
from pipelines.storage import run_layout
from pipelines.storage.metric_log import read_history

RECIPE_TAG = "recipe_digest"


def publish(run: Run, registry: Registry, dataset: Dataset, log: Callable[[str], None]) -> RegisterRecord:
    """Copy the run into MLflow, register its model once, and let the gate decide on `champion`.

    Raises:
        RegistryError: If MLflow cannot be reached; everything of the run is kept.
    """
    records, model_name = run.records(), run.configuration.registry.model
    about = model_card.of_model(run.configuration.data.name)
    # Else six machines with one run would make six of each MLflow run.
    with registering(registry, model_name, run.name, about):
        runs, card = _copy(run, registry, dataset, records)
    model = trained_inference(run) if "infer" in records else run.generator()
    version = register(registry, model_name, runs.parent, model, _tags(run, records), card)
    scored = stage_span(run, "evaluate", records["evaluate"])
    registry.backend.show_version(version, runs.parent, _scores(records), scored.ended_ms)
    return _promote(run, registry, version, dataset, log)


def _copy(run: Run, registry: Registry, dataset: Dataset, records: dict[str, dict[str, Any]]) -> tuple[Tracking, str]:
    """Copy the run and its finished stages into MLflow's runs; these, and what the run's page says of it."""
    runs = run_tracking(run, registry)
    card = model_card.of_run(
        run.name, records, dataset, command(run), run.commit, experiment=runs.experiment, run_id=runs.parent
    )
    settings = config.flat(config.identity(run.chosen()))
    runs.describe(config.to_yaml(run.configuration), settings, dataset, card)
    history, table = read_history(run.folder.child(run_layout.HISTORY)), run.folder.read(run_layout.TABLE)
    curves = list(history)
    for stage in ("tune", "train", "infer", "evaluate"):
        if stage in records:
            files = {"table.parquet": table} if stage == "tune" and table else {}
            rows, failed = (curves, failed_trainings(run)) if stage == "train" else ((), 0)
            span = stage_span(run, stage, records[stage])
            stage_run = runs.stage(stage, run.name, records[stage], rows, files, failed, span)
            if stage == "tune":
                with contextlib.suppress(CheckpointError):  # a damaged table, which the report stage names
                    found = candidate_runs(run.name, records["tune"], search_rows(run.folder), span)
                    runs.candidates(stage_run, found)
                    curves += validation_curve(found)
    runs.pictures(sample_pictures(run, history))
    return runs, card


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
        "sigma": score["sigma"],
        "metrics": json.dumps(_scores(records)),
    }


def _scores(records: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The version's numbers."""
    score = records["evaluate"]
    return {
        **{key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")},
        "cross_validated_log_likelihood": score["cross_validated"]["log_likelihood"],
        **headline(score["extension"]),
    }


def _data_settings(run: Run) -> dict[str, Any]:
    """The data's section without the places of this machine: which fold, size and preprocessing it was."""
    data = config.to_plain(run.configuration.data)
    return {key: value for key, value in data.items() if key not in ("root", "download")}
