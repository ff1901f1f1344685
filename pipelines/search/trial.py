"""One candidate of a search, as a Ray Tune trial: earlier results are reported at once, the rest is trained."""

import json
import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError, Diverged
from gan_core.state import State
from gan_core.training import initial_state, train
from pipelines.config import ResolvedConfiguration, override
from pipelines.config.candidates import rung_steps
from pipelines.config.tune_schema import ResourceSettings
from pipelines.search.results_store import TrainingSegment, open_segment
from pipelines.search.scores import rung_score, scored_generator
from pipelines.storage import Storage, Tensors

DIVERGED_SCORE = -1e30  # finite, so that the table stays a table of numbers; below any model's
NO_SCORE = {"log_likelihood": DIVERGED_SCORE, "standard_error": 0.0, "sigma": 0.0, "coverage": 0.0, "value": 0.0}
CHECK_EVERY = 100  # steps between checks of the losses, so that a diverged trial ends soon
POINTER = "pointer.json"


@dataclass(frozen=True)
class Search:
    """What the trials of a search share; a trial's own candidate is in its Ray Tune config."""

    configuration: ResolvedConfiguration
    rungs: tuple[int, ...]
    results: Storage
    deadline: float | None = None  # seconds since the epoch: a trial that is still training then ends by itself


def trial(config: dict[str, Any], search: Search, dataset: Dataset) -> None:
    """Report a candidate's score at each rung, from the results store or trained now, each exactly once.

    `config["job"]` is the candidate: its number, its seed and its settings by dotted name.

    Ray Tune's checkpoint is a pointer to a segment and a step. With the same job it says how far this
    trial has come; with another, population based training has put this trial there, and a new
    segment begins.
    """
    from ray import tune

    torch.set_num_threads(max(1, int(search.configuration.tune.resources_per_trial.cpu)))
    # Others may go on from an older one than the newest where weights are copied between candidates.
    kept = 4 if search.configuration.tune.scheduler == "population_based" else 2
    job, pointer = config["job"], _pointer(tune.get_checkpoint())
    if pointer and pointer["job"] == job:
        segment = TrainingSegment(search.results, pointer["stretch"], kept)
    else:
        origin = pointer and {"stretch": pointer["stretch"], "step": pointer["step"]}
        segment = open_segment(search.results, job, origin, kept)
    reported = pointer["step"] if pointer else 0
    candidate = override(search.configuration, settings_of(job))
    rungs, updates = rung_steps(candidate, search.rungs), candidate.algorithm.discriminator_steps + 1
    for row in rows_of(segment, job, candidate, replace(search, rungs=rungs), dataset):
        if row["step"] <= reported:
            continue
        rung = sum(step < row["step"] for step in rungs) + 1  # the one it stands for, if it has diverged
        result = {"device_seconds": math.nan, **row, "rung": rung, "stretch": segment.name}
        result["updates"] = updates * row["step"]
        if candidate.tune.rung_unit == "updates":
            result["budget"] = search.rungs[rung - 1] if row["step"] in rungs else result["updates"]
        if row["status"] == "diverged":
            tune.report(result)
            return
        if row["step"] in rungs:
            with tempfile.TemporaryDirectory() as folder:
                pointer = {"stretch": segment.name, "step": row["step"], "job": job}
                (Path(folder) / POINTER).write_text(json.dumps(pointer))
                tune.report(result, checkpoint=tune.Checkpoint.from_directory(folder))


def settings_of(job: Mapping[str, Any]) -> dict[str, Any]:
    """A candidate's settings, by dotted name."""
    return {key: value for key, value in job.items() if key not in ("candidate", "seed")}


