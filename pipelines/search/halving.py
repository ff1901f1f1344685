"""Synchronous successive halving as a Ray Tune scheduler: a rung is cut when all have reached it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

Candidate = TypeVar("Candidate")


def ranking(scores: Mapping[Candidate, tuple[bool, float]]) -> list[Candidate]:
    """By whether they cover enough, then by score, the best first; equal ones as they are given."""
    return sorted(scores, key=lambda candidate: scores[candidate], reverse=True)


def survivors(ranked: Sequence[Candidate], keep: float, protected: Callable[[Candidate], bool]) -> set[Candidate]:
    """Who survives a rung: the best `keep` of all, rounded and at least one, and whoever is protected."""
    return {*ranked[: max(1, int(len(ranked) * keep + 0.5))], *filter(protected, ranked)}


class SynchronousHalving(TrialScheduler):  # type: ignore[misc]
    """Run every candidate to the first rung, keep the best, run those to the next, and so on.

    Rungs count `time_attr` of the results, so neither the speed of a trial nor the order in which
    results arrive changes who survives. A trial that has reached its rung gives its resources to
    one that has not, and waits, paused, on its checkpoint. One that ends early (it diverged or
    failed) is out of the comparison; one whose coverage is too small ranks behind all others.
    A trial of which `protected` is true is cut by no rung.
    """

    def __init__(
        self,
        rungs: Sequence[int],
        keep: float,
        population: int = 0,
        max_concurrent: int | None = None,
        min_coverage: float = 0.0,
        protected: Callable[[Trial], bool] = lambda trial: False,
        time_attr: str = "step",
    ) -> None:
        """`population` is how many candidates there will be: no rung is cut before all were added."""
        super().__init__()
        self.rungs, self.keep = list(rungs), keep
        self.population, self.max_concurrent, self.min_coverage = population, max_concurrent, min_coverage
        self.protected, self.time_attr = protected, time_attr
        self.added: set[Trial] = set()
        self.rung = 0
        # candidates still in; whether their coverage is enough, and their score, at this rung
        self.running: dict[Trial, tuple[bool, float] | None] = {}
        self.resumable: set[Trial] = set()
        self.sign = 1.0

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        self._metric, self.sign = metric, -1.0 if mode == "min" else 1.0
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.added.add(trial)
        self.running.setdefault(trial, None)  # one that failed and is tried again keeps its place

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result[self.time_attr] < self.rungs[self.rung] or result.get("status") == "diverged":
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        covers = result["coverage"] >= self.min_coverage
        self.running[trial] = covers, self.sign * float(result[self.metric])
        self.resumable.discard(trial)
        return self._decide(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self.on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        if not trial.should_recover():  # else it is tried again, and waited for
            self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        if self.running.pop(trial, None) is None:  # one less to wait for
            self._decide(tune_controller, None)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        waiting = [trial for trial in self.running if trial.status == Trial.PENDING]
        active = len(waiting) + sum(trial.status == Trial.RUNNING for trial in self.running)
        if self.max_concurrent is not None and active >= self.max_concurrent:
            return next(iter(waiting), None)
        paused = [trial for trial in self.running if trial.status == Trial.PAUSED and trial in self.resumable]
        return next(iter(waiting + paused), None)

    def debug_string(self) -> str:
        return f"rung {self.rung + 1} of {len(self.rungs)}, {len(self.running)} candidates"

    def _decide(self, tune_controller: Any, reporting: Trial | None) -> str:
        """Cut if everyone has arrived, and say what the reporting trial does next."""
        scores = {trial: score for trial, score in self.running.items() if score is not None}
        if len(self.added) < self.population or not scores or len(scores) < len(self.running):
            return TrialScheduler.PAUSE  # type: ignore[no-any-return]
        last = self.rung == len(self.rungs) - 1
        ranked = ranking(scores)
        kept = set() if last else survivors(ranked, self.keep, self.protected)
        for trial in kept:
            self.running[trial] = None
            self.resumable.add(trial)
        self.running = {trial: score for trial, score in self.running.items() if trial in kept}
        self.rung = min(self.rung + 1, len(self.rungs) - 1)
        for trial in ranked:
            if trial not in kept and trial is not reporting:
                tune_controller.stop_trial(trial)
        if reporting in kept:
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        return TrialScheduler.STOP  # type: ignore[no-any-return]
