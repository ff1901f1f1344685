"""The architectures by name, and a configuration's nets with initial weights drawn from the seed."""

import math

import numpy as np
import torch

from gan_core.networks.convolutional import (
    ConvolutionalDiscriminator,
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGenerator,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
)
from gan_core.networks.maxout_convolutional import (
    MaxoutConvolutionalDiscriminator,
    MaxoutConvolutionalDiscriminatorSettings,
    MaxoutConvolutionalGenerator,
    MaxoutConvolutionalGeneratorSettings,
    MaxoutConvolutionalSettings,
)
from gan_core.randomness import stream

Architecture = NetworkSettings | MaxoutConvolutionalSettings | ConvolutionalSettings
GeneratorSettings = DenseGeneratorSettings | MaxoutConvolutionalGeneratorSettings | ConvolutionalGeneratorSettings
DiscriminatorSettings = (
    DenseDiscriminatorSettings | MaxoutConvolutionalDiscriminatorSettings | ConvolutionalDiscriminatorSettings
)
Generator = DenseGenerator | MaxoutConvolutionalGenerator | ConvolutionalGenerator
Discriminator = DenseDiscriminator | MaxoutConvolutionalDiscriminator | ConvolutionalDiscriminator

GENERATOR_SETTINGS: dict[str, type[GeneratorSettings]] = {
    "dense": DenseGeneratorSettings,
    "maxout_convolutional": MaxoutConvolutionalGeneratorSettings,
    "convolutional": ConvolutionalGeneratorSettings,
}


def architecture_of(settings: GeneratorSettings) -> str:
    """The name of the architecture whose generator has such settings."""
    return next(name for name, kind in GENERATOR_SETTINGS.items() if isinstance(settings, kind))


def make_generator(
    settings: GeneratorSettings, noise_size: int, condition_size: int, image_shape: tuple[int, ...]
) -> Generator:
    """G of these settings for images of (height, width) or (height, width, channels), its weights zero.

    Raises:
        ConfigurationError: If the architecture cannot make such images.
    """
    if isinstance(settings, MaxoutConvolutionalGeneratorSettings):
        return MaxoutConvolutionalGenerator(noise_size, condition_size, image_shape, settings)
    if isinstance(settings, ConvolutionalGeneratorSettings):
        return ConvolutionalGenerator(noise_size, condition_size, image_shape, settings)
    return DenseGenerator(noise_size, condition_size, math.prod(image_shape), settings)


def make_discriminator(
    settings: DiscriminatorSettings, image_shape: tuple[int, ...], condition_size: int
) -> Discriminator:
    """D of these settings for such images, its weights zero.

    Raises:
        ConfigurationError: If the architecture cannot take such images.
    """
    if isinstance(settings, MaxoutConvolutionalDiscriminatorSettings):
        return MaxoutConvolutionalDiscriminator(image_shape, condition_size, settings)
    if isinstance(settings, ConvolutionalDiscriminatorSettings):
        return ConvolutionalDiscriminator(image_shape, condition_size, settings)
    return DenseDiscriminator(math.prod(image_shape), condition_size, settings)


def build(
    settings: Architecture,
    noise_size: int,
    data_size: int,
    seed: int,
    condition_size: int = 0,
    pixel_means: np.ndarray | None = None,
    image_shape: tuple[int, ...] | None = None,
) -> tuple[Generator, Discriminator]:
    """G and D with the recipe's initial weights, drawn from the seed.

    `pixel_means` (of the training images) set G's output bias where `marginal_bias` asks for it.
    Convolutional nets need the `image_shape`; without it the images are rows of `data_size` pixels.

    Raises:
        ConfigurationError: If the architecture is not one for such images.
    """
    shape = image_shape or (data_size,)
    generator = make_generator(settings.generator, noise_size, condition_size, shape)
    discriminator = make_discriminator(settings.discriminator, shape, condition_size)
    generator.initialize(stream(seed, "generator weights"))
    discriminator.initialize(stream(seed, "discriminator weights"))
    if settings.generator.marginal_bias and settings.generator.output == "sigmoid" and pixel_means is not None:
        means = torch.from_numpy(pixel_means.astype(np.float64)).clamp(1e-7, 1 - 1e-7)
        with torch.no_grad():
            generator.biases[-1].copy_(torch.logit(means))
    return generator, discriminator


def check(settings: Architecture, noise_size: int, image_shape: tuple[int, ...], condition_size: int = 0) -> None:
    """Refuse images that the architecture is not for, without making any weight.

    Raises:
        ConfigurationError: If it is not.
    """
    with torch.device("meta"):
        make_generator(settings.generator, noise_size, condition_size, image_shape)
        make_discriminator(settings.discriminator, image_shape, condition_size)