def rows_of(
    segment: TrainingSegment, job: dict[str, Any], candidate: ResolvedConfiguration, search: Search, dataset: Dataset
) -> Iterator[dict[str, Any]]:
    """The segment's rows: those in the results store, then those of training on from the last of them.

    `search.rungs` are the candidate's own steps. A row's `seconds` are since the trial began, or went on;
    `device_seconds` are all, from step 0, and of each CPU or, where a trial has them, each GPU.
    """
    earlier = segment.rows()
    yield from earlier
    last = earlier[-1]["step"] if earlier else 0
    if last >= search.rungs[-1] or (earlier and earlier[-1]["status"] == "diverged"):
        return
    settings = replace(candidate.training(), seed=job["seed"])
    tune, rungs = search.configuration.tune, search.rungs
    kept, every = rung_steps(candidate, tune.rungs), search.configuration.train.report_every
    conditions = conditions_of(settings.extension, dataset)
    initial = initial_state(settings, dataset.train, dataset.shape, conditions)
    state = _gone_on(initial, segment, min(rung for rung in rungs if rung > last), bool(tune.resources_per_trial.gpu))
    # The search's own seed is the training's, which goes on from the winner's last rung; confirmations end at theirs.
    goes_on = job["seed"] == search.configuration.seed
    started, spent = time.monotonic(), _Spent(tune.resources_per_trial, _spent_before(segment, earlier))
    try:
        due = lambda step: step in kept or step % every == 0 or step % CHECK_EVERY == 0  # noqa: E731
        for report in train(settings, dataset.train, state, rungs[-1], due, conditions=conditions):
            if report.step in kept or report.step % every == 0:
                segment.log_metrics({"step": report.step, "time_ms": time.time() * 1000 // 1, **report.metrics})
            if report.step in rungs and report.step > last:
                generator, points = scored_generator(state, candidate.scored_weights), dataset.validation
                scores, densities = rung_score(generator, settings, points, conditions, tune.samples, tune.sample_sets)
                row: dict[str, Any] = {
                    "step": report.step,
                    "status": "finite",
                    **scores,
                    "value": report.metrics.get("value"),  # none, of an objective that has no V
                    "seconds": time.monotonic() - started,
                    "device_seconds": spent.now(),
                }
                segment.commit(row, state.tensors() if goes_on or report.step < rungs[-1] else None, densities)
                yield row
                spent.since = time.monotonic()  # whom it reports to may take a while
            elif report.step in kept and report.step not in rungs:
                segment.keep(report.step, state.tensors())
            if search.deadline is not None and time.time() > search.deadline:
                return
    except Diverged:
        seconds = {"seconds": time.monotonic() - started, "device_seconds": spent.now()}
        row = {"step": int(state.step), "status": "diverged", **NO_SCORE, **seconds}
        segment.commit(row, None)
        yield row


@dataclass
class _Spent:
    """Seconds that a candidate has held its devices: CPUs or, if it has them, GPUs."""

    resources: ResourceSettings
    seconds: float
    since: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """All until now."""
        now, before = time.monotonic(), self.since
        self.since = now
        self.seconds += (self.resources.gpu or self.resources.cpu) * (now - before)
        return self.seconds


def _spent_before(segment: TrainingSegment, earlier: Sequence[Mapping[str, Any]]) -> float:
    """The device-seconds up to where a segment goes on; NaN, of results by a version that did not count them."""
    origin = segment.about["origin"]
    if not earlier and origin is not None:
        of_origin = TrainingSegment(segment.results, origin["stretch"]).rows()
        earlier = [row for row in of_origin if row["step"] <= origin["step"]]
    return float(earlier[-1].get("device_seconds", math.nan)) if earlier else 0.0


def _gone_on(state: State, segment: TrainingSegment, before: int, gpu: bool) -> State:
    """The state with the newest weights from before a rung, if there are any, on the trial's device."""
    state = state.to(torch.device("cuda" if gpu else "cpu"))
    if (weights := _starting_weights(segment, before)) is not None:
        state.load(weights, segment.name)
    return state


def _starting_weights(segment: TrainingSegment, before: int) -> Tensors | None:
    """The newest weights from before a rung: the segment's own, or those it began with; None for the very first."""
    own, origin = segment.weights(before - 1), segment.about["origin"]
    if own is not None or origin is None:
        return own
    weights = TrainingSegment(segment.results, origin["stretch"]).weights(origin["step"])
    if weights is None:
        raise CheckpointError(
            "no weights to go on from", segment.folder.uri, f"none whole of {origin['stretch']}", "its checkpoint"
        )
    return weights


def _pointer(checkpoint: Any) -> dict[str, Any] | None:
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return dict(json.loads((Path(folder) / POINTER).read_text()))
