"""Populations: several candidates in one trial, with the bits, the cuts and the choice of a trial for each."""

import io
import random

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.search.population_halving import PopulationHalving
from pipelines.search.population_shares import Shares, deal
from pipelines.search.results_store import segments
from pipelines.stages.tune import tune_run
from pipelines.storage import Storage
from pipelines.storage.run_layout import RESULTS, TABLE, TUNE
from tests.pipelines.test_halving import survivors

RATE, OTHER_RATE = "algorithm.discriminator_learning_rate", "algorithm.generator_learning_rate"
RUNGS = (20, 40, 60)
SPACE = {
    RATE: {"choice": [2.0e-3, 5.0e-3, 1.0e20]},  # with the last one, some diverge
    OTHER_RATE: {"log_uniform": [2.0e-3, 1.0e-2]},
    "algorithm.discriminator_steps": {"choice": [1, 2]},
    "noise.size": {"choice": [4, 6]},
}


@pytest.fixture(scope="module")
def search(small, digits, ray_cluster, tmp_path_factory):
    """A search of seven candidates, some of which diverge, and three confirmations; its record, table, words, folder."""

    def run(members, folder=None, **settings):
        given = {
            "seed": 7, "tune.rungs": list(RUNGS), "tune.candidates": 7, "tune.space": SPACE, "tune.members": members,
            "tune.confirm": {"best": 2, "seeds": 3}, "algorithm.optimizer": "adam", RATE: 3.0e-3, OTHER_RATE: 3.0e-3,
            "network.discriminator.init_range": 0.05, **settings,
        }  # fmt: skip
        folder, said = folder or Storage.at(tmp_path_factory.mktemp("search")), []
        record = tune_run(config.override(small, given), digits, folder, said.append)
        return record, pandas.read_parquet(io.BytesIO(folder.read(TABLE))), said, folder

    return run


@pytest.fixture(scope="module")
def alone(search):
    return search(1)


def measured(table):
    return (
        table.drop(columns=["seconds", "device_seconds"])
        .sort_values(["stage", "candidate", "seed", "step"])
        .reset_index(drop=True)
    )


def weights(folder):
    """The newest weights of every candidate and seed that a search has kept, to the bit."""
    return {
        (segment.name, group, name): tensor.numpy().tobytes()
        for segment in segments(folder.child(TUNE, RESULTS))
        for group, named in (segment.weights(RUNGS[-1]) or {}).items()
        for name, tensor in named.items()
    }


@pytest.mark.parametrize("members", [3, "auto"])
def test_members_change_no_score_and_no_bit(search, alone, members):
    """However many candidates a trial trains: the same rows, the same choice and the same weights to the bit."""
    record, table, _, folder = search(members)
    expected, expected_table, _, expected_folder = alone
    pandas.testing.assert_frame_equal(measured(table), measured(expected_table), check_exact=True)
    assert (table.status == "diverged").any(), "or nothing is known of members that diverge"
    assert table.device_seconds.between(0.001, 600).all()
    kept = ("chosen", "candidate", "log_likelihood", "diverged", "failed", "finished", "reason", "segment")
    assert [getattr(record, name) for name in kept] == [getattr(expected, name) for name in kept]
    assert weights(folder) == weights(expected_folder) != {}


def test_search_of_populations_goes_on_from_single_trials(search, alone, tmp_path):
    """A search that is started again with populations has the results of trials, and trains nothing twice."""
    *_, folder = alone
    _, table, said, _ = search("auto", folder)
    assert f"tune   reusing {len(table)} earlier results" in said
    pandas.testing.assert_frame_equal(table, alone[1], check_exact=True)


def test_batched_members_score_as_alone_to_rounding(search, alone):
    """Members trained as batched programs have the scores of trials, within rounding that 60 steps enlarge."""
    record, table, _, _ = search("auto", **{"tune.batched": True})
    expected, expected_table = (
        measured(found).set_index(["stage", "candidate", "seed", "step"]) for found in (table, alone[1])
    )
    assert list(expected.index) == list(expected_table.index)
    assert list(expected.status) == list(expected_table.status)
    assert not expected.log_likelihood.equals(expected_table.log_likelihood), "they were not batched"
    numpy.testing.assert_allclose(expected.log_likelihood, expected_table.log_likelihood, atol=0.05)
    assert record.chosen == alone[0].chosen


