"""Fully connected adversarial nets: a rectifier generator and a maxout discriminator (section 5)."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from gan_core.networks.initial_weights import draw_sparse, draw_uniform, set_marginal_bias
from gan_core.networks.maxout import maxout
from gan_core.networks.validation import check_keep, check_one_for_each, check_positive, check_widths

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "linear": lambda x: x,
}
Activation = Literal["relu", "sigmoid", "tanh", "linear"]


@dataclass(frozen=True)
class DenseGeneratorSettings:
    """Widths of G's hidden layers, and the recipe's initial weights, uniform(-init_range, init_range).

    The output layer's are uniform on a range of their own if there is an `output_init_range`; with
    `output_nonzeros`, each output unit has that many weights from N(0, 1) and the others are zero.
    `pretrained_layers` says that so many of the last layers, the output's included, are another
    generator's: what the training continues from must be one whose noise is as wide as their input.
    """

    hidden: tuple[int, ...] = (1200, 1200)
    activation: Activation = "relu"
    output: Activation = "sigmoid"
    init_range: float = 0.05
    marginal_bias: bool = True  # output bias = logit of the training pixels' means
    activations: tuple[Activation, ...] | None = None  # one for each hidden layer, instead of `activation`
    hidden_biases: tuple[float, ...] | None = None  # one for each hidden layer, at the start; none: zero
    output_init_range: float | None = None
    output_nonzeros: int | None = None
    max_column_norm: float | None = None  # of each unit's incoming weights, in every layer
    pretrained_layers: int | None = None

    def __post_init__(self) -> None:
        check_widths("network.generator", self, "hidden")
        check_positive("network.generator", self, "init_range", "output_init_range", "max_column_norm")
        check_one_for_each("hidden", "network.generator", self, "activations", "hidden_biases")
        if not all(math.isfinite(bias) for bias in self.hidden_biases or ()):
            raise ValueError(f"network.generator.hidden_biases {list(self.hidden_biases or ())} are not finite")
        if self.output_nonzeros is not None and not 1 <= self.output_nonzeros <= self.hidden[-1]:
            raise ValueError(
                f"network.generator.output_nonzeros {self.output_nonzeros} is not 1 to {self.hidden[-1]}, the last hidden width"
            )
        if self.output_nonzeros is not None and self.output_init_range is not None:
            raise ValueError(
                f"network.generator.output_nonzeros {self.output_nonzeros} leaves output_init_range {self.output_init_range} no use; set one"
            )
        if self.pretrained_layers is not None and not 1 <= self.pretrained_layers <= len(self.hidden):
            raise ValueError(
                f"network.generator.pretrained_layers {self.pretrained_layers} is not 1 to {len(self.hidden)}: "
                f"of {len(self.hidden) + 1} layers, the output's included, the first is new"
            )

    @property
    def layer_activations(self) -> tuple[Activation, ...]:
        """Of every layer, the output's last."""
        return (*(self.activations or (self.activation,) * len(self.hidden)), self.output)

    def takes(self, noise_size: int, other: "DenseGeneratorSettings") -> bool:
        """Whether the pretrained layers can be those of a G with these settings, of noise of this size."""
        new = len(self.hidden) + 1 - (self.pretrained_layers or 0)
        return (self.hidden[new - 1 :], self.layer_activations[new:]) == (
            (noise_size, *other.hidden),
            other.layer_activations,
        )


@dataclass(frozen=True)
class DenseDiscriminatorSettings:
    """D's maxout layers, initial weights, dropout (the probability to keep) and weight constraint."""

    units: tuple[int, ...] = (240, 240)
    pieces: int = 5
    init_range: float = 0.005
    input_keep: float = 0.8
    hidden_keep: float = 0.5
    max_column_norm: float | None = None

    def __post_init__(self) -> None:
        check_widths("network.discriminator", self, "units")
        check_positive("network.discriminator", self, "pieces", "init_range", "max_column_norm")
        check_keep("network.discriminator", self, "input_keep", "hidden_keep")


@dataclass(frozen=True)
class NetworkSettings:
    """The paper's architecture, fully connected: the sizes of its G and D."""

    architecture: Literal["dense"] = "dense"
    generator: DenseGeneratorSettings = field(default_factory=DenseGeneratorSettings)
    discriminator: DenseDiscriminatorSettings = field(default_factory=DenseDiscriminatorSettings)

    def parameter_counts(self, noise_size: int, condition_size: int, image_shape: tuple[int, ...]) -> tuple[int, int]:
        """Weights and biases of G and of D, without making any."""
        pixels, units = math.prod(image_shape), self.discriminator.units
        generator = itertools.pairwise((noise_size + condition_size, *self.generator.hidden, pixels))
        widths = (*(self.discriminator.pieces * count for count in units), 1)
        discriminator = zip((pixels + condition_size, *units), widths, strict=True)
        return affine_parameters(generator), affine_parameters(discriminator)


