"""Both convolutional pairs: forward passes against PyTorch's own layers, the published sizes, spectral norms."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from gan_core.errors import ConfigurationError
from gan_core.networks import build, check, make_discriminator, make_generator
from gan_core.networks.convolutional import (
    ConvolutionalDiscriminator,
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGenerator,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.networks.layout import plane_shape, to_planes, to_rows
from gan_core.networks.maxout_convolutional import (
    MaxoutConvolutionalDiscriminator,
    MaxoutConvolutionalDiscriminatorSettings,
    MaxoutConvolutionalGenerator,
    MaxoutConvolutionalGeneratorSettings,
    MaxoutConvolutionalSettings,
)
from pipelines import config

CONFIGS = Path(__file__).parents[2] / "configs"
# float64 sums of some hundreds of terms: 2^-52 times their number, and room.
ROUNDING = {"rtol": 1e-11, "atol": 1e-11}
SMALL_MAXOUT = MaxoutConvolutionalSettings(
    generator=MaxoutConvolutionalGeneratorSettings(hidden=(7,), maps=3, kernel=4, stride=2),
    discriminator=MaxoutConvolutionalDiscriminatorSettings(
        channels=(3, 2), kernels=(3, 2), paddings=(1, 0), pools=(3, 2), pool_strides=(2, 2), units=(4,), pieces=3
    ),
)
SMALL = ConvolutionalSettings(
    generator=ConvolutionalGeneratorSettings(channels=(4, 3), output="tanh"),
    discriminator=ConvolutionalDiscriminatorSettings(channels=(3, 4), input_keep=0.8, hidden_keep=0.5),
)
WITH_DENSE = replace(  # layers before G's maps and after D's
    SMALL,
    generator=replace(SMALL.generator, hidden=(6, 7)),
    discriminator=replace(SMALL.discriminator, hidden=(5, 6)),
)
PAIRS = {"maxout": SMALL_MAXOUT, "convolutional": SMALL, "with dense layers": WITH_DENSE}
pairs = pytest.mark.parametrize("settings", PAIRS.values(), ids=PAIRS)


def randn(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomized(net: nn.Module, seed: int = 0) -> nn.Module:
    """The net in float64, with weights and biases of order 1."""
    random = torch.Generator().manual_seed(seed)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return net


def filled(module: nn.Module, weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    """One of PyTorch's own layers with the given weights."""
    module.double()
    module.weight.data = weight.detach().clone()
    if bias is not None:
        module.bias.data = bias.detach().clone()
    return module


def nchw(rows: torch.Tensor, height: int, width: int, channels: int) -> torch.Tensor:
    """Rows as planes, pixel by pixel."""
    planes = torch.empty(len(rows), channels, height, width, dtype=rows.dtype)
    for y in range(height):
        for x in range(width):
            for c in range(channels):
                planes[:, c, y, x] = rows[:, (y * width + x) * channels + c]
    return planes


def test_rows_to_planes_and_back_is_the_identity():
    """Rows lie by height, width and channel, and come back unchanged from channel planes."""
    rows = torch.arange(2 * 3 * 4 * 3.0).view(2, -1)
    shape = plane_shape((3, 4, 3))
    assert shape == (3, 3, 4)
    assert torch.equal(to_planes(rows, shape), nchw(rows, 3, 4, 3))
    assert torch.equal(to_rows(to_planes(rows, shape)), rows)
    assert to_planes(rows, shape).is_contiguous()
    assert plane_shape((28, 20)) == (1, 28, 20)


