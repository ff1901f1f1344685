"""Convolutional nets in Algorithm 1: its updates, shards, resuming to the bit, and scores that rise."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from gan_core.algorithm1 import AlgorithmSettings
from gan_core.checkpoint import commit_checkpoint, read_checkpoint, tensors_digest
from gan_core.datasets import Examples
from gan_core.datasets.digits import load_digits
from gan_core.draws import DrawSource
from gan_core.errors import CheckpointError
from gan_core.metrics.parzen import paper_protocol, parzen_log_density
from gan_core.networks.convolutional import (
    ConvolutionalDiscriminatorSettings,
    ConvolutionalGeneratorSettings,
    ConvolutionalSettings,
)
from gan_core.networks.maxout_convolutional import (
    MaxoutConvolutionalDiscriminatorSettings,
    MaxoutConvolutionalGeneratorSettings,
    MaxoutConvolutionalSettings,
)
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.objectives.value_function import discriminator_loss, non_saturating
from gan_core.randomness import stream
from gan_core.training import BatchSource, TrainingSettings, initial_state, sample, train

DIGITS = load_digits()
MAXOUT = MaxoutConvolutionalSettings(
    generator=MaxoutConvolutionalGeneratorSettings(hidden=(24,), maps=6, output="sigmoid"),
    discriminator=MaxoutConvolutionalDiscriminatorSettings(
        channels=(4, 6),
        kernels=(3, 3),
        paddings=(1, 1),
        pools=(2, 2),
        pool_strides=(2, 2),
        units=(12,),
        init_range=0.05,
    ),
)
EVERYDAY = ConvolutionalSettings(
    generator=ConvolutionalGeneratorSettings(hidden=(9,), channels=(8, 6)),
    discriminator=ConvolutionalDiscriminatorSettings(channels=(6, 8), hidden=(9,), hidden_keep=0.5),
)
SPECTRAL = replace(EVERYDAY, discriminator=replace(EVERYDAY.discriminator, spectral_norm=True))
NETWORKS = {"maxout": MAXOUT, "everyday": EVERYDAY, "spectral": SPECTRAL}
each = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)


pytestmark = pytest.mark.usefixtures("one_thread")


def settings_of(network, **algorithm) -> TrainingSettings:
    defaults = {"batch_size": 20, "optimizer": "adam", "generator_learning_rate": 0.001}
    algorithm = AlgorithmSettings(**{**defaults, "discriminator_learning_rate": 0.001, **algorithm})
    return TrainingSettings(noise=NoiseSettings(size=8), network=network, algorithm=algorithm)


def trained(settings: TrainingSettings, steps: int, state=None):
    state = state or initial_state(settings, DIGITS.train, DIGITS.shape)
    for _ in train(settings, DIGITS.train, state, steps, lambda step: False):
        pass
    return state


def digest(state) -> str:
    return tensors_digest(*state.tensors().values())


@each
def test_resumed_training_equals_the_undisturbed_one(network, tmp_path):
    """A training resumed from a checkpoint ends with the bits of one that was never stopped."""
    settings = settings_of(network, generator_average=0.9, discriminator_steps=2, share_draws=False)
    whole = trained(settings, 6)
    folder = commit_checkpoint(tmp_path, 3, trained(settings, 3).tensors())
    state = initial_state(replace(settings, seed=99), DIGITS.train, DIGITS.shape)
    state.load(read_checkpoint(folder)[1])
    assert digest(trained(settings, 6, state)) == digest(whole)
    assert digest(trained(replace(settings, seed=1), 6)) != digest(whole)


def test_singular_vectors_follow_and_are_required():
    """The power method's vectors change with each update; a checkpoint without them is refused."""
    settings = settings_of(SPECTRAL)
    state = initial_state(settings, DIGITS.train, DIGITS.shape)
    before = state.discriminator.get_buffer("singular_vectors_0").clone()
    trained(settings, 2, state)
    assert not torch.equal(state.discriminator.get_buffer("singular_vectors_0"), before)
    exact = torch.linalg.matrix_norm(state.discriminator.weights[0].detach().flatten(1), 2)
    estimate = (state.discriminator.get_buffer("singular_vectors_0") @ state.discriminator.weights[0].flatten(1)).norm()
    # Adam moves a weight by 1e-3 an update, which one step of the power method follows.
    assert estimate.item() == pytest.approx(exact.item(), rel=0.02)
    plain = trained(settings_of(EVERYDAY), 1).tensors()
    with pytest.raises(CheckpointError, match="singular_vectors_0 is missing"):
        initial_state(settings, DIGITS.train, DIGITS.shape).load(plain)


