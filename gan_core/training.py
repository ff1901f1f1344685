"""The loop over steps that Ray Train workers, Tune trials and plain scripts all run."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
import torch
from torch import Tensor

from gan_core import networks
from gan_core.algorithm1 import AlgorithmSettings, Batch, StepOutcome, train_step
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.conditions.settings import ExtensionSettings
from gan_core.data_parallel import Shards
from gan_core.datasets import Examples
from gan_core.deterministic import deterministic_convolutions
from gan_core.draws import DrawSource
from gan_core.errors import DataError, Diverged
from gan_core.networks import Architecture
from gan_core.networks.base import GeneratorNet
from gan_core.networks.dense import NetworkSettings
from gan_core.noise import NoiseSettings, draw_noise
from gan_core.objectives import OBJECTIVES, Objective
from gan_core.randomness import stream
from gan_core.state import State
from gan_core.theory import jensen_shannon_bound

AnyState = TypeVar("AnyState")  # of Algorithm 1, or of what is trained once G is fixed


@dataclass(frozen=True)
class TrainingSettings:
    """All that decides a training's weights, beside the data: two equal ones give the same bits."""

    seed: int = 0
    noise: NoiseSettings = field(default_factory=NoiseSettings)
    network: Architecture = field(default_factory=NetworkSettings)
    algorithm: AlgorithmSettings = field(default_factory=AlgorithmSettings)
    virtual_shards: int = 1
    extension: ExtensionSettings = field(default_factory=ExtensionSettings)


@dataclass(frozen=True)
class Report(Generic[AnyState]):
    """The metrics of one step, and the state after it (the live one: copy what you keep)."""

    step: int
    metrics: dict[str, float]
    state: AnyState


def initial_state(
    settings: TrainingSettings,
    data: Examples,
    image_shape: tuple[int, ...] | None = None,
    conditions: Conditions = UNCONDITIONAL,
) -> State:
    """G, D and their optimizers before the first step; convolutional nets need the images' shape.

    Raises:
        ConfigurationError: If the architecture is not one for such images.
    """
    generator, discriminator = networks.build(
        settings.network,
        noise_size=settings.noise.size,
        data_size=data.images.shape[1],
        seed=settings.seed,
        condition_size=conditions.size,
        pixel_means=data.pixel_means,
        image_shape=image_shape,
    )
    averaged = settings.algorithm.generator_average > 0
    return State.initial(conditions.wrap(generator), discriminator, settings.algorithm.optimizer, averaged)


def train(
    settings: TrainingSettings,
    data: Examples,
    state: State,
    steps: int,
    report_due: Callable[[int], bool],
    shards: Shards | None = None,
    conditions: Conditions = UNCONDITIONAL,
) -> Iterator[Report[State]]:
    """Run Algorithm 1 from `state.step` to `steps`, in place, and yield a report wherever one is due.

    The last step is always reported. `shards` says which rows of each batch are this worker's; by
    default all of them. `conditions` are what the nets are conditioned on.

    Raises:
        Diverged: If a loss or a gradient norm of a reported step is not finite.
    """
    algorithm = settings.algorithm
    shards = shards or Shards(algorithm.batch_size, settings.virtual_shards)
    batches = BatchSource(settings.seed, data, algorithm.batch_size, state.step.device, conditions)
    draws = draw_source(settings, state)
    start = int(state.step)
    reported, clock = start, time.perf_counter()
    for step in range(start, steps):
        first = step * algorithm.discriminator_steps
        real = [batches.at(first + k, shards.rows) for k in range(algorithm.discriminator_steps)]
        outcome = train_step(state, real, draws.at(step, shards.rows), algorithm, shards, batches.per_epoch)
        done = step + 1
        if done == steps or report_due(done):
            metrics = report_metrics(outcome, settings, state, data, step, done - reported, clock, conditions)
            yield Report(done, metrics, state)
            reported, clock = done, time.perf_counter()


def draw_source(settings: TrainingSettings, state: State) -> DrawSource:
    """The draws of a training, made where its state is."""
    algorithm = settings.algorithm
    return DrawSource(
        settings.seed,
        settings.noise,
        state.discriminator.dropout,
        algorithm.batch_size,
        algorithm.discriminator_steps,
        algorithm.share_draws,
        state.step.device,
    )


