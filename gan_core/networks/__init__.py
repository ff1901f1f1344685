"""The generator and the discriminator: architectures by name."""

from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
    build,
)

__all__ = [
    "DenseDiscriminator",
    "DenseDiscriminatorSettings",
    "DenseGenerator",
    "DenseGeneratorSettings",
    "NetworkSettings",
    "build",
]
