"""Searchers and schedulers of Ray Tune on real digits: what each promises, seen in its table."""

import io
import json

import pandas
import pytest
from scipy.stats import spearmanr

from gan_core.conditions.base import UNCONDITIONAL
from gan_core.errors import Diverged
from gan_core.state import step_of
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.search.results_store import TrainingSegment
from pipelines.search.scores import rung_score
from pipelines.stages.tune import tune_run
from pipelines.storage import Storage
from pipelines.storage.run_layout import PERTURBATIONS, TABLE

STEPS = "algorithm.discriminator_steps"
RATE, OTHER_RATE = "algorithm.discriminator_learning_rate", "algorithm.generator_learning_rate"
RUNGS = (20, 40, 60)


@pytest.fixture(scope="module")
def search(small, digits, ray_cluster, tmp_path_factory):
    """A search with some settings replaced: its record, its table, what it said and its folder."""

    def run(settings, folder=None):
        base = {"seed": 7, "tune.rungs": list(RUNGS), "tune.confirm.seeds": 1, "tune.include_default": False}
        configuration = config.override(small, {**base, **{f"tune.{key}": value for key, value in settings.items()}})
        folder, said = folder or Storage.at(tmp_path_factory.mktemp("search")), []
        record = tune_run(configuration, digits, folder, said.append)
        return record, pandas.read_parquet(io.BytesIO(folder.read(TABLE))), said, folder

    return run


@pytest.fixture(scope="module")
def population(search):
    """Population based training of four candidates; two of the three generator's rates are far apart."""
    space = {RATE: {"log_uniform": [0.02, 0.5]}, OTHER_RATE: {"choice": [0.002, 0.02, 0.2]}}
    return search({"scheduler": "population_based", "candidates": 4, "space": space})


def scored_along(schedule, steps, small, digits):
    """The score after training in one go with the settings of a schedule, by gan_core alone."""
    with one_thread():
        state, training = None, None
        for part, end in zip(schedule, [*(later["step"] for later in schedule[1:]), steps], strict=True):
            training = config.override(small, {"seed": 7, **part["settings"]}).training()
            state = state or initial_state(training, digits.train)
            for _ in train(training, digits.train, state, end, lambda step: False):
                pass
        tune = small.tune
        found, _ = rung_score(
            state.generator, training, digits.validation, UNCONDITIONAL, tune.samples, tune.sample_sets
        )
        return found


@pytest.mark.slow
def test_population_keeps_size_and_stays_in_the_space(population):
    """A population keeps its size, replaces half at each rung, and perturbs within the space."""
    record, table, _, folder = population
    assert sorted(zip(table.candidate, table.step, strict=True)) == [(i, step) for i in range(4) for step in RUNGS]
    assert table[RATE].between(0.02, 0.5).all()
    assert set(table[OTHER_RATE]) <= {0.002, 0.02, 0.2}
    changes = json.loads(folder.read(PERTURBATIONS))
    # Half of four are replaced at each of the two rungs before the last.
    assert sorted(change["origin"]["step"] for change in changes) == [20, 20, 40, 40]
    assert (record.candidates, record.finished, record.failed) == (4, 4, 0)


@pytest.mark.slow
def test_perturbed_rate_applies_to_the_next_update(population, small, digits):
    """A perturbed rate is the rate of the next update: scores are those of that schedule to the bit."""
    _, table, _, folder = population
    changes = [change for change in json.loads(folder.read(PERTURBATIONS)) if change["origin"]["step"] == 20]
    for change in changes:
        (row,) = table[(table.candidate == change["job"]["candidate"]) & (table.step == 40)].to_dict("records")
        (donor,) = table[(table.stretch == change["origin"]["stretch"]) & (table.step == 20)].to_dict("records")
        new, old = ({key: of[key] for key in (RATE, OTHER_RATE)} for of in (change["job"], donor))
        assert {key: row[key] for key in new} == new
        schedule = [{"step": 0, "settings": old}, {"step": 20, "settings": new}]
        expected = scored_along(schedule, 40, small, digits)
        assert {key: row[key] for key in expected} == expected  # to the bit
        if new != old:
            assert scored_along(schedule[:1], 40, small, digits) != expected
    assert changes


@pytest.mark.slow
def test_winners_schedule_reproduces_its_score(population, small, digits):
    """The winner's schedule is what it was trained with, and the choice is its last settings."""
    record, table, _, _ = population
    (row,) = table[(table.candidate == record.candidate) & (table.step == RUNGS[-1])].to_dict("records")
    assert record.schedule[0]["step"] == 0
    assert record.schedule[-1]["settings"] == record.chosen == {key: row[key] for key in (RATE, OTHER_RATE)}
    assert scored_along(record.schedule, RUNGS[-1], small, digits)["log_likelihood"] == row["log_likelihood"]


@pytest.fixture(scope="module")
def suggested(search):
    """Optuna's suggestions under ASHA, one of whose choices diverges; and the same search again."""
    space = {RATE: {"choice": [0.02, 0.2, 1.0e20]}, "noise.size": {"integer": [3, 9]}}
    settings = {"searcher": "tpe", "scheduler": "asha", "candidates": 5, "space": space}
    first = search(settings)
    return first, search(settings, first[3])


