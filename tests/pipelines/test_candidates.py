"""Candidates are a function of the seed and the space, drawn before any trial starts."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gan_core.errors import ConfigurationError
from pipelines import config
from pipelines.config import ResolvedConfiguration, TuneSettings
from pipelines.config.candidates import candidate_configurations, draw_candidates, rung_steps

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
SPACE = {
    "noise.size": {"choice": [4, 8, 16]},
    "algorithm.discriminator_steps": {"integer": [1, 3]},
    "algorithm.generator_learning_rate": {"log_uniform": [0.001, 1.0]},
    "algorithm.learning_rate_decay": {"uniform": [1.0, 1.5]},
}


@pytest.mark.parametrize(("k", "steps"), [(1, (300, 700)), (2, (200, 467)), (4, (120, 280))])
def test_rungs_of_updates_are_fewer_steps_of_more_updates(k, steps):
    """A step is k updates of D and one of G; rungs in steps are the same for every k."""
    algorithm = {"algorithm.discriminator_steps": k}
    candidate = config.override(ResolvedConfiguration(), {**algorithm, "tune.rung_unit": "updates"})
    assert rung_steps(candidate, (600, 1400)) == steps
    assert rung_steps(config.override(candidate, {"tune.rung_unit": "steps"}), (600, 1400)) == (600, 1400)


def test_rungs_of_updates_that_are_one_step_are_refused():
    """Rungs at 4 and 6 updates are both the first step of a candidate with k = 4, and it would be scored once."""
    space = {"algorithm.discriminator_steps": {"choice": [1, 4]}}
    tune = TuneSettings(candidates=2, searcher="grid", include_default=False, space=space, rungs=(4, 6))
    candidate_configurations(ResolvedConfiguration(tune=tune))
    with pytest.raises(
        ConfigurationError, match=r"rungs too close \(tune.rungs\): \[4, 6\] updates are steps \[1, 1\] with k = 4"
    ):
        candidate_configurations(ResolvedConfiguration(tune=replace(tune, rung_unit="updates")))


DRAWN_ALONE = {"include_default": False}


def drawn(seed, candidates=8, space=SPACE, **more):
    """The candidates of a search of this space, by default without the configuration itself."""
    tune = TuneSettings(candidates=candidates, space=space, **{**DRAWN_ALONE, **more})
    return draw_candidates(ResolvedConfiguration(seed=seed, tune=tune))


@given(st.integers(0, 2**63 - 1))
def test_candidates_are_a_function_of_the_seed(seed):
    assert drawn(seed) == drawn(seed)
    assert drawn(seed) != drawn((seed + 1) % 2**63)


@given(st.integers(0, 2**63 - 1), st.integers(1, 20))
def test_more_candidates_leave_the_first_ones_as_they_were(seed, count):
    assert drawn(seed, 20)[:count] == drawn(seed, count)


@given(st.integers(0, 2**63 - 1), st.permutations(list(SPACE)), st.integers(1, len(SPACE)))
def test_draws_do_not_depend_on_other_keys(seed, keys, count):
    """A key's draws do not depend on which other keys there are, nor on their order."""
    fewer = {key: SPACE[key] for key in keys[:count]}
    assert drawn(seed, space=fewer) == [{key: whole[key] for key in fewer} for whole in drawn(seed)]


@given(st.integers(0, 2**63 - 1), st.floats(1e-12, 1e6), st.floats(1.01, 1e6))
def test_draws_are_within_bounds_and_have_four_digits(seed, low, factor):
    """Every draw is within its bounds and has four digits, so that a table can show all of it."""
    high = low * factor
    for kind in ("uniform", "log_uniform"):
        for candidate in drawn(seed, space={"algorithm.generator_learning_rate": {kind: [low, high]}}):
            (value,) = candidate.values()
            assert low <= value <= high
            assert value in (low, high) or value == float(f"{value:.4g}")


