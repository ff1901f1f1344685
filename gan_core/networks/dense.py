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

from gan_core.networks.maxout import maxout
from gan_core.randomness import stream

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

    def __post_init__(self) -> None:
        _widths("network.generator.hidden", self.hidden)
        _positive("network.generator.init_range", self.init_range)
        for name in ("activations", "hidden_biases"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.hidden):
                raise ValueError(f"network.generator.{name} {list(values)} are not one for each of {list(self.hidden)}")
        if not all(math.isfinite(bias) for bias in self.hidden_biases or ()):
            raise ValueError(f"network.generator.hidden_biases {list(self.hidden_biases or ())} are not finite")
        if self.output_init_range is not None:
            _positive("network.generator.output_init_range", self.output_init_range)
        if self.output_nonzeros is not None and not 1 <= self.output_nonzeros <= self.hidden[-1]:
            raise ValueError(
                f"network.generator.output_nonzeros {self.output_nonzeros} is not 1 to {self.hidden[-1]}, the last hidden width"
            )
        if self.output_nonzeros is not None and self.output_init_range is not None:
            raise ValueError(
                f"network.generator.output_nonzeros {self.output_nonzeros} leaves output_init_range {self.output_init_range} no use; set one"
            )

    @property
    def layer_activations(self) -> tuple[Activation, ...]:
        """Of every layer, the output's last."""
        return (*(self.activations or (self.activation,) * len(self.hidden)), self.output)


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
        _widths("network.discriminator.units", self.units)
        _positive("network.discriminator.pieces", self.pieces)
        _positive("network.discriminator.init_range", self.init_range)
        for name in ("input_keep", "hidden_keep"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"network.discriminator.{name} {getattr(self, name)} is not in (0, 1]")
        if self.max_column_norm is not None:
            _positive("network.discriminator.max_column_norm", self.max_column_norm)


@dataclass(frozen=True)
class NetworkSettings:
    """Which architecture, and the sizes of its G and D."""

    architecture: Literal["dense"] = "dense"
    generator: DenseGeneratorSettings = field(default_factory=DenseGeneratorSettings)
    discriminator: DenseDiscriminatorSettings = field(default_factory=DenseDiscriminatorSettings)


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
        widths = [noise_size + condition_size, *settings.hidden, data_size]
        self.weights, self.biases = _layers(widths, members)
        self.activations = [ACTIVATIONS[name] for name in settings.layer_activations]

    def forward(
        self, noise: Float[Tensor, "*members batch size"], condition: Float[Tensor, "*members batch classes"]
    ) -> Float[Tensor, "*members batch pixels"]:
        """Samples G(z | c), one a row."""
        x = torch.cat([noise, condition], dim=-1)
        for weight, bias, activation in zip(self.weights, self.biases, self.activations, strict=True):
            x = activation(_affine(x, weight, bias))
        return x


class DenseDiscriminator(nn.Module):
    """D(x | c): the logit of the probability that x came from the data."""

    def __init__(
        self, data_size: int, condition_size: int, settings: DenseDiscriminatorSettings, members: tuple[int, ...] = ()
    ) -> None:
        super().__init__()
        inputs = [data_size + condition_size, *settings.units]
        outputs = [*(units * settings.pieces for units in settings.units), 1]
        self.pieces = settings.pieces
        self.max_column_norm = settings.max_column_norm
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
            x = _affine(x, weight, bias)
            if layer < len(self.weights) - 1:
                x = maxout(x, self.pieces)
        return x.squeeze(-1)

    @torch.no_grad()
    def constrain(self) -> None:
        """Scale each unit's incoming weights down to `max_column_norm`, if there is one."""
        if self.max_column_norm is None:
            return
        for weight in self.weights:
            norms = weight.norm(dim=-2, keepdim=True)
            weight.mul_(norms.clamp(max=self.max_column_norm) / norms.clamp(min=1e-7))


def build(
    settings: NetworkSettings,
    noise_size: int,
    data_size: int,
    seed: int,
    condition_size: int = 0,
    pixel_means: np.ndarray | None = None,
) -> tuple[DenseGenerator, DenseDiscriminator]:
    """G and D with the recipe's initial weights, drawn from the seed.

    `pixel_means` (of the training images) set G's output bias where `marginal_bias` asks for it.
    """
    generator = DenseGenerator(noise_size, condition_size, data_size, settings.generator)
    discriminator = DenseDiscriminator(data_size, condition_size, settings.discriminator)
    _initialize_generator(generator, stream(seed, "generator weights"), settings.generator)
    _initialize(discriminator.weights, stream(seed, "discriminator weights"), settings.discriminator.init_range)
    if settings.generator.marginal_bias and settings.generator.output == "sigmoid" and pixel_means is not None:
        means = torch.from_numpy(pixel_means.astype(np.float64)).clamp(1e-7, 1 - 1e-7)
        with torch.no_grad():
            generator.biases[-1].copy_(torch.logit(means))
    return generator, discriminator


def _layers(widths: list[int], members: tuple[int, ...]) -> tuple[nn.ParameterList, nn.ParameterList]:
    weights = nn.ParameterList(torch.zeros(*members, i, o) for i, o in itertools.pairwise(widths))
    return weights, nn.ParameterList(torch.zeros(*members, o) for o in widths[1:])


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x @ weight + bias.unsqueeze(-2)


@torch.no_grad()
def _initialize_generator(net: DenseGenerator, random: np.random.Generator, settings: DenseGeneratorSettings) -> None:
    _initialize(net.weights[:-1], random, settings.init_range)
    for bias, value in zip(net.biases, settings.hidden_biases or (), strict=False):  # the output's is not among them
        bias.fill_(value)
    if settings.output_nonzeros is None:
        _initialize(net.weights[-1:], random, settings.output_init_range or settings.init_range)
        return
    inputs, units = net.weights[-1].shape
    weight = np.zeros((inputs, units), np.float32)
    for unit in range(units):
        chosen = random.choice(inputs, settings.output_nonzeros, replace=False)
        weight[chosen, unit] = random.standard_normal(settings.output_nonzeros, dtype=np.float32)
    net.weights[-1].copy_(torch.from_numpy(weight))


@torch.no_grad()
def _initialize(weights: Iterable[Tensor], random: np.random.Generator, init_range: float) -> None:
    for weight in weights:
        weight.copy_(torch.from_numpy((random.random(weight.shape, dtype=np.float32) * 2 - 1) * np.float32(init_range)))


def _widths(name: str, widths: tuple[int, ...]) -> None:
    if not widths or min(widths) < 1:
        raise ValueError(f"{name} {list(widths)} is not a list of layer widths; use one or more positive numbers")


def _positive(name: str, value: float) -> None:
    if not 0 < value < float("inf"):
        raise ValueError(f"{name} {value} is not positive")
