"""A small classifier of real images: what judges a conditional model's samples, and gives features."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.nn.utils import skip_init

from gan_core.datasets import Examples
from gan_core.draws import dropout_mask
from gan_core.errors import DataError
from gan_core.randomness import stream
from gan_core.threads import one_thread

BLOCK = 1000  # rows at a time


@dataclass(frozen=True)
class ClassifierSettings:
    """Layers, and a training by Adam whose learning rate falls linearly to zero.

    The defaults reach 98.4 % on MNIST's test images after its 50,000 training images, in a minute of one core.
    """

    hidden: tuple[int, ...] = (512, 128)
    keep: float = 0.8  # the probability to keep a layer's input, by dropout
    epochs: int = 12
    least_steps: int = 1000  # of a data set so small that its epochs have fewer
    batch_size: int = 100
    learning_rate: float = 2e-3


class Classifier:
    """Rectifier layers and a softmax over the labels; images are rows, standardised as the training images were."""

    def __init__(
        self, labels: Sequence[int], mean: np.ndarray, scale: float, settings: ClassifierSettings, seed: int
    ) -> None:
        self.labels = np.array(labels, np.int64)
        self.mean, self.scale = torch.from_numpy(mean.astype(np.float32)), scale
        random = stream(seed, "classifier weights")
        self.layers = [_layer(random, *widths) for widths in pairwise((len(mean), *settings.hidden, len(labels)))]

    def logits(
        self, images: Float[Tensor, "count width"], masks: Sequence[Tensor] = ()
    ) -> Float[Tensor, "count labels"]:
        """Unnormalised log-probabilities of the labels. `masks`, scaled by 1/keep, multiply each layer's input."""
        return self.layers[-1](self._features(images, masks))

    def features(self, images: Float[np.ndarray, "count width"]) -> Float[np.ndarray, "count features"]:
        """The last hidden layer, of as many units as `hidden` ends with."""
        with torch.no_grad(), one_thread():
            blocks = torch.from_numpy(np.ascontiguousarray(images, np.float32)).split(BLOCK)
            return torch.cat([self._features(block) for block in blocks]).numpy()

    def classify(self, images: Float[np.ndarray, "count width"]) -> Int[np.ndarray, " count"]:
        """The likeliest label of each image."""
        with torch.no_grad(), one_thread():
            best = self.layers[-1](torch.from_numpy(self.features(images))).argmax(dim=1)
        return self.labels[best.numpy()]

    def accuracy(self, examples: Examples) -> float:
        """The share of examples whose label it finds."""
        return float((self.classify(examples.images) == examples.labels).mean())

    def _features(self, images: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        x = (images - self.mean) / self.scale
        for number, layer in enumerate(self.layers):
            if masks:
                x = x * masks[number]
            if number < len(self.layers) - 1:
                x = torch.relu(layer(x))
        return x


def train_classifier(examples: Examples, seed: int = 0, settings: ClassifierSettings | None = None) -> Classifier:
    """A classifier of these examples' labels, a function of them and the seed alone.

    Raises:
        DataError: If they have fewer than two labels.
    """
    settings = settings or ClassifierSettings()
    labels, targets = np.unique(examples.labels, return_inverse=True)
    if len(labels) < 2:
        raise DataError("labels are missing", "classifier", f"{len(labels)} label", "examples of two classes or more")
    mean = examples.images.mean(axis=0, dtype=np.float64)
    scale = float(np.sqrt(examples.total_variance / examples.images.shape[1])) or 1.0
    classifier = Classifier(labels.tolist(), mean, scale, settings, seed)
    size = min(settings.batch_size, len(examples))
    per_epoch = len(examples) // size
    steps = max(settings.least_steps, settings.epochs * per_epoch)
    parameters = [parameter for layer in classifier.layers for parameter in layer.parameters()]
    optimizer = torch.optim.Adam(parameters, settings.learning_rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    widths = [examples.images.shape[1], *settings.hidden]
    with one_thread():
        for step in range(steps):
            epoch, position = divmod(step, per_epoch)
            if position == 0:
                order = stream(seed, "classifier minibatches", epoch).permutation(len(examples))
            chosen = order[position * size : (position + 1) * size]
            random = stream(seed, "classifier dropout", step)
            masks = [dropout_mask(random, (size, width), settings.keep) for width in widths]
            logits = classifier.logits(torch.from_numpy(examples.images[chosen]), masks)
            optimizer.zero_grad()
            cross_entropy(logits, torch.from_numpy(targets[chosen])).backward()
            optimizer.step()
            decay.step()
    return classifier


def _layer(random: np.random.Generator, inputs: int, outputs: int) -> nn.Linear:
    """Weights from N(0, 2 / inputs), which keeps a rectifier layer's scale; biases zero."""
    layer = skip_init(nn.Linear, inputs, outputs)  # or it would draw from torch's own generator
    with torch.no_grad():
        layer.weight.copy_(
            torch.from_numpy(random.standard_normal((outputs, inputs), np.float32) * (2 / inputs) ** 0.5)
        )
        layer.bias.zero_()
    return layer
