"""Who leads, how well rungs predict, how many run at a time, and what stays of a segment: by hand-made cases."""

import json
import math

import numpy as np
import optuna
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from scipy.stats import spearmanr

from pipelines.config.tune_schema import ResourceSettings, TuneSettings
from pipelines.search.optuna_tpe import from_optuna, optuna_distribution
from pipelines.search.ranking import (
    RankCorrelation,
    at_step,
    best_rows,
    deciding_step,
    mean_over_seeds,
    rung_correlation,
    seed_deviation,
    without_diverged,
)
from pipelines.search.results_store import lineage, open_results, open_segment, segments
from pipelines.search.schedulers import concurrency, make_scheduler
from pipelines.storage import Storage

SPACE = {"algorithm.generator_learning_rate": {"log_uniform": [0.01, 1.0]}}


def row(candidate, step, score, seed=0, status="finite", coverage=1.0):
    return {
        "candidate": candidate, "seed": seed, "step": step, "status": status,
        "log_likelihood": score, "coverage": coverage,
    }  # fmt: skip


def test_best_rows_are_finite_covered_and_in_order():
    """The best are finite, at the step, with enough coverage, and of equal ones the first candidate."""
    rows = [
        row(3, 20, 1.0), row(0, 20, 5.0, coverage=0.1), row(1, 20, 1.0), row(2, 10, 9.0),
        row(4, 20, -1e30, status="diverged"), row(5, 20, 2.0),
    ]  # fmt: skip
    assert [found["candidate"] for found in best_rows(at_step(rows, 20, 0.5), 3)] == [5, 1, 3]
    assert [found["candidate"] for found in best_rows(at_step(rows, 20), 1)] == [0]


def test_candidates_are_compared_at_the_last_rung():
    """Candidates are compared at the last rung, and before it only when out of time."""
    rows = [row(0, 10, 1.0), row(1, 10, 2.0), row(0, 20, 1.0), row(2, 35, -1e30, status="diverged")]
    assert deciding_step(rows, (10, 20, 40), out_of_time=False) == 40
    assert deciding_step(rows, (10, 20, 40), out_of_time=True) == 20
    assert deciding_step(rows[3:], (10, 20, 40), out_of_time=True) == 40
    assert deciding_step(rows, (10, 20, 40), out_of_time=True, default=1) == 10  # the farthest where it can be compared
    assert deciding_step(rows, (10, 20, 40), out_of_time=True, default=7) == 20  # it has reached none


def test_later_diverged_candidate_is_no_choice():
    """A candidate that diverged after a good score is no choice."""
    rows = [row(0, 10, 9.0), row(1, 10, 2.0), row(0, 15, -1e30, status="diverged")]
    assert [found["candidate"] for found in without_diverged(rows)] == [1]


def test_mean_is_over_own_seeds_and_spoilt_by_divergence():
    """A mean is over the candidate's own seeds at the step, and one seed that diverged spoils it."""
    rows = [row(0, 20, 1.0), row(0, 20, 4.0, seed=1, coverage=0.5), row(0, 10, 99.0), row(1, 20, 50.0)]
    assert mean_over_seeds(0, rows, 20) == (2.5, 0.75)
    assert mean_over_seeds(0, [*rows, row(0, 7, -1e30, seed=2, status="diverged", coverage=0.0)], 20)[0] < -1e29


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=3, max_size=12))
def test_rung_correlation_is_scipys(pairs):
    """The rank correlation is scipy's, over the pairs that reached both rungs."""
    rows = [row(i, step, score) for i, pair in enumerate(pairs) for step, score in zip((10, 40), pair, strict=True)]
    rows += [row(90, 10, 1e9), row(91, 40, 1e9), row(92, 10, 1.0), row(92, 40, -1e30, status="diverged")]
    found = rung_correlation(rows, (10, 20, 40))
    first, last = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(last)) == 1:
        assert found == {}
    else:
        rho = float(spearmanr(first, last).statistic)
        assert found.keys() == {10}
        assert (found[10].rho, found[10].pairs) == (pytest.approx(rho, abs=1e-12), len(pairs))
        assert -1 <= found[10].low <= rho + 1e-12
        assert rho - 1e-12 <= found[10].high <= 1


