"""Section 7, future work: what a run does beyond Algorithm 1, by name."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gan_core.conditions import NOTHING, Conditions
from gan_core.datasets import Dataset
from gan_core.extensions.conditional import Classes, classes_of
from gan_core.extensions.inference_settings import InferenceSettings
from gan_core.extensions.masks import EVERY_MASK, Masks
from gan_core.extensions.observed import Observed
from gan_core.plain_settings import read_settings

__all__ = ["ExtensionSettings", "InferenceSettings", "conditions_from", "conditions_of", "described"]


@dataclass(frozen=True)
class ExtensionSettings:
    """Which of the paper's straightforward extensions a run trains; `none` is the paper's own nets.

    `conditional`: p(x | c), the labels go into both nets. `imputation`: all conditionals of some pixels
    given the others, with `masks` of these kinds, each as often as the next. `inference`: an encoder that
    gives the z of an image, trained once G is fixed.
    """

    name: Literal["none", "conditional", "imputation", "inference"] = "none"
    masks: tuple[Masks, ...] = EVERY_MASK
    inference: InferenceSettings = field(default_factory=InferenceSettings)

    def __post_init__(self) -> None:
        if not self.masks or len(set(self.masks)) < len(self.masks):
            raise ValueError(f"extension.masks {list(self.masks)} are not one or more kinds, each once")
        if self.masks != EVERY_MASK and self.name != "imputation":
            raise ValueError(f"extension.masks {list(self.masks)} are for extension.name imputation, not {self.name}")
        if self.inference != InferenceSettings() and self.name != "inference":
            raise ValueError(f"extension.inference is for extension.name inference, not {self.name}")

    @property
    def of_nets(self) -> "ExtensionSettings":
        """What of it shapes G and D: nothing where it begins when they are trained."""
        return ExtensionSettings() if self.name == "inference" else self


def conditions_of(settings: ExtensionSettings, dataset: Dataset) -> Conditions:
    """What the nets are conditioned on.

    Raises:
        DataError: If the data set lacks what the extension needs.
    """
    if settings.name == "conditional":
        return classes_of(dataset)
    if settings.name == "imputation":
        return Observed(dataset.shape, settings.masks)
    return NOTHING


KINDS: dict[str, type[Classes | Observed]] = {"classes": Classes, "observed pixels": Observed}


def described(conditions: Conditions) -> dict[str, Any]:
    """Conditions as plain data, which `conditions_from` reads back."""
    (kind,) = (name for name, made in KINDS.items() if made is type(conditions))
    return dict(json.loads(json.dumps({"kind": kind, **asdict(conditions)})))  # type: ignore[call-overload]


def conditions_from(description: Mapping[str, Any] | None) -> Conditions:
    """The conditions of a description; none: nothing.

    Raises:
        ValueError, TypeError, KeyError: If it describes none of ours.
    """
    if description is None:
        return NOTHING
    fields = dict(description)
    return read_settings(KINDS[str(fields.pop("kind"))], fields)
