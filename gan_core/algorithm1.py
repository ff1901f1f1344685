"""Minibatch training of generative adversarial nets: Algorithm 1, and the published code's variant."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gan_core.data_parallel import Shards
from gan_core.deterministic import deterministic_convolutions
from gan_core.draws import Draw, Draws
from gan_core.objectives import OBJECTIVES, ObjectiveName
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
    z and dropout masks, as that code does; so does `discriminator_loss_scale` 1/2. `generator_loss` names
    the objective, a pair of losses: the paper's three share Eq. 1's loss of D.

    `gradient_penalty` is gamma of R1 (Mescheder et al. 2018, Eq. 9): D's loss has gamma / 2 times the mean over real
    examples of |grad_x logit(x)|^2 besides, with which a D that would win stays one that G can learn from.
    """

    scheme: Literal["algorithm1", "simultaneous"] = "simultaneous"
    generator_loss: ObjectiveName = "non_saturating"
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
    gradient_penalty: float = 0.0
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
        if not 0 <= self.gradient_penalty < float("inf"):
            raise ValueError(f"algorithm.gradient_penalty {self.gradient_penalty} is not 0 or a positive number")
        if not 0 <= self.generator_average < 1:
            raise ValueError(f"algorithm.generator_average {self.generator_average} is not in [0, 1)")
        if not 1 <= self.learning_rate_decay < float("inf"):
            raise ValueError(f"algorithm.learning_rate_decay {self.learning_rate_decay} is below 1")


class Batch(NamedTuple):
    """Real examples and what they are conditioned on (width 0 when on nothing)."""

    data: Float[Tensor, "*members batch pixels"]
    condition: Float[Tensor, "*members batch size"]

    def rows(self, rows: slice) -> "Batch":
        """Some examples of the batch."""
        return Batch(self.data[..., rows, :], self.condition[..., rows, :])


class Ascent(NamedTuple):
    """D's side of an update: the gradients of its loss, and what D made of the batch."""

    gradients: list[Tensor]  # one a parameter of D, as it is shaped
    loss: Float[Tensor, "*members"]  # before scaling and penalty; -V(D, G) in nats, if the objective has a V
    real_accuracy: Float[Tensor, "*members"]  # how often D calls the real real
    fake_accuracy: Float[Tensor, "*members"]  # and the fake fake


class Descent(NamedTuple):
    """G's side of an update: the gradients of its loss, and the loss (in nats, if the objective has a V)."""

    gradients: list[Tensor]  # one a parameter of G, as it is shaped
    loss: Float[Tensor, "*members"]


class Logits(NamedTuple):
    """What D makes of a shard: of its real examples, which a gradient penalty differentiates by, and of the fakes."""

    examples: Float[Tensor, "*members batch pixels"]
    real: Float[Tensor, "*members batch"]
    fake: Float[Tensor, "*members batch"]


class StepOutcome(NamedTuple):
    """What a step shows of itself: its last ascent and its descent, as means over the global batch."""

    ascent: Ascent
    descent: Descent


@deterministic_convolutions()
def train_step(
    state: State,
    batches: Sequence[Batch],
    draws: Draws,
    settings: AlgorithmSettings,
    shards: Shards,
    batches_per_epoch: int,
) -> StepOutcome:
    """One iteration, in place on `state`: k updates of D, one of G, and the step counted.

    `batches` holds k minibatches and `draws` the randomness, both restricted to this worker's rows: as many
    of the batch as `shards.rows`. An epoch has `batches_per_epoch` minibatches, k of which a step takes.

    Raises:
        ValueError: If there are not k of both.
    """
    return iteration(Step(state, settings, shards, batches_per_epoch), batches, draws)


def iteration(step: "Step", batches: Sequence[Batch], draws: Draws) -> StepOutcome:
    """The updates of one iteration in their order, whatever they are made of: one net's, or a population's."""
    settings = step.settings
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
    step.count()
    return StepOutcome(ascent, descent)


