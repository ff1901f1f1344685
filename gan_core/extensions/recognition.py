"""Whether a conditional model's samples are of the class asked for, by a classifier of real images."""

from dataclasses import dataclass

import numpy as np

from gan_core.conditions.classes import asked_classes
from gan_core.datasets import Dataset
from gan_core.metrics.classifier import train_classifier
from gan_core.portable import PortableGenerator


@dataclass(frozen=True)
class Recognition:
    """How often a classifier of real images finds the class that a sample was asked to be of."""

    recognised: float  # share of samples, as many of each class
    standard_error: float
    samples: int
    by_class: dict[str, float]
    classifier_accuracy: float  # on the real test images: about what real samples would have


def recognition(model: PortableGenerator, dataset: Dataset, samples: int, seed: int) -> Recognition:
    """Train a classifier on the real training images, and ask it for the class of about `samples` samples."""
    classes = asked_classes(model.conditions)
    classifier = train_classifier(dataset.train, seed)
    asked = np.repeat(np.arange(classes.size), -(-samples // classes.size))
    images = model.draw(len(asked), seed, condition=classes.one_hot(asked))
    found = classifier.classify(images.reshape(len(images), -1)) == np.array(classes.labels)[asked]
    share = float(found.mean())
    return Recognition(
        recognised=share,
        standard_error=float(np.sqrt(share * (1 - share) / len(asked))),
        samples=len(asked),
        by_class={str(label): float(found[asked == index].mean()) for index, label in enumerate(classes.labels)},
        classifier_accuracy=classifier.accuracy(dataset.test),
    )
