"""A search's choice: its best replaces the configuration only where a paired test finds it better."""

import numpy as np
import pytest

from pipelines.config import ResolvedConfiguration, TuneSettings
from pipelines.config.tune_schema import ConfirmSettings
from pipelines.search.choice import Finalists, described

STEP, POINTS, SETS = 100, 60, 4
SPACE = {"algorithm.generator_learning_rate": {"uniform": [0.1, 0.2]}}


def finalists(log_densities, default=0, seeds=1, best=1, **tune):
    """Finalists with given log-densities, by candidate and seed an array (None: it diverged), of a search of seed 0."""
    rows = []
    for (candidate, seed), values in log_densities.items():
        row = {"candidate": candidate, "seed": seed, "step": STEP, "status": "finite"}
        if values is None:
            rows.append({**row, "step": 30, "status": "diverged", "log_likelihood": -1e30, "coverage": 0.0})
        else:
            rows.append({**row, "log_likelihood": float(values.mean()), "coverage": 0.9})
    confirm = ConfirmSettings(best=best, seeds=seeds)
    settings = ResolvedConfiguration(tune=TuneSettings(candidates=4, space=SPACE, confirm=confirm, **tune))
    return Finalists(settings, STEP, default, rows, lambda row: log_densities[row["candidate"], row["seed"]])


def noisy(mean, seed, deviation=0.1):
    """Log-densities of one trained net: points differ by nats, sets of samples by `deviation`."""
    points = np.random.default_rng(0).normal(0, 5, POINTS)  # the same points for every net
    return mean + points + np.random.default_rng([1, seed]).normal(0, deviation, (SETS, POINTS))


def test_one_seed_compares_the_trained_nets():
    """Of one seed the sets are the test's: the bound is Student's t with three degrees of freedom, 2.3534 at 95 %."""
    first, second = noisy(1.0, 1), noisy(0.0, 2)
    found = finalists({(1, 0): first, (0, 0): second}).compare(1, 0)
    difference = first - second
    error = np.sqrt(difference.mean(axis=0).var(ddof=1) / POINTS + difference.mean(axis=1).var(ddof=1) / SETS)
    assert found.difference == pytest.approx(difference.mean(), abs=1e-12)
    assert found.standard_error == pytest.approx(error, abs=1e-12)
    assert found.lower_bound == pytest.approx(difference.mean() - 2.3534 * error, abs=1e-4)
    assert found.upper_bound == pytest.approx(difference.mean() + 2.3534 * error, abs=1e-4)
    assert "over 4 sets of samples of one seed" in described(found, 1)


def test_further_seeds_are_the_tests_sample():
    """Of three further seeds, whose nets differ by 3 nats, the sets' small chance says nothing: t has two degrees.

    The search's own seed, which chose the candidate for its 50 nats, is none of them.
    """
    seeds = {(1, seed): noisy(mean, seed) for seed, mean in enumerate((50.0, 4.0, 1.0, -2.0))}
    seeds |= {(0, seed): noisy(0.0, 10 + seed) for seed in range(4)}
    several = finalists(seeds, seeds=4)
    found = several.compare(1, 0)
    assert found.difference == pytest.approx(1.0, abs=0.1)
    assert found.standard_error == pytest.approx(np.std([4, 1, -2], ddof=1) / np.sqrt(3), abs=0.1)
    assert several.seeds(1, 0) == [1, 2, 3]
    assert not several.better(1, 0)
    assert finalists({key: of for key, of in seeds.items() if key[1] == 0}).better(1, 0)  # of these two nets


def test_only_common_seeds_count():
    """A seed that one of two was not trained with has no part in their comparison, nor in who leads."""
    nets = {(1, seed): noisy(mean, seed) for seed, mean in enumerate((0.0, 1.0, 1.0, -9.0))}
    nets |= {(2, seed): noisy(0.5, 10 + seed) for seed in range(3)}
    nets |= {(0, seed): noisy(0.0, 20 + seed) for seed in range(4)}
    several = finalists(nets, seeds=5, best=2)
    assert several.seeds(1, 2) == [1, 2]
    assert several.compare(1, 2).difference == pytest.approx(0.5, abs=0.1)
    assert several.leader([1, 2]) == 1  # by 2.0 / 3 and 0.5, though its fourth seed is bad


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_seed_that_diverged_decides_for_the_other(seeds):
    """There is no test with one that diverged at a seed: the other is better, whatever the scores of other seeds."""
    several = finalists(
        {(1, seed): None if seed == seeds - 1 else noisy(90.0, seed) for seed in range(seeds)}
        | {(0, seed): noisy(0.0, 10 + seed) for seed in range(seeds)},
        seeds=seeds,
    )
    assert several.compare(1, 0) is None
    assert several.better(0, 1)
    assert not several.better(1, 0)


