"""Samples on a training's way: of one z, at steps that are reported anyway, without a trace in the weights."""

from dataclasses import replace

import numpy as np

from gan_core.checkpoint import tensors_digest
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.portable import PortableGenerator
from gan_core.threads import one_thread
from gan_core.training import initial_state, train
from pipelines import config
from pipelines.reporting import figures
from pipelines.stages.training_samples import COUNT, SampleStrip, read_strip
from pipelines.storage import Storage
from tests.pipelines.test_figures import opened


def trained(settings, digits, strip=None):
    training = settings.training()
    with one_thread():
        state = initial_state(training, digits.train, digits.shape)
        for report in train(training, digits.train, state, settings.algorithm.steps, lambda step: step % 10 == 0):
            if strip:
                strip.on_report(report.state)
    return state


def strip_of(small, digits, folder):
    fast = {
        "algorithm.optimizer": "adam",
        "algorithm.generator_learning_rate": 0.01,
        "algorithm.discriminator_learning_rate": 0.002,
    }
    settings = config.override(config.resolve(small, "r"), {"algorithm.steps": 60, **fast})
    return SampleStrip(Storage.at(folder), settings, digits.shape, UNCONDITIONAL)


def test_samples_on_the_way_leave_no_trace_in_the_weights(small, digits, tmp_path):
    """A training that shows its samples ends with the bits of one that does not, and twice with the same pictures."""
    strip = strip_of(small, digits, tmp_path / "a")
    with_samples, without = trained(strip.configuration, digits, strip), trained(strip.configuration, digits)
    for group, tensors in without.tensors().items():
        assert tensors_digest(with_samples.tensors()[group]) == tensors_digest(tensors), group
    again = replace(strip, run=Storage.at(tmp_path / "b"))
    trained(strip.configuration, digits, again)
    assert read_strip(strip.run) == read_strip(again.run)


def test_last_picture_is_of_the_trained_generator(small, digits, tmp_path):
    """The last picture is what the weights that are scored draw of the run's seed; earlier ones are others."""
    strip = strip_of(small, digits, tmp_path / "a")
    state = trained(strip.configuration, digits, strip)
    pictures = read_strip(strip.run)
    assert [step for step, _ in pictures] == [10, 20, 30, 40, 50, 60]
    assert len({content for _, content in pictures}) == 6
    last = opened(strip.draw(state))
    assert np.array_equal(opened(pictures[-1][1]), last)
    settings = strip.configuration
    assert settings.scored_weights == "last"
    model = PortableGenerator(state.generator, settings.noise, settings.network.generator, digits.shape)
    assert np.array_equal(last, figures.sample_grid(model.draw(COUNT, settings.seed), "unit"))


def test_long_training_shows_a_dozen_pictures(small, digits, tmp_path):
    """However long a training is, it shows about as many pictures, close together at first, and all at reported steps."""
    strip = strip_of(small, digits, tmp_path)
    settings = config.override(strip.configuration, {"algorithm.steps": 100_003, "train.report_every": 100})
    due = [step for step in range(1, 100_004) if replace(strip, configuration=settings).due(step)]
    assert due == [1600, 3200, 6300, 12600, 25100, 37600, 50100, 62600, 75100, 87600, 100003]
