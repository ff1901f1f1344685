"""What the page says of a score: its place among the references, and what to do next."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gan_core.metrics.diagnosis import Diagnosis
from pipelines import config
from pipelines.config import GateSettings
from pipelines.registry.promotion_gate import decide, refusal
from pipelines.reporting import narrative
from pipelines.stages.report import with_mean_image
from tests.cluster import commands


def score(value=20.0, real=30.0, mean=-20.0, **more):
    references = {
        "training data": {"log_likelihood": real, "standard_error": 1.0, "coverage": 0.98},
        "mean image": {"log_likelihood": mean, "standard_error": 0.5},
    }
    return {
        "log_likelihood": value,
        "standard_error": 1.0,
        "coverage": 0.9,
        "references": references,
        "quality": None,
        **more,
    }


def test_score_in_words_is_a_distance_and_a_part():
    """The distance to the training images in nats, and the part of the way there from their mean image."""
    distance, part = narrative.standing(score())
    assert distance == "The test images are 10.0 nats below what they are under the training images themselves."
    assert part == "Of the way there from one image, the mean of all, it has gone 80 %."
    assert "within two standard errors" in narrative.standing(score(28.0))[0]  # 2 sqrt(1 + 1) = 2.8
    assert "within two" not in narrative.standing(score(27.0))[0]
    assert "no better than one image" in narrative.standing(score(-21.0))[1]


def test_scale_places_scores_linearly():
    """From the mean image at 0 to the best at 100; the paper's number only for its own data."""
    places = {mark.name: mark.percent for mark in narrative.scale(score(), "digits")}
    assert places == {"their mean image alone": 0.0, "this model": 80.0, "training images themselves": 100.0}
    paper = {mark.name: mark.kind for mark in narrative.scale(score(), "mnist")}
    assert paper["adversarial nets in the paper"] == "paper"
    assert [mark.off for mark in narrative.scale(score(mean=-1000.0), "digits")] == [True, False, False]


def test_mean_image_row_is_a_gaussian_around_it(digits):
    """The mean image's score is the mean log-density of one Gaussian around it, at the grid's best sigma."""
    row = with_mean_image({"references": {}}, digits)["references"]["mean image"]
    mean, points, sigma = digits.train.images.mean(axis=0, dtype=np.float64), digits.test.images, row["sigma"]
    exact = -((points - mean) ** 2).sum(axis=1) / (2 * sigma**2) - 32 * math.log(2 * math.pi * sigma**2)
    assert row["log_likelihood"] == pytest.approx(exact.mean(), abs=1e-3)  # of float32 images, nats


RISING = [{"step": step, "validation_log_likelihood": float(step)} for step in (1, 2, 3)]
SPACE = {"algorithm.generator_learning_rate": {"log_uniform": [0.001, 0.1]}, "noise.size": {"choice": [8, 16]}}
SETTINGS = {"algorithm": {"steps": 100}, "tune": {"space": SPACE}}


def advice(history=(), chosen=0.01, **records):
    known = {
        "evaluate": score(),
        "tune": {"chosen": {"algorithm.generator_learning_rate": chosen, "noise.size": 8}},
        **records,
    }
    return narrative.next_steps("r", known, SETTINGS, history)


def challenger(reason):
    return {"model": "m", "version": 3, "alias": "challenger", "reason": reason}


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (advice(RISING)[0], ("still rising", "--set algorithm.steps=200")),
        (advice(chosen=0.0011)[0], ("lower end", "algorithm.generator_learning_rate: {log_uniform: [0.00025, 0.1]}")),
        (advice(chosen=0.099)[0], ("upper end", "[0.001, 0.4]")),
        (advice()[0], ("no registry", "gan register r")),
        (advice(register={"model": "m", "version": 3, "alias": "champion"})[0], ("champion", "gan sample m@champion")),
        (advice(register=challenger("not better than m/2: -1.00 ± 0.50 nats"))[0], ("not the champion", "compare m/3 m@champion")),
        (advice(register=challenger("copies: samples are"))[0], ("refused it", "gan sample m/3 ")),
        (advice(evaluate=score(coverage=0.3))[0], ("left out", "")),
        (advice()[-1], ("chance", "gan runs compare r r-seed-1 --html")),
    ],
    ids=["rising", "low end", "high end", "unregistered", "champion", "challenger", "no champion", "collapsed", "seed"],
)  # fmt: skip
def test_next_step_follows_from_the_records(step, words):
    said, command = words
    assert said in step.text
    assert command in (step.command or "")


