"""The architectures by name, and a configuration's nets with initial weights drawn from the seed.

May import `randomness` and `errors`. What enters are settings, the images' shape and a seed; what leaves are G and D.
"""

import functools
import math
import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, get_type_hints

import numpy as np
import torch

from gan_core.errors import ConfigurationError, first_line
from gan_core.networks import base
from gan_core.networks.base import DiscriminatorNet, GeneratorNet
from gan_core.networks.convolutional import ConvolutionalDiscriminator, ConvolutionalGenerator, ConvolutionalSettings
from gan_core.networks.dense import DenseDiscriminator, DenseGenerator, NetworkSettings
from gan_core.networks.maxout_convolutional import (
    MaxoutConvolutionalDiscriminator,
    MaxoutConvolutionalGenerator,
    MaxoutConvolutionalSettings,
)
from gan_core.randomness import stream

MOST_WEIGHTS = 2**29  # of a net, in float32 2 GiB: the largest file of weights that is read again


class Nets(NamedTuple):
    """An architecture: the settings of both nets, and how each is made from its own, the weights zero."""

    settings: type[base.Architecture]
    generator: Callable[[int, int, tuple[int, ...], Any], GeneratorNet]  # noise and condition size, image shape
    discriminator: Callable[[tuple[int, ...], int, Any], DiscriminatorNet]  # image shape, condition size


ARCHITECTURES: dict[str, Nets] = {
    "dense": Nets(
        NetworkSettings,
        lambda noise, condition, shape, settings: DenseGenerator(noise, condition, math.prod(shape), settings),
        lambda shape, condition, settings: DenseDiscriminator(math.prod(shape), condition, settings),
    ),
    "maxout_convolutional": Nets(
        MaxoutConvolutionalSettings, MaxoutConvolutionalGenerator, MaxoutConvolutionalDiscriminator
    ),
    "convolutional": Nets(ConvolutionalSettings, ConvolutionalGenerator, ConvolutionalDiscriminator),
}
GENERATOR_SETTINGS: dict[str, Any] = {
    name: get_type_hints(nets.settings)["generator"] for name, nets in ARCHITECTURES.items()
}

if TYPE_CHECKING:
    Architecture = base.Architecture
    GeneratorSettings = base.GeneratorSettings
else:  # one of those there are, which is how a configuration is read
    Architecture = functools.reduce(operator.or_, (nets.settings for nets in ARCHITECTURES.values()))
    GeneratorSettings = functools.reduce(operator.or_, GENERATOR_SETTINGS.values())


def architecture_of(settings: GeneratorSettings) -> str:
    """The name of the architecture whose generator has such settings."""
    return _architecture_with("generator", settings)


def _architecture_with(net: str, settings: object) -> str:
    return next(
        name for name, nets in ARCHITECTURES.items() if isinstance(settings, get_type_hints(nets.settings)[net])
    )


def make_generator(
    settings: GeneratorSettings, noise_size: int, condition_size: int, image_shape: tuple[int, ...]
) -> GeneratorNet:
    """G of these settings for images of (height, width) or (height, width, channels), its weights zero.

    Raises:
        ConfigurationError: If the architecture cannot make such images.
    """
    return ARCHITECTURES[architecture_of(settings)].generator(noise_size, condition_size, image_shape, settings)


def make_discriminator(settings: object, image_shape: tuple[int, ...], condition_size: int) -> DiscriminatorNet:
    """D of these settings for such images, its weights zero.

    Raises:
        ConfigurationError: If the architecture cannot take such images.
    """
    nets = ARCHITECTURES[_architecture_with("discriminator", settings)]
    return nets.discriminator(image_shape, condition_size, settings)


def build(
    settings: Architecture,
    noise_size: int,
    data_size: int,
    seed: int,
    condition_size: int = 0,
    pixel_means: np.ndarray | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> tuple[GeneratorNet, DiscriminatorNet]:
    """G and D with the recipe's initial weights, drawn from the seed.

    `pixel_means` (of the training images) set G's output bias where `marginal_bias` asks for it.
    Convolutional nets need the `image_shape`; without it the images are rows of `data_size` pixels.

    Raises:
        ConfigurationError: If the architecture is not one for such images.
    """
    shape = image_shape or (data_size,)
    generator = make_generator(settings.generator, noise_size, condition_size, shape)
    discriminator = make_discriminator(settings.discriminator, shape, condition_size)
    generator.initialize(stream(seed, "generator weights"), pixel_means)
    discriminator.initialize(stream(seed, "discriminator weights"))
    return generator, discriminator


def check(settings: Architecture, noise_size: int, image_shape: tuple[int, ...], condition_size: int = 0) -> None:
    """Refuse images that the architecture is not for, and nets that no file could hold, without making any weight.

    Raises:
        ConfigurationError: If it is not, or G or D has over `MOST_WEIGHTS`.
    """
    expected = f"at most {MOST_WEIGHTS:,} weights in a net"
    try:
        with torch.device("meta"):
            generator = make_generator(settings.generator, noise_size, condition_size, image_shape)
            discriminator = make_discriminator(settings.discriminator, image_shape, condition_size)
    except (RuntimeError, TypeError) as error:  # torch's, for sizes beyond 2^63
        where, given = "network, noise.size", f"sizes that no tensor has: {first_line(error)[:100]}"
        raise ConfigurationError("network too large", where, given, expected) from error
    for name, net in (("generator", generator), ("discriminator", discriminator)):
        weights = sum(parameter.numel() for parameter in net.parameters())
        if weights > MOST_WEIGHTS:
            raise ConfigurationError("network too large", f"network.{name}", f"{weights:,} weights", expected)
