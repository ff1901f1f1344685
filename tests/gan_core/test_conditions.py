"""The condition: width 0 is nothing at all, a class is a row with one 1, and neither workers nor resuming change it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gan_core.checkpoint import commit_checkpoint, read_checkpoint, tensors_digest
from gan_core.conditions.base import UNCONDITIONAL
from gan_core.conditions.classes import Classes, classes_of
from gan_core.conditions.settings import ExtensionSettings, conditions_of
from gan_core.data_parallel import Shards
from gan_core.datasets import Dataset, Examples
from gan_core.datasets.digits import load_digits
from gan_core.errors import ConfigurationError, DataError
from gan_core.randomness import stream
from gan_core.training import BatchSource, initial_state, train
from tests.gan_core.test_training import SETTINGS, never

DIGITS = load_digits()
CLASSES = classes_of(DIGITS)
CONDITIONAL = replace(SETTINGS, extension=ExtensionSettings("conditional"))


pytestmark = pytest.mark.usefixtures("one_thread")


def labelled(labels) -> Dataset:
    examples = Examples(np.zeros((len(labels), 4), np.float32), np.array(labels))
    return Dataset("made up", (2, 2), examples, examples, examples, examples)


def trained(steps, settings=CONDITIONAL, conditions=CLASSES):
    state = initial_state(settings, DIGITS.train, conditions=conditions)
    for _ in train(settings, DIGITS.train, state, steps, never, conditions=conditions):
        pass
    return state


def digest(state):
    return tensors_digest(*state.tensors().values())


def test_no_extension_is_a_condition_of_width_zero():
    conditions = conditions_of(ExtensionSettings(), DIGITS)
    assert conditions is UNCONDITIONAL
    assert conditions.encode(DIGITS.train.images[:7], DIGITS.train.labels[:7], stream(0, "x")).shape == (7, 0)
    assert conditions.sample_prior(5, stream(0, "x")).shape == (5, 0)
    assert digest(trained(3, SETTINGS, UNCONDITIONAL)) == digest(trained(3, SETTINGS, conditions))


def test_a_minibatch_s_conditions_are_its_examples_classes():
    source = BatchSource(3, DIGITS.train, 250, conditions=CLASSES)
    for index in (0, 6):
        batch = source.at(index)
        rows = {image.tobytes(): label for image, label in zip(DIGITS.train.images, DIGITS.train.labels, strict=True)}
        expected = [rows[image.tobytes()] for image in batch.data.numpy()]
        assert batch.condition.argmax(dim=1).tolist() == expected  # digits' labels are 0 to 9
        assert torch.equal(batch.condition.sum(dim=1), torch.ones(250))
        assert set(batch.condition.unique().tolist()) == {0.0, 1.0}
        part = source.at(index, slice(50, 100))
        assert torch.equal(part.condition, batch.condition[50:100])
        assert torch.equal(part.data, batch.data[50:100])


def test_labels_need_not_count_from_zero():
    classes = classes_of(labelled([7, 2, 7, 5, 2, 2, 2, 2]))
    assert classes == Classes((2, 5, 7), (5 / 8, 1 / 8, 2 / 8))
    given = classes.encode(np.zeros((3, 4)), np.array([7, 2, 5]), stream(0, "x"))
    assert given.tolist() == [[0, 0, 1], [1, 0, 0], [0, 1, 0]]
    assert classes.all_of(5, 2).tolist() == [[0, 1, 0], [0, 1, 0]]
    with pytest.raises(ConfigurationError, match=r"no such class \(condition\): 3; expected one of 2, 5, 7"):
        classes.all_of(3, 1)


def test_sampled_classes_have_training_frequencies():
    """Classes are drawn as often as they are in the training data, as a function of the stream."""
    classes = Classes((0, 1, 4), (0.5, 0.3, 0.2))
    drawn = classes.sample_prior(20_000, stream(0, "x"))
    # Standard errors of the shares are 0.0035 and less; four of them.
    np.testing.assert_allclose(drawn.mean(dim=0), classes.frequencies, rtol=0, atol=0.014)
    assert torch.equal(drawn, classes.sample_prior(20_000, stream(0, "x")))
    assert not torch.equal(drawn, classes.sample_prior(20_000, stream(1, "x")))


@pytest.mark.parametrize("labels", [[0, 0, 0], [-1, -1], [-1, 1, 2]])
def test_a_data_set_without_labels_cannot_be_conditioned_on(labels):
    with pytest.raises(DataError, match=r"labels are missing .*conditional"):
        conditions_of(ExtensionSettings("conditional"), labelled(labels))


@pytest.mark.parametrize(
    ("labels", "frequencies"),
    [((0,), (1.0,)), ((1, 0), (0.5, 0.5)), ((0, 0), (0.5, 0.5)), ((0, 1), (0.5, 0.4)), ((0, 1), (1.0,)),
     ((0, 1), (1.5, -0.5)), ((0, 1), (float("nan"), 0.5))],
)  # fmt: skip
def test_classes_that_cannot_be_are_refused(labels, frequencies):
    with pytest.raises(ValueError, match=r"labels|frequencies"):
        Classes(labels, frequencies)


def test_conditional_training_resumes_to_the_bit(tmp_path):
    """A resumed conditional training has the bits of a whole one, and other labels change the result."""
    whole, interrupted = trained(7), trained(3)
    state = initial_state(replace(CONDITIONAL, seed=9), DIGITS.train, conditions=CLASSES)
    state.load(read_checkpoint(commit_checkpoint(tmp_path, 3, interrupted.tensors()))[1])
    for _ in train(CONDITIONAL, DIGITS.train, state, 7, never, conditions=CLASSES):
        pass
    assert digest(state) == digest(whole)
    assert digest(whole) != digest(trained(7, conditions=replace(CLASSES, labels=tuple(range(10, 20)))))


@pytest.mark.parametrize("workers", [2])
def test_shards_conditions_make_up_the_global_batch(workers):
    """The conditions of the workers' shards, one after the other, are those of the global batch."""
    parts = []
    for rank in range(workers):
        source = BatchSource(0, DIGITS.train, 100, conditions=CLASSES)
        parts.append(source.at(5, Shards(100, workers, workers, rank).rows).condition)
    assert torch.equal(torch.cat(parts), BatchSource(0, DIGITS.train, 100, conditions=CLASSES).at(5).condition)
