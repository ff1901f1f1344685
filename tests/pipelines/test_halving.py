"""Synchronous halving: who survives is a sort of the scores, whoever arrives first."""

import random
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from pipelines.search.halving import SynchronousHalving

RUNGS = (10, 20, 40)


class Simulation:
    """Ray Tune's side of the conversation: trials with given scores that reach rungs in a random order.

    `scores[i][r]` is trial i's score at rung r. `diverges` and `fails` say at which rung a trial ends
    early; `stumbles` where it fails once and is tried again, as Tune does while retries are left.
    """

    def __init__(
        self, scores, keep, order, diverges=None, fails=None, stumbles=None, slots=2, mode="max", at_a_time=None,
        covered=None, min_coverage=0.0, protected=None,
    ):  # fmt: skip
        self.scores, self.order, self.slots = scores, order, slots
        self.covered = covered or [1.0] * len(scores)
        self.diverges, self.fails, self.stumbles = dict(diverges or {}), dict(fails or {}), dict(stumbles or {})
        is_protected = lambda trial: self.number[trial] == protected  # noqa: E731
        self.scheduler = SynchronousHalving(RUNGS, keep, len(scores), at_a_time, min_coverage, is_protected)
        self.scheduler.set_search_properties("score", mode)
        self.at_a_time, self.most = at_a_time or len(scores), 0
        self.trials = [Trial("simulated", stub=True, trial_id=str(i)) for i in range(len(scores))]
        self.number = {trial: i for i, trial in enumerate(self.trials)}
        self.done = [-1] * len(scores)  # the last rung each has been scored at
        self.stopped = set()
        self.to_add = list(self.trials)
        self.add()

    def active(self):
        """How many wait to run or run."""
        added = [trial for trial in self.trials if trial not in self.to_add]
        return sum(trial.status in (Trial.PENDING, Trial.RUNNING) for trial in added)

    def add(self):
        """As many candidates as may be there at a time."""
        while self.to_add and self.active() < self.at_a_time:
            self.scheduler.on_trial_add(self, self.to_add.pop(0))

    def stop_trial(self, trial):
        assert trial.status == Trial.PAUSED, "only one that waits can be stopped by another's result"
        trial.status = Trial.TERMINATED
        self.stopped.add(self.number[trial])

    def run(self):
        while any(not trial.is_finished() for trial in self.trials):
            self.add()
            self.most = max(self.most, self.active())
            running = [trial for trial in self.trials if trial.status == Trial.RUNNING]
            chosen = self.scheduler.choose_trial_to_run(self) if len(running) < self.slots else None
            if chosen is not None:
                assert chosen.status in (Trial.PENDING, Trial.PAUSED)
                chosen.status = Trial.RUNNING
                continue
            assert running, "every trial waits: the search hangs"
            self.progress(self.order.choice(running))
        return self

    def progress(self, trial):
        """One trial goes on to its next rung, or ends before it."""
        i = self.number[trial]
        rung = self.done[i] + 1
        if self.stumbles.get(i) == rung:
            del self.stumbles[i]
            trial.should_recover = lambda: True
            self.scheduler.on_trial_error(self, trial)
            trial.status = Trial.PENDING
            self.scheduler.on_trial_add(self, trial)
        elif self.fails.get(i) == rung:
            trial.should_recover = lambda: False
            trial.status = Trial.ERROR
            self.scheduler.on_trial_error(self, trial)
        elif self.diverges.get(i) == rung:
            result = {"step": RUNGS[rung], "score": -1e30, "status": "diverged"}
            assert self.scheduler.on_trial_result(self, trial, result) == TrialScheduler.CONTINUE
            trial.status = Trial.TERMINATED
            self.scheduler.on_trial_complete(self, trial, result)
        else:
            self.done[i] = rung
            result = {"step": RUNGS[rung], "score": self.scores[i][rung], "coverage": self.covered[i]}
            said = self.scheduler.on_trial_result(self, trial, result)
            trial.status = {"PAUSE": Trial.PAUSED, "CONTINUE": Trial.RUNNING, "STOP": Trial.TERMINATED}[said]
            if said == TrialScheduler.STOP:
                self.scheduler.on_trial_complete(self, trial, {})


def survivors(scores, keep, out=None, protected=None):
    """The reference: at each rung, who reaches it, by plain sorting. `out` are those that end early, by rung."""
    alive, reached = set(range(len(scores))), []
    for rung in range(len(RUNGS)):
        alive = {i for i in alive if (out or {}).get(i) != rung}
        reached.append(alive)
        ranked = sorted(alive, key=lambda i: -scores[i][rung])
        alive = set(ranked[: max(1, int(len(ranked) * keep + 0.5))]) | ({protected} & alive)
    return reached


def reached(simulation):
    return [{i for i, done in enumerate(simulation.done) if done >= rung} for rung in range(len(RUNGS))]


populations = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.permutations(range(n)), min_size=3, max_size=3).map(
        lambda rungs: list(zip(*rungs, strict=True))
    )
)
shares = st.sampled_from([0.1, 0.25, 1 / 3, 0.5, 0.67, 0.9])


