"""Fig. 1: a game in one dimension of known p_data, played by Algorithm 1, with p_g and D seen at every point."""

import copy
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import ndtri

from gan_core.algorithm1 import AlgorithmSettings, Step
from gan_core.data_parallel import Shards
from gan_core.datasets import Examples
from gan_core.draws import DrawSource
from gan_core.mixture import Mixture
from gan_core.networks.dense import (
    DenseDiscriminator,
    DenseDiscriminatorSettings,
    DenseGenerator,
    DenseGeneratorSettings,
    NetworkSettings,
)
from gan_core.noise import NoiseSettings
from gan_core.optimizers import AdamSettings
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.theory import jensen_shannon, optimal_discriminator
from gan_core.training import BatchSource, TrainingSettings, initial_state, sample, train

EXAMPLES = 50_000
SAMPLES = 200_000  # of G, at evenly spread z: a dense histogram without noise
BINS = 200  # of the histogram, over the drawn part of x
ARROWS = 25
NOISE_END = 2.5  # nearly all z are within
# How one net is trained alone: as in the game, but for these.
ALONE: dict[str, Any] = {"discriminator_steps": 1, "batch_size": 1000, "discriminator_learning_rate": 0.01, "learning_rate_decay": 1.006}  # fmt: skip


@dataclass(frozen=True)
class GameSettings:
    """The game: its data, its training, and when the figure's panels are taken."""

    data: Mixture = Mixture()
    training: TrainingSettings = TrainingSettings(
        noise=NoiseSettings("normal", 1),
        network=NetworkSettings(
            generator=DenseGeneratorSettings((128,), output="linear", output_init_range=0.05),
            discriminator=DenseDiscriminatorSettings((128,), 2, init_range=0.1, input_keep=1, hidden_keep=1),
        ),
        algorithm=AlgorithmSettings(
            scheme="algorithm1", share_draws=False, discriminator_loss_scale=1.0, batch_size=256, steps=500,
            discriminator_steps=2, optimizer="adam", adam=AdamSettings(beta1=0.5, beta2=0.99),
            generator_learning_rate=1.5e-3, discriminator_learning_rate=4e-3, learning_rate_decay=1.006,
        ),
    )  # fmt: skip
    generator_slope: float = 1.0  # of the first layers' lines, at most
    discriminator_slope: float = 6.0
    early: int = 30  # iterations before panels (a) to (c)
    ascents: int = 500  # of D alone, until panel (b)
    descents: int = 8  # of G alone, until panel (c)


class Panel(NamedTuple):
    """One moment of the game, on points of x and for some z."""

    title: str
    x: Float[np.ndarray, " points"]
    p_data: Float[np.ndarray, " points"]
    p_g: Float[np.ndarray, " points"]
    discriminator: Float[np.ndarray, " points"]
    noise: Float[np.ndarray, " arrows"]
    samples: Float[np.ndarray, " arrows"]  # G(z) for each of `noise`


@dataclass(frozen=True)
class Agreement:
    """How near the game came to what section 4 says of its end; means are over the support of p_data."""

    discriminator_from_half: float  # mean |D - 1/2| at the end
    jensen_shannon: float  # JSD(p_data || p_g) at the end, in nats
    discriminator_from_optimum: float  # mean |D - D*|, of a D trained alone against a G that is held


@dataclass(frozen=True)
class Game:
    """The four panels of Fig. 1, and the three numbers."""

    panels: tuple[Panel, Panel, Panel, Panel]
    agreement: Agreement