@pytest.mark.slow
def test_suggested_candidates_keep_their_settings(suggested):
    """Suggested candidates are numbered, and each keeps its settings at all its rungs."""
    (record, table, _, _), _ = suggested
    assert sorted(set(table.candidate)) == list(range(5))
    settings = table.groupby("candidate")[[RATE, "noise.size"]].nunique()
    assert (settings == 1).all(axis=None)
    assert set(table[RATE]) <= {0.02, 0.2, 1.0e20}
    assert table["noise.size"].between(3, 9).all()
    (row,) = table[(table.candidate == record.candidate) & (table.step == record.step)].to_dict("records")
    assert record.chosen == {key: row[key] for key in (RATE, "noise.size")}


@pytest.mark.slow
def test_diverged_trial_under_asha_ends_at_once(suggested):
    """A trial that diverges under ASHA ends at once and is named."""
    (record, table, said, _), _ = suggested
    diverged = table[table.status == "diverged"]
    assert record.diverged == len(diverged) > 0
    assert (diverged[RATE] == 1.0e20).all()
    for row in diverged.to_dict("records"):
        assert len(table[table.candidate == row["candidate"]]) == 1
        assert f"tune   search candidate {row['candidate']} seed 7 step {row['step']}  diverged" in said


@pytest.mark.slow
def test_repeated_suggestion_search_trains_nothing_twice(suggested):
    """A search by suggestion done again knows its suggestions and trains nothing twice."""
    (_, first, _, _), (_, again, _, _) = suggested
    known = {(row["candidate"], row["step"]): row for row in first.to_dict("records")}
    for row in again.to_dict("records"):
        before = known.get((row["candidate"], row["step"]))
        if before is not None:  # ASHA's cuts depend on who arrives first: a row may be new
            of_all = [
                name for name in row if "correlation" in name or name == "seed_deviation"
            ]  # of rows that may be new
            assert {**before, **dict.fromkeys(of_all)} == {**row, **dict.fromkeys(of_all)}  # seconds too
    assert set(again.candidate) == set(first.candidate)


@pytest.mark.slow
@pytest.mark.parametrize("inside", [True, False])
def test_suggestions_begin_with_the_configuration(search, small, inside):
    """Optuna's first candidate is the configuration, from which it learns if it is in the space; then the points."""
    low, high = (0.001, 0.5) if inside else (0.2, 0.5)
    space = {RATE: {"log_uniform": [low, high]}, "noise.size": {"integer": [3, 9]}}
    settings = {"searcher": "tpe", "scheduler": "none", "candidates": 4, "space": space, "rungs": [20]}
    given = {"include_default": True, "points": [{RATE: 0.25}]}
    _, table, _, folder = search({**settings, **given})
    rows = table.sort_values("candidate")[[RATE, "noise.size"]].to_dict("records")
    own = {RATE: small.algorithm.discriminator_learning_rate, "noise.size": small.noise.size}
    assert rows[:2] == [own, {**own, RATE: 0.25}]
    assert all(low <= row[RATE] <= high for row in rows[1:])
    assert sorted((folder.local / "tune" / "findings" / "suggested").iterdir())[0].name == "000002.json"
    again = search({**settings, **given}, folder)
    assert again[1].equals(table)  # seconds too: nothing was trained twice


@pytest.mark.slow
def test_population_is_compared_with_the_configuration(search, small):
    """The configuration is the population's first member, and at its end one more candidate of the confirmations."""
    space = {RATE: {"log_uniform": [0.02, 0.5]}}
    settings = {"scheduler": "population_based", "candidates": 2, "space": space, "include_default": True}
    record, table, said, _ = search({**settings, "confirm.seeds": 3})
    own = small.algorithm.discriminator_learning_rate
    first = table[(table.stage == "search") & (table.step == RUNGS[0])]
    assert first[first.candidate == 0][RATE].tolist() == [own]
    confirmed = table[table.stage == "confirm"]
    assert confirmed[confirmed.candidate == 2][RATE].unique().tolist() == [own]
    assert any("against the configuration" in line for line in said)
    assert record.segment is None


@pytest.fixture(scope="module")
def uncut(search):
    """Three of a grid's four candidates, none of which is cut, over two seeds."""
    space = {RATE: {"choice": [0.02, 0.2]}, "noise.size": {"integer": [4, 5]}}
    return search(
        {
            "searcher": "grid", "keep": 1.0, "candidates": 3, "space": space,
            "confirm": {"best": 3, "seeds": 2},
        }
    )  # fmt: skip


def test_a_grids_candidates_are_its_first_points_in_order(uncut):
    _, table, said, _ = uncut
    search = table[(table.stage == "search") & (table.step == RUNGS[0])].sort_values("candidate")
    found = list(zip(search[RATE], search["noise.size"], strict=True))
    assert found == [(0.02, 4), (0.02, 5), (0.2, 4)]
    assert said[0].startswith("tune   3 of the grid's 4 candidates, 2 at a time (CPU), rungs at 20, 40, 60 steps")