@given(populations, shares, st.randoms(use_true_random=False), st.integers(1, 4))
def test_survivors_are_the_best_in_any_arrival_order(scores, keep, order, slots):
    """The survivors of each rung are the best by score, in any order of arrival."""
    assert reached(Simulation(scores, keep, order, slots=slots).run()) == survivors(scores, keep)


@given(populations, shares, st.randoms(use_true_random=False), st.data())
def test_protected_trial_is_cut_by_no_rung(scores, keep, order, data):
    """A protected trial goes on beside the best, unless it ends by itself; nobody loses a place to it."""
    protected = data.draw(st.integers(0, len(scores) - 1))
    ends = {protected: data.draw(st.integers(0, 2))} if data.draw(st.booleans()) else {}
    simulation = Simulation(scores, keep, order, diverges=ends, protected=protected).run()
    assert reached(simulation) == survivors(scores, keep, ends, protected)


@given(populations, shares, st.randoms(use_true_random=False), st.data())
def test_diverged_or_failed_trials_are_not_waited_for(scores, keep, order, data):
    """Trials that diverge or fail are out of the comparison and never waited for."""
    ends = data.draw(st.dictionaries(st.integers(0, len(scores) - 1), st.integers(0, 2), max_size=len(scores)))
    fails = {i: rung for i, rung in ends.items() if data.draw(st.booleans())}
    diverges = {i: rung for i, rung in ends.items() if i not in fails}
    simulation = Simulation(scores, keep, order, diverges=diverges, fails=fails).run()
    assert reached(simulation) == survivors(scores, keep, ends)


@given(populations, shares, st.randoms(use_true_random=False), st.data())
def test_retried_trial_is_waited_for(scores, keep, order, data):
    """A trial that fails and is tried again is waited for."""
    stumbles = data.draw(st.dictionaries(st.integers(0, len(scores) - 1), st.integers(0, 2), max_size=3))
    assert reached(Simulation(scores, keep, order, stumbles=stumbles).run()) == survivors(scores, keep)


@given(populations, shares, st.randoms(use_true_random=False), st.integers(1, 3))
def test_gradually_added_candidates_are_cut_as_if_at_once(scores, keep, order, limit):
    """Candidates added a few at a time are cut as if all had been there from the start."""
    simulation = Simulation(scores, keep, order, slots=9, at_a_time=limit).run()
    assert reached(simulation) == survivors(scores, keep)
    assert simulation.most == min(limit, len(scores))


def test_nothing_is_cut_where_all_are_kept():
    assert reached(Simulation([(i, -i, i) for i in range(5)], 1.0, random.Random(0)).run()) == [set(range(5))] * 3


def test_equal_scores_are_cut_by_candidate_order():
    """Equal scores are cut by the order of candidates, not of arrival."""
    for seed in range(20):
        simulation = Simulation([(1.0, 1.0, 1.0)] * 5, 0.4, random.Random(seed)).run()
        assert reached(simulation) == [{0, 1, 2, 3, 4}, {0, 1}, {0}]


@given(populations, shares, st.randoms(use_true_random=False), st.data())
def test_collapsed_candidates_rank_last(scores, keep, order, data):
    """Collapsed candidates rank behind all others, whatever their score."""
    covered = data.draw(st.lists(st.sampled_from([0.0, 0.049, 0.05, 0.9]), min_size=len(scores), max_size=len(scores)))
    simulation = Simulation(scores, keep, order, covered=covered, min_coverage=0.05).run()
    behind = [[score - 100 * (share < 0.05) for score in row] for row, share in zip(scores, covered, strict=True)]
    assert reached(simulation) == survivors(behind, keep)


def test_mode_min_keeps_the_smallest():
    simulation = Simulation([(3, 3, 3), (1, 1, 1), (2, 2, 2)], 0.3, random.Random(0), mode="min").run()
    assert reached(simulation) == [{0, 1, 2}, {1}, {1}]


def test_a_result_before_the_rung_changes_nothing():
    scheduler = SynchronousHalving(RUNGS, 0.5)
    scheduler.set_search_properties("score", "max")
    trials = [Trial("simulated", stub=True, trial_id=str(i)) for i in range(2)]
    for trial in trials:
        scheduler.on_trial_add(SimpleNamespace(), trial)
    early, at_rung = ({"step": step, "score": score, "coverage": 1.0} for step, score in ((9, 100.0), (10, 1.0)))
    assert scheduler.on_trial_result(None, trials[0], early) == TrialScheduler.CONTINUE
    assert scheduler.on_trial_result(None, trials[1], at_rung) == TrialScheduler.PAUSE


@pytest.mark.parametrize(
    ("count", "keep", "left"), [(6, 0.34, 2), (4, 0.5, 2), (5, 0.5, 3), (3, 0.1, 1), (10, 0.25, 3)]
)
def test_keep_is_a_share_rounded_and_at_least_one(count, keep, left):
    scores = [(i, i, i) for i in range(count)]
    assert len(reached(Simulation(scores, keep, random.Random(0)).run())[1]) == left