def test_members_need_candidates_known_up_front(small):
    """A population's members are cut together, so there must be all of them: a searcher that waits is refused."""
    space = {"tune.space": SPACE, "tune.candidates": 4, "tune.members": "auto"}
    for other in ({"tune.searcher": "tpe", "tune.scheduler": "asha"}, {"tune.scheduler": "median_stopping"}):
        with pytest.raises(ConfigurationError, match=r"tune\.members auto needs candidates that are known up front"):
            config.override(small, {**space, **other})
    with pytest.raises(ConfigurationError, match=r"tune\.members 0 is too small; use 1 or more"):
        config.override(small, {"tune.members": 0})


class Simulation:
    """Ray Tune's side: populations with the given scores of their members, which reach rungs in a random order.

    One that has reached a rung waits for its share and, `patient` or not, may report in vain that it still does.
    """

    def __init__(self, scores, keep, populations, order, slots=2, fails=None, limit=None):
        self.scores, self.order, self.slots, self.fails = scores, order, slots, dict(fails or {})
        self.limit = limit or slots
        members = deal([({"candidate": i, "seed": 0}, 1.0) for i in range(len(scores))], populations)
        self.published = {}
        publish = lambda rung, trial, share: self.published.__setitem__((rung, trial), share)  # noqa: E731
        self.scheduler = PopulationHalving(RUNGS, keep, members, self.limit, publish)
        self.trials = [Trial("simulated", stub=True, trial_id=str(number)) for number in range(len(members))]
        self.share = dict(zip(self.trials, members, strict=True))
        self.reached, self.lost, self.most = [set() for _ in RUNGS], set(), [0 for _ in RUNGS]
        self.done = dict.fromkeys(self.trials, 0)
        for trial in self.trials:
            self.scheduler.on_trial_add(self, trial)

    def stop_trial(self, trial):
        assert trial.status == Trial.PAUSED, "only one that waits can be stopped"
        trial.status = Trial.TERMINATED
        self.scheduler.on_trial_remove(self, trial)

    def run(self):
        for _ in range(2000):
            if all(trial.is_finished() for trial in self.trials):
                return self
            running = [trial for trial in self.trials if trial.status == Trial.RUNNING]
            chosen = self.scheduler.choose_trial_to_run(self) if len(running) < self.slots else None
            if chosen is not None and chosen.status == Trial.PENDING and len(running) >= self.limit:
                chosen = None  # the searcher has not added it yet
            if chosen is not None:
                assert chosen.status in (Trial.PENDING, Trial.PAUSED)
                chosen.status = Trial.RUNNING
            elif running:
                self.progress(self.order.choice(running))
        raise AssertionError("every trial waits: the search hangs")

    def progress(self, trial):
        """One population goes on to its next rung, if it knows its share, and else says that it waits."""
        rung = self.done[trial]
        running = sum(trial.status == Trial.RUNNING for trial in self.trials)
        self.most[self.scheduler.rung] = max(self.most[self.scheduler.rung], running)
        if rung:
            self.share[trial] = self.published.get((rung, trial.trial_id))
        if self.share[trial] is None:
            self.report(trial, rung, [])
        elif not self.share[trial]:
            trial.status = Trial.TERMINATED
            self.scheduler.on_trial_complete(self, trial, {})
        elif self.fails.get(trial.trial_id) == rung:
            self.lost.update(job["candidate"] for job in self.share[trial])
            trial.should_recover = lambda: False
            trial.status = Trial.ERROR
            self.scheduler.on_trial_error(self, trial)
        else:
            members = [job["candidate"] for job in self.share[trial]]
            self.reached[rung].update(members)
            self.done[trial] += 1
            common = {"seed": 0, "status": "finite", "coverage": 1.0, "seconds": 1.0}
            rows = [{"candidate": i, "log_likelihood": self.scores[i][rung], **common} for i in members]
            self.report(trial, rung + 1, rows)

    def report(self, trial, rung, rows):
        said = self.scheduler.on_trial_result(self, trial, {"rung": rung, "rows": rows})
        trial.status = {"PAUSE": Trial.PAUSED, "CONTINUE": Trial.RUNNING, "STOP": Trial.TERMINATED}[said]
        if said == TrialScheduler.STOP:
            self.scheduler.on_trial_complete(self, trial, {})


