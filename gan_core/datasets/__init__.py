"""Data sets: read, verified, split and scaled to [0, 1], or to equal contrast."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gan_core.datasets.cifar10 import load_cifar10
from gan_core.datasets.digits import load_digits
from gan_core.datasets.examples import Dataset, Examples
from gan_core.datasets.fashion_mnist import load_fashion_mnist
from gan_core.datasets.images import Channels, load_images
from gan_core.datasets.mnist import load_mnist
from gan_core.datasets.preprocessing import contrast_normalised
from gan_core.datasets.tfd import FOLDS, load_tfd

__all__ = ["LOADERS", "DataSettings", "Dataset", "Examples", "PixelRange", "load", "preprocessed"]

PixelRange = Literal["unit", "contrast_normalised"]  # in [0, 1]; or sum 0 and norm 55, of either sign


@dataclass(frozen=True)
class DataSettings:
    """Which data set, where its files are, and what is done to its pixels.

    For images of your own set `name: images` and `root` to a folder of PNG and JPEG files (or of
    Parquet files with an image column, or to a .npy array); `size: [height, width]` resizes them.
    """

    name: Literal["digits", "mnist", "fashion_mnist", "cifar10", "tfd", "images"] = "digits"
    root: str = "data"
    download: bool = True  # when the files are not there
    preprocessing: Literal["none", "global_contrast_normalisation"] = "none"
    fold: int = 0  # of TFD's five
    size: tuple[int, int] | None = None  # of `images`: (height, width)
    channels: Channels | None = None  # of `images`; none: as the files are, colour if one of them is
    streaming: bool = False  # `images` that need not fit in memory: decoded once into the storage, read by minibatch

    def __post_init__(self) -> None:
        if not 0 <= self.fold < FOLDS:
            raise ValueError(f"data.fold {self.fold} is not a fold; use 0 to {FOLDS - 1}")
        if self.size is not None and min(self.size) < 1:
            raise ValueError(f"data.size {list(self.size)} is not [height, width] in pixels")
        if self.streaming:
            if self.name != "images":
                raise ValueError(f"data.streaming is for data.name images, not {self.name}")
            if self.size is None or self.channels is None:
                raise ValueError("data.streaming needs data.size, [height, width], and data.channels, grey or colour")
            if self.preprocessing != "none":
                raise ValueError(f"data.streaming knows no data.preprocessing {self.preprocessing}; use none")
        for setting, owner in (("fold", "tfd"), ("size", "images"), ("channels", "images")):
            value = getattr(self, setting)
            if value not in (0, None) and self.name != owner:
                raise ValueError(f"data.{setting} {value} is for data.name {owner}, not {self.name}")

    @property
    def pixels(self) -> PixelRange:
        """What the images' pixels are, and so a generator's."""
        return "unit" if self.preprocessing == "none" else "contrast_normalised"


LOADERS: dict[str, Callable[[DataSettings], Dataset]] = {
    "digits": lambda settings: load_digits(),
    "mnist": lambda settings: load_mnist(settings.root, settings.download),
    "fashion_mnist": lambda settings: load_fashion_mnist(settings.root, settings.download),
    "cifar10": lambda settings: load_cifar10(settings.root, settings.download),
    "tfd": lambda settings: load_tfd(settings.root, settings.fold),
    "images": lambda settings: load_images(settings.root, settings.size, settings.channels),
}


def load(settings: DataSettings) -> Dataset:
    """The data set of the settings.

    Raises:
        DataError: If its files are missing, damaged or not what they should be.
    """
    return preprocessed(LOADERS[settings.name](settings), settings)


def preprocessed(dataset: Dataset, settings: DataSettings) -> Dataset:
    """The data set with its pixels as the settings want them."""
    return dataset if settings.pixels == "unit" else contrast_normalised(dataset)
