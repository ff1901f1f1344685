"""Synchronous halving where a trial is a population: the members of all are cut as one, and dealt out anew."""

from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from pipelines.search.halving import ranking, survivors
from pipelines.search.population_shares import Job, deal


class PopulationHalving(TrialScheduler):  # type: ignore[misc]
    """Train every population to a rung, keep the best members of all, deal these to the trials, and so on.

    Who survives is what `SynchronousHalving` would say of the same candidates, each a trial of its own: neither how
    many a population has nor which changes it. A member's training lies in the results store, so any trial goes on
    with it, and after a cut all of them have as much to do. Where nothing is cut (`keep` 1), rungs are only reported.

    A trial that has reached a rung waits for its share where it is, since a pause costs seconds; it pauses where
    another needs its place.
    """

    def __init__(
        self,
        rungs: Sequence[int],
        keep: float,
        members: Sequence[Sequence[Job]],
        max_concurrent: int,
        publish: Callable[[int, str, list[Job]], None],
        min_coverage: float = 0.0,
        never_cut: int | None = None,
    ) -> None:
        """`members` are those of each trial at first, `publish` tells a trial its share after a rung.

        `never_cut` is a candidate that no rung cuts.
        """
        super().__init__()
        self.rungs, self.keep, self.max_concurrent, self.publish = list(rungs), keep, max_concurrent, publish
        self.min_coverage, self.never_cut = min_coverage, never_cut
        self.populations, self.most = len(members), max(map(len, members))
        self.jobs = {_identity(job): job for share in members for job in share}
        self.added: set[Trial] = set()
        self.live: list[Trial] = []  # in the order of their first members
        self.arrived: dict[Trial, list[dict[str, Any]]] = {}  # the rows of each trial that has reached the rung
        self.rung = 0

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        self.added.add(trial)
        if trial not in self.live:  # one that failed and is tried again
            self.live.append(trial)

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        if result["rows"] and result["rung"] == len(self.rungs):
            return TrialScheduler.STOP  # type: ignore[no-any-return]
        if result["rows"] and result["rung"] <= self.rung:  # of one that was tried again: its share is published
            return TrialScheduler.CONTINUE  # type: ignore[no-any-return]
        if result["rows"]:
            self.arrived[trial] = result["rows"]
            self._cut_if_all_are_there(tune_controller)
        paused = trial in self.arrived and (not result["rows"] or self._someone_needs_a_place())
        return TrialScheduler.PAUSE if paused else TrialScheduler.CONTINUE  # type: ignore[no-any-return]

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        self.on_trial_remove(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        if not trial.should_recover():  # else it is tried again, and waited for
            self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        if trial in self.live:
            self.live.remove(trial)
        self.arrived.pop(trial, None)
        self._cut_if_all_are_there(tune_controller)

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        waiting = [trial for trial in self.live if trial.status == Trial.PENDING]
        active = len(waiting) + sum(trial.status == Trial.RUNNING for trial in self.live)
        return next(iter(waiting if active >= self.max_concurrent else waiting + self._ready()), None)

    def debug_string(self) -> str:
        return f"rung {self.rung + 1} of {len(self.rungs)}, {len(self.live)} populations"

    def _someone_needs_a_place(self) -> bool:
        pending = any(trial.status == Trial.PENDING for trial in self.live)
        return len(self.added) < self.populations or pending or bool(self._ready())

    def _ready(self) -> list[Trial]:
        """Those that paused and know their share by now."""
        return [trial for trial in self.live if trial.status == Trial.PAUSED and trial not in self.arrived]

    def _cut_if_all_are_there(self, tune_controller: Any) -> None:
        """Keep the best members of all, and tell each trial its share; one that waits and gets none is stopped."""
        if len(self.added) < self.populations or not self.live or not self.arrived.keys() >= set(self.live):
            return
        rows = [row for trial in self.live for row in self.arrived[trial] if row["status"] == "finite"]
        rows.sort(key=_identity)
        scores = {_identity(row): (row["coverage"] >= self.min_coverage, row["log_likelihood"]) for row in rows}
        kept = survivors(ranking(scores), self.keep, lambda member: member[0] == self.never_cut)
        costs = [(self.jobs[_identity(row)], row["seconds"]) for row in rows if _identity(row) in kept]
        trials = list(self.live)
        shares = deal(costs, min(len(trials), max(self.max_concurrent, -(-len(costs) // self.most))))
        self.arrived.clear()
        self.rung += 1
        for number, trial in enumerate(trials):
            self.publish(self.rung, trial.trial_id, shares[number] if number < len(shares) else [])
            if number >= len(shares) and trial.status == Trial.PAUSED:
                self.live.remove(trial)
                tune_controller.stop_trial(trial)


def _identity(member: dict[str, Any]) -> tuple[int, int]:
    return member["candidate"], member["seed"]
