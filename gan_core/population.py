"""Several GANs as one batched program, each of which is, to rounding, the GAN that it would have been alone."""

import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from gan_core.algorithm1 import Ascent, Batch, Descent, Step, StepOutcome, iteration
from gan_core.conditions.base import UNCONDITIONAL, Conditions
from gan_core.data_parallel import Shards
from gan_core.datasets import Examples
from gan_core.draws import Draw, Draws, DrawSource
from gan_core.errors import Diverged
from gan_core.networks.dense import DenseDiscriminator, DenseGenerator, NetworkSettings
from gan_core.state import State
from gan_core.training import BatchSource, Report, TrainingSettings, draw_source, report_metrics

# What is batched are the passes forward and backward, which is where the time goes. Each member's update is its own,
# in place on its views of the population's weights: so rates, momentum, Adam's decays, weight constraints and averages
# may all differ, and are computed by the code that computes them alone. A member has the draws and minibatches that it
# has alone, to the bit; batched products add in another order, and so do those of padded noise, and where a tensor
# begins in memory decides by which kernel: the last bits of its gradients differ, and training enlarges that.

Key = TypeVar("Key", bound=Hashable)
Shared = TypeVar("Shared", Draws, Batch)


@dataclass(frozen=True)
class Member:
    """One GAN of a population: its settings, and its state, which is trained in place."""

    settings: TrainingSettings
    state: State


def program_of(settings: TrainingSettings) -> Hashable | None:
    """What shapes the program: members of one population have it in common. None of nets without a member axis.

    All else may differ: seed, noise, initial weights, dropout, weight constraints, optimizers and their rates and decays,
    the scale of D's loss, the amount of a gradient penalty, the decay of G's average. Where nets are conditioned, the size
    of the noise is part of it.
    """
    network, algorithm = settings.network, settings.algorithm
    if not isinstance(network, NetworkSettings):
        return None
    discriminator = network.discriminator
    return (
        network.generator.hidden,
        network.generator.layer_activations,
        discriminator.units,
        discriminator.pieces,
        (discriminator.input_keep, discriminator.hidden_keep) == (1, 1),
        algorithm.scheme,
        algorithm.generator_loss,
        algorithm.share_draws,
        algorithm.discriminator_steps,
        algorithm.batch_size,
        algorithm.gradient_penalty > 0,
        settings.virtual_shards,
        settings.extension.network_extension,
        settings.noise.size if settings.extension.network_extension.name != "none" else None,
    )


def train_population(
    members: Sequence[Member],
    data: Examples,
    steps: int,
    report_due: Callable[[int], bool],
    conditions: Conditions = UNCONDITIONAL,
) -> Iterator[list[Report[State] | Diverged | None]]:
    """Train members of one program from the step they are at to `steps`, and yield what each reports where one is due.

    In the order of `members`: a report, or how a member has diverged, once; the batch then goes on without it, and its
    place is None. No member changes a bit of another's, not even one of NaN.

    Raises:
        ValueError: If the members' programs or steps differ.
    """
    if len({(program_of(member.settings), int(member.state.step)) for member in members}) != 1:
        raise ValueError("members of a population have one program and one step")
    alive = dict(enumerate(members))
    population = Population(list(alive.values()), data, conditions)
    start = int(members[0].state.step)
    reported, clock = start, time.perf_counter()
    for step in range(start, steps):
        outcome, done = population.train_step(step), step + 1
        if done != steps and not report_due(done):
            continue
        found: list[Report[State] | Diverged | None] = [None] * len(members)
        for place, (number, member) in enumerate(list(alive.items())):
            try:
                own = population.outcome_of(place, outcome)
                metrics = report_metrics(
                    own, member.settings, member.state, data, step, done - reported, clock, conditions
                )
                found[number] = Report(done, metrics, member.state)
            except Diverged as error:
                found[number] = error
                del alive[number]
        yield found
        if not alive:
            return
        if len(alive) < len(population.members):
            population = Population(list(alive.values()), data, conditions)
        reported, clock = done, time.perf_counter()


