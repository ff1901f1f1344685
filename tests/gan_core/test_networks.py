"""G and D: forward passes against explicit loops, the published sizes and initial weights, members."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gan_core.networks import build, make_discriminator, make_generator
from gan_core.networks.convolutional import (
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
)
from gan_core.networks.maxout import maxout
from gan_core.networks.maxout_convolutional import MaxoutConvolutionalGeneratorSettings, MaxoutConvolutionalSettings

# float64 sums of at most some tens of terms: 2^-52 times their number, and room.
ROUNDING = {"rtol": 1e-12, "atol": 1e-13}


def randomized(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """The net in float64, with weights and biases of order 1."""
    random = torch.Generator().manual_seed(seed)
    for parameter in net.double().parameters():
        parameter.data = torch.randn(parameter.shape, generator=random, dtype=torch.float64)
    return net


def randn(*shape: int, seed: int = 9) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layers(net: torch.nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(w.detach().numpy(), b.detach().numpy()) for w, b in zip(net.weights, net.biases, strict=True)]


@given(st.integers(1, 4), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2**16))
def test_maxout_is_the_largest_of_each_unit_s_pieces(batch, pieces, units, seed):
    x = torch.randn(batch, pieces * units, generator=torch.Generator().manual_seed(seed))
    y = maxout(x, pieces)
    assert y.shape == (batch, units)
    for row in range(batch):
        for unit in range(units):
            assert y[row, unit] == max(x[row, piece * units + unit] for piece in range(pieces))


def test_maxout_sends_the_gradient_to_the_largest_piece_alone():
    x = torch.tensor([[1.0, -2.0, 0.5, 3.0]], requires_grad=True)  # two units; pieces (1, .5) and (-2, 3)
    (gradient,) = torch.autograd.grad(maxout(x, 2) @ torch.tensor([10.0, 20.0]), x)
    assert gradient.tolist() == [[10, 0, 0, 20]]


@pytest.mark.parametrize("output", ["sigmoid", "tanh", "linear"])
def test_generator_is_its_definition_row_by_row(output):
    settings = DenseGeneratorSettings(hidden=(6, 5), output=output)
    net, z, c = randomized(DenseGenerator(3, 2, 4, settings)), randn(7, 3), randn(7, 2, seed=8)
    last = {"sigmoid": lambda v: 1 / (1 + math.exp(-v)), "tanh": math.tanh, "linear": lambda v: v}[output]
    for row, sample in enumerate(net(z, c).detach().numpy()):
        x = [*z[row].tolist(), *c[row].tolist()]
        for layer, (w, b) in enumerate(layers(net)):
            x = [b[j] + sum(x[i] * w[i, j] for i in range(len(x))) for j in range(len(b))]
            x = [last(v) if layer == 2 else max(v, 0) for v in x]
        np.testing.assert_allclose(sample, x, **ROUNDING)


@pytest.mark.parametrize("dropout", [False, True])
def test_discriminator_is_its_definition_row_by_row(dropout):
    net = randomized(DenseDiscriminator(4, 2, DenseDiscriminatorSettings(units=(3, 2), pieces=3)))
    x, c = randn(5, 4), randn(5, 2, seed=8)
    masks = [randn(5, width, seed=width) for width, _ in net.dropout] if dropout else []
    assert net.dropout == [(6, 0.8), (3, 0.5), (2, 0.5)]
    logits = net(x, c, masks).detach()
    for row in range(5):
        h = [*x[row].tolist(), *c[row].tolist()]
        for layer, (w, b) in enumerate(layers(net)):
            h = [v * masks[layer][row, i].item() for i, v in enumerate(h)] if dropout else h
            a = [b[j] + sum(h[i] * w[i, j] for i in range(len(h))) for j in range(len(b))]
            units = len(a) // 3
            h = [max(a[unit + units * piece] for piece in range(3)) for unit in range(units)] if layer < 2 else a
        np.testing.assert_allclose(logits[row].item(), h[0], **ROUNDING)


def test_published_mnist_recipe_has_parameter_counts():
    """The default networks have the published MNIST recipe's numbers of parameters."""
    generator, discriminator = build(NetworkSettings(), noise_size=100, data_size=784, seed=0)
    assert sum(p.numel() for p in generator.parameters()) == 2_503_984
    assert sum(p.numel() for p in discriminator.parameters()) == 1_231_441