def test_too_little_coverage_decides_for_the_other():
    """One that covers too little, on the mean of its seeds, is behind one that does not, whatever their scores."""
    nets = {(c, seed): noisy(20.0 * c, 10 * c + seed) for c in (0, 1, 2) for seed in range(3)}
    several = finalists(nets, seeds=3, min_coverage=0.5)
    assert several.better(1, 0)
    for row in several.rows:
        row["coverage"] = 0.9 if row["candidate"] != 1 or row["seed"] == 0 else 0.1
    assert not several.better(1, 0)
    assert several.better(0, 1)
    assert several.leader([0, 1]) == 0


def test_no_test_is_no_difference():
    """Where no further seed was trained, for want of time, neither is better."""
    several = finalists({(1, 0): noisy(9.0, 1), (0, 0): noisy(0.0, 2)}, seeds=4)
    assert several.compare(1, 0) is None
    assert not several.better(1, 0)
    assert not several.better(0, 1)


def test_the_last_test_is_shared_among_the_best_few():
    """Of the best of two the test is at 97.5 %, of one at 95 %; and before the last seed it is at 99.9 %."""
    means = {0: (0.0,) * 4, 1: (0.4, 0.4, 0.5, 0.3)}  # t is 6.9, of which 2.9 is 95 % and 22 is 99.9 %
    nets = {(c, seed): noisy(mean, 10 * c + seed, 0.001) for c, of in means.items() for seed, mean in enumerate(of)}
    assert finalists(nets, seeds=4).compare(1, 0).confidence == 0.95
    assert finalists(nets, seeds=4, best=2).compare(1, 0).confidence == pytest.approx(0.975, abs=1e-12)
    assert finalists(nets, seeds=4).better(1, 0)
    assert finalists(nets, seeds=4).undecided([0, 1]) == [0, 1]


def three(first, second, default):
    """The search's and two further seeds of three candidates whose seeds differ by about 0.02 nats."""
    means = {1: first, 2: second, 0: default}
    return {(c, s): noisy(mean + 0.01 * s * c, 10 * c + s) for c, mean in means.items() for s in range(3)}


@pytest.mark.parametrize(
    ("means", "default", "expected"),
    [
        ((0.05, 0.0, 0.0), 0, [0, 1, 2]),  # all alike: another seed for each
        ((90.0, 0.0, 0.0), 0, []),  # one is far above the others and the configuration
        ((90.0, 90.0, 0.0), 0, [1, 2]),  # two are, and only they are compared
        ((0.0, 0.0, 90.0), 0, []),  # the configuration is far above
        ((0.0, -90.0, 0.0), 0, [0, 1]),  # one is far below
        ((90.0, 0.0, 0.0), None, []),
        ((0.0, 0.0, 0.0), None, [1, 2]),
    ],
)
def test_further_seeds_go_to_the_closest(means, default, expected):
    """Further seeds are for those that cannot be told apart, and for nobody once the choice is clear."""
    candidates = [1, 2] if default is None else [0, 1, 2]
    assert finalists(three(*means), default, seeds=5, best=2).undecided(candidates) == expected


def searched(random, candidates, seeds, advantage):
    """Whether the best of so many candidates replaces the configuration, each of them better by the advantage.

    Nets of one setting differ by seeds, 1 nat, and points by 0.3 nats more: two levels of normal numbers.
    """

    def net(candidate):
        return random.normal(advantage * (candidate > 0) + random.normal(), 0.3, (2, 4))  # sets, points

    nets = {(candidate, 0): net(candidate) for candidate in range(candidates + 1)}
    best = max(range(1, candidates + 1), key=lambda candidate: nets[candidate, 0].mean())
    several = finalists({key: of for key, of in nets.items() if key[0] in (0, best)}, seeds=seeds)
    for seed in range(1, seeds):
        if seed > 2 and not several.undecided([0, best]):
            break
        new = {(candidate, seed): net(candidate) for candidate in (0, best)}
        several = finalists(
            {**{(r["candidate"], r["seed"]): several.log_densities(r) for r in several.rows}, **new}, seeds=seeds
        )
    return several.better(best, 0)


@pytest.mark.parametrize("candidates", [1, 8])
def test_equal_candidates_seldom_replace_the_configuration(candidates):
    """Of 800 searches among settings that are all alike, one in twenty replaces the configuration, of however many.

    Three further seeds at most, with a look before the last. Four standard errors of 5 % of 800 are 3.1 %. Settings
    that are better by six nats, four standard errors of a difference of seeds, nearly all do.
    """
    random = np.random.default_rng(3)
    assert sum(searched(random, candidates, 4, 0.0) for _ in range(800)) <= 800 * (0.05 + 0.031)
    assert sum(searched(random, candidates, 4, 6.0) for _ in range(100)) >= 80
