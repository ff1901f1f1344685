"""Section 7, future work: what a run does beyond Algorithm 1, by name."""

from dataclasses import dataclass
from typing import Literal

from gan_core.conditions import NOTHING, Conditions
from gan_core.datasets import Dataset
from gan_core.extensions.conditional import classes_of

__all__ = ["ExtensionSettings", "conditions_of"]


@dataclass(frozen=True)
class ExtensionSettings:
    """Which of the paper's straightforward extensions a run trains; `none` is the paper's own nets.

    `conditional`: p(x | c), the labels go into both nets.
    """

    name: Literal["none", "conditional"] = "none"


def conditions_of(settings: ExtensionSettings, dataset: Dataset) -> Conditions:
    """What the nets are conditioned on.

    Raises:
        DataError: If the data set lacks what the extension needs.
    """
    if settings.name == "conditional":
        return classes_of(dataset)
    return NOTHING
