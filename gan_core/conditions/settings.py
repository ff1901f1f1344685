"""Which of the straightforward extensions of section 7 a run trains, and the conditions that come with it, by name."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.conditions.classes import Classes, classes_of
from gan_core.conditions.masks import EVERY_MASK, Masks
from gan_core.conditions.observed import Observed
from gan_core.datasets import Dataset
from gan_core.strict_json import read_settings


@dataclass(frozen=True)
class InferenceSettings:
    """The encoder E, and the weights of its errors, each in units of its variance (1: as a constant does).

    Of samples x = G(z), whose z is known: `noise_weight` for |E(x) - z|^2 and `reconstruction_weight`
    for |G(E(x)) - x|^2. Of training images: `images_weight` for |G(E(x)) - x|^2.

    On digits (8x8 pixels, 3,000 steps, one seed) the squared error of reconstructed test images was 3.33
    with the first alone, 2.41 with the second, 2.51 with both (0.1 and 1), and 2.07 with 0.3 of the third
    beside them, where the nearest of 10,000 samples is at 2.29 and the mean image at 4.74.
    On MNIST (G of 60,000 steps; 1,300 steps of E) these defaults gave 13.8, 26.1 and 52.9.
    """

    hidden: tuple[int, ...] | None = None  # none: a dense G's own widths, in reverse
    noise_weight: float = 0.1
    reconstruction_weight: float = 1.0
    images_weight: float = 0.3
    steps: int = 4000
    batch_size: int = 100  # of samples, and of images
    learning_rate: float = 1e-3  # Adam's, at the start; it falls linearly to 0

    def __post_init__(self) -> None:
        if self.hidden is not None and (not self.hidden or min(self.hidden) < 1):
            raise ValueError(
                f"extension.inference.hidden {list(self.hidden)} is not a list of layer widths; use one or more positive numbers"
            )
        for name in ("steps", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"extension.inference.{name} {getattr(self, name)} is not positive; use 1 or more")
        weights = ("noise_weight", "reconstruction_weight", "images_weight")
        for name in weights:
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"extension.inference.{name} {getattr(self, name)} is not a number from 0 on")
        if not any(getattr(self, name) for name in weights):
            raise ValueError(f"extension.inference: {', '.join(weights)} are all 0; give one of them a weight")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"extension.inference.learning_rate {self.learning_rate} is not a positive number")


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
    def network_extension(self) -> "ExtensionSettings":
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
    return UNCONDITIONAL


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
        return UNCONDITIONAL
    fields = dict(description)
    return read_settings(KINDS[str(fields.pop("kind"))], fields)
