"""A real search on real digits: its table, its winner, its bits, and a candidate that diverges."""

import io
import shutil
import time
from dataclasses import replace

import numpy as np
import pandas
import pytest

from gan_core.conditions.base import UNCONDITIONAL
from gan_core.errors import Diverged
from gan_core.threads import one_thread
from pipelines import config
from pipelines.config.candidates import candidate_configurations, draw_candidates
from pipelines.search.candidate_training import Search
from pipelines.search.results_store import open_segment
from pipelines.search.scores import rung_score
from pipelines.search.trial import rows_of
from pipelines.stages.tune import tune_run
from pipelines.storage import Storage
from pipelines.storage.run_layout import TABLE
from tests.pipelines.conftest import trained_alone

RATE = "algorithm.discriminator_learning_rate"
RUNGS = (20, 60)
# Two of these rates train; with the third D's logits overflow within a few updates.
SPACE = {RATE: {"choice": [0.02, 0.2, 1.0e20]}, "noise.size": {"choice": [4, 8]}}
NUMBERS = ["candidate", "seed", "step", "log_likelihood", "standard_error", "sigma", "coverage", "value"]


@pytest.fixture(scope="module")
def settings(small):
    return config.override(
        small,
        {
            "seed": 7, "tune.candidates": 5, "tune.rungs": list(RUNGS), "tune.keep": 0.5, "tune.space": SPACE,
            "tune.confirm.seeds": 3,
        },
    )  # fmt: skip


class Searches(list):
    """The searches of `searched`, and the folder of the first."""

    folder = None


@pytest.fixture(scope="module")
def searched(settings, digits, ray_cluster, tmp_path_factory):
    """The same search twice: its record, its table and what it said, each time."""
    results = Searches()
    for attempt in ("first", "again"):
        folder, said = Storage.at(tmp_path_factory.mktemp(attempt)), []
        record = tune_run(settings, digits, folder, said.append)
        results.folder = results.folder or folder
        results.append((record, pandas.read_parquet(io.BytesIO(folder.read(TABLE))), said))
    return results


def untimed(record):
    """A search's record without what never repeats to the bit."""
    return replace(record, seconds=0, device_seconds={})


def alone(configuration, seed, step, digits):
    """What a candidate must score at a rung: gan_core's own training, without Ray, scored."""
    training, tune = replace(configuration.training(), seed=seed), configuration.tune
    state = trained_alone(training, digits, step)
    with one_thread():
        found, _ = rung_score(
            state.generator, training, digits.validation, UNCONDITIONAL, tune.samples, tune.sample_sets
        )
    return found


def test_space_here_has_finite_and_diverging_candidates(settings):
    """The space of these tests draws candidates that train and candidates that diverge."""
    rates = [candidate[RATE] for candidate in draw_candidates(settings)]
    assert rates.count(1.0e20) in (1, 2)
    assert {0.02, 0.2} < set(rates)


def test_table_has_all_candidates_then_the_survivors(settings, searched):
    """The table has every candidate at the first rung, and the survivors at the second."""
    (record, table, _), _ = searched
    rates = [candidate[RATE] for candidate in draw_candidates(settings)]
    search = table[table.stage == "search"]
    first = search[search.step <= RUNGS[0]]
    assert sorted(first.candidate) == list(range(5))
    assert [status == "diverged" for status in first.sort_values("candidate").status] == [
        rate == 1.0e20 for rate in rates
    ]
    finite = first[first.status == "finite"].sort_values(["log_likelihood", "candidate"], ascending=[False, True])
    left = max(1, int(len(finite) * 0.5 + 0.5))
    survivors = {*finite.candidate[:left], 0}  # the configuration is cut by no rung
    assert set(search[search.step == RUNGS[1]].candidate) == survivors
    assert len(search) == 5 + len(survivors)
    assert record.candidates == 5
    assert (record.diverged, record.failed) == (rates.count(1.0e20), 0)


def test_the_table_holds_each_candidates_own_settings(settings, searched):
    (_, table, _), _ = searched
    candidates = draw_candidates(settings)
    for row in table.to_dict("records"):
        assert {key: row[key] for key in SPACE} == candidates[row["candidate"]]


def test_a_candidate_that_diverges_is_named_and_never_wins(settings, searched):
    (record, table, said), _ = searched
    for row in table[table.status == "diverged"].to_dict("records"):
        assert f"tune   search candidate {row['candidate']} seed 7 step 10  diverged" in said  # at the first report
        assert row["log_likelihood"] < -1e20
        assert row["candidate"] != record.candidate
    assert record.chosen[RATE] < 1.0e20