def test_maxout_generator_equals_pytorch_layers():
    """G is dense layers, a deconvolution and a bias for each output pixel, as PyTorch's own layers."""
    net = randomized(MaxoutConvolutionalGenerator(5, 2, (8, 6, 3), SMALL_MAXOUT.generator))
    z, c = randn(4, 5), randn(4, 2, seed=8)
    (w0, w1, kernel), (b0, b1, output_bias) = net.weights, net.biases
    assert output_bias.shape == (8 * 6 * 3,)
    hidden = torch.relu(nn.functional.linear(torch.cat([z, c], 1), w0.T, b0))
    maps = torch.sigmoid(nn.functional.linear(hidden, w1.T, b1)).view(4, 3, 3, 2)  # 2 (n - 1) + 4 = 8 and 6
    deconvolution = filled(nn.ConvTranspose2d(3, 3, 4, stride=2, bias=False), kernel)
    expected = deconvolution(maps) + nchw(output_bias[None], 8, 6, 3)
    torch.testing.assert_close(nchw(net(z, c), 8, 6, 3), expected, **ROUNDING)


@pytest.mark.parametrize("dropout", [False, True])
def test_maxout_discriminator_equals_pytorch_layers(dropout):
    """D is convolutions, ceil-mode pools and dense maxout, with and without dropout, as PyTorch's layers."""
    settings = SMALL_MAXOUT.discriminator
    net = randomized(MaxoutConvolutionalDiscriminator((8, 6, 3), 2, settings))
    # 8 x 6 -> 8 x 6, pooled 4 x 3, convolved 3 x 2, pooled 2 x 1: the last windows reach beyond the edge.
    assert [settings.sizes(side) for side in (8, 6)] == [[8, 4, 3, 2], [6, 3, 2, 1]]
    assert net.dropout == [(144, 0.8), (3 * 4 * 3, 0.5), (2 * 2 * 1, 0.5), (4, 0.5)]
    x, c = randn(5, 144), randn(5, 2, seed=8)
    masks = [randn(5, width, seed=width) for width, _ in net.dropout] if dropout else []
    h = nchw(x * masks[0] if dropout else x, 8, 6, 3)
    for layer, (channels, kernel, padding, pool) in enumerate([(3, 3, 1, 3), (2, 2, 0, 2)]):
        if dropout and layer:
            h = h * masks[layer].view_as(h)
        convolution = filled(
            nn.Conv2d(h.shape[1], channels * 2, kernel, padding=padding), net.weights[layer], net.biases[layer]
        )
        first, second = convolution(h).chunk(2, dim=1)
        h = nn.MaxPool2d(pool, 2, ceil_mode=True)(torch.maximum(first, second))
    h = torch.cat([h.flatten(1) * masks[2] if dropout else h.flatten(1), c], 1)
    pieces = nn.functional.linear(h, net.weights[2].T, net.biases[2]).chunk(3, dim=1)
    h = torch.stack(pieces).max(dim=0).values
    expected = nn.functional.linear(h * masks[3] if dropout else h, net.weights[3].T, net.biases[3])[:, 0]
    torch.testing.assert_close(net(x, c, masks), expected, **ROUNDING)


@pytest.mark.parametrize("pair", [SMALL, WITH_DENSE], ids=["convolutions alone", "dense layers before"])
def test_generator_doubles_maps_and_crops_odd_sides(pair):
    """G doubles its maps by deconvolutions and cuts off what an odd side has too much."""
    net = randomized(ConvolutionalGenerator(5, 2, (7, 6, 3), pair.generator))
    z, c = randn(4, 5), randn(4, 2, seed=8)
    leaky, h = nn.LeakyReLU(0.2), torch.cat([z, c], 1)
    for layer in range(len(pair.generator.hidden)):
        h = leaky(nn.functional.linear(h, net.weights[layer].T, net.biases[layer]))
    (w0, *kernels), (b0, b1, output_bias) = net.weights[-3:], net.biases[-3:]
    h = nn.functional.linear(h, w0.T, b0).view(4, 4, 2, 2)  # 7 x 6, 4 x 3, 2 x 2
    first = filled(nn.ConvTranspose2d(4, 3, 4, stride=2, padding=1, bias=False), kernels[0])
    second = filled(nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1, bias=False), kernels[1])
    h = leaky(first(leaky(h))[..., :4, :3] + b1.view(3, 1, 1))
    expected = torch.tanh(second(h)[..., :7, :6] + nchw(output_bias[None], 7, 6, 3))
    torch.testing.assert_close(nchw(net(z, c), 7, 6, 3), expected, **ROUNDING)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("pair", [SMALL, WITH_DENSE], ids=["convolutions alone", "dense layers after"])
