"""A search's choice: its best replaces the configuration only where a paired test finds it better."""

import numpy as np
import pytest

from pipelines.config import ResolvedConfiguration, TuneSettings
from pipelines.search.choice import Contest, described

STEP, POINTS, SETS = 100, 60, 4
SPACE = {"algorithm.generator_learning_rate": {"uniform": [0.1, 0.2]}}


def contest(log_densities, default=0, **tune):
    """A contest between candidates with given log-densities: by candidate and seed, an array (None: it diverged)."""
    rows = []
    for (candidate, seed), values in log_densities.items():
        row = {"candidate": candidate, "seed": seed, "step": STEP, "status": "finite"}
        if values is None:
            rows.append({**row, "step": 30, "status": "diverged", "log_likelihood": -1e30, "coverage": 0.0})
        else:
            rows.append({**row, "log_likelihood": float(values.mean()), "coverage": 0.9})
    settings = ResolvedConfiguration(tune=TuneSettings(candidates=4, space=SPACE, **tune))
    return Contest(settings, STEP, default, rows, lambda row: log_densities[row["candidate"], row["seed"]])


def noisy(mean, seed, deviation=0.1):
    """Log-densities of one trained net: points differ by nats, sets of samples by `deviation`."""
    points = np.random.default_rng(0).normal(0, 5, POINTS)  # the same points for every net
    return mean + points + np.random.default_rng([1, seed]).normal(0, deviation, (SETS, POINTS))


def test_one_seed_compares_the_trained_nets():
    """Of one seed the sets are the test's: the bound is Student's t with three degrees of freedom, 2.3534 at 95 %."""
    first, second = noisy(1.0, 1), noisy(0.0, 2)
    found = contest({(1, 0): first, (0, 0): second}).compare(1, 0)
    difference = first - second
    error = np.sqrt(difference.mean(axis=0).var(ddof=1) / POINTS + difference.mean(axis=1).var(ddof=1) / SETS)
    assert found.difference == pytest.approx(difference.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.lower_bound == pytest.approx(difference.mean() - 2.3534 * error, abs=1e-4)
    assert found.upper_bound == pytest.approx(difference.mean() + 2.3534 * error, abs=1e-4)
    assert "over 4 sets of samples of one seed" in described(found, 1)


def test_several_seeds_are_the_tests_sample():
    """Of three seeds, whose nets differ by 3 nats, the sets' small chance says nothing: t has two degrees of freedom."""
    seeds = {(1, seed): noisy(mean, seed) for seed, mean in enumerate((4.0, 1.0, -2.0))}
    seeds |= {(0, seed): noisy(0.0, 10 + seed) for seed in range(3)}
    arena = contest(seeds)
    found = arena.compare(1, 0)
    assert found.difference == pytest.approx(1.0, abs=0.1)
    assert found.standard_error == pytest.approx(np.std([4, 1, -2], ddof=1) / np.sqrt(3), abs=0.1)
    assert not arena.better(1, 0)
    assert contest({key: of for key, of in seeds.items() if key[1] == 0}).better(1, 0)  # of the first seed alone


def test_only_common_seeds_count():
    """A seed that one of two was not trained with has no part in their comparison."""
    arena = contest({(1, 0): noisy(1.0, 1), (1, 1): noisy(50.0, 2), (0, 0): noisy(0.0, 3)})
    assert arena.compare(1, 0).difference == pytest.approx(1.0, abs=0.1)
    assert arena.seeds(1, 0) == 1


@pytest.mark.parametrize("seeds", [1, 2])
def test_a_seed_that_diverged_decides_for_the_other(seeds):
    """There is no test with one that diverged at a seed: the other is better, whatever the scores of other seeds."""
    arena = contest(
        {(1, seed): None if seed == seeds - 1 else noisy(90.0, seed) for seed in range(seeds)}
        | {(0, seed): noisy(0.0, 10 + seed) for seed in range(seeds)}
    )
    assert arena.compare(1, 0) is None
    assert arena.better(0, 1)
    assert not arena.better(1, 0)


def test_one_set_of_one_seed_is_compared_by_score():
    """Of a single set of samples nothing tells chance: the higher score is better, as in a search without a test."""
    arena = contest({(1, 0): noisy(0.1, 1)[:1], (0, 0): noisy(0.0, 2)[:1]})
    assert arena.compare(1, 0) is None
    assert arena.better(1, 0) is (arena.merit(1) > arena.merit(0))


def test_too_little_coverage_ranks_behind():
    arena = contest({(1, 0): noisy(9.0, 1), (2, 0): noisy(1.0, 2)}, default=None, min_coverage=0.5)
    arena.rows[0]["coverage"] = 0.4
    assert arena.leader([1, 2]) == 2


def three(first, second, default):
    """Two seeds of three candidates whose seeds differ by 0.1 nats."""
    means = {1: first, 2: second, 0: default}
    return {(c, s): noisy(mean + 0.1 * s * c, 10 * c + s) for c, mean in means.items() for s in range(2)}


@pytest.mark.parametrize(
    ("means", "default", "expected"),
    [
        ((0.05, 0.0, 0.0), 0, [0, 1, 2]),  # all alike: another seed for each
        ((40.0, 0.0, 0.0), 0, []),  # one is far above the others and the configuration
        ((40.0, 40.0, 0.0), 0, [1, 2]),  # two are, and only they are compared
        ((0.0, 0.0, 40.0), 0, []),  # the configuration is far above
        ((0.0, -40.0, 0.0), 0, [0, 1]),  # one is far below
        ((40.0, 0.0, 0.0), None, []),
        ((0.0, 0.0, 0.0), None, [1, 2]),
    ],
)
def test_further_seeds_go_to_the_closest(means, default, expected):
    """Further seeds are for those that cannot be told apart, and for nobody once the choice is clear."""
    contenders = [1, 2] if default is None else [0, 1, 2]
    assert contest(three(*means), default).undecided(contenders) == expected


def test_equal_candidates_seldom_replace_the_configuration():
    """Of 1,000 searches whose best of one seed equals the configuration, at most one in twenty replaces it.

    Points and sets both are chance, so the test is conservative; four standard errors of 5 % of 1,000 are 2.8 %. One
    that is better by eight standard errors of its mean does so in nearly all.
    """
    random, won = np.random.default_rng(3), {0: 0, 8: 0}
    error = np.sqrt(2 / (SETS * POINTS))  # of the difference of two means of unit normal numbers
    for _ in range(1000):
        for advantage in won:
            nets = {(c, 0): random.normal(c * advantage * error, 1, (SETS, POINTS)) for c in (0, 1)}
            won[advantage] += contest(nets).better(1, 0)
    assert won[0] <= 1000 * (0.05 + 0.028)
    assert won[8] >= 1000 * 0.95
