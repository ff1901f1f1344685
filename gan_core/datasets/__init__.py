"""Data sets: read, verified, split and scaled to [0, 1]."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gan_core.datasets.digits import load_digits
from gan_core.datasets.examples import Dataset, Examples
from gan_core.datasets.mnist import load_mnist

__all__ = ["LOADERS", "DataSettings", "Dataset", "Examples", "load"]


@dataclass(frozen=True)
class DataSettings:
    """Which data set, where its files are, and whether to download them when they are not there."""

    name: Literal["digits", "mnist"] = "digits"
    root: str = "data"
    download: bool = True


LOADERS: dict[str, Callable[[DataSettings], Dataset]] = {
    "digits": lambda settings: load_digits(),
    "mnist": lambda settings: load_mnist(settings.root, settings.download),
}


def load(settings: DataSettings) -> Dataset:
    """The data set of the settings.

    Raises:
        DataError: If its files are missing, damaged or not what they should be.
    """
    return LOADERS[settings.name](settings)