@given(st.integers(1, 4), st.integers(0, 3), st.data())
def test_grid_is_every_combination_once_in_key_order(choices, width, data):
    """A grid is every combination once in the keys' alphabetical order, whatever the seed."""
    space = {
        "noise.size": {"integer": [3, 4 + width]},
        "algorithm.discriminator_steps": {"choice": list(range(choices))},
    }
    size = choices * (width + 2)
    count = data.draw(st.integers(1, size))
    every = [{"algorithm.discriminator_steps": k, "noise.size": z} for k in range(choices) for z in range(3, 5 + width)]
    assert TuneSettings(candidates=count, searcher="grid", space=space).grid_size == size == len(every)
    assert drawn(data.draw(st.integers(0, 99)), count, space, searcher="grid") == every[:count]


DEFAULT = {key: config.flat(config.to_plain(ResolvedConfiguration()))[key] for key in SPACE}


@given(st.integers(0, 2**63 - 1), st.integers(3, 12))
def test_the_configuration_and_the_points_come_first(seed, count):
    """The configuration is candidate 0, then the points; the drawn ones are those of a search without them."""
    points = ({"noise.size": 5}, {"algorithm.generator_learning_rate": 0.5, "noise.size": 6})
    candidates = drawn(seed, count, include_default=True, points=points)
    assert candidates[:3] == [DEFAULT, {**DEFAULT, **points[0]}, {**DEFAULT, **points[1]}]
    assert candidates[3:] == drawn(seed, count)[3:]
    assert len(candidates) == count


@pytest.mark.parametrize("searcher", ["random", "grid", "tpe"])
def test_no_search_has_no_candidates(searcher):
    """Without a search its space means nothing, though it is there."""
    assert drawn(0, 0, {"noise.size": {"choice": [4]}}, include_default=True, searcher=searcher) == []


def test_a_grid_has_no_point_twice():
    """The configuration is one of this grid's three points: there are three candidates, and no fourth."""
    space = {"noise.size": {"choice": [4, DEFAULT["noise.size"], 8]}}
    candidates = drawn(0, 3, space, include_default=True, searcher="grid")
    assert [candidate["noise.size"] for candidate in candidates] == [DEFAULT["noise.size"], 4, 8]
    with pytest.raises(ConfigurationError, match=r"tune.candidates\): 4; expected at most 3"):
        drawn(0, 4, space, include_default=True, searcher="grid")


@pytest.mark.parametrize(
    ("tune", "words"),
    [
        ({"candidates": 1, "points": [{"noise.size": 5}]}, "tune.candidates 1 is less than the configuration and"),
        ({"candidates": 3, "points": [{"noise.sise": 5}]}, "tune.points 0 noise.sise: not searched; tune.space has"),
        ({"candidates": 3, "points": [{}]}, "tune.points 0 is empty"),
        (
            {"candidates": 3, "scheduler": "population_based", "confirm": {"seeds": 1}},
            "tune.confirm.seeds 1: the first",
        ),
        ({"candidates": 3, "confirm": {"seeds": 2}}, "tune.confirm.seeds 2: the first chooses .* use 3 or more"),
        ({"candidates": 3, "sample_sets": 1, "confirm": {"seeds": 1}}, "tune.sample_sets 1 with tune.confirm.seeds 1"),
        ({"candidates": 3, "sample_sets": 0}, "tune.sample_sets 0 is too small"),
    ],
)
def test_points_that_cannot_be_are_refused(tune, words):
    space = {"noise.size": {"choice": [4, 5]}}
    if "scheduler" in tune:
        space = {"algorithm.generator_learning_rate": {"uniform": [0.1, 0.2]}}
    with pytest.raises(ConfigurationError, match=words):
        config.build({"tune": {"space": space, **tune}})