def test_interval_of_a_rank_correlation_holds_the_true_one():
    """Of pairs of normal numbers with correlation 0.7, whose rank correlation is 6 / pi asin(0.7 / 2) = 0.683.

    95 % of 2,000 intervals hold it, within five of that share's standard errors, 0.005; the approximation costs as much.
    """
    random, true, holds = np.random.default_rng(0), 6 / math.pi * math.asin(0.7 / 2), 0
    for _ in range(2000):
        first = random.standard_normal(24)
        last = 0.7 * first + math.sqrt(1 - 0.7**2) * random.standard_normal(24)
        rows = [
            row(i, step, x) for i, pair in enumerate(zip(first, last, strict=True)) for step, x in zip((10, 40), pair)
        ]
        found = rung_correlation(rows, (10, 40))[10]
        holds += found.low <= true <= found.high
    assert holds / 2000 == pytest.approx(0.95, abs=0.025)


@pytest.mark.parametrize("sign", [1, -1])
def test_equal_ranks_of_a_few_pairs_are_no_certainty(sign):
    """Of five pairs the interval of equal ranks is that of one exchange, rho 0.9, open to the end."""
    found = rung_correlation(
        [row(i, step, i * (sign if step == 40 else 1)) for i in range(5) for step in (10, 40)], (10, 40)
    )
    low = math.tanh(math.atanh(0.9) - 1.96 * math.sqrt((1 + 0.9**2 / 2) / 2))
    interval = (low, 1.0) if sign == 1 else (-1.0, -low)
    assert (found[10].low, found[10].high) == pytest.approx(interval, abs=1e-12)


def test_three_pairs_say_nothing_certain():
    found = rung_correlation([row(i, step, i) for i in range(3) for step in (10, 40)], (10, 40))
    assert found[10] == RankCorrelation(1.0, -1.0, 1.0, 3)


def test_seed_deviation_is_over_a_candidates_seeds():
    rows = [
        row(0, 20, 1.0),
        row(0, 20, 4.0, seed=1),
        row(0, 10, 9.0),
        row(1, 20, -1e30, status="diverged"),
        row(1, 20, 3.0),
    ]
    assert seed_deviation(rows) == {(0, 20): pytest.approx(3 / math.sqrt(2), abs=1e-12)}


def test_two_pairs_have_no_rank_correlation():
    assert rung_correlation([row(i, step, i) for i in range(2) for step in (10, 40)], (10, 40)) == {}


@pytest.mark.parametrize(
    ("available", "resources", "more", "expected"),
    [
        ({"CPU": 8.0}, {}, {}, (6, "all of them")),
        ({"CPU": 4.0}, {}, {}, (4, "CPU")),
        ({"CPU": 4.0}, {"cpu": 1.5}, {}, (2, "CPU")),
        ({"CPU": 0.3}, {"cpu": 0.1}, {}, (3, "CPU")),  # 0.3 / 0.1 is 2.9999999999999996
        ({"CPU": 4.0}, {}, {"max_concurrent": 3}, (3, "tune.max_concurrent")),
        ({"CPU": 16.0, "GPU": 1.0}, {"gpu": 0.25}, {}, (4, "GPU")),
        ({"CPU": 16.0, "GPU": 3.0}, {"gpu": 0.6}, {}, (3, "GPU")),  # no GPU is shared by parts of two
        ({"CPU": 16.0, "GPU": 5.0}, {"gpu": 2}, {}, (2, "GPU")),
        ({"CPU": 2.0, "GPU": 8.0}, {"gpu": 0.5}, {}, (2, "CPU")),
    ],
)
def test_concurrency_is_set_by_the_scarcest_resource(available, resources, more, expected):
    """As many trials run at a time as the scarcest resource allows."""
    settings = TuneSettings(candidates=6, space=SPACE, resources_per_trial=ResourceSettings(**resources), **more)
    assert concurrency(settings, available) == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, (6, "all of them")),
        ({"max_concurrent": 3}, (3, "tune.max_concurrent")),
        (
            {"searcher": "tpe", "scheduler": "asha"},
            (2, "CPU"),
        ),  # it learns nothing from results that it does not wait for
        ({"searcher": "tpe", "scheduler": "asha", "max_concurrent": 3}, (3, "tune.max_concurrent")),
    ],
)
def test_growing_cluster_limits_only_a_learning_searcher(more, expected):
    """What a growing cluster has now is no limit, but to a searcher that learns from results."""
    settings = TuneSettings(candidates=6, space=SPACE, **more)
    assert concurrency(settings, {"CPU": 2.0}, grows=True) == expected