class DenseGenerator(nn.Module):
    """G(z | c): noise (and a condition, of width 0 where there is none) to data space.

    Weights are (*members, inputs, outputs): with a leading member axis the same code is a
    population of generators.
    """

    def __init__(
        self,
        noise_size: int,
        condition_size: int,
        data_size: int,
        settings: DenseGeneratorSettings,
        members: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.settings = settings
        widths = [noise_size + condition_size, *settings.hidden, data_size]
        self.weights, self.biases = _layers(widths, members)
        self.activations = [ACTIVATIONS[name] for name in settings.layer_activations]

    def forward(
        self, noise: Float[Tensor, "*members batch size"], condition: Float[Tensor, "*members batch classes"]
    ) -> Float[Tensor, "*members batch pixels"]:
        """Samples G(z | c), one a row."""
        x = torch.cat([noise, condition], dim=-1)
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            x = activation(affine(x, weight, bias))
        return x

    @torch.no_grad()
    def initialize(self, random: np.random.Generator, pixel_means: np.ndarray | None = None) -> None:
        """Draw the initial weights, and set the biases."""
        settings = self.settings
        draw_uniform(self.weights[:-1], random, settings.init_range)
        for bias, value in zip(self.biases, settings.hidden_biases or (), strict=False):  # the output's is not of them
            bias.fill_(value)
        if settings.output_nonzeros is None:
            draw_uniform(self.weights[-1:], random, settings.output_init_range or settings.init_range)
        else:
            draw_sparse(self.weights[-1], random, settings.output_nonzeros)
        set_marginal_bias(self.biases[-1], settings, pixel_means)

    def apply_weight_constraint(self) -> None:
        """Scale each unit's incoming weights down to `max_column_norm`, if there is one."""
        cap_columns(self.weights, self.settings.max_column_norm)

    def last_layers(self, count: int) -> dict[str, Tensor]:
        """The tensors of the last layers (not copies), named as in a generator of these alone."""
        first = len(self.weights) - count
        tensors = self.state_dict()
        return {
            f"{kind}.{layer - first}": tensors[f"{kind}.{layer}"]
            for kind in ("weights", "biases")
            for layer in range(first, len(self.weights))
        }


class DenseDiscriminator(nn.Module):
    """D(x | c): the logit of the probability that x came from the data."""

    def __init__(
        self, data_size: int, condition_size: int, settings: DenseDiscriminatorSettings, members: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        inputs = [data_size + condition_size, *settings.units]
        outputs = [*(units * settings.pieces for units in settings.units), 1]
        self.settings = settings
        # (width, probability to keep) of each layer's input: what dropout masks are drawn for.
        self.dropout = [(inputs[0], settings.input_keep)] + [(units, settings.hidden_keep) for units in settings.units]
        self.weights = nn.ParameterList(torch.zeros(*members, i, o) for i, o in zip(inputs, outputs, strict=True))
        self.biases = nn.ParameterList(torch.zeros(*members, o) for o in outputs)

    def forward(
        self,
        data: Float[Tensor, "*members batch pixels"],
        condition: Float[Tensor, "*members batch classes"],
        masks: Sequence[Float[Tensor, "*members batch _"]] = (),
    ) -> Float[Tensor, "*members batch"]:
        """One logit a row. `masks`, scaled by 1/keep, multiply each layer's input; none: no dropout."""
        x = torch.cat([data, condition], dim=-1)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if masks:
                x = x * masks[layer]
            x = affine(x, weight, bias)
            if layer < len(self.weights) - 1:
                x = maxout(x, self.settings.pieces)
        return x.squeeze(-1)

    def initialize(self, random: np.random.Generator) -> None:
        """Draw the initial weights."""
        draw_uniform(self.weights, random, self.settings.init_range)

    def apply_weight_constraint(self) -> None:
        """Scale each unit's incoming weights down to `max_column_norm`, if there is one."""
        cap_columns(self.weights, self.settings.max_column_norm)


def affine(
    x: Float[Tensor, "*members batch inputs"], weight: Tensor, bias: Tensor
) -> Float[Tensor, "*members batch _"]:
    """x W + b, for one net or for a member axis of them."""
    return x @ weight + bias.unsqueeze(-2)


def affine_parameters(layers: Iterable[tuple[int, int]]) -> int:
    """Weights and biases of layers of (inputs, outputs)."""
    return sum((inputs + 1) * outputs for inputs, outputs in layers)


@torch.no_grad()
def cap_columns(weights: Iterable[Tensor], max_column_norm: float | None) -> None:
    """Scale each unit's incoming weights down to `max_column_norm`, if there is one."""
    for weight in weights if max_column_norm is not None else ():
        norms = weight.norm(dim=-2, keepdim=True)
        weight.mul_(norms.clamp(max=max_column_norm) / norms.clamp(min=1e-7))


def _layers(widths: list[int], members: tuple[int, ...]) -> tuple[nn.ParameterList, nn.ParameterList]:
    weights = nn.ParameterList(torch.zeros(*members, i, o) for i, o in itertools.pairwise(widths))
    return weights, nn.ParameterList(torch.zeros(*members, o) for o in widths[1:])
