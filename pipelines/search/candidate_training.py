"""The training of a candidate under one set of settings, as a search keeps it: metrics, scores at rungs, weights."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from gan_core.conditions.base import Conditions
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError
from gan_core.state import State
from gan_core.training import Report, TrainingSettings, initial_state
from pipelines.config import ResolvedConfiguration, override
from pipelines.search.results_store import TrainingSegment
from pipelines.search.scores import rung_score, scored_generator
from pipelines.storage import Storage, Tensors

DIVERGED_SCORE = -1e30  # finite, so that the table stays a table of numbers; below any model's
NO_SCORE = {"log_likelihood": DIVERGED_SCORE, "standard_error": 0.0, "sigma": 0.0, "coverage": 0.0, "value": 0.0}
CHECK_EVERY = 100  # steps between checks of the losses, so that a diverged trial ends soon


@dataclass(frozen=True)
class Search:
    """What the trials of a search share; a trial's own candidates are in its Ray Tune config."""

    configuration: ResolvedConfiguration
    rungs: tuple[int, ...]
    results: Storage
    deadline: float | None = None  # seconds since the epoch: a trial that is still training then ends by itself

    @property
    def out_of_time(self) -> bool:
        """Whether the deadline is over."""
        return self.deadline is not None and time.time() > self.deadline

    @property
    def report_due(self) -> Callable[[int], bool]:
        """At which steps a training reports."""
        rungs, every = self.configuration.tune.rungs, self.configuration.train.report_every
        return lambda step: step in rungs or step % every == 0 or step % CHECK_EVERY == 0


@dataclass
class CandidateTraining:
    """A candidate whose training goes on from the last of its segment's rows."""

    segment: TrainingSegment
    search: Search
    dataset: Dataset
    candidate: ResolvedConfiguration
    settings: TrainingSettings
    conditions: Conditions
    state: State
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def after(
        cls, last: int, segment: TrainingSegment, job: dict[str, Any], search: Search, dataset: Dataset
    ) -> "CandidateTraining":
        """A job's training, `last` being the step of the last row that there is.

        Raises:
            CheckpointError: If what it goes on from is not there whole.
        """
        values = {key: value for key, value in job.items() if key not in ("candidate", "seed")}
        candidate = override(search.configuration, values)
        settings = replace(candidate.training(), seed=job["seed"])
        conditions = conditions_of(settings.extension, dataset)
        state = initial_state(settings, dataset.train, dataset.shape, conditions)
        state = state.to(torch.device("cuda" if search.configuration.tune.resources_per_trial.gpu else "cpu"))
        weights = _starting_weights(segment, before=min(rung for rung in search.rungs if rung > last))
        if weights is not None:
            state.load(weights, segment.name)
        return cls(segment, search, dataset, candidate, settings, conditions, state)

    def keep(self, report: Report[State]) -> dict[str, Any] | None:
        """Keep what a step reports: its metrics, at a rung a row with the weights that it scores, which is returned."""
        tune, every = self.search.configuration.tune, self.search.configuration.train.report_every
        if report.step in tune.rungs or report.step % every == 0:
            self.segment.log_metrics({"step": report.step, "time_ms": time.time() * 1000 // 1, **report.metrics})
        if report.step not in self.search.rungs:
            if report.step in tune.rungs:
                self.segment.keep(report.step, self.state.tensors())
            return None
        generator = scored_generator(self.state, self.candidate.scored_weights)
        scores, log_densities = rung_score(
            generator, self.settings, self.dataset.validation, self.conditions, tune.samples, tune.sample_sets
        )
        row: dict[str, Any] = {
            "step": report.step,
            "status": "finite",
            **scores,
            "value": report.metrics.get("value"),  # none, of an objective that has no V
            "seconds": time.monotonic() - self.started,
        }
        # The search's own seed is the training's, which goes on from the winner's last rung; confirmations end at theirs.
        goes_on = self.settings.seed == self.search.configuration.seed or report.step < self.search.rungs[-1]
        self.segment.commit(row, self.state.tensors() if goes_on else None, log_densities)
        return row

    def diverged(self) -> dict[str, Any]:
        """Keep that it has diverged, as the row that is returned."""
        seconds = time.monotonic() - self.started
        row = {"step": int(self.state.step), "status": "diverged", **NO_SCORE, "seconds": seconds}
        self.segment.commit(row, None)
        return row


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