class Live:
    """What a scheduler asks of Ray Tune."""

    search_alg = None

    def __init__(self, trials):
        self.trials = trials

    def get_trials(self):
        return self.trials

    get_live_trials = get_trials


def simulated(count):
    """So many trials of Ray Tune that nothing runs."""
    trials = [Trial("simulated", stub=True, trial_id=str(i)) for i in range(count)]
    for number, trial in enumerate(trials):
        trial.config = {"job": {"candidate": number}}
    return trials


@pytest.mark.parametrize("name", ["asha", "median_stopping"])
@pytest.mark.parametrize("include_default", [True, False])
def test_the_configuration_is_cut_by_no_rung(name, include_default):
    """The worst of eight goes on if it is the configuration, candidate 0, and ends if that is no candidate."""
    settings = TuneSettings(candidates=8, space=SPACE, scheduler=name, rungs=(10, 20), include_default=include_default)
    scheduler = make_scheduler(settings, (10, 20), 0, 2)
    scheduler.set_search_properties("log_likelihood", "max")
    trials = simulated(8)
    live = Live(trials)
    for trial in trials:
        scheduler.on_trial_add(live, trial)
    said = {}
    for number in [*range(4, 8), 0, 1]:
        result = {"step": 10, "log_likelihood": float(number), "status": "finite"}
        said[number] = scheduler.on_trial_result(live, trials[number], result)
    assert (said[0] == TrialScheduler.CONTINUE) is include_default
    assert said[1] == TrialScheduler.STOP
    if include_default:  # it goes on to the next rung as if nothing had been decided
        result = {"step": 20, "log_likelihood": -1.0, "status": "finite"}
        assert scheduler.on_trial_result(live, trials[0], result) == TrialScheduler.CONTINUE


@pytest.mark.parametrize("name", ["asha", "median_stopping"])
def test_diverged_scores_do_not_decide_for_others(name):
    """Scores of diverged trials do not decide about the others: else the worst finite one would stay."""
    scheduler = make_scheduler(TuneSettings(candidates=8, space=SPACE, scheduler=name, rungs=(10, 20)), (10, 20), 0, 2)
    scheduler.set_search_properties("log_likelihood", "max")
    trials = simulated(8)
    live = Live(trials)
    for trial in trials:
        scheduler.on_trial_add(live, trial)
    diverged = {"step": 10, "log_likelihood": -1e30, "status": "diverged"}
    for trial in trials[:4]:
        assert scheduler.on_trial_result(live, trial, diverged) == TrialScheduler.STOP
        scheduler.on_trial_complete(live, trial, diverged)
    for trial, value in zip(trials[4:7], (5.0, 6.0, 7.0), strict=True):
        said = scheduler.on_trial_result(live, trial, {"step": 10, "log_likelihood": value, "status": "finite"})
        assert said != TrialScheduler.STOP
    # Below all three finite ones; with the four diverged ones counted, it would be among the better half.
    worst = {"step": 10, "log_likelihood": 1.0, "status": "finite"}
    assert scheduler.on_trial_result(live, trials[7], worst) == TrialScheduler.STOP


def test_asha_rungs_grow_by_the_share_kept():
    """ASHA's rungs are the first and, by the share kept, on up to the last."""
    settings = TuneSettings(candidates=4, space=SPACE, scheduler="asha", rungs=(10, 80), keep=0.5)
    scheduler = make_scheduler(settings, settings.rungs, 0, 2)
    assert sorted(milestone for milestone, _ in scheduler._brackets[0]._rungs) == [10, 20, 40, 80]