@pytest.mark.parametrize("condition_size", [0, 10])
@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        (NetworkSettings("dense", DenseGeneratorSettings((7, 5)), DenseDiscriminatorSettings((6, 4), 3)), (28, 28)),
        (NetworkSettings(), (32, 32, 3)),
        (ConvolutionalSettings(), (28, 28)),
        (
            ConvolutionalSettings(
                "convolutional",
                ConvolutionalGeneratorSettings((11, 7), (32, 16, 8)),
                ConvolutionalDiscriminatorSettings((8, 16, 32), (13,), spectral_norm=True),
            ),
            (30, 44, 3),
        ),
        (
            MaxoutConvolutionalSettings("maxout_convolutional", MaxoutConvolutionalGeneratorSettings((90,), maps=12)),
            (32, 32, 3),
        ),
    ],
    ids=["dense", "published", "convolutional", "uneven", "maxout_convolutional"],
)
def test_parameter_counts_are_those_of_the_nets(settings, shape, condition_size):
    """What a dry run says of the nets' sizes is what a training makes, for each architecture and a condition."""
    with torch.device("meta"):
        nets = (
            make_generator(settings.generator, 9, condition_size, shape),
            make_discriminator(settings.discriminator, shape, condition_size),
        )
    counted = tuple(sum(parameter.numel() for parameter in net.parameters()) for net in nets)
    assert settings.parameter_counts(9, condition_size, shape) == counted


def test_initial_weights_are_uniform_with_zero_biases():
    """Initial weights are uniform on the recipe's ranges, 0.05 for G and 0.005 for D, and biases are zero."""
    for net, limit in zip(build(NetworkSettings(), 100, 784, seed=0), (0.05, 0.005), strict=True):
        for weight in net.weights:
            w = weight.detach().double().numpy().ravel()
            # The smallest layer has 240 weights: all in the inner 95 % has a chance of 0.95^240 = 5e-6.
            assert 0.95 * limit < np.abs(w).max() <= np.float32(limit)
            # Kolmogorov-Smirnov on fixed seeds.
            assert stats.kstest(w[:100_000], stats.uniform(-limit, 2 * limit).cdf).pvalue > 1e-3
        assert not any(bias.any() for bias in net.biases)


def test_initial_weights_are_seeded_and_all_differ():
    """Initial weights are a function of the seed, and differ between layers and nets of equal sizes."""
    square = {"generator": DenseGeneratorSettings(hidden=(8, 8), init_range=1.0)}
    square["discriminator"] = DenseDiscriminatorSettings(units=(8, 8), pieces=1, init_range=1.0)

    def drawn(seed):
        return [
            w.detach().numpy().tobytes() for net in build(NetworkSettings(**square), 8, 8, seed) for w in net.weights
        ]

    assert drawn(0) == drawn(0)
    assert len({*drawn(0), *drawn(1)}) == 2 * 6


@pytest.mark.parametrize("mean", [0.0, 1e-9, 0.13, 0.5, 1.0])
def test_marginal_bias_is_logit_of_clipped_pixel_means(mean):
    """The output bias is the logit of the pixel means, clipped at 1e-7, so zero input gives the mean image."""
    means = np.array([mean, 0.25])
    generator, _ = build(NetworkSettings(), 4, 2, seed=0, pixel_means=means)
    clipped = [min(max(value, 1e-7), 1 - 1e-7) for value in means]
    # The biases are float32: 2^-24 relative.
    expected = [math.log(value) - math.log1p(-value) for value in clipped]
    assert generator.biases[-1].tolist() == pytest.approx(expected, rel=1e-7, abs=1e-12)
    # So an untrained G of zero input shows the mean image.
    assert generator(torch.zeros(1, 4), torch.zeros(1, 0))[0, 1].item() == pytest.approx(0.25, rel=1e-6)


@pytest.mark.parametrize("generator", [{"marginal_bias": False}, {"output": "tanh"}, {"output": "linear"}])
def test_marginal_bias_is_for_sigmoid_outputs_that_want_it(generator):
    settings = NetworkSettings(generator=DenseGeneratorSettings(hidden=(2,), **generator))
    net, _ = build(settings, 4, 2, seed=0, pixel_means=np.array([0.2, 0.3]))
    assert not net.biases[-1].any()


