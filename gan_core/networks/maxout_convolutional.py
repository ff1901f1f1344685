"""The convolutional pair of the published CIFAR-10 recipe: a deconvolution after sigmoids, and maxout convolutions."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from gan_core.errors import ConfigurationError
from gan_core.networks.dense import ACTIVATIONS, Activation, affine, affine_parameters
from gan_core.networks.initial_weights import draw_uniform, set_marginal_bias
from gan_core.networks.layout import plane_shape, to_planes, to_rows
from gan_core.networks.maxout import maxout
from gan_core.networks.validation import check_keep, check_one_for_each, check_positive, check_widths


@dataclass(frozen=True)
class MaxoutConvolutionalGeneratorSettings:
    """Dense layers, then `maps` feature maps, and one deconvolution from them to the image.

    The maps are of the size from which a deconvolution of this kernel and stride makes the image:
    10 x 10 for 32 x 32 pixels. The output has a bias for each pixel.
    """

    hidden: tuple[int, ...] = (8000,)
    activation: Activation = "relu"
    maps: int = 80
    maps_activation: Activation = "sigmoid"
    kernel: int = 5
    stride: int = 3
    output: Activation = "linear"
    init_range: float = 0.05
    marginal_bias: bool = True  # output bias = logit of the training pixels' means, if the output is a sigmoid

    def __post_init__(self) -> None:
        check_widths("network.generator", self, "hidden")
        check_positive("network.generator", self, "maps", "kernel", "stride", "init_range")


@dataclass(frozen=True)
class MaxoutConvolutionalDiscriminatorSettings:
    """Maxout convolutions, each with a max pooling after it, and dense maxout layers; dropout as in the dense D.

    One entry of each list for each convolution; `channels` are counted after the maximum over pieces.
    """

    channels: tuple[int, ...] = (32, 32, 192)
    channel_pieces: int = 2
    kernels: tuple[int, ...] = (8, 8, 5)
    paddings: tuple[int, ...] = (4, 3, 3)
    pools: tuple[int, ...] = (4, 4, 2)
    pool_strides: tuple[int, ...] = (2, 2, 2)
    units: tuple[int, ...] = (500,)
    pieces: int = 5
    init_range: float = 0.005
    input_keep: float = 0.8
    hidden_keep: float = 0.5

    def __post_init__(self) -> None:
        check_widths("network.discriminator", self, "channels", "units", "kernels", "pools", "pool_strides")
        check_one_for_each("channels", "network.discriminator", self, "kernels", "paddings", "pools", "pool_strides")
        if min(self.paddings) < 0:
            raise ValueError(f"network.discriminator.paddings {list(self.paddings)} are not 0 or more")
        check_positive("network.discriminator", self, "channel_pieces", "pieces", "init_range")
        check_keep("network.discriminator", self, "input_keep", "hidden_keep")

    def sizes(self, length: int) -> list[int]:
        """A side of the maps after each convolution and each pooling: 33, 16, 15, 7, 9, 5 for 32 pixels.

        Pooling is in ceil mode: a window that reaches beyond the edge counts.
        """
        result = [length]
        for kernel, padding, pool, stride in zip(
            self.kernels, self.paddings, self.pools, self.pool_strides, strict=True
        ):
            convolved = result[-1] + 2 * padding - kernel + 1
            pooled = min(-(-(convolved - pool) // stride) + 1, -(-convolved // stride))  # a window starts within
            result += [convolved, pooled]
        return result[1:]


@dataclass(frozen=True)
class MaxoutConvolutionalSettings:
    """The architecture of the published convolutional CIFAR-10 recipe, whose sizes are the defaults."""

    architecture: Literal["maxout_convolutional"] = "maxout_convolutional"
    generator: MaxoutConvolutionalGeneratorSettings = field(default_factory=MaxoutConvolutionalGeneratorSettings)
    discriminator: MaxoutConvolutionalDiscriminatorSettings = field(
        default_factory=MaxoutConvolutionalDiscriminatorSettings
    )

    def parameter_counts(self, noise_size: int, condition_size: int, image_shape: tuple[int, ...]) -> tuple[int, int]:
        """Weights and biases of G and of D, without making any.

        Raises:
            ConfigurationError: If the deconvolution cannot make such images.
        """
        colours, *sides = plane_shape(image_shape)
        up, down = self.generator, self.discriminator
        maps = up.maps * math.prod(_side_before(side, up) for side in sides)
        generator = affine_parameters(itertools.pairwise((noise_size + condition_size, *up.hidden, maps)))
        generator += up.maps * colours * up.kernel**2 + math.prod(image_shape)
        pairs = itertools.pairwise((colours, *down.channels))
        discriminator = sum(
            outputs * down.channel_pieces * (inputs * kernel**2 + 1)
            for (inputs, outputs), kernel in zip(pairs, down.kernels, strict=True)
        )
        last = down.channels[-1] * math.prod(down.sizes(side)[-1] for side in sides)
        widths = (*(down.pieces * count for count in down.units), 1)
        return generator, discriminator + affine_parameters(
            zip((last + condition_size, *down.units), widths, strict=True)
        )


class MaxoutConvolutionalGenerator(nn.Module):
    """G(z | c): noise and a condition through dense layers to feature maps, and a deconvolution to the image."""

    def __init__(
        self,
        noise_size: int,
        condition_size: int,
        image_shape: tuple[int, ...],
        settings: MaxoutConvolutionalGeneratorSettings,
    ) -> None:
        super().__init__()
        self.settings = settings
        channels, *sides = plane_shape(image_shape)
        self.maps = (settings.maps, *(_side_before(side, settings) for side in sides))
        widths = [noise_size + condition_size, *settings.hidden, math.prod(self.maps)]
        shapes = [*itertools.pairwise(widths), (settings.maps, channels, settings.kernel, settings.kernel)]
        self.weights = nn.ParameterList(torch.zeros(shape) for shape in shapes)
        self.biases = nn.ParameterList(torch.zeros(width) for width in [*widths[1:], math.prod(image_shape)])

    def forward(
        self, noise: Float[Tensor, "batch size"], condition: Float[Tensor, "batch classes"]
    ) -> Float[Tensor, "batch pixels"]:
        """Samples G(z | c), one a row."""
        x = torch.cat([noise, condition], dim=-1)
        names = [*[self.settings.activation] * len(self.settings.hidden), self.settings.maps_activation]
        *dense, kernel = self.weights
        for weight, bias, name in zip(dense, self.biases, names, strict=False):  # the last bias is the output's
            x = ACTIVATIONS[name](affine(x, weight, bias))
        planes = conv_transpose2d(x.unflatten(-1, self.maps), kernel, stride=self.settings.stride)
        return ACTIVATIONS[self.settings.output](to_rows(planes) + self.biases[-1])

    def initialize(self, random: np.random.Generator, pixel_means: np.ndarray | None = None) -> None:
        """Draw the initial weights, uniform on (-init_range, init_range), and set the output's bias."""
        draw_uniform(self.weights, random, self.settings.init_range)
        set_marginal_bias(self.biases[-1], self.settings, pixel_means)

    def apply_weight_constraint(self) -> None:
        """No weight of this G has a constraint."""