def test_no_advice_without_its_reason():
    """A score that fell at the end, or a choice in the middle of its range, gives no advice on it."""
    falling = [*RISING, {"step": 4, "validation_log_likelihood": 0.0}]
    assert [step.text for step in advice(falling)] == [step.text for step in advice()]
    assert len(advice()) == 2


def test_commands_that_are_advised_exist():
    """Each line of advice is a command of ours with options that it has."""
    registered = [{**challenger(""), "alias": "champion"}, challenger(""), challenger("not better than m/2")]
    steps = [step for one in registered for step in advice(RISING, register=one)] + advice()
    lines = {line for step in steps for line in (step.command or "").splitlines() if line.startswith("gan ")}
    assert len(lines) >= 7
    for line in lines:
        commands.parse(line)  # refuses a command or an option that there is not


# Setting, its range, the choice, and the range that is advised; none: nothing is.
RANGES = {
    "log, the configuration's own 0": ("algorithm.gradient_penalty", {"log_uniform": [0.1, 10.0]}, 0.0, None),
    "log, lower": ("algorithm.gradient_penalty", {"log_uniform": [0.1, 10.0]}, 0.1, [0.025, 10]),
    "log, upper": ("algorithm.generator_learning_rate", {"log_uniform": [1e-5, 1e-4]}, 9.9e-5, [1e-5, 4e-4]),
    "log, bounded": ("algorithm.adam.beta2", {"log_uniform": [0.5, 0.9]}, 0.9, [0.5, 0.9815]),
    "integer, lower": ("noise.size", {"integer": [10, 30]}, 10, [2, 30]),
    "integer, least": ("noise.size", {"integer": [2, 30]}, 2, [1, 30]),
    "integer, 1": ("noise.size", {"integer": [1, 30]}, 1, None),
    "integer, upper": ("algorithm.discriminator_steps", {"integer": [1, 3]}, 3, [1, 12]),
    "uniform, lower": ("algorithm.discriminator_loss_scale", {"uniform": [2.0, 3.0]}, 2.01, [1, 3]),
    "uniform, bounded": ("algorithm.generator_average", {"uniform": [0.9, 0.99]}, 0.989, [0.9, 0.9956]),
    "uniform, at 0": ("algorithm.adam.beta1", {"uniform": [0.0, 0.5]}, 0.0, None),
    "uniform, upper": ("algorithm.gradient_penalty", {"uniform": [1.0, 3.0]}, 2.99, [1, 5]),
}


@pytest.mark.parametrize("case", RANGES)
def test_a_wider_range_is_one_that_loads(case):
    """It contains the range there was, of whole numbers where those are searched, and its ends are ones of the setting."""
    key, distribution, chosen, expected = RANGES[case]
    settings = {"algorithm": {"steps": 100}, "tune": {"space": {key: distribution}}}
    records = {"evaluate": score(), "tune": {"chosen": {key: chosen}}}
    steps = [step.command for step in narrative.next_steps("r", records, settings) if "widen" in step.text]
    assert len(steps) == (expected is not None)
    for text in steps:
        advised = config.build({**settings, **config.parse_yaml(text, "advice")}).tune.space
        assert {**advised} == {key: dict.fromkeys(distribution, expected)}
        for end in expected:
            config.override(config.build(settings), {key: end})


def test_advice_of_another_seed_is_another():
    """Seed 1, and 2 for a run that has it already."""
    for seed, other in ((0, 1), (1, 2), (2, 1)):
        command = narrative.next_steps("r", {"evaluate": score()}, {"seed": seed})[-1].command
        assert f"--set seed={other} --name r-seed-{other}\n" in command


def test_a_champion_is_named_where_one_is():
    """By the gate's own sentences: only a comparison names a champion; what was refused passes by force alone."""
    settings, fit = GateSettings(), Diagnosis(300, 300, 0.0, 0.9, 0.9, 0.9, 1.0)
    assert refusal(fit, settings) is None
    unfit, few = (refusal(replace(fit, **fault), settings) for fault in ({"copying": 0.0}, {"points": 3}))
    compared = decide(*np.random.default_rng(0).normal(size=(2, 4, 300)), "m/2", settings)
    for verdict, rival in ((unfit, False), (few, False), (compared, True)):
        lines = advice(register=challenger(verdict.reason))[0].command
        assert ("m@champion" in lines) == rival
        assert "gan models promote m/3 --force --reason" in lines