def test_population_computes_what_its_members_alone_do():
    """A population of three computes what three nets alone do, to the rounding of batched products."""
    g_settings = DenseGeneratorSettings(hidden=(6, 5))
    d_settings = DenseDiscriminatorSettings(units=(4, 3), pieces=2)
    generators = [randomized(DenseGenerator(3, 1, 4, g_settings), seed) for seed in range(3)]
    discriminators = [randomized(DenseDiscriminator(4, 1, d_settings), seed) for seed in range(3)]
    together = (
        DenseGenerator(3, 1, 4, g_settings, members=(3,)).double(),
        DenseDiscriminator(4, 1, d_settings, members=(3,)).double(),
    )
    for population, alone in zip(together, (generators, discriminators), strict=True):
        for parameter, members in zip(population.parameters(), zip(*(n.parameters() for n in alone)), strict=True):
            parameter.data = torch.stack(members)
    z, c = randn(3, 8, 3), randn(3, 8, 1, seed=8)
    masks = [randn(3, 8, width, seed=width) for width, _ in together[1].dropout]
    samples = together[0](z, c)
    logits = together[1](samples, c, masks)
    assert samples.shape == (3, 8, 4)
    assert logits.shape == (3, 8)
    for member in range(3):
        sample = generators[member](z[member], c[member])
        logit = discriminators[member](sample, c[member], [mask[member] for mask in masks])
        # A batched product may add in another order than a single one.
        torch.testing.assert_close(samples[member], sample, **ROUNDING)
        torch.testing.assert_close(logits[member], logit, **ROUNDING)
    assert not torch.allclose(samples[0], samples[1])


def test_condition_acts_through_its_own_weights_only():
    """A condition of width 0 or of zeros is none; a wider one acts like a bias through its own weights."""
    g_settings = DenseGeneratorSettings(hidden=(6,))
    d_settings = DenseDiscriminatorSettings(units=(5,), pieces=2)
    for make, width in (
        (lambda size: DenseGenerator(3, size, 4, g_settings), 3),
        (lambda size: DenseDiscriminator(4, size, d_settings), 4),
    ):
        without, x, c = randomized(make(0)), randn(7, width), randn(7, 3, seed=8)
        within = randomized(make(3))
        for parameter, given_ in zip(within.parameters(), without.parameters(), strict=True):
            parameter.data[: len(given_)] = given_.data
        # Zeros as a condition, or zero weights for it: as if it were not there.
        plain = without(x, torch.empty(7, 0, dtype=torch.float64))
        torch.testing.assert_close(within(x, torch.zeros_like(c)), plain, **ROUNDING)
        conditioned = within(x, c)
        assert not torch.allclose(conditioned, plain)
        # The condition enters the first layer linearly: moving it into the bias is the same.
        moved = randomized(make(0))
        for parameter, given_ in zip(moved.parameters(), without.parameters(), strict=True):
            parameter.data = given_.data.clone()
        moved.biases[0].data += c[0] @ within.weights[0].data[width:]
        torch.testing.assert_close(moved(x[:1], x.new_empty(1, 0)), conditioned[:1], **ROUNDING)


def test_max_column_norm_scales_long_columns_only():
    """Columns longer than the limit are scaled to it, and the others stay as they are."""
    net = randomized(DenseDiscriminator(4, 0, DenseDiscriminatorSettings(units=(3,), pieces=2, max_column_norm=1.5)))
    net.weights[0].data[:, 0] = 0
    before = [weight.detach().clone() for weight in net.weights]
    net.apply_weight_constraint()
    seen = {"long": 0, "short": 0}
    for old, new in zip(before, net.weights, strict=True):
        for column in range(old.shape[1]):
            norm = math.sqrt(sum(value**2 for value in old[:, column].tolist()))
            seen["long" if norm > 1.5 else "short"] += 1
            expected = old[:, column] * 1.5 / norm if norm > 1.5 else old[:, column]
            torch.testing.assert_close(new.detach()[:, column], expected, **ROUNDING)
    assert min(seen.values()) >= 2


