"""The generator and the discriminator: architectures by name."""

from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
    build,
)

Generator = DenseGenerator
Discriminator = DenseDiscriminator

__all__ = [
    "DenseDiscriminator",
    "DenseDiscriminatorSettings",
    "DenseGenerator",
    "DenseGeneratorSettings",
    "Discriminator",
    "Generator",
    "NetworkSettings",
    "build",
]