def test_discriminator_is_strided_convolutions(pair, dropout):
    """D is strided convolutions of the image, with the condition as constant planes beside it, and dense layers."""
    net = randomized(ConvolutionalDiscriminator((7, 6, 3), 2, pair.discriminator))
    dense = [(width, 0.5) for width in pair.discriminator.hidden]
    assert net.dropout == [(126, 0.8), (3 * 3 * 3, 0.5), (4 * 1 * 1, 0.5), *dense]
    x, c = randn(5, 126), randn(5, 2, seed=8)
    masks = [randn(5, width, seed=width) for width, _ in net.dropout] if dropout else []
    h = nchw(x * masks[0] if dropout else x, 7, 6, 3)
    h = torch.cat([h, torch.ones(5, 2, 7, 6) * c.view(5, 2, 1, 1)], 1)
    for layer, (inputs, outputs) in enumerate([(5, 3), (3, 4)]):
        h = h * masks[layer].view_as(h) if dropout and layer else h
        convolution = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
        h = nn.LeakyReLU(0.2)(filled(convolution, net.weights[layer], net.biases[layer])(h))
    h = h.flatten(1)
    for layer in range(2, 3 + len(dense)):
        h = nn.LeakyReLU(0.2)(h) if layer > 2 else h
        h = nn.functional.linear(h * masks[layer] if dropout else h, net.weights[layer], net.biases[layer])
    torch.testing.assert_close(net(x, c, masks), h[:, 0], **ROUNDING)


@given(st.integers(1, 60), st.integers(1, 8), st.integers(0, 4), st.integers(1, 5), st.integers(1, 4))
def test_map_sizes_equal_those_pytorch_makes(side, kernel, padding, pool, stride):
    """Sizes of maps are those of PyTorch's convolutions and ceil-mode pools; where it makes none, nor do we."""
    sizes = MaxoutConvolutionalDiscriminatorSettings(
        channels=(1,), kernels=(kernel,), paddings=(padding,), pools=(pool,), pool_strides=(stride,)
    ).sizes(side)
    layers = nn.Sequential(nn.Conv2d(1, 1, kernel, padding=padding), nn.MaxPool2d(pool, stride, ceil_mode=True))
    if min(sizes) < 1:  # where PyTorch finds no map to make, neither do we
        with pytest.raises(RuntimeError):
            layers(torch.zeros(1, 1, side, side))
        return
    assert sizes == [
        layers[0](torch.zeros(1, 1, side, side)).shape[-1],
        layers(torch.zeros(1, 1, side, side)).shape[-1],
    ]


def test_published_convolutional_recipe_has_its_sizes():
    """The recipe for CIFAR-10 has the published maps, numbers of parameters and dropout sizes."""
    settings = config.load(CONFIGS / "cifar10_convolutional.yaml")
    assert settings.network == MaxoutConvolutionalSettings()  # whose defaults are the recipe's
    assert settings.network.discriminator.sizes(32) == [33, 16, 15, 7, 9, 5]
    with torch.device("meta"):
        generator = make_generator(settings.network.generator, settings.noise.size, 0, (32, 32, 3))
        discriminator = make_discriminator(settings.network.discriminator, (32, 32, 3), 0)
    assert generator.maps == (80, 10, 10)
    # (inputs + 1) x outputs of the dense layers; channels x kernel, and a bias for each channel or output pixel.
    assert sum(p.numel() for p in generator.parameters()) == 808_000 + 64_008_000 + 80 * 3 * 25 + 3072 == 64_825_072
    convolutions = (3 * 64 + 1) * 64 + (32 * 64 + 1) * 64 + (32 * 25 + 1) * 384
    assert sum(p.numel() for p in discriminator.parameters()) == convolutions + 4801 * 2500 + 501 == 12_454_073
    assert discriminator.dropout == [(3072, 0.8), (32 * 16**2, 0.5), (32 * 7**2, 0.5), (192 * 5**2, 0.5), (500, 0.5)]