def test_draws_follow_their_distributions():
    many = drawn(0, 4000)
    # Of n draws, a frequency p has the standard error sqrt(p (1 - p) / n) <= 0.0079; five of them.
    frequency = lambda key, value: np.mean([candidate[key] == value for candidate in many])  # noqa: E731
    for value in (4, 8, 16):
        assert frequency("noise.size", value) == pytest.approx(1 / 3, abs=0.04)
    for value in (1, 2, 3):  # bounds included
        assert frequency("algorithm.discriminator_steps", value) == pytest.approx(1 / 3, abs=0.04)
    # Standard deviations: 3 ln 10 / sqrt 12 = 2.0 of the logarithm, 0.5 / sqrt 12 = 0.144; five errors of the mean.
    logs = np.mean([math.log10(candidate["algorithm.generator_learning_rate"]) for candidate in many])
    assert logs == pytest.approx(-1.5, abs=0.07)
    assert np.mean([c["algorithm.learning_rate_decay"] for c in many]) == pytest.approx(1.25, abs=0.0115)


def test_choice_returns_its_values_of_any_type():
    """A choice gives back its own values, of any type, and each of them in time."""
    values = [[4, 5], "relu", None, True]
    seen = [candidate["noise.size"] for candidate in drawn(0, 100, {"noise.size": {"choice": values}})]
    assert all(any(value == one and type(value) is type(one) for one in values) for value in seen)
    assert all(value in seen for value in values)


def test_candidates_differ_in_searched_settings_only(small):
    """Candidates are whole configurations that differ from the given one in the searched settings alone."""
    configurations = candidate_configurations(small)
    assert len(configurations) == small.tune.candidates
    assert configurations[0] == small
    for configuration, candidate in zip(configurations[1:], draw_candidates(small)[1:], strict=True):
        rate = candidate["algorithm.generator_learning_rate"]
        assert configuration.algorithm.generator_learning_rate == rate != small.algorithm.generator_learning_rate
        assert config.override(configuration, {"algorithm.generator_learning_rate": 0.1}) == small


@pytest.mark.parametrize(
    ("key", "values", "words"),
    [
        ("noise.size", [0], "noise.size 0"),
        ("algorithm.optimizer", ["sgd"], "algorithm.optimizer"),
        ("algorithm.batch_size", [51], "batch_size 51 cannot be shared by 2 shards"),
        ("algorithm.steps.x", [1], "algorithm.steps.x has no value of its own"),
    ],
)
def test_space_out_of_range_is_refused_before_trials(key, values, words, small):
    """A space that leads out of range is refused before any trial, with the setting's name."""
    with pytest.raises(ConfigurationError, match=words):
        candidate_configurations(config.override(small, {"tune.space": {key: {"choice": values}}}))


def test_possible_bad_suggestion_is_refused_in_advance(small):
    """What a suggestion could be is refused before any trial, though no draw is out of range."""
    space = {"algorithm.batch_size": {"choice": [*[50] * 30, 51]}}
    changed = {"tune.candidates": 1, "tune.scheduler": "none", "tune.space": space, "tune.include_default": False}
    assert len(candidate_configurations(config.override(small, changed))) == 1
    with pytest.raises(ConfigurationError, match="batch_size 51 cannot be shared by 2 shards"):
        candidate_configurations(config.override(small, {**changed, "tune.searcher": "tpe"}))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("name", ["rates", "recipe"])
def test_a_space_by_name_surrounds_each_configuration(name, path):
    """A space by name is one written out: around the configuration's own values, each draw of it a valid configuration."""
    loaded = config.load(path, [f"tune.space={name}", "tune.candidates=9", "tune.points=[]", "tune.searcher=random"])
    own = {key: config.flat(config.to_plain(loaded))[key] for key in loaded.tune.space}
    for key, distribution in loaded.tune.space.items():
        if "choice" in distribution:
            assert own[key] in distribution["choice"]
        else:
            low, high = distribution["log_uniform"]
            assert low * high == pytest.approx(own[key] ** 2, rel=2e-3)
            assert low < own[key] < high
    assert len(candidate_configurations(loaded)) == 9
    assert ("algorithm.discriminator_steps" in own) == ("noise.size" in own) == (name == "recipe")
    assert config.build(config.to_plain(loaded)) == loaded


def test_an_unknown_space_is_refused_with_the_known():
    with pytest.raises(ConfigurationError, match=r"tune.space\): 'rate'; expected rates or recipe, or settings with"):
        config.build({"tune": {"space": "rate"}})
