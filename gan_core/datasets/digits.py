"""Digits: 1,797 real handwritten digits of 8x8 pixels, which ship inside scikit-learn."""

import numpy as np

from gan_core.datasets.examples import Dataset, Examples, check_images
from gan_core.randomness import stream

SPLITS = {"train": 1000, "validation": 200, "gate": 300, "test": 297}


def load_digits() -> Dataset:
    """The embedded data set, shuffled once (the files are ordered by writer) and split."""
    from sklearn.datasets import (
        load_digits as read_digits,
    )  # whose import takes a second, which no other data set needs

    digits = read_digits()
    images, labels = (digits.data / 16).astype(np.float32), digits.target.astype(np.int64)
    check_images(images, "scikit-learn's digits")
    order = stream(0, "digits split").permutation(len(images))
    bounds = np.cumsum(list(SPLITS.values()))[:-1]
    parts = [Examples(images[part], labels[part]) for part in np.split(order, bounds)]
    return Dataset("digits", (8, 8), *parts)