def test_convolutional_recipe_has_published_settings():
    """The recipe's scheme, rates, prior, activations and initial ranges are those of the published one."""
    settings = config.load(CONFIGS / "cifar10_convolutional.yaml")
    algorithm, generator = settings.algorithm, settings.network.generator
    assert (algorithm.scheme, algorithm.optimizer, algorithm.batch_size) == ("simultaneous", "momentum", 128)
    assert (algorithm.discriminator_steps, algorithm.share_draws) == (1, True)
    assert algorithm.generator_learning_rate == algorithm.discriminator_learning_rate == 0.004
    assert (settings.noise.prior, settings.data.pixels) == ("normal", "contrast_normalised")
    assert (generator.activation, generator.maps_activation, generator.output) == ("relu", "sigmoid", "linear")
    assert (generator.init_range, settings.network.discriminator.init_range) == (0.05, 0.005)
    net, discriminator = build(SMALL_MAXOUT, 5, 144, 0, image_shape=(8, 6, 3))
    for made, limit in ((net, 0.05), (discriminator, 0.005)):
        for weight in made.weights:
            assert 0.5 * limit < weight.abs().max() <= np.float32(limit)
        assert not any(bias.any() for bias in made.biases)


@pairs
@pytest.mark.parametrize("shape", [(28, 28), (32, 32, 3), (8, 8)])
def test_data_sets_images_fit_both_nets(settings, shape):
    """For the shapes of the data sets G makes rows of all pixels, and D gives one logit for each."""
    if settings is SMALL_MAXOUT and shape == (8, 8):
        shape = (10, 10)
    generator, discriminator = build(settings, 6, math.prod(shape), 0, image_shape=shape)
    none = torch.empty(3, 0)
    samples = generator(torch.ones(3, 6), none)
    assert samples.shape == (3, math.prod(shape))
    assert discriminator(samples, none).shape == (3,)


@pairs
def test_logit_does_not_depend_on_its_batch(settings):
    """An example's logit is its own whatever shares its batch: no layer mixes examples."""
    net = randomized(make_discriminator(settings.discriminator, (8, 8), 0))
    x = randn(6, 64)
    alone = torch.cat([net(row[None], x.new_empty(1, 0)) for row in x])
    torch.testing.assert_close(net(x, x.new_empty(6, 0)), alone, **ROUNDING)


@pairs
def test_condition_of_width_zero_is_none(settings):
    """A condition of width 0 changes no shape; a wider one changes what both nets make of each example."""
    for make, width in (
        (lambda size: make_generator(settings.generator, 5, size, (8, 8)), 5),
        (lambda size: make_discriminator(settings.discriminator, (8, 8), size), 64),
    ):
        with_condition, x = randomized(make(3)), randn(4, width)
        one, other = (with_condition(x, randn(4, 3, seed=seed)) for seed in (1, 2))
        assert one.shape == make(0).double()(x, x.new_empty(4, 0)).shape
        assert ((one - other).flatten(1 if one.dim() > 1 else 0).abs().amax(dim=-1) > 0).all()
    # D weighs both together: what the condition changes differs between images.
    net = randomized(make_discriminator(settings.discriminator, (8, 8), 1))
    yes, no = torch.ones(6, 1).double(), torch.zeros(6, 1).double()
    assert (net(randn(6, 64), yes) - net(randn(6, 64), no)).std() > 1e-3