def test_the_best_is_compared_with_the_configuration(settings, searched):
    """The last rung's best and the configuration are trained with two more seeds, and the paired test of these decides."""
    (record, table, said), _ = searched
    candidates = draw_candidates(settings)
    own = config.flat(config.to_plain(settings))
    assert candidates[0] == {key: own[key] for key in SPACE}
    last = table[(table.stage == "search") & (table.step == RUNGS[1])]
    others = last[last.candidate != 0]
    best = others.loc[others.log_likelihood.idxmax()]
    confirmed = table[table.stage == "confirm"]
    assert sorted(zip(confirmed.candidate, confirmed.seed, confirmed.step, strict=True)) == [
        (candidate, seed, RUNGS[1]) for candidate in (0, best.candidate) for seed in (8, 9)
    ]
    scores = table[table.step == RUNGS[1]].set_index(["candidate", "seed"]).log_likelihood
    differences = [scores[best.candidate, seed] - scores[0, seed] for seed in (8, 9)]
    found = record.against_configuration
    assert (found["candidate"], found["seeds"]) == (best.candidate, 2)
    assert found["difference"] == pytest.approx(sum(differences) / 2, abs=1e-9)
    assert record.candidate == (best.candidate if found["lower_bound"] > 0 else 0)
    assert record.chosen == candidates[record.candidate]
    assert record.log_likelihood == pytest.approx(scores[record.candidate].mean(), abs=1e-12)
    assert any(f"candidate {best.candidate} against the configuration" in line for line in said)
    assert record.finalists[0]["candidate"] == record.candidate
    assert {finalist["candidate"] for finalist in record.finalists} == set(last.candidate)


def test_the_table_has_both_kinds_of_chance(searched):
    """A score's standard error (points and sets) is in every row, a candidate's deviation over seeds where it has two."""
    (_, table, _), _ = searched
    finite = table[table.status == "finite"]
    assert finite.standard_error.between(0.01, 5).all()  # nats, of 200 points whose log-densities differ by a few
    for row in finite.to_dict("records"):
        of_seeds = finite[(finite.candidate == row["candidate"]) & (finite.step == row["step"])].log_likelihood
        assert row["seed_deviation"] == pytest.approx(of_seeds.std(), abs=1e-12, nan_ok=True)


def test_device_seconds_are_in_table_and_record(settings, searched):
    """Each score has the device-seconds and the updates of D and G up to it; the record has them by candidate."""
    (record, table, _), _ = searched
    assert (table.updates == table.step * (settings.algorithm.discriminator_steps + 1)).all()
    assert table.device_seconds.between(0.001, 600).all()
    last = table.groupby(["candidate", "seed"]).device_seconds.max()
    expected = {str(number): pytest.approx(seconds) for number, seconds in last.groupby("candidate").sum().items()}
    assert record.device_seconds == expected


def test_device_seconds_add_up_where_a_trial_goes_on(settings, digits, tmp_path):
    """A trial that goes on after 1,000 device-seconds counts on from there, twice as fast on two CPUs."""
    two = config.override(settings, {"tune.resources_per_trial.cpu": 2.0})
    job = {"candidate": 0, "seed": 7, **draw_candidates(settings)[0]}
    segment = open_segment(Storage.at(tmp_path), job, None)
    weights = trained_alone(replace(two.training(), seed=7), digits, RUNGS[0]).tensors()
    row = {"step": RUNGS[0], "status": "finite", "device_seconds": 1000.0}
    segment.commit(row, weights, np.zeros((1, 1)))
    started = time.monotonic()
    *_, last = rows_of(segment, job, Search(two, RUNGS, segment.results), digits)
    assert (last["step"], last["seconds"] > 0) == (RUNGS[1], True)
    assert 2 * last["seconds"] <= last["device_seconds"] - 1000 + 1e-3 <= 2 * (time.monotonic() - started)


def test_a_search_repeats_to_the_bit(searched):
    (first, table, _), (again, same, _) = searched
    assert table[NUMBERS].equals(same[NUMBERS])
    assert untimed(first) == untimed(again)


def test_candidate_trains_at_its_own_rate_throughout(settings, searched, digits):
    """A candidate trains with its own rate from the first update, and not with the configuration's."""
    (_, table, _), _ = searched
    search = table[(table.stage == "search") & (table.status == "finite")]
    for index, configuration in enumerate(candidate_configurations(settings)):
        for row in search[search.candidate == index].to_dict("records"):
            expected = alone(configuration, 7, row["step"], digits)
            assert {key: row[key] for key in expected} == expected  # to the bit, resumed from its rung or not
    survivor = int(search[(search.step == RUNGS[1]) & (search.candidate != 0)].candidate.iloc[0])
    own = config.override(
        candidate_configurations(settings)[survivor], {RATE: settings.algorithm.discriminator_learning_rate}
    )
    (at_last,) = search[(search.step == RUNGS[1]) & (search.candidate == survivor)].log_likelihood
    assert alone(own, 7, RUNGS[1], digits)["log_likelihood"] != at_last