class Step:
    """The parts of one iteration: gradients, as means over the shards (each gives its share), and updates."""

    def __init__(self, state: State, settings: AlgorithmSettings, shards: Shards, batches_per_epoch: int) -> None:
        self.state, self.settings, self.shards = state, settings, shards
        self.objective = OBJECTIVES[settings.generator_loss]
        self.generator_parameters = list(state.generator.parameters())
        self.discriminator_parameters = list(state.discriminator.parameters())
        self.discriminator_updates = 0
        # Of a population, one for each member.
        self.loss_scale: float | Tensor = settings.discriminator_loss_scale
        self.gradient_penalty: float | Tensor = settings.gradient_penalty
        # An epoch is counted in D's minibatches, k of them a step.
        epoch = state.step.to(torch.float64) * settings.discriminator_steps / batches_per_epoch
        self.momentum = settings.momentum.at(epoch).to(torch.float32)

    def ascent(self, batch: Batch, draw: Draw) -> Ascent:
        """The gradient of D's loss at the current parameters."""

        def shard_gradients(rows: slice) -> Ascent:
            shard, drawn = batch.rows(rows), draw.rows(rows)
            with torch.no_grad():
                fake = self.state.generator(drawn.noise, shard.condition)
            return self._ascent(self._logits(shard, fake, drawn))

        return self.shards.sum(shard_gradients)

    def descent(self, batch: Batch, draw: Draw) -> Descent:
        """The gradient of G's loss at the current parameters, D's dropout on."""

        def shard_gradients(rows: slice) -> Descent:
            condition, drawn = batch.rows(rows).condition, draw.rows(rows)
            fake = self.state.generator(drawn.noise, condition)
            return self._descent(self.state.discriminator(fake, condition, drawn.fake_masks))

        return self.shards.sum(shard_gradients)

    def ascent_and_descent(self, batch: Batch, draw: Draw) -> StepOutcome:
        """Both gradients at the current parameters on the same draw: one forward pass serves both."""

        def shard_gradients(rows: slice) -> StepOutcome:
            shard, drawn = batch.rows(rows), draw.rows(rows)
            fake = self.state.generator(drawn.noise, shard.condition)
            logits = self._logits(shard, fake, drawn)
            return StepOutcome(self._ascent(logits, retain_graph=True), self._descent(logits.fake))

        return self.shards.sum(shard_gradients)

    def update_discriminator(self, gradients: list[Tensor]) -> None:
        """Apply D's optimizer, then its weight constraint."""
        updates = self.state.step * self.settings.discriminator_steps + self.discriminator_updates
        rate, moments = self.settings.discriminator_learning_rate, self.state.discriminator_moments
        self._update(self.discriminator_parameters, gradients, moments, rate, updates)
        self.state.discriminator.apply_weight_constraint()
        self.discriminator_updates += 1

    def update_generator(self, gradients: list[Tensor]) -> None:
        """Apply G's optimizer, then its weight constraint, and let the average follow."""
        rate, moments = self.settings.generator_learning_rate, self.state.generator_moments
        self._update(self.generator_parameters, gradients, moments, rate, self.state.step)
        self.state.generator.apply_weight_constraint()
        self.state.update_ema(self.settings.generator_average)

    def count(self) -> None:
        """Count the iteration."""
        self.state.step.add_(1)

    def _logits(self, batch: Batch, fake: Float[Tensor, "*members batch pixels"], draw: Draw) -> Logits:
        """D's logits of the real and the fake rows, from one pass over both."""
        real = batch.data.requires_grad_() if self.settings.gradient_penalty else batch.data
        masks = [torch.cat(pair, dim=-2) for pair in zip(draw.real_masks, draw.fake_masks, strict=True)]
        data, condition = torch.cat([real, fake], dim=-2), torch.cat([batch.condition] * 2, dim=-2)
        logits = self.state.discriminator(data, condition, masks)
        return Logits(real, *logits.split(logits.shape[-1] // 2, dim=-1))

    def _ascent(self, logits: Logits, retain_graph: bool = False) -> Ascent:
        """A shard's share of D's side."""
        loss, real_accuracy, fake_accuracy = self._loss_and_accuracies(logits)
        # The sum over members gives every member exactly its own gradient.
        minimised = (self.loss_scale * loss).sum()
        if self.settings.gradient_penalty:
            minimised = minimised + self.shards.share * self._gradient_penalty(logits).sum()
        gradients = torch.autograd.grad(minimised, self.discriminator_parameters, retain_graph=retain_graph)
        # A second derivative of a convolution may be laid out otherwise than its weights, which fused optimizers mix up.
        return Ascent([gradient.contiguous() for gradient in gradients], loss.detach(), real_accuracy, fake_accuracy)

    def _gradient_penalty(self, logits: Logits) -> Float[Tensor, "*members"]:
        """gamma / 2 times the mean of |grad_x logit(x)|^2 over the real rows: no row's logit depends on another's."""
        (gradient,) = torch.autograd.grad(logits.real.sum(), logits.examples, create_graph=True)
        return self.gradient_penalty / 2 * gradient.square().sum(dim=-1).mean(dim=-1)

    def _descent(self, fake_logits: Tensor) -> Descent:
        """A shard's share of G's side."""
        loss = self.shards.share * self.objective.generator_loss(fake_logits)
        return Descent(list(torch.autograd.grad(loss.sum(), self.generator_parameters)), loss.detach())

    def _loss_and_accuracies(self, logits: Logits) -> tuple[Tensor, Tensor, Tensor]:
        share, decision = self.shards.share, self.objective.decision
        loss = self.objective.discriminator_loss(logits.real, logits.fake)
        right = (logits.real > decision, logits.fake < decision)
        real_accuracy, fake_accuracy = (share * rows.float().mean(dim=-1) for rows in right)
        return share * loss, real_accuracy, fake_accuracy

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