@pairs
def test_marginal_bias_makes_zero_maps_the_mean_image(settings):
    """With all weights 0, a sigmoid G with the marginal bias makes the mean image."""
    sigmoid = replace(settings, generator=replace(settings.generator, output="sigmoid"))
    means = np.linspace(0.1, 0.9, 8 * 8 * 3)
    generator, _ = build(sigmoid, 4, 192, 0, pixel_means=means, image_shape=(8, 8, 3))
    with torch.no_grad():
        for weight in generator.weights:
            weight.zero_()
    # float32 logits of order 1.
    assert generator(torch.ones(1, 4), torch.empty(1, 0))[0].tolist() == pytest.approx(means.tolist(), rel=1e-6)


def test_initial_weights_preserve_activation_scale():
    """Initial weights have a deviation of gain / sqrt(fan in), which keeps the size of what passes through."""
    settings = ConvolutionalSettings(
        generator=ConvolutionalGeneratorSettings(hidden=(90,)),
        discriminator=ConvolutionalDiscriminatorSettings(hidden=(80,)),
    )
    generator, discriminator = build(settings, 100, 784, 0, image_shape=(28, 28))
    gain = math.sqrt(2 / 1.04)
    fans = zip([*generator.weights, *discriminator.weights], [100, 90, 512, 256, 16, 1024, 6272, 80], strict=True)
    for weight, fan_in in fans:
        # A standard deviation of n normals has a standard error of 1 / sqrt(2 n): five of them.
        error = 5 / math.sqrt(2 * weight.numel())
        assert weight.std().item() == pytest.approx(gain / math.sqrt(fan_in), rel=error)


SPECTRAL = ConvolutionalSettings(discriminator=ConvolutionalDiscriminatorSettings((6, 8), spectral_norm=True))


def test_spectral_norm_divides_by_largest_singular_value():
    """Each layer is divided by its largest singular value, which the power method follows as weights move."""
    _, net = build(SPECTRAL, 4, 64, 0, image_shape=(8, 8))
    plain = make_discriminator(ConvolutionalDiscriminatorSettings((6, 8)), (8, 8), 0)
    random = torch.Generator().manual_seed(0)
    for step in range(40):
        if step < 20:  # weights that move, as in a training, and then stay
            for weight in net.weights:
                weight.data += 0.05 * torch.randn(weight.shape, generator=random)
        net.apply_weight_constraint()
    for mine, theirs in zip(net.parameters(), plain.parameters(), strict=True):
        theirs.data = mine.detach().clone()
    for weight in plain.weights:
        weight.data /= torch.linalg.matrix_norm(weight.flatten(1), 2)
    x = torch.rand(7, 64, generator=random)
    none = torch.empty(7, 0)
    # The power method after twenty steps on weights that stay, in float32.
    torch.testing.assert_close(net(x, none), plain(x, none), rtol=1e-3, atol=1e-3)


def test_spectral_norm_gradient_is_that_of_exact_norm():
    """The gradient of a normalised layer is that of the exact norm once the power method has converged."""
    _, net = build(SPECTRAL, 4, 64, 0, image_shape=(8, 8))
    net.double()
    for _ in range(2000):
        net.apply_weight_constraint()
    x, none = randn(7, 64), torch.empty(7, 0, dtype=torch.float64)
    gradients = torch.autograd.grad(net(x, none).sum(), list(net.weights))
    exact = [weight.detach().clone().requires_grad_() for weight in net.weights]
    h = x.view(7, 1, 8, 8)
    for layer, weight in enumerate(exact):
        divided = weight / torch.linalg.matrix_norm(weight.flatten(1), 2)
        if layer < 2:
            h = nn.functional.conv2d(h, divided, net.biases[layer], stride=2, padding=1)
            h = nn.functional.leaky_relu(h, 0.2)
        else:
            h = h.flatten(1) @ divided.T + net.biases[layer]
    for ours, theirs in zip(gradients, torch.autograd.grad(h.sum(), exact), strict=True):
        # The power method has converged as far as float64 tells the first two singular values apart.
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_singular_vectors_are_seeded_and_saved():
    """The power method's vectors are a function of the seed, and part of what is saved with the weights."""
    (_, one), (_, again), (_, other) = (build(SPECTRAL, 4, 64, seed, image_shape=(8, 8)) for seed in (0, 0, 1))
    names = {f"singular_vectors_{layer}" for layer in range(3)}
    assert names == one.state_dict().keys() - dict(one.named_parameters()).keys()
    for name in names:
        vector = one.state_dict()[name]
        assert vector.norm().item() == pytest.approx(1, rel=1e-6)
        assert torch.equal(vector, again.state_dict()[name])
        assert not torch.equal(vector, other.state_dict()[name]) or len(vector) == 1
    plain = make_discriminator(ConvolutionalDiscriminatorSettings((6, 8)), (8, 8), 0)
    assert plain.state_dict().keys() == dict(plain.named_parameters()).keys()


