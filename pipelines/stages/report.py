"""The stage that writes a run's page, and hands it to MLflow."""

import time

import numpy as np

from gan_core.conditions.classes import Classes
from gan_core.conditions.masks import named_mask
from gan_core.conditions.observed import Observed
from gan_core.datasets import Dataset
from gan_core.extensions.imputation import completions
from gan_core.portable import PortableGenerator
from pipelines import config
from pipelines.registry import Registry
from pipelines.reporting import figures, html_report
from pipelines.runs.records import ReportRecord
from pipelines.runs.run import Run
from pipelines.runs.trained_models import trained_inference
from pipelines.search.search_table import search_rows
from pipelines.stages.run_tracking import run_tracking
from pipelines.storage import run_layout
from pipelines.storage.metric_log import read_history


def write_report(run: Run, dataset: Dataset, registry: Registry | None) -> ReportRecord:
    """Draw the pictures, write the page into the run's folder, and copy both to MLflow if it is there."""
    started = time.monotonic()
    records, model, seed = run.records(), run.generator(), run.configuration.seed
    pictures = {
        "samples.png": figures.png(figures.samples_with_neighbours(model, dataset.train.references, seed)),
        "interpolation.png": figures.png(figures.interpolation(model, seed)),
        "curves.png": figures.curves(read_history(run.folder.child(run_layout.HISTORY))),
        "sigma.png": figures.sigma_curves([records["evaluate"][name] for name in ("paper", "cross_validated")]),
    }
    if isinstance(model.conditions, Classes):
        pictures["classes.png"] = figures.png(figures.class_grid(model, seed))
    elif isinstance(model.conditions, Observed):
        pictures["completions.png"] = figures.png(_completed(model, dataset, seed))
    if "infer" in records:
        pictures["reconstructions.png"] = _reconstructions(run, dataset)
    if "tune" in records and (tried := search_rows(run.folder)):
        pictures["search.png"] = figures.search_plot(tried, sorted(records["tune"]["chosen"]))
    yaml = config.to_yaml(run.configuration)
    page = html_report.render(
        run.name, dataset.name, records, pictures, yaml, run.commit, run.configuration.evaluate.neighbours
    ).encode()
    for name, content in {run_layout.PAGE: page, **pictures}.items():
        run.folder.child(run_layout.REPORT).write(name, content)
    if registry is not None:
        score = records["evaluate"]
        run_tracking(run, registry).finish(
            {key: score[key] for key in ("log_likelihood", "standard_error", "sigma", "coverage")},
            {run_layout.PAGE: page, **pictures},
        )
    return ReportRecord(run.folder.child(run_layout.REPORT, run_layout.PAGE).uri, time.monotonic() - started)


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
