"""The scheme comparison: its members train as they would alone, its effects are the factors', its rows are kept."""

import itertools
from dataclasses import asdict

import pytest

from gan_core.datasets import DataSettings, load
from gan_core.training import initial_state, train
from tests.paper import schemes
from tests.paper.schemes import FACTORS, PUBLISHED, Result

DIGITS = load(DataSettings("digits"))


def test_members_side_by_side_train_as_they_would_alone():
    changed = {**PUBLISHED, "scheme": "algorithm1", "share_draws": False}
    both = [changed, {**changed, "init_range": 0.05}]
    rows = schemes.trained(both, seeds=2, steps=[3], data=DIGITS)
    assert [(row.init_range, row.seed, row.step) for row in rows] == [(0.005, 0, 3), (0.005, 1, 3), (0.05, 0, 3), (0.05, 1, 3)]  # fmt: skip
    for row, (combination, seed) in zip(rows, itertools.product(both, range(2)), strict=True):
        settings = schemes.settings_of(combination, seed, DIGITS)
        (report,) = train(settings, DIGITS.train, initial_state(settings, DIGITS.train), 3, lambda step: False)
        # The third step's V, in float32 and after two updates, whose products a batched kernel may add in another order.
        assert row.value == pytest.approx(report.metrics["value"], abs=1e-6)


def results(effects, noise=0.0):
    """Results whose log-likelihood is the sum of effects of the factors' second levels."""
    return [
        Result(*levels, seed, 9, sum(effects[name] for name, level in zip(FACTORS, levels, strict=True) if level == FACTORS[name][1]) + seed * noise, 0.5, -1.0)
        for levels in itertools.product(*FACTORS.values())
        for seed in range(3)
    ]  # fmt: skip


def test_effect_is_what_its_factor_alone_adds():
    """A factor's effect is what it adds, whatever the other factors and the seed add."""
    effects = dict(zip(FACTORS, (3.0, -2.0, 0.0, 10.0), strict=True))
    lines = schemes.effect_table(results(effects, noise=7.0)).splitlines()[1:]
    for line, (name, effect) in zip(lines, effects.items(), strict=True):
        assert line.startswith(name)
        assert f"{effect:.2f} ± 0.00" in line


def test_each_combination_has_mean_and_standard_error():
    """Each of the 16 combinations has its line, with mean and standard error over seeds."""
    lines = schemes.combination_table(results(dict.fromkeys(FACTORS, 1.0), noise=1.0)).splitlines()[1:]
    assert len(lines) == 16
    assert "1.00 ± 0.58" in lines[0]  # 0, 1, 2: a deviation of 1, over the root of 3
    assert "5.00 ± 0.58" in lines[-1]


def test_unvaried_factors_stay_as_published():
    """Factors that are not varied stay as published, and have no effect to show."""
    found = schemes.all_results(2, [1], DIGITS, [], lambda rows: None, varied=["scheme"])
    changed = {tuple(getattr(row, name) for name in FACTORS) for row in found}
    assert changed == {tuple({**PUBLISHED, "scheme": scheme}.values()) for scheme in FACTORS["scheme"]}
    assert [line.split()[0] for line in schemes.effect_table(found).splitlines()] == ["factor", "scheme"]
    assert len(schemes.combination_table(found).splitlines()) == 3


def test_combinations_that_are_known_are_not_trained_again():
    missing = {"scheme": "algorithm1", "share_draws": True, "discriminator_loss_scale": 1.0}
    known = [row for row in results(dict.fromkeys(FACTORS, 0.0)) if not missing.items() <= asdict(row).items()]
    kept = []
    found = schemes.all_results(1, [1], DIGITS, known, kept.append)
    assert found[: len(known)] == known
    assert kept == [found[len(known) :]]
    assert [(row.init_range, row.step) for row in kept[0]] == [(0.005, 1), (0.05, 1)]


def test_initial_logits_are_as_large_as_published():
    """The small D starts with logits as large as those of the published nets."""
    settings = schemes.settings_of(PUBLISHED, 0, DIGITS).network.discriminator
    # Three layers' weights, uniform on a range, over the roots of the widths they add up.
    ours = settings.init_range**3 * (64 * settings.units[0] * settings.units[1]) ** 0.5
    assert ours == pytest.approx(0.005**3 * (784 * 240 * 240) ** 0.5, rel=1e-12)
