"""Nights of equal models at the gate, on synthetic log-densities: `python -m tests.pipelines.nights` prints the table.

Truth is known here, so what no run can show can be counted: how often chance alone moves the
champion in a year, how far the champion's score is luck, how surely a better model is let in.
"""

import dataclasses
import math
import sys
from dataclasses import dataclass

import numpy as np

from pipelines.config import GateSettings
from pipelines.registry.promotion_gate import decide

MNIST_POINTS, NIGHTS = 9000, 365


@dataclass(frozen=True)
class Noise:
    """Standard deviations in nats: of equal models' true means, and of what the gate sees of one."""

    seeds: float  # between models that differ by their seed alone
    points: float  # of two models' difference at a point
    sets: float  # between sets of samples, of the mean
    both: float  # of a point in a set


# Two models of configs/mnist.yaml after 1,500 steps, seeds 0 and 1, 9,000 points, 4 sets of 10,000 samples: 65
# at a point, 0.8 and 1.8 between sets, 18 in both (2026-11-24; digits: 10 to 14, 0.02 to 0.2 and 2, seeds 1.7).
EASY, USUAL, HARD = Noise(1, 30, 0.3, 10), Noise(2, 50, 1, 18), Noise(3, 65, 1.8, 18)


@dataclass(frozen=True)
class Model:
    """A model as the gate could know it with endless sets: its true mean, and what is peculiar to it at each point."""

    mean: float
    points: np.ndarray

    def log_densities(self, random: np.random.Generator, noise: Noise, sets: int) -> np.ndarray:
        """(sets, points), of fresh samples."""
        of_sets = noise.sets * random.standard_normal((sets, 1))
        of_both = noise.both * random.standard_normal((sets, len(self.points)))
        return self.mean + self.points + of_sets + of_both


@dataclass(frozen=True)
class Year:
    """What became of the champion."""

    promotions: int
    gain: float  # of the champion's true mean over the first one's
    luck: float  # what the gate's points flatter the last champion by, in nats


def fewer_points(noise: Noise, points: int) -> Noise:
    """The same standard errors from fewer points than MNIST's."""
    scale = math.sqrt(points / MNIST_POINTS)
    return dataclasses.replace(noise, points=noise.points * scale, both=noise.both * scale)


def model(random: np.random.Generator, noise: Noise, points: int, gap: float = 0.0) -> Model:
    """One night's model: as good as the others but for its seed, and `gap` better."""
    mean = gap + noise.seeds * random.standard_normal()
    return Model(mean, noise.points / math.sqrt(2) * random.standard_normal(points))


def passes(
    random: np.random.Generator, challenger: Model, champion: Model, settings: GateSettings, noise: Noise
) -> bool:
    """The gate's own decision, on fresh samples of both."""
    one, other = (rival.log_densities(random, noise, settings.sample_sets) for rival in (challenger, champion))
    return decide(one, other, "champion", settings).promoted


def year(seed: int, settings: GateSettings, noise: Noise, points: int = 90, nights: int = NIGHTS) -> Year:
    """A year of equal models, one a night, against the champion of the night before; the first has no rival."""
    random, noise = np.random.default_rng(seed), fewer_points(noise, points)
    first = champion = model(random, noise, points)
    promotions = 0
    for _ in range(nights):
        challenger = model(random, noise, points)
        if passes(random, challenger, champion, settings, noise):
            champion, promotions = challenger, promotions + 1
    return Year(promotions, champion.mean - first.mean, float(champion.points.mean()))


def first_night_rate(
    seed: int, gap: float, settings: GateSettings, noise: Noise, trials: int, points: int = 90
) -> float:
    """How often a truly better model is let in on its first night: the gap is exact, seeds do not blur it."""
    random, noise = np.random.default_rng(seed), fewer_points(dataclasses.replace(noise, seeds=0), points)
    won = 0
    for _ in range(trials):
        champion, challenger = model(random, noise, points), model(random, noise, points, gap)
        won += passes(random, challenger, champion, settings, noise)
    return won / trials


def table(years: int, points: int = 90) -> str:
    """Promotions, gain and luck in a year, and the rate of a better model, by margin and sets."""
    lines = ["margin sets noise  promotions mean / 95 % of years / most   gain   luck   10 nats better let in"]
    for margin, sets in ((0, 4), (1, 4), (2, 4), (2, 8), (3, 4), (3, 6), (3, 8), (4, 6), (4, 8), (5, 8)):
        settings = GateSettings(min_margin=margin, sample_sets=sets)
        same_seeds = {f"{name}, no seeds": dataclasses.replace(n, seeds=0) for name, n in (("usual", USUAL),)}
        for name, noise in {**same_seeds, "easy": EASY, "usual": USUAL, "hard": HARD}.items():
            found = [year(seed, settings, noise, points) for seed in range(years)]
            moved = [one.promotions for one in found]
            rate = first_night_rate(0, 10, settings, noise, 20 * years, points)
            lines.append(
                f"{margin:<6} {sets:<4} {name:<16} {np.mean(moved):5.2f} / {np.quantile(moved, 0.95):4.1f} / {max(moved):<3}"
                f"  {np.mean([one.gain for one in found]):+6.2f} {np.mean([one.luck for one in found]):+6.2f}  {rate:.3f}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(int(sys.argv[1]) if sys.argv[1:] else 20))