class MaxoutConvolutionalDiscriminator(nn.Module):
    """D(x | c): the logit of the probability that x came from the data.

    The condition joins the features at the first dense layer, whose maxout units weigh both
    together; dropout leaves it alone.
    """

    def __init__(
        self, image_shape: tuple[int, ...], condition_size: int, settings: MaxoutConvolutionalDiscriminatorSettings
    ) -> None:
        super().__init__()
        self.settings = settings
        self.planes = plane_shape(image_shape)
        channels, *sides = self.planes
        sizes = [settings.sizes(side) for side in sides]
        if min(map(min, sizes)) < 1:
            raise ConfigurationError(
                "images too small",
                "network.discriminator",
                f"maps of {sizes} pixels of {list(image_shape)}",
                "1 or more",
            )
        maps = [
            count * height * width
            for count, height, width in zip(settings.channels, *(size[1::2] for size in sizes), strict=True)
        ]
        # (width, probability to keep) of each layer's input: what dropout masks are drawn for.
        self.dropout = [(math.prod(self.planes), settings.input_keep)]
        self.dropout += [(width, settings.hidden_keep) for width in (*maps, *settings.units)]
        kernels = [
            (outputs * settings.channel_pieces, inputs, kernel, kernel)
            for (inputs, outputs), kernel in zip(
                itertools.pairwise((channels, *settings.channels)), settings.kernels, strict=True
            )
        ]
        inputs = [maps[-1] + condition_size, *settings.units]
        outputs = [*(units * settings.pieces for units in settings.units), 1]
        dense = list(zip(inputs, outputs, strict=True))
        self.weights = nn.ParameterList(torch.zeros(shape) for shape in [*kernels, *dense])
        self.biases = nn.ParameterList(
            torch.zeros(width) for width in [*(count for count, *_ in kernels), *(width for _, width in dense)]
        )

    def forward(
        self,
        data: Float[Tensor, "batch pixels"],
        condition: Float[Tensor, "batch classes"],
        masks: Sequence[Float[Tensor, "batch _"]] = (),
    ) -> Float[Tensor, " batch"]:
        """One logit a row. `masks`, scaled by 1/keep, multiply each layer's input; none: no dropout."""
        settings = self.settings
        convolutions = len(settings.channels)
        x = to_planes(data * masks[0] if masks else data, self.planes)
        for layer in range(convolutions):
            if masks and layer:
                x = x * masks[layer].unflatten(-1, x.shape[1:])
            x = conv2d(x, self.weights[layer], self.biases[layer], padding=settings.paddings[layer])
            x = maxout(x, settings.channel_pieces, axis=-3)
            x = max_pool2d(x, settings.pools[layer], settings.pool_strides[layer], ceil_mode=True)
        x = x.flatten(1)
        for layer in range(convolutions, len(self.weights)):
            if masks:
                x = x * masks[layer]
            if layer == convolutions:
                x = torch.cat([x, condition], dim=-1)
            x = affine(x, self.weights[layer], self.biases[layer])
            if layer < len(self.weights) - 1:
                x = maxout(x, settings.pieces)
        return x.squeeze(-1)

    def initialize(self, random: np.random.Generator) -> None:
        """Draw the initial weights, uniform on (-init_range, init_range)."""
        draw_uniform(self.weights, random, self.settings.init_range)

    def apply_weight_constraint(self) -> None:
        """No weight of this D has a constraint."""


def _side_before(side: int, settings: MaxoutConvolutionalGeneratorSettings) -> int:
    """The side of the maps from which the deconvolution makes a side of the image: stride (n - 1) + kernel.

    Raises:
        ConfigurationError: If there is none; the nearest sides that have one are named.
    """
    steps, rest = divmod(side - settings.kernel, settings.stride)
    if steps < 0 or rest:
        lower = settings.kernel + max(steps, 0) * settings.stride
        raise ConfigurationError(
            "images do not fit the deconvolution", f"network.generator.kernel {settings.kernel}, stride {settings.stride}",
            f"a side of {side} pixels", f"{lower} or {lower + settings.stride}; or another kernel or stride",
        )  # fmt: skip
    return steps + 1
