"""One candidate of a search, as a Ray Tune trial: what is known is reported at once, the rest is trained."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, Diverged
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.metrics.sample_quality import coverage
from gan_core.noise import draw_noise
from gan_core.randomness import stream
from gan_core.training import TrainingSettings, initial_state, sample, train
from pipelines import config
from pipelines.config import ResolvedConfiguration
from pipelines.search.results_store import Stretch, open_stretch
from pipelines.storage import Storage, Tensors

DIVERGED_SCORE = -1e30  # finite, so that the table stays a table of numbers; below any model's
CHECK_EVERY = 100  # steps between looks at the losses, so that a diverged trial ends soon
POINTER = "pointer.json"


@dataclass(frozen=True)
class Search:
    """What each trial is told beside its candidate: everything that they share."""

    configuration: ResolvedConfiguration
    rungs: tuple[int, ...]
    findings: Storage
    deadline: float | None = None  # seconds since the epoch: a trial that is still training then ends by itself


def trial(told: dict[str, Any], search: Search, dataset: Dataset) -> None:
    """Report a candidate's score at each rung, known from before or trained now, each exactly once.

    Ray Tune's checkpoint is a pointer to a stretch and a step. With the same job it says how far this
    trial has come; with another, population based training has put this trial there, and a new
    stretch begins.
    """
    from ray import tune

    torch.set_num_threads(max(1, int(search.configuration.tune.resources_per_trial.cpu)))
    # Others may go on from an older one than the newest where weights are copied between candidates.
    kept = 4 if search.configuration.tune.scheduler == "population_based" else 2
    job, pointer = told["job"], _pointer(tune.get_checkpoint())
    if pointer and pointer["job"] == job:
        stretch = Stretch(search.findings, pointer["stretch"], kept)
    else:
        origin = pointer and {"stretch": pointer["stretch"], "step": pointer["step"]}
        stretch = open_stretch(search.findings, job, origin, kept)
    reported = pointer["step"] if pointer else 0
    for row in _rows(stretch, job, search, dataset):
        if row["step"] <= reported:
            continue
        rung = sum(step < row["step"] for step in search.rungs) + 1  # the one it stands for, if it has diverged
        result = {**row, "rung": rung, "stretch": stretch.name}
        if row["status"] == "diverged":
            tune.report(result)
            return
        if row["step"] in search.rungs:
            with tempfile.TemporaryDirectory() as folder:
                mark = {"stretch": stretch.name, "step": row["step"], "job": job}
                (Path(folder) / POINTER).write_text(json.dumps(mark))
                tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def _rows(stretch: Stretch, job: dict[str, Any], search: Search, dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The stretch's rows: those that are known, then those of training on from the last of them."""
    known = stretch.rows()
    yield from known
    last = known[-1]["step"] if known else 0
    if last >= search.rungs[-1] or (known and known[-1]["status"] == "diverged"):
        return
    values = {key: value for key, value in job.items() if key not in ("candidate", "seed")}
    candidate = config.override(search.configuration, values)
    settings = replace(candidate.training(), seed=job["seed"], virtual_shards=1)
    device = torch.device("cuda" if search.configuration.tune.resources_per_trial.gpu else "cpu")
    conditions = conditions_of(settings.extension, dataset)
    state = initial_state(settings, dataset.train, dataset.shape, conditions).to(device)
    rungs, kept = search.rungs, search.configuration.tune.rungs
    weights = _starting_weights(stretch, before=min(rung for rung in rungs if rung > last))
    if weights is not None:
        state.load(weights, stretch.name)
    started = time.monotonic()
    try:
        looks = train(
            settings, dataset.train, state, rungs[-1], lambda step: step in kept or step % CHECK_EVERY == 0,
            conditions=conditions,
        )  # fmt: skip
        for report in looks:
            if report.step in rungs and report.step > last:
                averaged = candidate.scored_weights == "averaged"
                generator = state.averaged if averaged and state.averaged else state.generator
                row: dict[str, Any] = {
                    "step": report.step,
                    "status": "finite",
                    **score(generator, settings, dataset, search.configuration.tune.samples),
                    "value": report.metrics["value"],
                    "seconds": time.monotonic() - started,
                }
                stretch.commit(row, state.tensors() if report.step < rungs[-1] else None)
                yield row
            elif report.step in kept and report.step not in rungs:
                stretch.keep(report.step, state.tensors())
            if search.deadline is not None and time.time() > search.deadline:
                return
    except Diverged:
        nothing = {"log_likelihood": DIVERGED_SCORE, "sigma": 0.0, "coverage": 0.0, "value": 0.0}
        row = {"step": int(state.step), "status": "diverged", **nothing, "seconds": time.monotonic() - started}
        stretch.commit(row, None)
        yield row


def _starting_weights(stretch: Stretch, before: int) -> Tensors | None:
    """The newest weights from before a rung: the stretch's own, or those it began with; None for the very first."""
    own, origin = stretch.weights(before - 1), stretch.about["origin"]
    if own is not None or origin is None:
        return own
    begun = Stretch(stretch.findings, origin["stretch"]).weights(origin["step"])
    if begun is None:
        raise CheckpointError(
            "no weights to go on from", stretch.folder.uri, f"none whole of {origin['stretch']}", "its checkpoint"
        )
    return begun


def score(generator: torch.nn.Module, settings: TrainingSettings, dataset: Dataset, samples: int) -> dict[str, float]:
    """A rung's score: the validation points' Parzen log-likelihood at the grid's best sigma, and coverage."""
    noise = draw_noise(stream(settings.seed, "rung samples"), samples, settings.noise)
    device = next(generator.parameters()).device
    asked = conditions_of(settings.extension, dataset).drawn(samples, stream(settings.seed, "rung samples' conditions"))
    generated = sample(generator, noise.to(device), asked.to(device)).cpu().numpy()
    points = dataset.validation.images
    found = paper_protocol(lambda p, sigmas: parzen_log_density(p, generated, sigmas), points, points, samples)
    return {"log_likelihood": found.log_likelihood, "sigma": found.sigma, "coverage": coverage(points, generated)}


def _pointer(checkpoint: Any) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return dict(json.loads((Path(folder) / POINTER).read_text()))
