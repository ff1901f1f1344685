"""Minibatch training of generative adversarial nets: Algorithm 1, and the published code's variant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from gan_core.data_parallel import Shards
from gan_core.draws import Draw, Draws
from gan_core.losses import GENERATOR_LOSSES, GeneratorLoss, discriminator_loss
from gan_core.optimizers import (
    AdamSettings,
    Moments,
    MomentumSettings,
    OptimizerName,
    adam_update,
    decayed_rate,
    momentum_update,
)
from gan_core.state import State


@dataclass(frozen=True)
class AlgorithmSettings:
    """How G and D are trained. The defaults are the published MNIST recipe.

    `scheme`: `algorithm1` is the paper's text, k ascents of D and then one descent of G;
    `simultaneous` is the published code, whose last update of D and update of G take both
    gradients at the same parameters and apply them at once. `share_draws` lets both use the same
    z and dropout masks, as that code does; so does `discriminator_loss_scale` 1/2.
    """

    scheme: Literal["algorithm1", "simultaneous"] = "simultaneous"
    generator_loss: GeneratorLoss = "non_saturating"
    discriminator_loss_scale: float = 0.5
    share_draws: bool = True
    discriminator_steps: int = 1  # k
    batch_size: int = 100
    steps: int = 50_000
    generator_learning_rate: float = 0.1
    discriminator_learning_rate: float = 0.1
    learning_rate_decay: float = 1.000004  # lr_t = lr_0 / decay^t
    minimum_learning_rate: float = 1e-6
    optimizer: OptimizerName = "momentum"
    momentum: MomentumSettings = field(default_factory=MomentumSettings)
    adam: AdamSettings = field(default_factory=AdamSettings)
    generator_average: float = 0.0  # decay of a moving average of G's weights, kept beside G; 0: none

    def __post_init__(self) -> None:
        for name in ("discriminator_steps", "batch_size", "steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"algorithm.{name} {getattr(self, name)} is not positive; use 1 or more")
        for name in (
            "generator_learning_rate",
            "discriminator_learning_rate",
            "minimum_learning_rate",
            "discriminator_loss_scale",
        ):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"algorithm.{name} {getattr(self, name)} is not a positive number")
        if not 0 <= self.generator_average < 1:
            raise ValueError(f"algorithm.generator_average {self.generator_average} is not in [0, 1)")
        if not 1 <= self.learning_rate_decay < float("inf"):
            raise ValueError(f"algorithm.learning_rate_decay {self.learning_rate_decay} is below 1")


class Batch(NamedTuple):
    """Real examples and what they are conditioned on (width 0 when on nothing)."""

    data: Tensor
    condition: Tensor

    def rows(self, rows: slice) -> "Batch":
        """Some examples of the batch."""
        return Batch(self.data[..., rows, :], self.condition[..., rows, :])


class Ascent(NamedTuple):
    """D's side of an update: the gradients of its loss, and what D made of the batch."""

    gradients: list[Tensor]
    loss: Tensor  # -V(D, G) in nats, before scaling
    real_accuracy: Tensor  # how often D calls the real real
    fake_accuracy: Tensor  # and the fake fake


class Descent(NamedTuple):
    """G's side of an update: the gradients of its loss, and the loss in nats."""

    gradients: list[Tensor]
    loss: Tensor


class StepOutcome(NamedTuple):
    """What a step shows of itself: its last ascent and its descent, as means over the global batch."""

    ascent: Ascent
    descent: Descent


def train_step(
    state: State,
    batches: Sequence[Batch],
    draws: Draws,
    settings: AlgorithmSettings,
    shards: Shards,
    batches_per_epoch: int,
) -> StepOutcome:
    """One iteration, in place on `state`: k updates of D, one of G, and the step counted.

    `batches` holds k minibatches and `draws` the randomness, both restricted to this worker's rows.
    """
    step = Step(state, settings, shards, batches_per_epoch)
    *alone, last = zip(batches, draws.discriminator, strict=True)
    for batch, draw in alone:
        step.update_discriminator(step.ascent(batch, draw).gradients)
    if settings.scheme == "algorithm1":
        ascent = step.ascent(*last)
        step.update_discriminator(ascent.gradients)
        descent = step.descent(last[0], draws.generator)
    elif settings.share_draws:
        ascent, descent = step.ascent_and_descent(*last)
        step.update_discriminator(ascent.gradients)
    else:
        ascent, descent = step.ascent(*last), step.descent(last[0], draws.generator)
        step.update_discriminator(ascent.gradients)
    step.update_generator(descent.gradients)
    state.step.add_(1)
    return StepOutcome(ascent, descent)


