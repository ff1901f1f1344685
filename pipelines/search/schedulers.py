"""Ray Tune's schedulers as `tune.scheduler` names them, and how many candidates run at a time."""

import random
from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import (
    AsyncHyperBandScheduler,
    FIFOScheduler,
    MedianStoppingRule,
    PopulationBasedTraining,
    TrialScheduler,
)
from ray.tune.search import BasicVariantGenerator

from pipelines.config.candidates import draw_value, within
from pipelines.config.tune_schema import TuneSettings
from pipelines.search.halving import SynchronousHalving


def make_scheduler(settings: TuneSettings, rungs: tuple[int, ...], seed: int, max_concurrent: int) -> Any:
    """The scheduler of a search over these rungs, counted in the trials' own steps or updates."""
    first, last = rungs[0], rungs[-1]
    time_attr = "step" if settings.rung_unit == "steps" else "budget"
    protected = is_default if settings.include_default else lambda trial: False
    if settings.scheduler == "synchronous_halving" and len(rungs) > 1:
        return SynchronousHalving(
            rungs, settings.keep, settings.candidates, max_concurrent, settings.min_coverage, protected, time_attr
        )
    if settings.scheduler == "asha":
        halving = Halving(time_attr=time_attr, grace_period=first, max_t=last, reduction_factor=1 / settings.keep)
        halving.protected = protected
        return halving
    if settings.scheduler == "median_stopping":
        stopping = MedianStopping(
            time_attr=time_attr, grace_period=first, min_samples_required=min(3, settings.candidates)
        )
        stopping.protected = protected
        return stopping
    if settings.scheduler == "population_based":
        return PopulationBased(settings, seed)
    return FIFOScheduler()


def is_default(trial: Trial) -> bool:
    """Whether a trial is the configuration itself, candidate 0, which no rung cuts."""
    return bool(trial.config["job"]["candidate"] == 0)


class EndsDiverged(TrialScheduler):  # type: ignore[misc]
    """Ends a trial that has diverged, and leaves it out of what the others are compared with.

    A score of its own, be it NaN or very low, would spoil a percentile or a mean. A trial of which `protected` is true
    is compared, but not ended.
    """

    protected: Callable[[Trial], bool] = staticmethod(lambda trial: False)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result.get("status") == "diverged":
            return TrialScheduler.STOP  # type: ignore[no-any-return]
        decision = super().on_trial_result(tune_controller, trial, result)
        return TrialScheduler.CONTINUE if self.protected(trial) else decision  # type: ignore[no-any-return]

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        if result.get("status") != "diverged":
            super().on_trial_complete(tune_controller, trial, result)


class Halving(EndsDiverged, AsyncHyperBandScheduler):  # type: ignore[misc]
    """ASHA: each trial is compared at each rung with those that were there before it."""


class MedianStopping(EndsDiverged, MedianStoppingRule):  # type: ignore[misc]
    """Stops a trial whose best is below the median of the others' running means."""

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        decision = super().on_trial_result(tune_controller, trial, result)
        if self.protected(trial):
            self._stopped_trials.discard(trial)  # which Ray takes for one that cannot report again
        return decision


class PopulationBased(PopulationBasedTraining):  # type: ignore[misc]
    """Population based training at synchronous rungs; a candidate keeps its number, and its settings the space.

    One that has diverged is the worst of its rung: it goes on from a copy of one of the best, or, where
    more have diverged than are replaced, ends at the next rung.
    """

    def __init__(self, settings: TuneSettings, seed: int) -> None:
        draws = random.Random(seed)
        self.space = settings.space
        super().__init__(
            time_attr="rung",  # rungs need not be equally far apart
            perturbation_interval=1,
            quantile_fraction=min(0.5, 1 - settings.keep),
            hyperparam_mutations={"job": {key: _mutation(key, settings, draws) for key in settings.space}},
            log_config=False,  # the results store keeps every change
            synch=True,
        )
        random.seed(seed)  # Ray's own choices, of whom to copy and what to change, are drawn from here

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        chosen = super().choose_trial_to_run(tune_controller)
        live = list(tune_controller.get_live_trials())
        if chosen is None and live and all(trial.status == Trial.PAUSED for trial in live):
            self._next_perturbation_sync += 1  # the one they waited for has failed: they go on as they are
            return super().choose_trial_to_run(tune_controller)
        return chosen

    def _get_new_config(self, trial: Trial, trial_to_clone: Trial) -> tuple[dict[str, Any], dict[str, Any]]:
        changed, operations = super()._get_new_config(trial, trial_to_clone)
        job = changed["job"]
        job |= {key: within(distribution, job[key]) for key, distribution in self.space.items()}
        job |= {key: trial.config["job"][key] for key in ("candidate", "seed")}
        return changed, operations


def _mutation(key: str, settings: TuneSettings, draws: random.Random) -> Any:
    distribution = dict(settings.space[key])
    if "choice" in distribution:
        return list(distribution["choice"])
    import numpy as np

    return lambda: draw_value(distribution, np.random.default_rng(draws.getrandbits(64)))


class Variants(BasicVariantGenerator):  # type: ignore[misc]
    """Candidates drawn up front, at most so many of them waiting or running at a time.

    Ray's own limit, its attribute `max_concurrent`, counts paused trials too, and would never let a rung fill.
    """

    def __init__(self, max_concurrent: int) -> None:
        super().__init__()
        self.limit, self.created = max_concurrent, []  # type: ignore[var-annotated]

    def next_trial(self) -> Trial | None:
        if sum(trial.status in (Trial.PENDING, Trial.RUNNING) for trial in self.created) >= self.limit:
            return None
        trial = super().next_trial()
        if trial is not None:
            self.created.append(trial)
        return trial


def concurrency(settings: TuneSettings, available: dict[str, float], grows: bool = False) -> tuple[int, str]:
    """How many candidates run at a time, and what limits them.

    The cluster's CPUs or GPUs, `tune.max_concurrent`, or that there are no more candidates. What a cluster
    that grows has now is no limit, but to suggestions, which learn from results, where no other limit is set.
    """
    required = settings.resources_per_trial
    limits = [(int(available.get("CPU", 0) / required.cpu + 1e-9), "CPU")]
    if required.gpu > 1:
        limits.append((int(available.get("GPU", 0) / required.gpu + 1e-9), "GPU"))
    elif required.gpu:  # parts of one GPU: none spans two
        limits.append((int(available.get("GPU", 0)) * int(1 / required.gpu + 1e-9), "GPU"))
    if grows and not (settings.searcher == "tpe" and settings.max_concurrent is None):
        limits.clear()
    if settings.max_concurrent is not None:
        limits.append((settings.max_concurrent, "tune.max_concurrent"))
    limits.append((settings.candidates, "all of them"))
    number, why = min(limits, key=lambda limit: limit[0])
    return max(1, number), why
