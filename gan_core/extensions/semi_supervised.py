"""Semi-supervised learning: how far few labels go on D's features, the encoder's, principal components and pixels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from gan_core.datasets import Dataset, Examples
from gan_core.errors import ConfigurationError
from gan_core.extensions.inference import Encoder
from gan_core.networks.dense import DenseDiscriminator
from gan_core.networks.maxout import maxout
from gan_core.randomness import stream
from gan_core.threads import one_thread

COMPONENTS = 50  # principal, of the training images
PENALTY = 30.0  # C of the logistic regression: of 3, 30 and 300 the best on digits for pixels, or within its error
BLOCK = 1000  # rows at a time
Layer = Callable[[Tensor], Tensor]
Pair = tuple[np.ndarray, np.ndarray]  # rows of the training and of the test images


@dataclass(frozen=True)
class Accuracy:
    """The share of test images whose label was found: the mean over draws of the labels, and its standard error."""

    features: str
    width: int
    labels: int
    mean: float
    standard_error: float | None  # over draws; none of a single one


def discriminator_layers(discriminator: DenseDiscriminator) -> list[Layer]:
    """D's maxout layers, each a function of the one before, without dropout."""

    def layer(weight: Tensor, bias: Tensor) -> Layer:
        return lambda x: maxout(x @ weight + bias, discriminator.settings.pieces)

    return list(map(layer, discriminator.weights[:-1], discriminator.biases[:-1]))


def encoder_layers(encoder: Encoder) -> list[Layer]:
    """The encoder's hidden layers, each a function of the one before."""

    def layer(weight: Tensor, bias: Tensor) -> Layer:
        return lambda x: torch.relu(x @ weight + bias)

    return list(map(layer, encoder.net.weights[:-1], encoder.net.biases[:-1]))


def feature_sets(dataset: Dataset, nets: Mapping[str, Sequence[Layer]]) -> Iterator[tuple[str, Pair]]:
    """Features of the training and of the test images, by name: pixels, principal components, each layer of each net.

    Principal components, like the nets, are learned from all training images and from no label.
    """
    images = (dataset.train.images, dataset.test.images)
    yield "pixels", images
    count = min(COMPONENTS, images[0].shape[1], len(images[0]))
    principal = PCA(count, svd_solver="covariance_eigh").fit(images[0])
    yield f"{count} principal components", (principal.transform(images[0]), principal.transform(images[1]))
    for name, layers in nets.items():
        pair = images
        for number, layer in enumerate(layers, start=1):
            pair = (_through(layer, pair[0]), _through(layer, pair[1]))
            yield f"{name}, layer {number}", pair


def _through(layer: Layer, rows: np.ndarray) -> np.ndarray:
    with torch.no_grad(), one_thread():
        blocks = torch.from_numpy(np.ascontiguousarray(rows, np.float32)).split(BLOCK)
        return torch.cat([layer(block) for block in blocks]).numpy()


def few_labels(labels: np.ndarray, count: int, seed: int, draw: int) -> np.ndarray:
    """Indices of `count` examples with as many of each class, or one more of some, a function of (seed, draw).

    Raises:
        ConfigurationError: If there are not so many, or fewer than one of each class are asked for.
    """
    classes = np.unique(labels)
    random = stream(seed, "labels", draw)
    shares = np.full(len(classes), count // len(classes))
    shares[random.permutation(len(classes))[: count % len(classes)]] += 1
    chosen = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        if not 1 <= share <= len(members):
            most = len(classes) * min(int((labels == one).sum()) for one in classes)
            raise ConfigurationError(
                "labels", "--labels", str(count), f"{len(classes)} to {most}, as many of each class"
            )
        chosen.append(random.permutation(members)[:share])
    return np.concatenate(chosen)


def accuracies(
    name: str, pair: Pair, train: Examples, test: Examples, counts: Sequence[int], draws: int, seed: int
) -> list[Accuracy]:
    """One and the same logistic regression on a set of features, trained on each draw of labels, for each count of them.

    Features are centred, and scaled together to a total variance of 1 over the training images: the penalty
    then means the same for all, and a rotation changes nothing. The draws are the same for every set.
    """
    mean = pair[0].mean(axis=0)
    scale = np.sqrt(pair[0].var(axis=0, dtype=np.float64).sum()) or 1.0  # constant features stay so
    of_train, of_test = ((part - mean) / scale for part in pair)
    found = []
    for count in counts:
        chosen = [few_labels(train.labels, count, seed, draw) for draw in range(draws)]
        shares = [_accuracy(of_train[rows], train.labels[rows], of_test, test.labels) for rows in chosen]
        error = float(np.std(shares, ddof=1) / np.sqrt(draws)) if draws > 1 else None
        found.append(Accuracy(name, of_train.shape[1], count, float(np.mean(shares)), error))
    return found


def _accuracy(features: np.ndarray, labels: np.ndarray, of_test: np.ndarray, test_labels: np.ndarray) -> float:
    classifier = LogisticRegression(C=PENALTY, max_iter=1000)
    return float(classifier.fit(features, labels).score(of_test, test_labels))
