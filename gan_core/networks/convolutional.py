"""A small convolutional pair for everyday images: transposed convolutions in G, strided ones in D, leaky rectifiers.

There is no batch normalisation: an example's gradient must not depend on the examples that share
its shard, or the number of shards would be another training. `spectral_norm` steadies D instead.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, leaky_relu, normalize

from gan_core.errors import ConfigurationError
from gan_core.networks.dense import ACTIVATIONS, Activation, affine, affine_parameters
from gan_core.networks.initial_weights import draw_normal, set_marginal_bias
from gan_core.networks.layout import plane_shape, to_planes, to_rows
from gan_core.networks.validation import check_keep, check_positive, check_widths

KERNEL, STRIDE, PADDING = 4, 2, 1  # each convolution halves the sides, each transposed one doubles them
FIRST_ITERATIONS = 30  # of the power method, before the first step; then one an update


@dataclass(frozen=True)
class ConvolutionalGeneratorSettings:
    """Widths of G's dense layers, then channels of its feature maps: each transposed convolution doubles their sides.

    Without dense layers the smallest maps are one linear layer of z. Hidden layers are leaky rectifiers (`leak` is the slope below 0). Initial weights are normal with
    variance init_scale^2 * 2 / (1 + leak^2) / fan-in (He et al. 2015). The output has a bias for each pixel.
    """

    hidden: tuple[int, ...] = ()
    channels: tuple[int, ...] = (128, 64)
    leak: float = 0.2
    output: Activation = "sigmoid"
    init_scale: float = 1.0
    marginal_bias: bool = True  # output bias = logit of the training pixels' means, if the output is a sigmoid

    def __post_init__(self) -> None:
        check_widths("network.generator", self, "channels", *(["hidden"] if self.hidden else []))
        check_positive("network.generator", self, "init_scale")
        _check_leak("network.generator", self)


@dataclass(frozen=True)
class ConvolutionalDiscriminatorSettings:
    """Channels of D's feature maps, each strided convolution halving their sides, then widths of its dense layers.

    Without dense layers D is a sum over patches, of 10 x 10 pixels after two convolutions: what is far apart it
    cannot judge together.

    With `spectral_norm` every layer's weights are divided by their largest singular value (Miyato et
    al. 2018), which one step of the power method follows after each update.
    """

    channels: tuple[int, ...] = (64, 128)
    hidden: tuple[int, ...] = ()
    leak: float = 0.2
    init_scale: float = 1.0
    input_keep: float = 1.0
    hidden_keep: float = 1.0
    spectral_norm: bool = False

    def __post_init__(self) -> None:
        check_widths("network.discriminator", self, "channels", *(["hidden"] if self.hidden else []))
        check_positive("network.discriminator", self, "init_scale")
        check_keep("network.discriminator", self, "input_keep", "hidden_keep")
        _check_leak("network.discriminator", self)


@dataclass(frozen=True)
class ConvolutionalSettings:
    """The everyday convolutional architecture, for grey and colour images of any size that can be halved so often."""

    architecture: Literal["convolutional"] = "convolutional"
    generator: ConvolutionalGeneratorSettings = field(default_factory=ConvolutionalGeneratorSettings)
    discriminator: ConvolutionalDiscriminatorSettings = field(default_factory=ConvolutionalDiscriminatorSettings)

    def parameter_counts(self, noise_size: int, condition_size: int, image_shape: tuple[int, ...]) -> tuple[int, int]:
        """Weights and biases of G and of D, without making any."""
        colours, *sides = plane_shape(image_shape)
        up, down = self.generator, self.discriminator
        maps = up.channels[0] * math.prod(math.ceil(side / 2 ** len(up.channels)) for side in sides)
        generator = affine_parameters(itertools.pairwise((noise_size + condition_size, *up.hidden, maps)))
        generator += _kernel_weights((*up.channels, colours)) + sum(up.channels[1:]) + math.prod(image_shape)
        last = down.channels[-1] * math.prod(side >> len(down.channels) for side in sides)
        discriminator = _kernel_weights((colours + condition_size, *down.channels)) + sum(down.channels)
        return generator, discriminator + affine_parameters(itertools.pairwise((last, *down.hidden, 1)))


class ConvolutionalGenerator(nn.Module):
    """G(z | c): noise and a condition by dense layers to the smallest feature maps, whose sides double until they are the image's."""

    def __init__(
        self,
        noise_size: int,
        condition_size: int,
        image_shape: tuple[int, ...],
        settings: ConvolutionalGeneratorSettings,
    ) -> None:
        super().__init__()
        self.settings = settings
        channels, *sides = plane_shape(image_shape)
        # Half a side is rounded up, and what a doubling makes too much is cut off: 28, 14, 7, 4.
        self.sizes = [[math.ceil(side / 2**level) for side in sides] for level in range(len(settings.channels), -1, -1)]
        maps = [*settings.channels, channels]
        first = maps[0] * math.prod(self.sizes[0])
        dense = list(itertools.pairwise((noise_size + condition_size, *settings.hidden, first)))
        kernels = [(inputs, outputs, KERNEL, KERNEL) for inputs, outputs in itertools.pairwise(maps)]
        self.dense = len(dense)
        self.weights = nn.ParameterList(torch.zeros(shape) for shape in [*dense, *kernels])
        biases = (*settings.hidden, first, *settings.channels[1:], math.prod(image_shape))
        self.biases = nn.ParameterList(torch.zeros(width) for width in biases)

    def forward(
        self, noise: Float[Tensor, "batch size"], condition: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch pixels"]:
        """Samples G(z | c), one a row."""
        leak = self.settings.leak
        x = torch.cat([noise, condition], dim=-1)
        for layer in range(self.dense):
            x = leaky_relu(affine(x, self.weights[layer], self.biases[layer]), leak)
        x = x.unflatten(-1, (self.settings.channels[0], *self.sizes[0]))
        *hidden, last = range(self.dense, len(self.weights))
        for layer in hidden:
            x = leaky_relu(self._doubled(x, layer) + self.biases[layer][:, None, None], leak)
        return ACTIVATIONS[self.settings.output](to_rows(self._doubled(x, last)) + self.biases[last])

    def initialize(self, random: np.random.Generator, pixel_means: np.ndarray | None = None) -> None:
        """Draw the initial weights, and set the output's bias."""
        gain = self.settings.init_scale * _gain(self.settings.leak)
        seen = (KERNEL / STRIDE) ** 2  # of a kernel's 4 x 4, by a pixel that it makes
        for layer, weight in enumerate(self.weights):
            draw_normal(weight, random, weight.shape[0] * (1 if layer < self.dense else seen), gain)
        set_marginal_bias(self.biases[-1], self.settings, pixel_means)

    def apply_weight_constraint(self) -> None:
        """No weight of this G has a constraint."""

    def _doubled(self, x: Tensor, layer: int) -> Tensor:
        height, width = self.sizes[layer - self.dense + 1]
        return conv_transpose2d(x, self.weights[layer], stride=STRIDE, padding=PADDING)[..., :height, :width]


class ConvolutionalDiscriminator(nn.Module):
    """D(x | c): the logit of the probability that x came from the data.

    The condition joins the image as planes of one value each: after the convolutions there may be but one
    layer, which would add what it makes of the condition to what it makes of the image.
    """

    def __init__(
        self, image_shape: tuple[int, ...], condition_size: int, settings: ConvolutionalDiscriminatorSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.planes = plane_shape(image_shape)
        channels, *sides = self.planes
        halvings = len(settings.channels)
        if min(sides) >> halvings < 1:
            raise ConfigurationError(
                "images too small", "network.discriminator.channels", f"{halvings} halvings of {list(image_shape)}",
                f"at most {min(sides).bit_length() - 1}",
            )  # fmt: skip
        maps = [
            count * math.prod(side >> level for side in sides) for level, count in enumerate(settings.channels, start=1)
        ]
        # (width, probability to keep) of each layer's input: what dropout masks are drawn for.
        self.dropout = [
            (math.prod(self.planes), settings.input_keep),
            *((width, settings.hidden_keep) for width in (*maps, *settings.hidden)),
        ]
        kernels = [
            (outputs, inputs, KERNEL, KERNEL)
            for inputs, outputs in itertools.pairwise((channels + condition_size, *settings.channels))
        ]
        dense = [(outputs, inputs) for inputs, outputs in itertools.pairwise((maps[-1], *settings.hidden, 1))]
        self.weights = nn.ParameterList(torch.zeros(shape) for shape in [*kernels, *dense])
        self.biases = nn.ParameterList(torch.zeros(width) for width in [*settings.channels, *settings.hidden, 1])
        # Of the power method: an estimate of each layer's first left singular vector, saved with the weights.
        for layer, weight in enumerate(self.weights if settings.spectral_norm else ()):
            self.register_buffer(f"singular_vectors_{layer}", torch.zeros(len(weight)))

    def forward(
        self,
        data: Float[Tensor, "batch pixels"],
        condition: Float[Tensor, "batch classes"],
        masks: Sequence[Float[Tensor, "batch _"]] = (),
    ) -> Float[Tensor, " batch"]:
        """One logit a row. `masks`, scaled by 1/keep, multiply each layer's input; none: no dropout."""
        x = to_planes(data * masks[0] if masks else data, self.planes)
        x = torch.cat([x, condition[..., None, None].expand(-1, -1, *x.shape[-2:])], dim=-3)
        for layer in range(len(self.settings.channels)):
            if masks and layer:
                x = x * masks[layer].unflatten(-1, x.shape[1:])
            x = conv2d(x, self._weight(layer), self.biases[layer], stride=STRIDE, padding=PADDING)
            x = leaky_relu(x, self.settings.leak)
        x, first, last = x.flatten(1), len(self.settings.channels), len(self.weights) - 1
        for layer in range(first, last + 1):
            x = affine(x * masks[layer] if masks else x, self._weight(layer).T, self.biases[layer])
            x = leaky_relu(x, self.settings.leak) if layer < last else x
        return x.squeeze(-1)

    @torch.no_grad()
    def initialize(self, random: np.random.Generator) -> None:
        """Draw the initial weights, and begin the power method."""
        gain = self.settings.init_scale * _gain(self.settings.leak)
        for layer, weight in enumerate(self.weights):
            draw_normal(weight, random, weight[0].numel(), gain)
            if self.settings.spectral_norm:
                draw_normal(self.get_buffer(f"singular_vectors_{layer}"), random, 1, 1)
        for _ in range(FIRST_ITERATIONS):
            self.apply_weight_constraint()

    @torch.no_grad()
    def apply_weight_constraint(self) -> None:
        """Follow the weights with one step of the power method, where their singular values are asked for."""
        for layer, weight in enumerate(self.weights if self.settings.spectral_norm else ()):
            matrix, vector = weight.flatten(1), self.get_buffer(f"singular_vectors_{layer}")
            vector.copy_(normalize(matrix @ (vector @ matrix), dim=0))

    def _weight(self, layer: int) -> Tensor:
        """A layer's weights, divided by their largest singular value if that is asked for."""
        weight = self.weights[layer]
        if not self.settings.spectral_norm:
            return weight
        # |u W| for a unit vector u: its gradient is that of u W v with both vectors held.
        return weight / (self.get_buffer(f"singular_vectors_{layer}") @ weight.flatten(1)).norm()


def _kernel_weights(channels: Sequence[int]) -> int:
    return sum(inputs * outputs * KERNEL**2 for inputs, outputs in itertools.pairwise(channels))


def _gain(leak: float) -> float:
    return math.sqrt(2 / (1 + leak**2))


def _check_leak(section: str, settings: ConvolutionalGeneratorSettings | ConvolutionalDiscriminatorSettings) -> None:
    if not 0 <= settings.leak < 1:
        raise ValueError(f"{section}.leak {settings.leak} is not in [0, 1)")
