"""The generator and the discriminator: architectures by name."""

from gan_core.networks.architectures import (
    GENERATOR_SETTINGS,
    Architecture,
    Discriminator,
    DiscriminatorSettings,
    Generator,
    GeneratorSettings,
    architecture_of,
    build,
    check,
    make_discriminator,
    make_generator,
)
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

__all__ = [
    "GENERATOR_SETTINGS",
    "Architecture",
    "ConvolutionalDiscriminator",
    "ConvolutionalDiscriminatorSettings",
    "ConvolutionalGenerator",
    "ConvolutionalGeneratorSettings",
    "ConvolutionalSettings",
    "DenseDiscriminator",
    "DenseDiscriminatorSettings",
    "DenseGenerator",
    "DenseGeneratorSettings",
    "Discriminator",
    "DiscriminatorSettings",
    "Generator",
    "GeneratorSettings",
    "MaxoutConvolutionalDiscriminator",
    "MaxoutConvolutionalDiscriminatorSettings",
    "MaxoutConvolutionalGenerator",
    "MaxoutConvolutionalGeneratorSettings",
    "MaxoutConvolutionalSettings",
    "NetworkSettings",
    "architecture_of",
    "build",
    "check",
    "make_discriminator",
    "make_generator",
]