class Population:
    """The members' weights as one tensor for each layer, with a member axis, of which theirs are views.

    Where noise sizes differ, noise and the first layer's weights are padded with zeros, which no gradient reaches.
    """

    def __init__(self, members: Sequence[Member], data: Examples, conditions: Conditions) -> None:
        self.members = list(members)
        first = members[0]
        network, device = first.settings.network, first.state.step.device
        assert isinstance(network, NetworkSettings), "only dense nets have a member axis"
        axis = (len(members),)
        self.widest = max(member.settings.noise.size for member in members)
        pixels = data.images.shape[1]
        self.generator = DenseGenerator(self.widest, conditions.size, pixels, network.generator, axis).to(device)
        self.discriminator = DenseDiscriminator(pixels, conditions.size, network.discriminator, axis).to(device)
        for place, member in enumerate(members):
            _become_views(member.state.generator.parameters(), self.generator.parameters(), place)
            _become_views(member.state.discriminator.parameters(), self.discriminator.parameters(), place)
        self.state = State(
            conditions.wrap(self.generator), self.discriminator, {}, {}, first.state.step
        )  # its moments are the members' own
        algorithm = first.settings.algorithm
        self.shards = Shards(algorithm.batch_size, first.settings.virtual_shards)
        self.batches = {
            member.settings.seed: BatchSource(member.settings.seed, data, algorithm.batch_size, device, conditions)
            for member in members
        }
        self.loss_scale = self._of_each("discriminator_loss_scale")
        self.gradient_penalty = self._of_each("gradient_penalty")
        self.draws = [draw_source(member.settings, member.state) for member in members]

    def train_step(self, step: int) -> StepOutcome:
        """One iteration of every member, in place."""
        algorithm = self.members[0].settings.algorithm
        per_epoch = next(iter(self.batches.values())).per_epoch
        first = step * algorithm.discriminator_steps
        real = [self._real(first + k) for k in range(algorithm.discriminator_steps)]
        return iteration(_PopulationStep(self, per_epoch), real, self._drawn(step))

    def outcome_of(self, place: int, outcome: StepOutcome) -> StepOutcome:
        """A member's own part of what a step shows of itself."""
        ascent, descent = outcome
        return StepOutcome(
            Ascent([gradient[place] for gradient in ascent.gradients], *(tensor[place] for tensor in ascent[1:])),
            Descent(self.generator_gradients(place, descent.gradients), descent.loss[place]),
        )

    def generator_gradients(self, place: int, gradients: list[Tensor]) -> list[Tensor]:
        """A member's gradients of G, without those of what its noise is padded with."""
        own = self.members[place].state.generator.parameters()
        return [
            gradient[place][: len(parameter)].contiguous() for gradient, parameter in zip(gradients, own, strict=True)
        ]

    def _of_each(self, name: str) -> Tensor:
        values = [getattr(member.settings.algorithm, name) for member in self.members]
        return torch.tensor(values, dtype=torch.float32, device=self.state.step.device)

    def _real(self, index: int) -> Batch:
        by_seed = {seed: source.at(index) for seed, source in self.batches.items()}
        batches = [by_seed[member.settings.seed] for member in self.members]
        return Batch(*(_along_members(tensors) for tensors in zip(*batches, strict=True)))

    def _drawn(self, step: int) -> Draws:
        # Members that differ in neither draw the same numbers, which are drawn once.
        distinct: dict[Hashable, Draws] = {}
        drawn = [_once(distinct, _identity(source), source, step) for source in self.draws]
        generator = self._stacked([draws.generator for draws in drawn])
        updates = zip(*(draws.discriminator for draws in drawn), strict=True)
        return Draws(tuple(self._stacked(list(update)) for update in updates), generator)

    def _stacked(self, draws: list[Draw]) -> Draw:
        noise = _along_members([pad(draw.noise, (0, self.widest - draw.noise.shape[-1])) for draw in draws])
        real, fake = (
            tuple(_along_members(masks) for masks in zip(*sides, strict=True))
            for sides in ([draw.real_masks for draw in draws], [draw.fake_masks for draw in draws])
        )
        return Draw(noise, real, fake)


class _PopulationStep(Step):
    """A step whose gradients are of all members, and whose updates are each member's own."""

    def __init__(self, population: Population, batches_per_epoch: int) -> None:
        members = population.members
        algorithm = members[0].settings.algorithm
        super().__init__(population.state, algorithm, population.shards, batches_per_epoch)
        self.population = population
        self.steps = [
            Step(member.state, member.settings.algorithm, population.shards, batches_per_epoch) for member in members
        ]
        self.loss_scale, self.gradient_penalty = population.loss_scale, population.gradient_penalty

    def update_discriminator(self, gradients: list[Tensor]) -> None:
        """Each member's update of D."""
        for place, step in enumerate(self.steps):
            step.update_discriminator([gradient[place] for gradient in gradients])

    def update_generator(self, gradients: list[Tensor]) -> None:
        """Each member's update of G."""
        for place, step in enumerate(self.steps):
            step.update_generator(self.population.generator_gradients(place, gradients))

    def count(self) -> None:
        """Count every member's iteration."""
        for step in self.steps:
            step.count()


def _become_views(own: Iterator[Tensor], shared: Iterator[Tensor], place: int) -> None:
    """Move a member's weights into the population's, and make them views of it."""
    for parameter, population in zip(own, shared, strict=True):
        view = population.data[place][: len(parameter)]
        view.copy_(parameter.data)
        parameter.data = view


def _along_members(tensors: Sequence[Tensor]) -> Tensor:
    """The members' tensors as one; what all of them share is not copied."""
    if all(tensor is tensors[0] for tensor in tensors):
        return tensors[0].expand(len(tensors), *tensors[0].shape)
    return torch.stack(list(tensors))


def _identity(source: DrawSource) -> Hashable:
    return source.seed, source.noise, tuple(source.dropout)


def _once(distinct: dict[Hashable, Draws], identity: Hashable, source: DrawSource, step: int) -> Draws:
    if identity not in distinct:
        distinct[identity] = source.at(step)
    return distinct[identity]