@pytest.mark.parametrize(
    ("settings", "shape", "says"),
    [
        (MaxoutConvolutionalSettings(), (28, 28), "a side of 28 pixels; expected 26 or 29; or another kernel or stride"),
        (MaxoutConvolutionalSettings(), (4, 4), "a side of 4 pixels; expected 5 or 8"),
        (MaxoutConvolutionalSettings(), (784,), r"not images .*\[784\]; expected \[height, width\]"),
        (ConvolutionalSettings(), (784,), "not images"),
        (ConvolutionalSettings(), (8, 3), r"images too small \(network.discriminator.channels\): 2 halvings of \[8, 3\]; expected at most 1"),
        (
            MaxoutConvolutionalSettings(
                discriminator=MaxoutConvolutionalDiscriminatorSettings(kernels=(8, 8, 9), paddings=(0, 0, 0))
            ),
            (14, 14), "images too small",
        ),
    ],
)  # fmt: skip
def test_unfit_image_shape_is_refused_in_one_line(settings, shape, says):
    """An image shape that an architecture cannot have is refused in one line that names sides that fit."""
    with pytest.raises(ConfigurationError, match=says) as raised:
        check(settings, 10, shape)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (lambda: MaxoutConvolutionalGeneratorSettings(hidden=()), "generator.hidden"),
        (lambda: MaxoutConvolutionalGeneratorSettings(maps=0), "generator.maps"),
        (lambda: MaxoutConvolutionalGeneratorSettings(stride=-1), "generator.stride"),
        (lambda: MaxoutConvolutionalGeneratorSettings(init_range=math.inf), "generator.init_range"),
        (lambda: MaxoutConvolutionalDiscriminatorSettings(channels=(3,)), "discriminator.kernels"),
        (lambda: MaxoutConvolutionalDiscriminatorSettings(pools=(4, 4, 0)), "discriminator.pools"),
        (lambda: MaxoutConvolutionalDiscriminatorSettings(paddings=(4, 3, -1)), "discriminator.paddings"),
        (lambda: MaxoutConvolutionalDiscriminatorSettings(channel_pieces=0), "discriminator.channel_pieces"),
        (lambda: MaxoutConvolutionalDiscriminatorSettings(hidden_keep=0.0), "discriminator.hidden_keep"),
        (lambda: ConvolutionalGeneratorSettings(channels=(0,)), "generator.channels"),
        (lambda: ConvolutionalGeneratorSettings(leak=1.0), "generator.leak"),
        (lambda: ConvolutionalGeneratorSettings(init_scale=math.nan), "generator.init_scale"),
        (lambda: ConvolutionalDiscriminatorSettings(channels=()), "discriminator.channels"),
        (lambda: ConvolutionalDiscriminatorSettings(leak=-0.1), "discriminator.leak"),
        (lambda: ConvolutionalDiscriminatorSettings(input_keep=1.5), "discriminator.input_keep"),
    ],
)
def test_impossible_sizes_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=f"network.{named} "):
        settings()
