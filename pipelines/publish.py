"""What the driver makes of a finished run: its MLflow runs, its registered version, its page."""

import contextlib
import io
import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import numpy as np

from gan_core.checkpoint import checkpoint_step
from gan_core.datasets import Dataset
from gan_core.errors import GanError
from gan_core.extensions.conditional import Classes
from gan_core.extensions.imputation import completions
from gan_core.extensions.masks import named_mask
from gan_core.extensions.measures import headline
from gan_core.extensions.observed import Observed
from gan_core.portable import PortableGenerator
from pipelines import config, figures, origin, report, sources
from pipelines.history import read_history
from pipelines.infer import trained_inference
from pipelines.mlflow_client import recorded
from pipelines.records import RegisterRecord, ReportRecord
from pipelines.registry import CHALLENGER, CHAMPION, ModelVersion, Registry
from pipelines.registry.moves import Moves
from pipelines.registry.promotion import judge_version
from pipelines.registry.registration import register
from pipelines.run import Run
from pipelines.storage import checkpoint_names
from pipelines.tracking import Tracking

PAGE = "report.html"
RECIPE_TAG = "recipe_digest"


def publish(run: Run, registry: Registry, dataset: Dataset, say: Callable[[str], None]) -> RegisterRecord:
    """Copy the run into MLflow, register its model once, and let the gate decide on `champion`.

    Raises:
        RegistryError: If MLflow cannot be reached; everything of the run is kept.
    """
    settings = run.configuration
    records = run.records()
    runs = _runs(run, registry)
    chosen = records["tune"]["chosen"] if "tune" in records else {}
    runs.describe(
        config.to_yaml(settings), {"seed": settings.seed, **_headline(run), **chosen}, dataset, f"`{run.name}`"
    )
    history, table = read_history(run.folder.within("history")), run.folder.read("tune/table.parquet")
    for stage in ("tune", "train", "infer", "evaluate"):
        if stage in records:
            files = {"table.parquet": table} if stage == "tune" and table else {}
            runs.stage(stage, run.name, records[stage], history if stage == "train" else (), files)
    model = trained_inference(run) if "infer" in records else run.generator()
    version = register(registry, settings.registry.model, runs.parent, model, _tags(run, records))
    return _promote(run, registry, version, dataset, say)


def recipe_digest(run: Run) -> str:
    """Digest of what a night is made from: its configuration without the seed, its origin and our sources."""
    plain = {key: value for key, value in config.identity(run.configuration).items() if key != "seed"}
    return config.digest([plain, run.origin.digest if run.origin else None, sources.digest()])


def unchanged(run: Run, registry: Registry, dataset: Dataset) -> ModelVersion | None:
    """The model's newest version, if another run made it from the same data by the same recipe, its seed apart."""
    name = run.configuration.registry.model
    newest = registry.versions(name)[0] if name in registry.models() else None
    if newest is None or newest.tags.get("run") == run.name:
        return None
    made = (newest.tags.get("data_digest"), newest.tags.get(RECIPE_TAG))
    return newest if made == (dataset.digest, recipe_digest(run)) else None


def curves_follower(run: Run, registry: "Future[Registry]") -> Callable[[], None]:
    """A function that copies a training's new history rows into MLflow, for those who watch.

    Nothing depends on it: `publish` copies all of it again, which changes nothing.
    """
    copied = 0

    def copy() -> None:
        nonlocal copied
        with contextlib.suppress(GanError):
            # Steps after the last checkpoint may be repeated, at another time of day: not yet.
            kept = max(
                (checkpoint_step(name) for name in checkpoint_names(run.folder.within("checkpoints"))), default=0
            )
            rows = [row for row in read_history(run.folder.within("history")) if copied < row["step"] <= kept]
            if rows and registry.done():
                _runs(run, registry.result()).curves(run.name, rows)
                copied = int(rows[-1]["step"])

    return copy


def write_report(run: Run, dataset: Dataset, registry: Registry | None) -> ReportRecord:
    """Draw the pictures, write the page into the run's folder, and copy both to MLflow if it is there."""
    started = time.monotonic()
    records, model, seed = run.records(), run.generator(), run.configuration.seed
    assert isinstance(seed, int)
    pictures = {
        "samples.png": figures.png(figures.samples_with_neighbours(model, dataset.train.references, seed)),
        "interpolation.png": figures.png(figures.interpolation(model, seed)),
        "curves.png": figures.curves(read_history(run.folder.within("history"))),
        "sigma.png": figures.sigma_curves([records["evaluate"][name] for name in ("paper", "cross_validated")]),
    }
    if isinstance(model.conditions, Classes):
        pictures["classes.png"] = figures.png(figures.class_grid(model, seed))
    elif isinstance(model.conditions, Observed):
        pictures["completions.png"] = figures.png(_completed(model, dataset, seed))
    if "infer" in records:
        pictures["reconstructions.png"] = _reconstructions(run, dataset)
    table = run.folder.read("tune/table.parquet")
    if table and "tune" in records:
        pictures["search.png"] = figures.search_plot(_rows(table), sorted(records["tune"]["chosen"]))
    yaml = config.to_yaml(run.configuration)
    page = report.render(
        run.name, dataset.name, records, pictures, yaml, run.commit, run.configuration.evaluate.neighbours
    ).encode()
    for name, content in {PAGE: page, **pictures}.items():
        run.folder.within("report").write(name, content)
    if registry is not None:
        score = records["evaluate"]
        _runs(run, registry).finish(
            {key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")},
            {PAGE: page, **pictures},
        )
    return ReportRecord(run.folder.within("report", PAGE).uri, time.monotonic() - started)


def _completed(model: PortableGenerator, dataset: Dataset, seed: int, most: int = 12) -> np.ndarray:
    """The first test images with the right half missing, and completions of them."""
    images, mask = dataset.test.images[:most], named_mask("right", dataset.shape)
    filled = completions(model, images, mask[None], 8, seed)
    shown = images.reshape(-1, *dataset.shape)
    return figures.completion_grid(shown, np.broadcast_to(mask, shown.shape), filled, model.pixels)


def _reconstructions(run: Run, dataset: Dataset) -> bytes:
    """The first test images, and beside each what the encoder and the generator make of it."""
    inference, shown = trained_inference(run), dataset.test.images[:40]
    images = shown.reshape(len(shown), *dataset.shape)
    return figures.png(figures.pairs(images, inference.reconstruct(shown), run.configuration.data.pixels))


def _runs(run: Run, registry: Registry) -> Tracking:
    model = run.configuration.registry.model
    return Tracking(registry.client, registry.uri, model, run.name, run.storage.within("mlartifacts"))


def _promote(
    run: Run, registry: Registry, version: ModelVersion, dataset: Dataset, say: Callable[[str], None]
) -> RegisterRecord:
    moves = Moves(registry, version.name)
    moves.challenge(version)
    verdict = moves.promote(
        version, lambda champion: judge_version(registry, version, champion, run.configuration, dataset)
    )
    say(f"gate   {version}: {verdict.reason}")
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
        **origin.tags(run),
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


def _rows(table: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return list(pyarrow.parquet.read_table(io.BytesIO(table)).to_pylist())
