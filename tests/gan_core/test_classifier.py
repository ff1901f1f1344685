"""The classifier: it learns real digits, is a function of examples and seed, and its features are its own."""

import numpy as np
import pytest
import torch

from gan_core.datasets import DataSettings, Examples, load
from gan_core.datasets.digits import load_digits
from gan_core.errors import DataError
from gan_core.metrics.classifier import ClassifierSettings, train_classifier
from gan_core.randomness import stream

DIGITS = load_digits()
SMALL = ClassifierSettings(hidden=(32, 16), least_steps=20, epochs=1)


@pytest.fixture(scope="module")
def classifier():
    return train_classifier(DIGITS.train, settings=ClassifierSettings(hidden=(128, 32), least_steps=600))


def test_unseen_digits_are_classified(classifier):
    # 98 % of 297: the standard error of a share of 0.97 is 0.01; scikit-learn's 1-nearest neighbour has 0.98.
    """The classifier is right on at least 95 % of digits that it has not seen."""
    assert 0.95 <= classifier.accuracy(DIGITS.test) < 1
    assert classifier.accuracy(DIGITS.train) > 0.99


def test_noise_has_no_digit_it_is_right_about(classifier):
    noise = stream(0, "noise").random(DIGITS.test.images.shape, np.float32)
    # A guess: 0.1 with a standard error of 0.017; five of them.
    assert np.mean(classifier.classify(noise) == DIGITS.test.labels) < 0.19


def test_classifier_depends_on_examples_and_seed_alone():
    """The same examples and seed give the same features, whatever the global random state."""

    def features(examples=DIGITS.train, seed=0):
        return train_classifier(examples, seed, SMALL).features(DIGITS.test.images)

    first = features()
    torch.manual_seed(5)
    assert np.array_equal(first, features())
    assert not np.array_equal(first, features(seed=1))
    assert not np.array_equal(first, features(DIGITS.validation))


def test_features_are_nonnegative_last_hidden_layer():
    """Features are the last hidden layer's rectified outputs, so none is negative."""
    features = train_classifier(DIGITS.train, settings=SMALL).features(DIGITS.test.images)
    assert features.shape == (297, 16)
    assert features.min() == 0
    assert features.max() > 0


def test_labels_are_given_back_as_they_are():
    images = np.repeat(np.eye(3, dtype=np.float32), 10, axis=0)
    labels = np.repeat([5, -1, 7], 10)
    classifier = train_classifier(Examples(images, labels), settings=ClassifierSettings(hidden=(8,), least_steps=200))
    assert classifier.classify(np.eye(3, dtype=np.float32)).tolist() == [5, -1, 7]


def test_one_label_is_nothing_to_learn():
    with pytest.raises(DataError, match="labels are missing"):
        train_classifier(Examples(np.eye(3, dtype=np.float32), np.zeros(3, np.int64)))


@pytest.mark.slow
def test_it_finds_98_percent_of_mnist_s_digits(mnist_root):
    mnist = load(DataSettings("mnist", mnist_root, download=False))
    assert train_classifier(mnist.train).accuracy(mnist.test) >= 0.98