def report_metrics(
    outcome: StepOutcome,
    settings: TrainingSettings,
    state: State,
    data: Examples,
    step: int,
    steps: int,
    since: float,
    conditions: Conditions = UNCONDITIONAL,
) -> dict[str, float]:
    """What is reported of a step (counted from 0) once it is done, `state` being the one after it.

    Its speed is that of the last `steps`, since `time.perf_counter()` was `since`: until their numbers are there, for which
    a GPU is waited for.

    Raises:
        Diverged: If a loss or a gradient norm is not finite.
    """
    algorithm, done = settings.algorithm, step + 1
    metrics = step_metrics(outcome, OBJECTIVES[algorithm.generator_loss])
    variance = variance_of_samples(state.generator, settings, step, conditions)
    metrics["sample_variance"] = variance / data.total_variance
    steps_per_second = steps / (time.perf_counter() - since)
    metrics["epoch"] = done * algorithm.discriminator_steps / (len(data.images) // algorithm.batch_size)
    metrics["steps_per_second"] = steps_per_second
    metrics["images_per_second"] = steps_per_second * algorithm.discriminator_steps * algorithm.batch_size
    _check_finite(done, metrics)
    return metrics


@dataclass(frozen=True)
class BatchSource:
    """Minibatches of real examples: a permutation of the data for each epoch, drawn from the seed.

    The examples that do not fill a last minibatch of an epoch are left out of that epoch.
    """

    seed: int
    data: Examples
    batch_size: int
    device: torch.device = torch.device("cpu")
    conditions: Conditions = UNCONDITIONAL
    _order: dict[int, np.ndarray] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if len(self.data) < self.batch_size:
            raise DataError(
                "fewer examples than one batch",
                "minibatches",
                f"{len(self.data)} examples",
                f"algorithm.batch_size {self.batch_size} or more",
            )

    @property
    def per_epoch(self) -> int:
        """Minibatches in an epoch."""
        return len(self.data.images) // self.batch_size

    def at(self, index: int, rows: slice = slice(None)) -> Batch:
        """The rows of the index-th minibatch since the first epoch."""
        epoch, position = divmod(index, self.per_epoch)
        if epoch not in self._order:
            self._order.clear()
            self._order[epoch] = stream(self.seed, "minibatches", epoch).permutation(len(self.data.images))
        chosen = self._order[epoch][position * self.batch_size : (position + 1) * self.batch_size]
        if self.conditions.size == 0:
            images = torch.from_numpy(self.data.images[chosen[rows]]).to(self.device)
            return Batch(images, images.new_empty(len(images), 0))
        examples = self.data[chosen]  # all of them: what is random about conditions is drawn for the whole minibatch
        condition = self.conditions.encode(examples.images, examples.labels, stream(self.seed, "conditions", index))
        images = torch.from_numpy(examples.images[rows])
        return Batch(images.to(self.device), condition[rows].to(self.device))


def step_metrics(outcome: StepOutcome, objective: Objective) -> dict[str, float]:
    """A step's losses, V(D, G) and its bound on the JSD, D's accuracies and the gradients' norms.

    V, in nats, is that of one minibatch under dropout, before D is updated on it: see `jensen_shannon_bound`
    for why it still is a lower bound, and on what. An objective without V has neither.
    """
    ascent, descent = outcome
    loss = float(ascent.loss)
    return {
        "discriminator_loss": loss,
        "generator_loss": float(descent.loss),
        **({"value": -loss, "jensen_shannon_bound": jensen_shannon_bound(-loss)} if objective.has_value else {}),
        "real_accuracy": float(ascent.real_accuracy),
        "fake_accuracy": float(ascent.fake_accuracy),
        "discriminator_gradient_norm": _norm(ascent.gradients),
        "generator_gradient_norm": _norm(descent.gradients),
    }


def variance_of_samples(
    generator: GeneratorNet, settings: TrainingSettings, step: int, conditions: Conditions = UNCONDITIONAL
) -> float:
    """The total variance, over pixels, of one batch of samples: 0 for a G that ignores z.

    A report gives it in units of the training images' own.
    """
    count, device = settings.algorithm.batch_size, next(generator.parameters()).device
    noise = draw_noise(stream(settings.seed, "reported samples", step), count, settings.noise)
    condition = conditions.sample_prior(count, stream(settings.seed, "reported samples' conditions", step))
    images = sample(generator, noise.to(device), condition.to(device))
    return float(images.double().var(dim=0, correction=0).sum())


@deterministic_convolutions()
def sample(generator: GeneratorNet, noise: Tensor, condition: Tensor | None = None) -> Tensor:
    """G(z | c), without gradients and in blocks that bound the memory; with no condition, G(z)."""
    condition = noise.new_empty(len(noise), 0) if condition is None else condition
    with torch.no_grad():
        return torch.cat([generator(*block) for block in zip(noise.split(1000), condition.split(1000), strict=True)])


def _norm(gradients: list[Tensor]) -> float:
    return float(torch.stack(torch._foreach_norm(gradients)).norm())


def _check_finite(step: int, metrics: dict[str, float]) -> None:
    broken = [f"{name} {value}" for name, value in metrics.items() if not math.isfinite(value)]
    if broken:
        raise Diverged(
            "training diverged", f"step {step}", ", ".join(broken), "finite losses; lower the learning rates"
        )