def test_uncut_search_scores_all_at_every_rung(uncut):
    """With nothing cut, every candidate and seed is scored at every rung."""
    _, table, _, _ = uncut
    found = sorted(zip(table.candidate, table.seed, table.step, strict=True))
    assert found == [(i, seed, step) for i in range(3) for seed in (7, 8) for step in RUNGS]


def test_rung_correlation_covers_candidates_and_seeds(uncut):
    """The rank correlation of rungs with the end is scipy's over all candidates and seeds."""
    record, table, said, _ = uncut
    scores = table.pivot(index=["candidate", "seed"], columns="step", values="log_likelihood")
    for step in RUNGS[:-1]:
        rho = spearmanr(scores[step], scores[RUNGS[-1]]).statistic
        assert record.rung_correlation[str(step)] == pytest.approx(rho, abs=1e-12)
        assert (table[table.step == step].rung_correlation == record.rung_correlation[str(step)]).all()
        low, high = record.rung_correlation_interval[str(step)]
        at_rung = table[table.step == step]
        assert set(zip(at_rung.rung_correlation_low, at_rung.rung_correlation_high, strict=True)) == {(low, high)}
        line = f"step {step} with those at step 60: {rho:.2f} (95 % interval {low:.2f} to {high:.2f}, 6 pairs)"
        assert f"tune   rank correlation of scores at {line}" in said
    assert table[table.step == RUNGS[-1]].rung_correlation.isna().all()


@pytest.fixture(scope="module")
def by_updates(search):
    """A search whose rungs are updates, of candidates that have k = 1 and 3."""
    space = {STEPS: {"choice": [1, 3]}}
    settings = {"searcher": "grid", "rung_unit": "updates", "rungs": [40, 80], "keep": 1.0, "candidates": 2}
    return search({**settings, "space": space})


def test_at_rungs_of_updates_more_discriminator_steps_cost_more(by_updates, small, digits):
    """At a rung of 40 updates k = 1 has had 20 steps and k = 3 ten: they are compared, and scored as these are alone."""
    record, table, said, _ = by_updates
    found = table.sort_values(["candidate", "step"])[[STEPS, "step", "updates", "budget"]].values.tolist()
    assert found == [[1, 20, 40, 40], [1, 40, 80, 80], [3, 10, 40, 40], [3, 20, 80, 80]]
    for row in table.to_dict("records"):
        schedule = [{"step": 0, "settings": {STEPS: row[STEPS]}}]
        assert scored_along(schedule, row["step"], small, digits)["log_likelihood"] == row["log_likelihood"]
    at_last = table[table.budget == 80]
    best = at_last.loc[at_last.log_likelihood.idxmax()]
    assert (record.candidate, record.step, record.finished) == (best.candidate, best.step, 2)
    assert {finalist["step"] for finalist in record.finalists} == {20, 40}
    assert "rungs at 40, 80 updates" in said[0]


def test_training_goes_on_from_a_rung_of_updates(by_updates, small):
    """The weights of the choice are there at its own step, from which its training goes on."""
    record, _, _, folder = by_updates
    segment = TrainingSegment(folder.child("tune", "findings"), record.segment)
    assert step_of(segment.weights(record.step)) == record.step


@pytest.mark.slow
def test_median_stopping_searches_one_at_a_time(search):
    """Median stopping with one trial at a time scores every candidate and chooses the best at the end."""
    record, table, said, _ = search({"scheduler": "median_stopping", "candidates": 3, "max_concurrent": 1})
    assert said[0].startswith("tune   3 candidates, 1 at a time (tune.max_concurrent)")
    assert sorted(table[table.step == RUNGS[0]].candidate) == [0, 1, 2]
    assert record.finished >= 1
    last = table[table.step == RUNGS[-1]]
    assert record.candidate == last.loc[last.log_likelihood.idxmax()].candidate


def test_budget_over_before_any_score_is_an_error(search):
    """A budget that is over before anything is scored is an error that says so."""
    with pytest.raises(
        Diverged, match=r"no candidate was scored in time \(tune.time_budget_s\): 0.5 s; expected a lon"
    ):
        search({"candidates": 2, "time_budget_s": 0.5, "rungs": [10_000_000]})


@pytest.mark.slow
def test_budget_over_chooses_among_the_farthest(search):
    """A budget that is over chooses among the candidates that came farthest."""
    space = {RATE: {"choice": [0.02, 0.2]}}
    settings = {"candidates": 2, "rungs": [20, 10_000_000], "space": space, "confirm.seeds": 2, "confirm.best": 2}
    record, table, said, _ = search({**settings, "time_budget_s": 60})
    assert (record.step, record.finished) == (20, 0)
    assert record.candidate == table.loc[table.log_likelihood.idxmax()].candidate
    (line,) = [line for line in said if "budget" in line]
    assert line == (
        "tune   the time budget of 60 s is over: 0 of 2 candidates reached step 10000000, 2 were scored before it, "
        "0 were not scored"
    )
    assert "tune   no time is left to confirm the best over seeds" in said
    assert 60 <= record.seconds < 600  # not the hours that ten million steps take
