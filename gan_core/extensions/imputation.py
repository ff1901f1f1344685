"""All conditionals p(x_S | x_not S), S any set of pixels, by one pair of nets: a stochastic MP-DBM (section 7)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from sklearn.neighbors import NearestNeighbors

from gan_core.conditions.masks import MaskName, named_mask
from gan_core.conditions.observed import Observed, condition_of
from gan_core.datasets import Dataset
from gan_core.errors import ConfigurationError
from gan_core.noise import draw_noise
from gan_core.portable import PortableGenerator
from gan_core.randomness import stream

IMAGES, COMPLETIONS, NEIGHBOURS = 500, 16, 10  # what errors of completions are measured on


@dataclass(frozen=True)
class CompletionError:
    """Squared error per missing pixel on test images, and how much completions of one image differ."""

    error: float  # of the mean of the completions
    one_completion: float  # of each
    mean_image: float  # of the training images' mean
    nearest: float  # of the mean of the training images that are nearest at the observed pixels
    spread: float  # variance of a missing pixel over the completions of one image
    missing: float  # share of pixels


def completions(
    model: PortableGenerator, images: Float[np.ndarray, "count pixels"], masks: np.ndarray, count: int, seed: int
) -> Float[np.ndarray, "count completions *shape"]:
    """`count` completions of each image, whose masks (one for all, or one each) are 1 at observed pixels.

    Raises:
        ConfigurationError: If the model completes none.
    """
    if not isinstance(model.conditions, Observed):
        raise ConfigurationError(
            "not a model that completes images",
            "generator",
            "p(x) only",
            "a model trained with extension.name imputation",
        )
    noise = draw_noise(stream(seed, "completions"), len(images) * count, model.noise)
    given = condition_of(images, masks).repeat_interleave(count, dim=0)
    return model.images(noise, given).reshape(len(images), count, *model.image_shape)


def completion_error(model: PortableGenerator, dataset: Dataset, name: MaskName, seed: int) -> CompletionError:
    """The errors on the first test images with one mask, of the model and of what it is to be better than."""
    images = dataset.test.images[:IMAGES]
    mask = named_mask(name, dataset.shape, seed)
    missing = mask.reshape(-1) == 0
    filled = completions(model, images, mask[None], COMPLETIONS, seed).reshape(len(images), COMPLETIONS, -1)
    filled, truth = filled[:, :, missing].astype(np.float64), images[:, missing]
    nearest = nearest_mean(images, dataset.train.images, ~missing, NEIGHBOURS)[:, missing]

    def error(guess: np.ndarray) -> float:
        return float(((guess - truth) ** 2).mean())

    return CompletionError(
        error=error(filled.mean(axis=1)),
        one_completion=float(((filled - truth[:, None]) ** 2).mean()),
        mean_image=error(dataset.train.images.mean(axis=0, dtype=np.float64)[missing]),
        nearest=error(nearest),
        spread=float(filled.var(axis=1, ddof=1).mean()),
        missing=float(missing.mean()),
    )


def nearest_mean(
    images: Float[np.ndarray, "count pixels"],
    training: Float[np.ndarray, "examples pixels"],
    observed: Bool[np.ndarray, " pixels"],
    neighbours: int,
) -> Float[np.ndarray, "count pixels"]:
    """The mean of the training images that are nearest (L2) at the observed pixels: imputation by neighbours."""
    index = NearestNeighbors(n_neighbors=neighbours, algorithm="brute").fit(training[:, observed])
    nearest = index.kneighbors(images[:, observed], return_distance=False)
    return training[nearest].mean(axis=1, dtype=np.float64)
