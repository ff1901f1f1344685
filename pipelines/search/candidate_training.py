"""The training of a candidate under one set of settings, as a search keeps it: metrics, scores at rungs, weights."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch

from gan_core.conditions.base import Conditions
from gan_core.conditions.settings import conditions_of
from gan_core.datasets import Dataset
from gan_core.errors import CheckpointError
from gan_core.state import State
from gan_core.training import Report, TrainingSettings, initial_state
from pipelines.config import ResolvedConfiguration, override
from pipelines.config.candidates import rung_steps
from pipelines.config.tune_schema import ResourceSettings
from pipelines.search.results_store import TrainingSegment
from pipelines.search.scores import rung_score, scored_generator
from pipelines.storage import Storage, Tensors

DIVERGED_SCORE = -1e30  # finite, so that the table stays a table of numbers; below any model's
NO_SCORE = {"log_likelihood": DIVERGED_SCORE, "standard_error": 0.0, "sigma": 0.0, "coverage": 0.0, "value": 0.0}
IDENTITY = ("candidate", "seed")  # of a job; the rest are settings by dotted name
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

    def candidate(self, job: Mapping[str, Any]) -> ResolvedConfiguration:
        """A job's whole configuration, but for its seed."""
        return override(self.configuration, {key: value for key, value in job.items() if key not in IDENTITY})

    def rungs_of(self, job: Mapping[str, Any]) -> tuple[int, ...]:
        """The rungs in a candidate's own steps."""
        if self.configuration.tune.rung_unit == "steps":  # the same for all
            return self.rungs
        return rung_steps(self.candidate(job), self.rungs)

    def result(self, job: Mapping[str, Any], row: Mapping[str, Any], rung: int) -> dict[str, Any]:
        """What is reported of a row at a rung (counted from 1): how many updates it took besides."""
        candidate = self.candidate(job)
        updates = (candidate.algorithm.discriminator_steps + 1) * row["step"]
        found = {"device_seconds": math.nan, **row, "updates": updates}
        if candidate.tune.rung_unit == "updates":
            found["budget"] = self.rungs[rung - 1] if row["step"] in rung_steps(candidate, self.rungs) else updates
        return found


@dataclass
class DeviceSeconds:
    """Seconds that a candidate has held its devices, CPUs or, if it has them, GPUs: its part, where it shares them."""

    resources: ResourceSettings
    seconds: float  # before
    sharing: int = 1
    since: float = field(default_factory=time.monotonic)

    def now(self) -> float:
        """All until now."""
        now, before = time.monotonic(), self.since
        self.since = now
        self.seconds += (self.resources.gpu or self.resources.cpu) * (now - before) / self.sharing
        return self.seconds

    def go_on(self) -> None:
        """Count from now on again."""
        self.since = time.monotonic()


@dataclass
class CandidateTraining:
    """A candidate whose training goes on from the last of its segment's rows."""

    segment: TrainingSegment
    search: Search
    dataset: Dataset
    candidate: ResolvedConfiguration
    rungs: tuple[int, ...]  # in the candidate's own steps
    last: int  # the step of the last row that there is
    settings: TrainingSettings
    conditions: Conditions
    state: State
    spent: DeviceSeconds
    started: float = field(default_factory=time.monotonic)

    @classmethod
    def after(
        cls,
        earlier: Sequence[Mapping[str, Any]],
        segment: TrainingSegment,
        job: dict[str, Any],
        search: Search,
        dataset: Dataset,
    ) -> "CandidateTraining":
        """A job's training after the rows there are.

        Raises:
            CheckpointError: If what it goes on from is not there whole.
        """
        candidate, last = search.candidate(job), earlier[-1]["step"] if earlier else 0
        rungs = rung_steps(candidate, search.rungs)
        resources = search.configuration.tune.resources_per_trial
        settings = replace(candidate.training(), seed=job["seed"])
        conditions = conditions_of(settings.extension, dataset)
        state = initial_state(settings, dataset.train, dataset.shape, conditions)
        state = state.to(torch.device("cuda" if resources.gpu else "cpu"))
        if (weights := _starting_weights(segment, before=min(rung for rung in rungs if rung > last))) is not None:
            state.load(weights, segment.name)
        spent = DeviceSeconds(resources, _spent_before(segment, earlier))
        return cls(segment, search, dataset, candidate, rungs, last, settings, conditions, state, spent)

    def begin(self, sharing: int) -> None:
        """Count time from now on, on devices that so many candidates share."""
        self.started, self.spent.sharing = time.monotonic(), sharing
        self.spent.go_on()

    def report_due(self, step: int) -> bool:
        """Whether the training reports a step."""
        return step in self.kept or step % self.candidate.train.report_every == 0 or step % CHECK_EVERY == 0

    @cached_property
    def kept(self) -> tuple[int, ...]:
        """The steps whose weights are kept."""
        return rung_steps(self.candidate, self.search.configuration.tune.rungs)

    def keep(self, report: Report[State]) -> dict[str, Any] | None:
        """Keep what a step reports: its metrics, at a rung a row with the weights that it scores, which is returned."""
        tune, every = self.search.configuration.tune, self.search.configuration.train.report_every
        if report.step <= self.last:  # trained again, its weights being damaged
            return None
        if report.step in self.kept or report.step % every == 0:
            self.segment.log_metrics({"step": report.step, "time_ms": time.time() * 1000 // 1, **report.metrics})
        if report.step not in self.rungs:
            if report.step in self.kept:
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
            "device_seconds": self.spent.now(),
        }
        # The search's own seed is the training's, which goes on from the winner's last rung; confirmations end at theirs.
        goes_on = self.settings.seed == self.search.configuration.seed or report.step < self.rungs[-1]
        self.segment.commit(row, self.state.tensors() if goes_on else None, log_densities)
        return row

    def diverged(self) -> dict[str, Any]:
        """Keep that it has diverged, as the row that is returned."""
        seconds = {"seconds": time.monotonic() - self.started, "device_seconds": self.spent.now()}
        row = {"step": int(self.state.step), "status": "diverged", **NO_SCORE, **seconds}
        self.segment.commit(row, None)
        return row


def _spent_before(segment: TrainingSegment, earlier: Sequence[Mapping[str, Any]]) -> float:
    """The device-seconds up to where a segment goes on; NaN, of results by a version that did not count them."""
    origin = segment.about["origin"]
    if not earlier and origin is not None:
        of_origin = TrainingSegment(segment.results, origin["stretch"]).rows()
        earlier = [row for row in of_origin if row["step"] <= origin["step"]]
    return float(earlier[-1].get("device_seconds", math.nan)) if earlier else 0.0


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
