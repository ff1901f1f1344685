"""A real search on real digits: its table, its winner, its bits, and a candidate that diverges."""

import io
from dataclasses import replace

import pandas
import pytest
import torch

from gan_core.errors import Diverged
from pipelines import config
from pipelines.candidates import candidate_configurations, draw_candidates
from pipelines.storage import Storage
from pipelines.trial import score
from pipelines.tune import TABLE, tune_run
from tests.pipelines.conftest import trained_alone

RATE = "algorithm.discriminator_learning_rate"
RUNGS = (20, 60)
# Two of these rates train; with the third D's logits overflow within a few updates.
SPACE = {RATE: {"choice": [0.02, 0.2, 1.0e20]}, "noise.size": {"choice": [4, 8]}}
NUMBERS = ["candidate", "seed", "step", "log_likelihood", "sigma", "coverage", "value"]


@pytest.fixture(scope="module")
def settings(small):
    return config.override(
        small, {"seed": 7, "tune.candidates": 5, "tune.rungs": list(RUNGS), "tune.keep": 0.5, "tune.space": SPACE}
    )


@pytest.fixture(scope="module")
def searched(settings, digits, ray_cluster, tmp_path_factory):
    """The same search twice: its record, its table and what it said, each time."""
    results = []
    for attempt in ("first", "again"):
        folder, said = Storage.at(tmp_path_factory.mktemp(attempt)), []
        record = tune_run(settings, digits, folder, said.append)
        results.append((record, pandas.read_parquet(io.BytesIO(folder.read(TABLE))), said))
    return results


def alone(configuration, seed, step, digits):
    """What a candidate must score at a rung: gan_core's own training, without Ray, scored."""
    training = replace(configuration.training(), seed=seed, virtual_shards=1)
    state = trained_alone(training, digits, step)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return score(state.generator, training, digits, configuration.tune.samples)
    finally:
        torch.set_num_threads(threads)


def test_the_space_of_these_tests_draws_candidates_that_train_and_candidates_that_diverge(settings):
    rates = [candidate[RATE] for candidate in draw_candidates(settings.tune, settings.seed)]
    assert rates.count(1.0e20) in (1, 2)
    assert {0.02, 0.2} < set(rates)


def test_the_table_has_every_candidate_at_the_first_rung_and_the_survivors_at_the_second(settings, searched):
    (record, table, _), _ = searched
    rates = [candidate[RATE] for candidate in draw_candidates(settings.tune, settings.seed)]
    search = table[table.stage == "search"]
    first = search[search.step == RUNGS[0]]
    assert sorted(first.candidate) == list(range(5))
    assert [status == "diverged" for status in first.sort_values("candidate").status] == [
        rate == 1.0e20 for rate in rates
    ]
    finite = first[first.status == "finite"].sort_values(["log_likelihood", "candidate"], ascending=[False, True])
    left = max(1, int(len(finite) * 0.5 + 0.5))
    assert sorted(search[search.step == RUNGS[1]].candidate) == sorted(finite.candidate[:left])
    assert len(search) == 5 + left
    assert record.candidates == 5
    assert (record.diverged, record.failed) == (rates.count(1.0e20), 0)


def test_the_table_holds_each_candidates_own_settings(settings, searched):
    (_, table, _), _ = searched
    candidates = draw_candidates(settings.tune, settings.seed)
    for row in table.to_dict("records"):
        assert {key: row[key] for key in SPACE} == candidates[row["candidate"]]


def test_a_candidate_that_diverges_is_named_and_never_wins(settings, searched):
    (record, table, said), _ = searched
    for row in table[table.status == "diverged"].to_dict("records"):
        assert f"tune   search candidate {row['candidate']} seed 7 step 20  diverged" in said
        assert row["log_likelihood"] < -1e20
        assert row["candidate"] != record.candidate
    assert record.chosen[RATE] in (0.02, 0.2)


def test_the_best_of_the_last_rung_is_confirmed_over_seeds_and_wins_with_their_mean(settings, searched):
    (record, table, _), _ = searched
    last = table[(table.stage == "search") & (table.step == RUNGS[1])]
    best = last.loc[last.log_likelihood.idxmax()]
    confirmed = table[table.stage == "confirm"]
    assert (list(confirmed.candidate), list(confirmed.seed), list(confirmed.step)) == (
        [best.candidate],
        [8],
        [RUNGS[1]],
    )
    assert record.candidate == best.candidate
    assert record.chosen == draw_candidates(settings.tune, settings.seed)[record.candidate]
    mean = (best.log_likelihood + confirmed.log_likelihood.iloc[0]) / 2
    assert record.log_likelihood == pytest.approx(mean, abs=1e-12)
    assert record.coverage == pytest.approx((best.coverage + confirmed.coverage.iloc[0]) / 2, abs=1e-12)


def test_a_search_repeats_to_the_bit(searched):
    (first, table, _), (again, same, _) = searched
    assert table[NUMBERS].equals(same[NUMBERS])
    assert replace(first, seconds=0) == replace(again, seconds=0)


def test_a_candidate_trains_with_its_own_rate_from_the_first_update_and_not_with_the_configurations(
    settings, searched, digits
):
    (_, table, _), _ = searched
    search = table[(table.stage == "search") & (table.status == "finite")]
    for index, configuration in enumerate(candidate_configurations(settings)):
        for row in search[search.candidate == index].to_dict("records"):
            expected = alone(configuration, 7, row["step"], digits)
            assert {key: row[key] for key in expected} == expected  # to the bit, resumed from its rung or not
    survivor = int(search[search.step == RUNGS[1]].candidate.iloc[0])
    own = config.override(
        candidate_configurations(settings)[survivor], {RATE: settings.algorithm.discriminator_learning_rate}
    )
    (at_last,) = search[(search.step == RUNGS[1]) & (search.candidate == survivor)].log_likelihood
    assert alone(own, 7, RUNGS[1], digits)["log_likelihood"] != at_last


def test_a_search_with_no_usable_candidate_is_an_error_that_says_so(settings, digits, ray_cluster, tmp_path):
    hopeless = config.override(
        settings, {"tune.candidates": 1, "tune.space": {RATE: {"choice": [1.0e20]}}, "tune.max_failures": 0}
    )
    with pytest.raises(Diverged, match=r"no candidate is usable \(tune\): 1 candidates, none finite"):
        tune_run(hopeless, digits, Storage.at(tmp_path), lambda line: None)