def play(seed: int, settings: GameSettings | None = None) -> Game:
    """Train by Algorithm 1 and look four times: near the start, with D at its optimum, after G followed it, at the end.

    Panels (b) and (c) are a branch: from (a) on, D alone is trained with G held, and then G with that
    D held. The training itself goes on from (a) to (d).
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums over more would end in other bits
    try:
        return _played(seed, settings or GameSettings())
    finally:
        torch.set_num_threads(threads)


def _played(seed: int, settings: GameSettings) -> Game:
    training = replace(settings.training, seed=seed)
    data = settings.data.draw(EXAMPLES, seed)
    state = initial_state(training, data)
    spread_kinks(state, settings, seed)

    def played_to(step: int) -> None:
        for _ in train(training, data, state, step, lambda step: False):
            pass

    played_to(settings.early)
    begun = _panel(f"(a) after {settings.early} iterations", state, settings.data)
    alone = replace(training, algorithm=replace(training.algorithm, **ALONE))
    branch = Branch(alone, data, state)
    branch.train("discriminator", settings.ascents)
    optimal = _panel(f"(b) G held, D after {settings.ascents} ascents", branch.state, settings.data)
    branch = Branch(alone, data, branch.state)
    branch.train("generator", settings.descents)
    followed = _panel(f"(c) D held, G after {settings.descents} descents", branch.state, settings.data)
    played_to(training.algorithm.steps)
    end = _panel(f"(d) after {training.algorithm.steps} iterations", state, settings.data)
    optimum = optimal_discriminator(optimal.p_data, optimal.p_g)
    agreement = Agreement(
        _mean_on_support(settings.data, end, np.abs(end.discriminator - 0.5)),
        divergence(state, settings.data),
        _mean_on_support(settings.data, optimal, np.abs(optimal.discriminator - optimum)),
    )
    return Game((begun, optimal, followed, end), agreement)


@torch.no_grad()
def spread_kinks(state: State, settings: GameSettings, seed: int) -> None:
    """Spread the zeros of both first layers' lines over their inputs: zero biases would put them all at 0.

    And let G increase in z at first, each hidden unit's part of it, so that it starts without folds.
    """
    assert isinstance(state.generator, DenseGenerator)
    assert isinstance(state.discriminator, DenseDiscriminator)
    random = stream(seed, "kinks")
    for net, slope, (low, high) in (
        (state.generator, settings.generator_slope, (-NOISE_END, NOISE_END)),
        (state.discriminator, settings.discriminator_slope, settings.data.support),
    ):
        weight, bias = net.weights[0], net.biases[0]
        slopes, zeros = random.uniform(-slope, slope, bias.shape), random.uniform(low, high, bias.shape)
        weight.copy_(torch.from_numpy(slopes)[None])
        bias.copy_(torch.from_numpy(-slopes * zeros))
    output = state.generator.weights[1]
    output.copy_(output.abs() * state.generator.weights[0].sign().T)


class Branch:
    """Copies of both nets, of which one is trained alone: the inner loop of Algorithm 1 for any k, or its last line."""

    def __init__(self, training: TrainingSettings, data: Examples, state: State) -> None:
        algorithm, nets = training.algorithm, (state.generator, state.discriminator)
        self.algorithm, self.state = algorithm, State.initial(*copy.deepcopy(nets), algorithm.optimizer)
        self.batches = BatchSource(training.seed, data, algorithm.batch_size)
        dropout = state.discriminator.dropout
        self.draws = DrawSource(training.seed, training.noise, dropout, algorithm.batch_size, 1, shared=False)

    def train(self, net: Literal["generator", "discriminator"], updates: int) -> None:
        """Update one net, the other held."""
        for at in range(updates):
            step = Step(self.state, self.algorithm, Shards(self.algorithm.batch_size), self.batches.per_epoch)
            batch, draws = self.batches.at(at), self.draws.at(at)
            if net == "discriminator":
                step.update_discriminator(step.ascent(batch, draws.discriminator[0]).gradients)
            else:
                step.update_generator(step.descent(batch, draws.generator).gradients)
            self.state.step.add_(1)


def even_noise(count: int) -> torch.Tensor:
    """Values of the normal prior that divide it into equal parts, (count, 1): the quantiles of the parts' middles."""
    return torch.from_numpy(ndtri((np.arange(count) + 0.5) / count).astype(np.float32))[:, None]


def histogram(state: State, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " bins"]:
    """The mass of p_g between each two edges."""
    samples = sample(state.generator, even_noise(SAMPLES)).numpy()[:, 0]
    return np.histogram(samples, edges)[0] / SAMPLES


def divergence(state: State, data: Mixture) -> float:
    """JSD(p_data || p_g) over bins of the support, and one for what is beyond it on each side.

    Merging points can only lower the divergence; with 200 bins, by less than 1e-3.
    """
    edges = np.concatenate([[-np.inf], np.linspace(*data.support, BINS + 1), [np.inf]])
    return jensen_shannon(np.diff(data.cumulative(edges)), histogram(state, edges))


def _panel(title: str, state: State, data: Mixture) -> Panel:
    low, high = data.support
    edges = np.linspace(low - (high - low) / 6, high + (high - low) / 6, BINS + 1)
    x = (edges[1:] + edges[:-1]) / 2
    noise = even_noise(ARROWS)
    points = torch.from_numpy(x.astype(np.float32))[:, None]
    with torch.no_grad():
        logits = state.discriminator(points, points.new_empty(len(x), 0))
    p_g, drawn = histogram(state, edges) / np.diff(edges), sample(state.generator, noise)
    discriminator = torch.sigmoid(logits.double()).numpy()
    arrows = (part.double().numpy()[:, 0] for part in (noise, drawn))
    return Panel(title, x, data.density(x), p_g, discriminator, *arrows)


def _mean_on_support(data: Mixture, panel: Panel, values: Float[np.ndarray, " points"]) -> float:
    low, high = data.support
    return float(values[(panel.x >= low) & (panel.x <= high)].mean())
