"""What is done to a data set's pixels before training: nothing, or global contrast normalisation."""

import numpy as np
from jaxtyping import Float

from gan_core.datasets.examples import Dataset, Examples

NORM = 55.0  # of a normalised image: the original's for CIFAR-10
SMALLEST_NORM = 1e-8 * NORM  # below which an image is constant, and stays at zero
BLOCK = 1000  # images


def normalise_contrast(images: Float[np.ndarray, "count pixels"]) -> Float[np.ndarray, "count pixels"]:
    """Each image minus its mean, scaled to the norm 55: sum 0, and pixels of about 1 for 3,072 of them.

    A constant image becomes zeros. Blocks of images are worked on in float64, so beside the result
    only they are in memory.
    """
    result = np.empty(images.shape, np.float32)
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK].astype(np.float64)
        block -= block.mean(axis=1, keepdims=True)
        norms = np.linalg.norm(block, axis=1, keepdims=True)
        result[start : start + BLOCK] = block * np.where(
            norms < SMALLEST_NORM, 0, NORM / np.maximum(norms, SMALLEST_NORM)
        )
    return result


def contrast_normalised(dataset: Dataset) -> Dataset:
    """The data set with every split's images normalised."""
    parts = [Examples(normalise_contrast(part.images), part.labels) for part in dataset.splits().values()]
    return Dataset(dataset.name, dataset.shape, *parts)


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1] as 8-bit values, rounded."""
    return np.rint(np.clip(images, 0, 1) * 255).astype(np.uint8)