def test_generator_columns_are_capped_if_asked():
    """G's columns are scaled to the limit where one is set, and stay as they are without one."""
    for limit in (None, 1.5):
        net = randomized(DenseGenerator(4, 0, 3, DenseGeneratorSettings(hidden=(6,), max_column_norm=limit)))
        before = [weight.detach().clone() for weight in net.weights]
        net.apply_weight_constraint()
        for old, new in zip(before, net.weights, strict=True):
            norms = old.norm(dim=0)
            assert norms.max() > 1.5
            expected = old * (norms.clamp(max=1.5) / norms if limit else 1)
            torch.testing.assert_close(new.detach(), expected, **ROUNDING)


def test_last_layers_are_views_named_as_own_generator():
    """Last layers have the names of a generator of these alone, and writing to them changes the net."""
    net = DenseGenerator(4, 0, 3, DenseGeneratorSettings(hidden=(6, 5, 7), pretrained_layers=2))
    alone = DenseGenerator(5, 0, 3, DenseGeneratorSettings(hidden=(7,)))
    last = net.last_layers(2)
    assert {name: tensor.shape for name, tensor in last.items()} == {n: t.shape for n, t in alone.state_dict().items()}
    last["weights.0"].fill_(2)
    last["biases.1"].fill_(3)
    assert (net.weights[2] == 2).all()
    assert (net.biases[3] == 3).all()
    assert not net.weights[3].any()


def test_max_column_norm_is_per_member_or_off():
    """Each member of a population has its own column norms, and no limit is no constraint."""
    settings = DenseDiscriminatorSettings(units=(3,), pieces=2, max_column_norm=1.0)
    population = randomized(DenseDiscriminator(4, 0, settings, members=(2,)))
    population.weights[0].data *= torch.tensor([10, 0.01]).double()[:, None, None]
    short = population.weights[0].detach()[1].clone()
    population.apply_weight_constraint()
    torch.testing.assert_close(population.weights[0][0].norm(dim=0).detach(), torch.ones(6).double(), **ROUNDING)
    assert torch.equal(population.weights[0][1], short)
    free = randomized(DenseDiscriminator(4, 0, DenseDiscriminatorSettings(units=(3,))))
    before = [weight.detach().clone() for weight in free.weights]
    free.apply_weight_constraint()
    assert all(torch.equal(old, new) for old, new in zip(before, free.weights, strict=True))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (lambda: DenseGeneratorSettings(hidden=()), "generator.hidden"),
        (lambda: DenseGeneratorSettings(hidden=(8, 0)), "generator.hidden"),
        (lambda: DenseGeneratorSettings(init_range=0.0), "generator.init_range"),
        (lambda: DenseGeneratorSettings(activations=("relu",)), "generator.activations"),
        (lambda: DenseGeneratorSettings(hidden_biases=(0.0, 0.0, 0.0)), "generator.hidden_biases"),
        (lambda: DenseGeneratorSettings(hidden_biases=(0.0, math.inf)), "generator.hidden_biases"),
        (lambda: DenseGeneratorSettings(output_init_range=-1.0), "generator.output_init_range"),
        (lambda: DenseGeneratorSettings(output_nonzeros=0), "generator.output_nonzeros"),
        (lambda: DenseGeneratorSettings(hidden=(9,), output_nonzeros=10), "generator.output_nonzeros"),
        (lambda: DenseGeneratorSettings(output_nonzeros=5, output_init_range=0.5), "generator.output_nonzeros"),
        (lambda: DenseGeneratorSettings(max_column_norm=0.0), "generator.max_column_norm"),
        (lambda: DenseGeneratorSettings(pretrained_layers=0), "generator.pretrained_layers"),
        (lambda: DenseGeneratorSettings(pretrained_layers=3), "generator.pretrained_layers"),
        (lambda: DenseDiscriminatorSettings(units=(-1,)), "discriminator.units"),
        (lambda: DenseDiscriminatorSettings(pieces=0), "discriminator.pieces"),
        (lambda: DenseDiscriminatorSettings(init_range=math.nan), "discriminator.init_range"),
        (lambda: DenseDiscriminatorSettings(input_keep=0.0), "discriminator.input_keep"),
        (lambda: DenseDiscriminatorSettings(hidden_keep=1.1), "discriminator.hidden_keep"),
        (lambda: DenseDiscriminatorSettings(max_column_norm=-1.0), "discriminator.max_column_norm"),
    ],
)
def test_impossible_sizes_are_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=f"network.{named} "):
        settings()