@each
@pytest.mark.parametrize("share", [True, False])
def test_results_agree_to_rounding_between_1_and_4_shards(network, share):
    settings = settings_of(network, optimizer="momentum", share_draws=share, gradient_penalty=0.1)
    one, four = (trained(replace(settings, virtual_shards=virtual), 2) for virtual in (1, 4))
    assert digest(one) != digest(four)
    for group, tensors in one.tensors().items():
        for name, tensor in tensors.items():
            # float32 sums in another order, over two small steps.
            torch.testing.assert_close(four.tensors()[group][name], tensor, rtol=1e-4, atol=1e-5)


@each
@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_colour_training_step_equals_pytorch_adam(network, penalty):
    """A view of rows as planes would have gradients laid out otherwise than the weights, which a fused kernel mixes up."""
    images = np.random.default_rng(0).random((20, 8 * 8 * 3), dtype=np.float32)
    data = Examples(images, np.zeros(20, np.int64))
    settings = settings_of(network, discriminator_loss_scale=1.0, learning_rate_decay=1.0, gradient_penalty=penalty)
    before, after = (initial_state(settings, data, (8, 8, 3)) for _ in range(2))
    for _ in train(settings, data, after, 1, lambda step: False):
        pass
    real = BatchSource(settings.seed, data, 20).at(0)
    G, D, none = before.generator, before.discriminator, real.condition
    draw = DrawSource(settings.seed, settings.noise, D.dropout, 20, 1, True).at(0).generator
    fake_logits = D(G(draw.noise, none), none, draw.fake_masks)
    losses = {G: non_saturating(fake_logits), D: discriminator_loss(D(real.data, none, draw.real_masks), fake_logits)}
    for row, image in enumerate(real.data):  # R1, one example after another
        x = image[None].clone().requires_grad_()
        logit = D(x, none[:1], [mask[row : row + 1] for mask in draw.real_masks])
        losses[D] = losses[D] + penalty / 2 * torch.autograd.grad(logit, x, create_graph=True)[0].square().sum() / 20
    gradients = {
        net: torch.autograd.grad(loss, list(net.parameters()), retain_graph=True) for net, loss in losses.items()
    }
    for net, ours in ((G, after.generator), (D, after.discriminator)):
        for parameter, gradient in zip(net.parameters(), gradients[net], strict=True):
            parameter.grad = gradient.contiguous()
        torch.optim.Adam(net.parameters(), lr=0.001, betas=(0.5, 0.999)).step()
        for theirs, mine, gradient in zip(net.parameters(), ours.parameters(), gradients[net], strict=True):
            # Adam's first step is the rate times the gradient's sign, unless the gradient is next to nothing.
            clear = gradient.abs() > 1e-4 * gradient.abs().max()
            torch.testing.assert_close(mine[clear], theirs[clear], rtol=1e-4, atol=2e-6)


def parzen(state, settings) -> float:
    noise = draw_noise(stream(0, "scored"), 500, settings.noise)
    samples = sample(state.generator, noise).numpy()
    points = DIGITS.validation.images
    return paper_protocol(lambda p, s: parzen_log_density(p, samples, s), points, points, 500).log_likelihood


def test_the_everyday_pair_s_score_rises_on_real_digits():
    network = ConvolutionalSettings(
        generator=ConvolutionalGeneratorSettings(channels=(32, 16)),
        discriminator=ConvolutionalDiscriminatorSettings(channels=(16, 32)),
    )
    rates = {"generator_learning_rate": 0.003, "discriminator_learning_rate": 0.003}
    settings = settings_of(network, batch_size=50, **rates)
    state = initial_state(settings, DIGITS.train, DIGITS.shape)
    first = parzen(state, settings)
    assert parzen(trained(settings, 400, state), settings) > first + 3  # nats; the mean image scores -8