def test_segment_is_found_by_its_job_and_origin(tmp_path):
    """A segment is found again by its job and origin, and by nothing else."""
    results, known = open_results(Storage.at(tmp_path), ["inputs"])
    assert known == 0
    job = {"candidate": 3, "seed": 7, "noise.size": 8}
    segment = open_segment(results, job, None)
    densities = np.arange(6.0).reshape(2, 3)
    segment.log_metrics({"step": 10, "value": 0.5})
    segment.commit(
        {"step": 20, "status": "finite", "log_likelihood": 1.0}, {"generator": {"w": torch.ones(2)}}, densities
    )
    segment.commit({"step": 40, "status": "finite", "log_likelihood": 2.0}, None, densities + 1)
    again, known = open_results(Storage.at(tmp_path), ["inputs"])
    assert (again, known) == (results, 2)
    assert open_segment(again, dict(reversed(job.items())), None) == segment
    assert [row["step"] for row in segment.rows()] == [20, 40]
    assert segment.curve() == [{"step": 10, "value": 0.5}]
    assert (segment.log_densities(40) == densities + 1).all()
    for other, origin in [
        ({**job, "noise.size": 9}, None),
        ({**job, "seed": 8}, None),
        (job, {"stretch": "x", "step": 20}),
    ]:
        assert open_segment(again, other, origin).rows() == []
    assert len(segments(again)) == 4
    assert open_results(Storage.at(tmp_path), ["others"])[1] == 0
    assert segments(again) == []


def test_a_score_without_its_log_densities_is_none(tmp_path, caplog):
    """A score whose log-densities are damaged is not there, nor those after it: that part is trained again."""
    segment = open_segment(Storage.at(tmp_path), {"candidate": 0, "seed": 0}, None)
    for step in (20, 40, 60):
        segment.commit({"step": step, "status": "finite"}, None, np.zeros((2, 3)))
    path = segment.folder.local / "log-densities" / "00000040.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert [row["step"] for row in segment.rows()] == [20]
    assert "training that part again" in caplog.text
    path.unlink()
    assert [row["step"] for row in segment.rows()] == [20]


def test_resume_weights_are_the_newest_whole_ones(tmp_path, caplog):
    """The weights to go on from are the newest undamaged ones not beyond a step."""
    segment = open_segment(Storage.at(tmp_path), {"candidate": 0, "seed": 0}, None, kept=3)
    assert segment.weights(100) is None
    for step in (20, 40, 60):
        segment.keep(step, {"generator": {"w": torch.full((2,), float(step))}})
    at = lambda until: segment.weights(until)["generator"]["w"].tolist()  # noqa: E731
    assert at(59) == [40.0, 40.0]
    assert segment.weights(19) is None
    (segment.folder.local / "step=00000040" / "generator.safetensors").write_bytes(b"cut")
    assert at(59) == [20.0, 20.0]
    assert "training that part again" in caplog.text


def test_lineage_has_only_settings_passed_on(tmp_path):
    """A lineage is the settings really used, and leaves out what was not passed on."""
    results = Storage.at(tmp_path)
    job = lambda candidate, rate: {"candidate": candidate, "seed": 0, "rate": rate}  # noqa: E731
    first = open_segment(results, job(0, 0.1), None)
    second = open_segment(results, job(1, 0.2), {"stretch": first.name, "step": 20})
    third = open_segment(results, job(2, 0.3), {"stretch": second.name, "step": 60})
    assert [(part["step"], part["candidate"], part["settings"]) for part in lineage(third)] == [
        (0, 0, {"rate": 0.1}), (20, 1, {"rate": 0.2}), (60, 2, {"rate": 0.3}),
    ]  # fmt: skip
    # One that was copied at the very step where it was itself put there has passed on nothing of its own.
    fourth = open_segment(results, job(3, 0.4), {"stretch": second.name, "step": 20})
    assert [part["settings"]["rate"] for part in lineage(fourth)] == [0.1, 0.4]


@given(st.sampled_from([{"choice": [[4], None, "relu"]}, {"integer": [2, 9]}, {"uniform": [0.1, 0.7]},
                        {"log_uniform": [1e-5, 0.123456]}]), st.integers(0, 1000))  # fmt: skip
def test_optunas_numbers_stand_for_values_of_the_space(distribution, seed):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    value = from_optuna(distribution, study.ask({"it": optuna_distribution(distribution)}).params["it"])
    (kind, values), *_ = distribution.items()
    assert value in values if kind == "choice" else values[0] <= value <= values[1]
    assert json.loads(json.dumps(value)) == value
    assert kind != "integer" or type(value) is int
