"""What the rest needs of a pair of nets: the Protocols of G and of D, and of the settings they are made from."""

from collections.abc import Iterator, Sequence
from dataclasses import Field
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

Same = TypeVar("Same")  # typing.Self, which the tests' check of types knows in no Protocol


@runtime_checkable
class Net(Protocol):
    """What a training moves, saves and updates. Of a `torch.nn.Module`, only the last is its own."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights, in an order of their own."""

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The same, with their names in a checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """All tensors of a checkpoint (not copies)."""

    def to(self: Same, device: torch.device) -> Same:
        """The net, moved to a device."""

    def eval(self: Same) -> Same:
        """The net, to be used and not trained."""

    def apply_weight_constraint(self) -> None:
        """What follows each update of the weights."""


@runtime_checkable
class GeneratorNet(Net, Protocol):
    """G(z | c)."""

    def __call__(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Samples (batch, pixels) from noise (batch, size) and conditions (batch, width), of width 0 for none."""

    def initialize(self, random: np.random.Generator, pixel_means: np.ndarray | None = None) -> None:
        """Draw the initial weights; the means (pixels,) of the training images may set the output's bias."""


@runtime_checkable
class DiscriminatorNet(Net, Protocol):
    """D(x | c)."""

    @property
    def dropout(self) -> Sequence[tuple[int, float]]:
        """(width, probability to keep) of each layer's input: what dropout masks are drawn for."""

    def __call__(self, data: Tensor, condition: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """Logits (batch,) of data (batch, pixels), with a mask (batch, width) for each layer, or none: no dropout."""

    def initialize(self, random: np.random.Generator) -> None:
        """Draw the initial weights."""


@runtime_checkable
class GeneratorSettings(Protocol):
    """A dataclass of G's settings, of any architecture."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def output(self) -> str:
        """The activation of the output: linear, for pixels of either sign."""


@runtime_checkable
class Architecture(Protocol):
    """A frozen dataclass of an architecture's name, and the settings of its G and its D."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def architecture(self) -> str:
        """Its name."""

    @property
    def generator(self) -> GeneratorSettings:
        """Of G."""

    @property
    def discriminator(self) -> Any:
        """Of D."""

    def parameter_counts(self, noise_size: int, condition_size: int, image_shape: tuple[int, ...]) -> tuple[int, int]:
        """Weights and biases of G and of D, without making any."""
