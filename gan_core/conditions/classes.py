"""Conditional nets, p(x | c): the class of an example, one-hot, into both G and D."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gan_core.conditions.base import Conditions
from gan_core.datasets import Dataset
from gan_core.errors import ConfigurationError, DataError
from gan_core.networks.base import GeneratorNet


@dataclass(frozen=True)
class Classes:
    """The classes of a data set: the label of each, and how often it is among the training examples."""

    labels: tuple[int, ...]  # ascending
    frequencies: tuple[float, ...]

    def __post_init__(self) -> None:
        whole = all(type(label) is int for label in self.labels)
        if len(self.labels) < 2 or not whole or list(self.labels) != sorted(set(self.labels)):
            raise ValueError(f"labels {list(self.labels)} are not two or more classes, ascending")
        if len(self.frequencies) != len(self.labels) or not all(0 < share <= 1 for share in self.frequencies):
            raise ValueError(f"frequencies {list(self.frequencies)} are not in (0, 1], one for each class")
        if abs(sum(self.frequencies) - 1) > 1e-6:
            raise ValueError(f"frequencies {list(self.frequencies)} do not sum to 1")

    @property
    def size(self) -> int:
        """The number of classes."""
        return len(self.labels)

    def encode(self, images: np.ndarray, labels: np.ndarray, random: np.random.Generator) -> Tensor:
        """Each example's class, one-hot."""
        return self.one_hot(np.searchsorted(self.labels, labels))

    def sample_prior(self, count: int, random: np.random.Generator) -> Tensor:
        """Classes as frequent as among the training examples, so that samples are of p(x)."""
        return self.one_hot(self.sample_prior_indices(count, random))

    def sample_prior_indices(self, count: int, random: np.random.Generator) -> np.ndarray:
        """The same, as positions in `labels`."""
        upper = np.cumsum(self.frequencies)[:-1]
        return np.searchsorted(upper, random.random(count), side="right")

    def all_of(self, label: int, count: int) -> Tensor:
        """The condition of `count` examples of one class.

        Raises:
            ConfigurationError: If there is no such class.
        """
        if label not in self.labels:
            known = ", ".join(map(str, self.labels))
            raise ConfigurationError("no such class", "condition", str(label), f"one of {known}")
        return self.one_hot(np.full(count, self.labels.index(label)))

    def one_hot(self, indices: np.ndarray) -> Tensor:
        """Rows with a single 1, at each index."""
        return torch.eye(self.size)[torch.from_numpy(indices)]

    def wrap(self, generator: GeneratorNet) -> GeneratorNet:
        """G itself."""
        return generator


def class_condition(conditions: Conditions, label: int, count: int) -> Tensor:
    """The condition of `count` samples of one class.

    Raises:
        ConfigurationError: If the model is not conditional on classes, or not on this one.
    """
    return asked_classes(conditions, f"condition {label}").all_of(label, count)


def asked_classes(conditions: Conditions, wanted: str = "classes") -> Classes:
    """The classes of a model that has them.

    Raises:
        ConfigurationError: If it is conditional on none.
    """
    if not isinstance(conditions, Classes):
        raise ConfigurationError(
            "not a conditional model", "generator", wanted, "a model trained with extension.name conditional"
        )
    return conditions


def classes_of(dataset: Dataset) -> Classes:
    """The classes among the training examples.

    Raises:
        DataError: If they have no labels, or all the same.
    """
    labels, counts = np.unique(dataset.train.labels, return_counts=True)
    if len(labels) < 2 or labels[0] < 0:
        shown = ", ".join(map(str, labels[:3]))
        raise DataError(
            "labels are missing", f"extension.name conditional: {dataset.name}", f"training labels {shown}",
            "two classes or more; images of your own have none",
        )  # fmt: skip
    return Classes(tuple(map(int, labels)), tuple(float(count) / len(dataset.train) for count in counts))