scores = st.integers(1, 9).flatmap(
    lambda n: st.lists(st.permutations(range(n)), min_size=3, max_size=3).map(
        lambda rungs: list(zip(*rungs, strict=True))
    )
)


@given(
    scores,
    st.sampled_from([0.1, 0.34, 0.5, 0.67, 1.0]),
    st.integers(1, 9),
    st.randoms(use_true_random=False),
    st.integers(1, 4),
)
def test_survivors_are_those_of_single_trials(scores, keep, populations, order, slots):
    """At each rung the best of all members survive, whichever populations they were in, however few run at a time."""
    found = Simulation(scores, keep, min(populations, len(scores)), order, slots).run()
    assert found.reached == survivors(scores, keep)


@given(scores, st.integers(2, 9), st.randoms(use_true_random=False), st.integers(1, 2))
def test_limit_is_kept_where_there_is_room_for_more(scores, populations, order, limit):
    """No more populations run at a time than may: at first since the searcher adds no more, then by the scheduler."""
    found = Simulation(scores, 0.67, min(populations, len(scores)), order, slots=9, limit=limit).run()
    assert found.reached == survivors(scores, 0.67)
    assert max(found.most) <= limit


def test_old_rung_of_a_retried_population_is_not_the_next():
    """One that was killed before its checkpoint was saved reports a rung that is cut by then: its share stays its own."""
    found = Simulation([(i, i, i) for i in range(8)], 0.5, 2, random.Random(0), slots=2)
    for trial in found.trials:
        trial.status = Trial.RUNNING
        found.progress(trial)
    again, other = found.trials
    published = dict(found.published)
    rows = [
        {"candidate": i, "seed": 0, "status": "finite", "coverage": 1.0, "seconds": 1.0, "log_likelihood": 99.0}
        for i in (0, 2)
    ]
    assert found.scheduler.on_trial_result(found, again, {"rung": 1, "rows": rows}) == TrialScheduler.CONTINUE
    found.progress(other)
    assert found.published == published, "the next cut waits for the rung that is next"
    found.run()
    assert found.reached == [set(range(8)), {4, 5, 6, 7}, {6, 7}]


@given(scores, st.integers(1, 9), st.integers(0, 2), st.randoms(use_true_random=False))
def test_failed_population_is_not_waited_for(scores, populations, rung, order):
    """A population that fails takes its members with it, and the others go on."""
    found = Simulation(scores, 0.5, min(populations, len(scores)), order, fails={"0": rung}).run()
    assert found.reached[0] == set(range(len(scores))) - (found.lost if rung == 0 else set())
    assert not (found.reached[2] & found.lost and rung < 2)


@given(st.lists(st.floats(0, 100), max_size=20), st.integers(1, 8))
def test_members_are_dealt_evenly(costs, shares):
    """Each member is dealt once, no share is empty, and none costs over the mean and one member."""
    dealt = deal([({"candidate": i, "seed": 0}, cost) for i, cost in enumerate(costs)], shares)
    assert sorted(job["candidate"] for share in dealt for job in share) == list(range(len(costs)))
    assert all(dealt)
    assert len(dealt) == min(shares, len(costs))
    for share in dealt:
        most = sum(costs) / len(dealt) + max(costs)
        assert sum(costs[job["candidate"]] for job in share) <= most * (1 + 1e-9)


def test_share_is_waited_for_until_time_is_over(tmp_path):
    """A population gets its share once it is published, an empty one too, and None if time is over before."""
    shares = Shares(Storage.at(tmp_path))
    assert shares.wait(1, "a", until=0) is None
    shares.publish(1, "a", [{"candidate": 3, "seed": 0}])
    shares.publish(2, "a", [])
    assert shares.wait(1, "a", until=0) == [{"candidate": 3, "seed": 0}]
    assert shares.wait(2, "a", until=0) == []
    assert shares.wait(1, "b", until=0) is None


def test_simulation_sees_a_hang():
    """The check of hangs can fail: a scheduler that waits for a population that never comes hangs."""
    waiting = Simulation([(1, 1, 1)] * 2, 0.5, 2, random.Random(0))
    waiting.scheduler.on_trial_add(waiting, Trial("simulated", stub=True, trial_id="never runs", config={}))
    with pytest.raises(AssertionError, match="hangs"):
        waiting.run()