def test_search_without_usable_candidate_is_an_error(settings, digits, ray_cluster, tmp_path):
    """A search with no usable candidate is an error that says so."""
    hopeless = config.override(
        settings,
        {
            "tune.candidates": 1,
            "tune.include_default": False,
            "tune.space": {RATE: {"choice": [1.0e20]}},
            "tune.max_failures": 0,
        },
    )
    with pytest.raises(Diverged, match=r"no candidate is usable \(tune\): 1 candidates, none finite"):
        tune_run(hopeless, digits, Storage.at(tmp_path), lambda line: None)


def table_of(folder):
    return pandas.read_parquet(io.BytesIO(folder.read(TABLE)))


def test_interrupted_search_trains_only_what_is_missing(settings, searched, digits, ray_cluster, tmp_path):
    """A search that was cut short trains only what is missing, and ends as an undisturbed one."""
    (whole, table, _), _ = searched
    folder = Storage.at(tmp_path)
    shutil.copytree(searched.folder.child("tune", "findings").local, tmp_path / "tune" / "findings")
    (tmp_path / "tune" / "search").mkdir()
    (tmp_path / "tune" / "search" / "experiment_state-2026.json").write_text("{ damaged")
    survivor = table[(table.stage == "search") & (table.step == RUNGS[1])].iloc[0]
    confirmed = table[table.stage == "confirm"].iloc[0]
    other = table[(table.step == RUNGS[0]) & (table.candidate != survivor.candidate) & (table.status == "finite")].iloc[
        0
    ]
    findings = tmp_path / "tune" / "findings"
    (findings / survivor.stretch / f"{RUNGS[1]:08d}-{RUNGS[1]:08d}.jsonl").unlink()  # killed in its second rung,
    shutil.rmtree(findings / other.stretch)  # before another began,
    (findings / confirmed.stretch / f"{RUNGS[1]:08d}-{RUNGS[1]:08d}.jsonl").unlink()  # and in the confirmation
    said = []
    record = tune_run(settings, digits, folder, said.append)
    resumed = table_of(folder)
    assert resumed[NUMBERS].equals(table[NUMBERS])
    assert untimed(record) == untimed(whole)
    assert f"tune   reusing {len(table) - 3} earlier results" in said
    missing = {(survivor.stretch, RUNGS[1]), (other.stretch, RUNGS[0]), (confirmed.stretch, RUNGS[1])}
    for before, after in zip(table.to_dict("records"), resumed.to_dict("records"), strict=True):
        # How long a training took never repeats to the bit: an equal figure is the same training.
        assert (before["seconds"] != after["seconds"]) == ((before["stretch"], before["step"]) in missing)


def test_damaged_weights_cost_a_search_only_time(settings, searched, digits, ray_cluster, tmp_path):
    """Weights that are damaged are not gone on from, and cost only time."""
    (whole, table, _), _ = searched
    shutil.copytree(searched.folder.child("tune", "findings").local, tmp_path / "tune" / "findings")
    survivor = table[(table.stage == "search") & (table.step == RUNGS[1])].iloc[0]
    stretch = tmp_path / "tune" / "findings" / survivor.stretch
    (stretch / f"{RUNGS[1]:08d}-{RUNGS[1]:08d}.jsonl").unlink()
    weights = stretch / f"step={RUNGS[0]:08d}" / "generator.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    record = tune_run(settings, digits, Storage.at(tmp_path), lambda line: None)
    assert table_of(Storage.at(tmp_path))[NUMBERS].equals(table[NUMBERS])
    assert untimed(record) == untimed(whole)


@pytest.mark.slow
def test_extended_search_equals_one_of_all_candidates(settings, searched, digits, ray_cluster, tmp_path):
    """More candidates end as a search of all of them, and what is known is not trained again."""
    (whole, table, _), _ = searched
    folder = Storage.at(tmp_path)
    tune_run(config.override(settings, {"tune.candidates": 3}), digits, folder, lambda line: None)
    fewer = {(row["stretch"], row["step"]): row["seconds"] for row in table_of(folder).to_dict("records")}
    record = tune_run(settings, digits, folder, lambda line: None)
    extended = table_of(folder)
    assert extended[NUMBERS].equals(table[NUMBERS])
    assert untimed(record) == untimed(whole)
    known = [row for row in extended.to_dict("records") if (row["stretch"], row["step"]) in fewer]
    assert len(known) >= 3
    assert all(row["seconds"] == fewer[row["stretch"], row["step"]] for row in known)


def test_findings_of_other_data_or_settings_are_not_used(settings, searched, digits, ray_cluster, tmp_path):
    shutil.copytree(searched.folder.child("tune", "findings").local, tmp_path / "tune" / "findings")
    said = []
    fewer = {"tune.candidates": 1, "tune.samples": 150}
    tune_run(config.override(settings, fewer), digits, Storage.at(tmp_path), said.append)
    assert not any("known" in line for line in said)
