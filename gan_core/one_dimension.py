"""Fig. 1: a one-dimensional game of known p_data, played by Algorithm 1, with p_g and D seen at every point."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats

from gan_core.algorithm1 import AlgorithmSettings, Step
from gan_core.data_parallel import Shards
from gan_core.datasets import Examples
from gan_core.draws import DrawSource
from gan_core.networks import DenseDiscriminatorSettings, DenseGeneratorSettings, NetworkSettings
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


@dataclass(frozen=True)
class Mixture:
    """p_data: a mixture of normal densities."""

    weights: tuple[float, ...] = (0.6, 0.4)
    means: tuple[float, ...] = (-0.7, 0.9)
    deviations: tuple[float, ...] = (0.5, 0.35)

    def _mixed(self, of_normal: Callable[..., np.ndarray], x: np.ndarray) -> np.ndarray:
        parts = zip(self.weights, self.means, self.deviations, strict=True)
        return np.sum([weight * of_normal(x, mean, deviation) for weight, mean, deviation in parts], axis=0)

    def density(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """p_data(x)."""
        return self._mixed(stats.norm.pdf, x)

    def cumulative(self, x: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """The probability of a value below x."""
        return self._mixed(stats.norm.cdf, x)

    def draw(self, count: int, seed: int) -> Examples:
        """Independent examples, one a row, a function of the seed."""
        random = stream(seed, "one-dimensional data")
        which = random.choice(len(self.weights), count, p=self.weights)
        values = random.normal(np.array(self.means)[which], np.array(self.deviations)[which])
        return Examples(values[:, None].astype(np.float32), np.zeros(count, np.int64))

    def support(self, left_out: float = 0.005) -> tuple[float, float]:
        """Where all but `left_out` on either side of p_data is."""
        x = np.linspace(min(self.means) - 8 * max(self.deviations), max(self.means) + 8 * max(self.deviations), 100_001)
        low, high = np.searchsorted(self.cumulative(x), [left_out, 1 - left_out])
        return float(x[low]), float(x[high])


@dataclass(frozen=True)
class GameSettings:
    """The game: its data, its training, and when the figure's panels are taken."""

    data: Mixture = Mixture()
    training: TrainingSettings = TrainingSettings(
        noise=NoiseSettings("uniform", 1),
        network=NetworkSettings(
            generator=DenseGeneratorSettings(hidden=(32, 32), output="linear", init_range=0.5),
            discriminator=DenseDiscriminatorSettings((24, 24), 3, init_range=0.5, input_keep=1, hidden_keep=1),
        ),
        algorithm=AlgorithmSettings(
            scheme="algorithm1", share_draws=False, discriminator_loss_scale=1.0, batch_size=500, steps=3000,
            optimizer="adam", adam=AdamSettings(beta1=0.5, beta2=0.99), generator_learning_rate=1e-3,
            discriminator_learning_rate=3e-3, learning_rate_decay=1.001,
        ),
    )  # fmt: skip
    early: int = 300  # iterations before panels (a) to (c)
    ascents: int = 800  # of D alone, until panel (b)
    descents: int = 25  # of G alone, until panel (c)


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
    settings = settings or GameSettings()
    training = replace(settings.training, seed=seed)
    data = settings.data.draw(EXAMPLES, seed)
    state = initial_state(training, data)

    def played_to(step: int) -> None:
        for _ in train(training, data, state, step, lambda step: False):
            pass

    played_to(settings.early)
    begun = _panel(f"(a) after {settings.early} iterations", state, settings.data)
    branch = Branch(training, data, copy.deepcopy(state))
    branch.ascend(settings.ascents)
    optimal = _panel(f"(b) G held, D after {settings.ascents} ascents", branch.state, settings.data)
    branch.descend(settings.descents)
    followed = _panel(f"(c) D held, G after {settings.descents} descents", branch.state, settings.data)
    played_to(training.algorithm.steps)
    end = _panel(f"(d) after {training.algorithm.steps} iterations", state, settings.data)
    agreement = Agreement(
        _mean_on_support(settings.data, end, np.abs(end.discriminator - 0.5)),
        divergence(state, settings.data),
        _mean_on_support(
            settings.data, optimal, np.abs(optimal.discriminator - optimal_discriminator(optimal.p_data, optimal.p_g))
        ),
    )
    return Game((begun, optimal, followed, end), agreement)


class Branch:
    """Updates of one net alone, the other held: the inner loop of Algorithm 1 for any k, and its last line."""

    def __init__(self, training: TrainingSettings, data: Examples, state: State) -> None:
        self.training, self.state = training, state
        algorithm = training.algorithm
        self.batches = BatchSource(training.seed, data, algorithm.batch_size)
        dropout = state.discriminator.dropout
        self.draws = DrawSource(training.seed, training.noise, dropout, algorithm.batch_size, 1, shared=False)

    def ascend(self, updates: int) -> None:
        """Train D, G held."""
        for _ in range(updates):
            step, at = self._next()
            step.update_discriminator(step.ascent(self.batches.at(at), self.draws.at(at).discriminator[0]).gradients)

    def descend(self, updates: int) -> None:
        """Train G, D held."""
        for _ in range(updates):
            step, at = self._next()
            step.update_generator(step.descent(self.batches.at(at), self.draws.at(at).generator).gradients)

    def _next(self) -> tuple[Step, int]:
        """The next update's step, counted in the state so that rates go on falling and no draw comes twice."""
        algorithm, at = self.training.algorithm, int(self.state.step)
        self.state.step.add_(1)
        return Step(self.state, algorithm, Shards(algorithm.batch_size), self.batches.per_epoch), at


def even_noise(count: int) -> torch.Tensor:
    """Evenly spread values of the uniform prior, (count, 1): the quantiles of its cells' middles."""
    return ((torch.arange(count) + 0.5) / count * 2 - 1).mul(math.sqrt(3))[:, None]


def histogram(state: State, edges: Float[np.ndarray, " edges"]) -> Float[np.ndarray, " bins"]:
    """The mass of p_g between each two edges."""
    samples = sample(state.generator, even_noise(SAMPLES)).numpy()[:, 0]
    return np.histogram(samples, edges)[0] / SAMPLES


def divergence(state: State, data: Mixture) -> float:
    """JSD(p_data || p_g) over bins of the support, and one for what is beyond it on each side.

    Merging points can only lower the divergence; with 200 bins, by less than 1e-3.
    """
    edges = np.concatenate([[-np.inf], np.linspace(*data.support(), BINS + 1), [np.inf]])
    return jensen_shannon(np.diff(data.cumulative(edges)), histogram(state, edges))


def _panel(title: str, state: State, data: Mixture) -> Panel:
    low, high = data.support(0.0002)
    edges = np.linspace(low, high, BINS + 1)
    x = (edges[1:] + edges[:-1]) / 2
    noise = even_noise(ARROWS)
    points = torch.from_numpy(x.astype(np.float32))[:, None]
    with torch.no_grad():
        logits = state.discriminator(points, points.new_empty(len(x), 0))
    return Panel(
        title,
        x,
        data.density(x),
        histogram(state, edges) * BINS / (high - low),
        torch.sigmoid(logits.double()).numpy(),
        noise.double().numpy()[:, 0],
        sample(state.generator, noise).double().numpy()[:, 0],
    )


def _mean_on_support(data: Mixture, panel: Panel, values: Float[np.ndarray, " points"]) -> float:
    low, high = data.support()
    return float(values[(panel.x >= low) & (panel.x <= high)].mean())
