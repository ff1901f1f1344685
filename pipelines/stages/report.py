"""The stage that writes a run's page, and hands it to MLflow."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from gan_core.conditions.classes import Classes
from gan_core.conditions.masks import named_mask
from gan_core.conditions.observed import Observed
from gan_core.datasets import Dataset
from gan_core.extensions.imputation import completions
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.portable import PortableGenerator
from pipelines import config
from pipelines.registry import Registry
from pipelines.registry.tracking import Tracking
from pipelines.reporting import figures, html_report, narrative
from pipelines.runs.records import ReportRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.search.search_table import search_rows
from pipelines.stages.run_tracking import run_tracking, stage_span
from pipelines.stages.training_samples import read_strip
from pipelines.storage import run_layout
from pipelines.storage.metric_log import read_history


def write_report(run: Run, dataset: Dataset, registry: Registry | None) -> ReportRecord:
    """Draw the pictures, write the page into the run's folder, and copy both to MLflow if it is there."""
    started = time.monotonic()
    records, model, seed = run.records(), run.generator(), run.configuration.seed
    history = read_history(run.folder.child(run_layout.HISTORY))
    pictures = {
        "samples.png": figures.png(figures.samples_with_neighbours(model, dataset.train.references, seed)),
        "interpolation.png": figures.png(figures.interpolation(model, seed)),
        "curves.png": figures.curves(history),
        "sigma.png": figures.sigma_curves([records["evaluate"][name] for name in ("paper", "cross_validated")]),
    }
    if isinstance(model.conditions, Classes):
        pictures["classes.png"] = figures.png(figures.class_grid(model, seed))
    elif isinstance(model.conditions, Observed):
        pictures["completions.png"] = figures.png(_completed(model, dataset, seed))
    if "infer" in records:
        pictures["reconstructions.png"] = _reconstructions(run, dataset)
    candidates = search_rows(run.folder) if "tune" in records else []
    if candidates:
        pictures["search.png"] = figures.search_plot(candidates, sorted(records["tune"]["chosen"]))
    tracking = run_tracking(run, registry) if registry is not None else None
    page = html_report.render(
        html_report.RunPage(
            run=run.name,
            data=dataset.name,
            records={**records, "evaluate": with_mean_image(records["evaluate"], dataset)},
            pictures=pictures,
            configuration=config.to_yaml(run.configuration),
            commit=run.commit,
            neighbours=run.configuration.evaluate.neighbours,
            settings=config.to_plain(run.configuration),
            history=history,
            candidates=candidates,
            strip=read_strip(run.folder),
            environment=run.folder.read_json(run_layout.ENVIRONMENT),
            continued_from=run.origin.reference if run.origin else None,
            links=_links(records.get("register"), tracking),
        )
    ).encode()
    for name, content in {run_layout.PAGE: page, **pictures}.items():
        run.folder.child(run_layout.REPORT).write(name, content)
    if tracking is not None:
        score = records["evaluate"]
        scored, ended = (stage_span(run, stage, {"seconds": 0}).ended_ms for stage in ("evaluate", "register"))
        numbers = {key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")}
        # A page that is written anew, days later, does not make the run last for days.
        ended += round(1000 * (time.monotonic() - started))
        tracking.finish({**numbers, "time_ms": scored}, {run_layout.PAGE: page, **pictures}, ended_ms=ended)
    return ReportRecord(run.folder.child(run_layout.REPORT, run_layout.PAGE).uri, time.monotonic() - started)


def with_mean_image(score: Mapping[str, Any], dataset: Dataset) -> dict[str, Any]:
    """A score with one more reference row: what the mean of the training images alone would have, in nats.

    It is what a G that ignores z can reach, and the lower end of the page's scale.
    """
    mean = dataset.train.references.mean(axis=0, keepdims=True)
    parzen = paper_protocol(
        lambda points, sigmas: parzen_log_density(points, mean, sigmas),
        dataset.validation.images,
        dataset.test.images,
        1,
    )
    row = {key: getattr(parzen, key) for key in ("log_likelihood", "standard_error", "sigma")}
    return {**score, "references": {**score["references"], narrative.MEAN_IMAGE: row}}


def _links(registered: Mapping[str, Any] | None, tracking: Tracking | None) -> dict[str, str]:
    """Where a browser finds the version and the run, if the registry is a server."""
    if registered is None or tracking is None or not registered["tracking_uri"]:
        return {}
    server, version = registered["tracking_uri"].rstrip("/"), f"{registered['model']}/{registered['version']}"
    return {
        version: f"{server}/#/models/{registered['model']}/versions/{registered['version']}",
        f"run {tracking.parent}": f"{server}/#/experiments/{tracking.experiment}/runs/{tracking.parent}",
    }


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