class Step:
    """The parts of one iteration: gradients, as means over the shards (each gives its share), and updates."""

    def __init__(self, state: State, settings: AlgorithmSettings, shards: Shards, batches_per_epoch: int) -> None:
        self.state, self.settings, self.shards = state, settings, shards
        self.generator_parameters = list(state.generator.parameters())
        self.discriminator_parameters = list(state.discriminator.parameters())
        self.discriminator_updates = 0
        # An epoch is counted in D's minibatches, k of them a step.
        epoch = state.step.to(torch.float64) * settings.discriminator_steps / batches_per_epoch
        self.momentum = settings.momentum.at(epoch).to(torch.float32)

    def ascent(self, batch: Batch, draw: Draw) -> Ascent:
        """The gradient of D's loss at the current parameters."""

        def of_rows(rows: slice) -> list[Tensor]:
            shard, drawn = batch.rows(rows), draw.rows(rows)
            with torch.no_grad():
                fake = self.state.generator(drawn.noise, shard.condition)
            real_logits, fake_logits = self._judge(shard, fake, drawn)
            loss, *seen = self._seen(real_logits, fake_logits)
            return [*self._gradients(loss, self.discriminator_parameters), loss.detach(), *seen]

        *gradients, loss, real_accuracy, fake_accuracy = self.shards.sum(of_rows)
        return Ascent(gradients, loss, real_accuracy, fake_accuracy)

    def descent(self, batch: Batch, draw: Draw) -> Descent:
        """The gradient of G's loss at the current parameters, D's dropout on."""

        def of_rows(rows: slice) -> list[Tensor]:
            condition, drawn = batch.rows(rows).condition, draw.rows(rows)
            fake = self.state.generator(drawn.noise, condition)
            loss = self._generator_loss(self.state.discriminator(fake, condition, drawn.fake_masks))
            return [*torch.autograd.grad(loss.sum(), self.generator_parameters), loss.detach()]

        *gradients, loss = self.shards.sum(of_rows)
        return Descent(gradients, loss)

    def ascent_and_descent(self, batch: Batch, draw: Draw) -> tuple[Ascent, Descent]:
        """Both gradients at the current parameters on the same draw: one forward pass serves both."""

        def of_rows(rows: slice) -> list[Tensor]:
            shard, drawn = batch.rows(rows), draw.rows(rows)
            fake = self.state.generator(drawn.noise, shard.condition)
            real_logits, fake_logits = self._judge(shard, fake, drawn)
            loss, *seen = self._seen(real_logits, fake_logits)
            of_discriminator = self._gradients(loss, self.discriminator_parameters, retain_graph=True)
            generator_loss = self._generator_loss(fake_logits)
            of_generator = torch.autograd.grad(generator_loss.sum(), self.generator_parameters)
            return [*of_discriminator, *of_generator, loss.detach(), *seen, generator_loss.detach()]

        *gradients, loss, real_accuracy, fake_accuracy, generator_loss = self.shards.sum(of_rows)
        split = len(self.discriminator_parameters)
        ascent = Ascent(gradients[:split], loss, real_accuracy, fake_accuracy)
        return ascent, Descent(gradients[split:], generator_loss)

    def update_discriminator(self, gradients: list[Tensor]) -> None:
        """Apply D's optimizer, then its weight constraint."""
        updates = self.state.step * self.settings.discriminator_steps + self.discriminator_updates
        rate, moments = self.settings.discriminator_learning_rate, self.state.discriminator_moments
        self._update(self.discriminator_parameters, gradients, moments, rate, updates)
        self.state.discriminator.apply_weight_constraint()
        self.discriminator_updates += 1

    def update_generator(self, gradients: list[Tensor]) -> None:
        """Apply G's optimizer, then its weight constraint, and follow with the average."""
        rate, moments = self.settings.generator_learning_rate, self.state.generator_moments
        self._update(self.generator_parameters, gradients, moments, rate, self.state.step)
        self.state.generator.apply_weight_constraint()
        self.state.update_ema(self.settings.generator_average)

    def _judge(self, batch: Batch, fake: Tensor, draw: Draw) -> tuple[Tensor, Tensor]:
        """D's logits of the real and the fake rows, from one pass over both."""
        masks = [torch.cat(pair, dim=-2) for pair in zip(draw.real_masks, draw.fake_masks, strict=True)]
        data, condition = torch.cat([batch.data, fake], dim=-2), torch.cat([batch.condition] * 2, dim=-2)
        logits = self.state.discriminator(data, condition, masks)
        real_logits, fake_logits = logits.split(logits.shape[-1] // 2, dim=-1)
        return real_logits, fake_logits

    def _seen(self, real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        share, loss = self.shards.share, discriminator_loss(real_logits, fake_logits)
        real_right, fake_right = (right.float().mean(dim=-1) for right in (real_logits > 0, fake_logits < 0))
        return share * loss, share * real_right, share * fake_right

    def _gradients(self, loss: Tensor, parameters: Sequence[Tensor], retain_graph: bool = False) -> list[Tensor]:
        # The sum over members gives every member exactly its own gradient.
        scaled = self.settings.discriminator_loss_scale * loss.sum()
        return list(torch.autograd.grad(scaled, parameters, retain_graph=retain_graph))

    def _generator_loss(self, fake_logits: Tensor) -> Tensor:
        return self.shards.share * GENERATOR_LOSSES[self.settings.generator_loss](fake_logits)

    def _update(
        self,
        parameters: Sequence[Tensor],
        gradients: list[Tensor],
        moments: Moments,
        initial_rate: float,
        updates: Tensor,
    ) -> None:
        settings = self.settings
        rate = decayed_rate(initial_rate, settings.learning_rate_decay, settings.minimum_learning_rate, self.state.step)
        if settings.optimizer == "momentum":
            momentum_update(parameters, gradients, moments, rate, self.momentum)
        else:
            adam_update(parameters, gradients, moments, rate, updates, settings.adam)
