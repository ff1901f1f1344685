"""What the recipes for faces and colour images ask of G beyond MNIST's: activations, sparse weights, biases."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from gan_core.networks import build
from gan_core.networks.dense import DenseDiscriminator, DenseGenerator, DenseGeneratorSettings, NetworkSettings
from pipelines import config

CONFIGS = Path(__file__).parents[2] / "configs"


def test_hidden_layers_may_have_an_activation_each():
    settings = DenseGeneratorSettings(hidden=(6, 5), activations=("relu", "sigmoid"), output="linear")
    net, random = DenseGenerator(3, 0, 4, settings).double(), np.random.default_rng(0)
    for parameter in net.parameters():
        parameter.data = torch.from_numpy(random.standard_normal(parameter.shape))
    z = random.standard_normal((7, 3))
    weights, biases = ([p.detach().numpy() for p in parameters] for parameters in (net.weights, net.biases))
    hidden = np.maximum(z @ weights[0] + biases[0], 0)
    hidden = 1 / (1 + np.exp(-(hidden @ weights[1] + biases[1])))
    found = net(torch.from_numpy(z), torch.empty(7, 0, dtype=torch.float64)).detach().numpy()
    # float64 sums of at most six terms.
    np.testing.assert_allclose(found, hidden @ weights[2] + biases[2], rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize(
    ("stem", "data_size", "generator", "discriminator"),
    [
        # (inputs + 1) x outputs of each layer: 100-8000-8000-data; data-1600x5-1600x5-1 and data-1200x5-1200x5-1.
        ("cifar10_fully_connected", 3072, 808_000 + 64_008_000 + 24_579_072, 24_584_000 + 12_808_000 + 1_601),
        ("tfd_pretrain", 2304, 808_000 + 64_008_000 + 18_434_304, 13_830_000 + 7_206_000 + 1_201),
        # The same after 100-8000-100.
        ("tfd", 2304, 808_000 + 800_100 + 808_000 + 64_008_000 + 18_434_304, 13_830_000 + 7_206_000 + 1_201),
    ],
)
def test_face_and_colour_recipes_have_parameter_counts(stem, data_size, generator, discriminator):
    """The recipes for TFD and CIFAR-10 have the published layers' numbers of parameters."""
    settings = config.load(CONFIGS / f"{stem}.yaml")
    with torch.device("meta"):  # 100 million of them: their shapes are enough
        nets = (
            DenseGenerator(settings.noise.size, 0, data_size, settings.network.generator),
            DenseDiscriminator(data_size, 0, settings.network.discriminator),
        )
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [generator, discriminator]


def test_face_and_colour_recipes_match_published_ones():
    """The recipes' priors, rates, activations, norms and epochs are those of the published ones."""
    stems = ("tfd_pretrain", "tfd", "cifar10_fully_connected")
    faces, deeper, colour = (config.load(CONFIGS / f"{stem}.yaml") for stem in stems)
    for settings, rate in ((faces, 0.05), (deeper, 0.05), (colour, 0.025)):
        algorithm = settings.algorithm
        assert settings.noise.prior == "normal"
        assert algorithm.generator_learning_rate == algorithm.discriminator_learning_rate == rate
        assert (algorithm.scheme, algorithm.optimizer, algorithm.batch_size) == ("simultaneous", "momentum", 100)
        assert (algorithm.discriminator_steps, algorithm.share_draws) == (1, True)
        assert (settings.network.discriminator.input_keep, settings.network.discriminator.hidden_keep) == (0.8, 0.5)
    assert faces.network.generator.layer_activations == ("relu", "sigmoid", "sigmoid")
    assert colour.network.generator.layer_activations == ("relu", "sigmoid", "linear")
    for net in ("generator", "discriminator"):
        caps = [getattr(settings.network, net).max_column_norm for settings in (faces, deeper, colour)]
        assert caps == [1.9365, 1.9365, None]
    # Epochs of 980 minibatches of 100 of the 98,058 unlabelled faces.
    assert [settings.algorithm.steps / 980 for settings in (faces, deeper)] == [50, 22]
    # The second stage's last layers are the first stage's G, whose noise they have as a layer of sigmoids.
    assert deeper.network.generator.layer_activations == ("relu", "sigmoid", *faces.network.generator.layer_activations)
    assert deeper.network.generator.takes(faces.noise.size, faces.network.generator)
    assert deeper.network.generator.hidden_biases[:2] == faces.network.generator.hidden_biases == (0, -2)
    assert deeper.network.discriminator == faces.network.discriminator
    assert colour.data.pixels == "contrast_normalised"


def test_output_weights_may_have_their_own_range():
    """The output layer's weights are uniform in a range of their own, and no other layer's change."""
    sizes = {"hidden": (60, 50)}
    wide = NetworkSettings(generator=DenseGeneratorSettings(**sizes, output_init_range=0.5))
    (net, _), (plain, _) = (
        build(settings, 100, 784, seed=0)
        for settings in (wide, NetworkSettings(generator=DenseGeneratorSettings(**sizes)))
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(net.weights[:-1], plain.weights[:-1], strict=True))
    weights = net.weights[-1].detach().double().numpy().ravel()
    # Kolmogorov-Smirnov on a fixed seed.
    assert stats.kstest(weights, stats.uniform(-0.5, 1).cdf).pvalue > 1e-3


def test_sparse_output_has_n_normal_weights_a_unit():
    """A sparse output has the given number of normal weights a unit, at places drawn for each."""
    settings = NetworkSettings(generator=DenseGeneratorSettings(hidden=(300,), output_nonzeros=100))
    weight = build(settings, 10, 200, seed=0)[0].weights[-1].detach().double()
    assert ((weight != 0).sum(dim=0) == 100).all()
    assert stats.kstest(weight[weight != 0].numpy(), stats.norm.cdf).pvalue > 1e-3
    # A place is taken by a third of 200 units, give or take five standard deviations of a binomial.
    taken = (weight != 0).sum(dim=1).double()
    assert (taken - 200 / 3).abs().max() < 5 * math.sqrt(200 * 2 / 9)
    again, other = (build(settings, 10, 200, seed=seed)[0].weights[-1].double() for seed in (0, 1))
    assert torch.equal(again, weight)
    assert not torch.equal(other, weight)


def test_hidden_biases_start_as_set():
    """Hidden biases start at their settings and leave the output's marginal bias alone."""
    settings = NetworkSettings(generator=DenseGeneratorSettings(hidden=(4, 3), hidden_biases=(0.0, -2.0)))
    net, _ = build(settings, 2, 5, seed=0, pixel_means=np.full(5, 0.25))
    assert [bias.tolist() for bias in net.biases[:2]] == [[0] * 4, [-2] * 3]
    assert net.biases[2].tolist() == pytest.approx([-math.log(3)] * 5, rel=1e-6)  # the logit of 1/4, in float32
