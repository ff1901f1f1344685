"""Efficiency: D kept in step with G by its own accuracy, and a prior of z that changes during training (section 7)."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from gan_core.algorithm1 import AlgorithmSettings, train_step
from gan_core.data_parallel import Shards
from gan_core.datasets import Examples
from gan_core.draws import Draw, Draws, DrawSource
from gan_core.state import State
from gan_core.training import BatchSource, TrainingSettings

# Algorithm 1 is not touched: each step is told its own settings and is given its own z.


@dataclass(frozen=True)
class Pace:
    """What the coordination of a step is chosen by: D's smoothed accuracy, and the share of the training that is done."""

    accuracy: float = 0.5  # D's, over real and fake, dropout on; 1/2 where it cannot tell
    done: float = 0.0

    def after(self, accuracy: float, done: float, memory: float = 0.95) -> "Pace":
        """The pace after a step, its accuracy entering the moving average."""
        return Pace(memory * self.accuracy + (1 - memory) * accuracy, done)


@dataclass(frozen=True)
class Coordination:
    """How k, D's rate and the width of z follow the pace; the defaults change nothing.

    D takes `most_steps` steps for one of G's while its accuracy is below `target`, and its rate is
    multiplied by exp(gain (target - accuracy)): a D that wins is slowed down. z is multiplied by a
    width that goes linearly from `first_width` to 1 over the first half of the training.
    """

    most_steps: int = 1  # k while D is behind
    gain: float = 0.0
    target: float = 0.75
    first_width: float = 1.0

    def __post_init__(self) -> None:
        if self.most_steps < 1:
            raise ValueError(f"most_steps {self.most_steps} is not positive; use 1 or more")
        if not 0.5 < self.target < 1:
            raise ValueError(f"target {self.target} is not an accuracy in (0.5, 1)")
        if not (math.isfinite(self.gain) and 0 < self.first_width < math.inf):
            raise ValueError(f"gain {self.gain} or first_width {self.first_width} is not a number that can be used")

    def settings(self, base: AlgorithmSettings, pace: Pace) -> AlgorithmSettings:
        """The settings of the next step."""
        steps = self.most_steps if pace.accuracy < self.target else 1
        rate = base.discriminator_learning_rate * math.exp(self.gain * (self.target - pace.accuracy))
        if (steps, rate) == (base.discriminator_steps, base.discriminator_learning_rate):
            return base
        return replace(base, discriminator_steps=steps, discriminator_learning_rate=rate)

    def width(self, pace: Pace) -> float:
        """What the next step's z is multiplied by."""
        return self.first_width + (1 - self.first_width) * min(1.0, 2 * pace.done)


@dataclass(frozen=True)
class Progress:
    """After a step: how many real images D has seen, its pace, and the live state."""

    step: int
    images: int
    pace: Pace
    state: State


def train_coordinated(
    settings: TrainingSettings,
    data: Examples,
    state: State,
    images: int,
    coordination: Coordination,
    report_due: Callable[[int], bool] = lambda step: False,
) -> Iterator[Progress]:
    """Algorithm 1 in place on a fresh `state` until D has seen `images` real images; the last step is always reported.

    With the default coordination it makes the bits of `gan_core.training.train`.
    """
    algorithm = settings.algorithm
    if algorithm.discriminator_steps != 1:
        raise ValueError(f"discriminator_steps {algorithm.discriminator_steps} is not 1; most_steps takes its place")
    size, most = algorithm.batch_size, coordination.most_steps
    batches = BatchSource(settings.seed, data, size, state.step.device)
    source = DrawSource(
        settings.seed, settings.noise, state.discriminator.dropout, size, most, algorithm.share_draws, state.step.device
    )
    shards, pace, used, step = Shards(size, settings.virtual_shards), Pace(), 0, 0
    while used * size < images:
        now = coordination.settings(algorithm, pace)
        real = [batches.at(used + k) for k in range(now.discriminator_steps)]
        draws = _scaled(source.at(step), now.discriminator_steps, coordination.width(pace))
        outcome = train_step(state, real, draws, now, shards, batches.per_epoch)
        used, step = used + now.discriminator_steps, step + 1
        accuracy = float(outcome.ascent.real_accuracy + outcome.ascent.fake_accuracy) / 2
        pace = pace.after(accuracy, used * size / images)
        if used * size >= images or report_due(step):
            yield Progress(step, used * size, pace, state)


def _scaled(draws: Draws, steps: int, width: float) -> Draws:
    """The last `steps` draws of D's, and G's, with z of another width; a draw that both share stays shared."""

    def scaled(draw: Draw) -> Draw:
        return draw if width == 1 else draw._replace(noise=draw.noise * width)

    return Draws(tuple(map(scaled, draws.discriminator[-steps:])), scaled(draws.generator))
