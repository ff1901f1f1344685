"""Everything Algorithm 1 changes: the two nets, their optimizers' moments, G's average and the step."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Int64
from torch import Tensor

from gan_core.errors import CheckpointError
from gan_core.networks.base import DiscriminatorNet, GeneratorNet, Net
from gan_core.optimizers import Moments, OptimizerName, average_update, zero_moments

AVERAGED = "averaged_generator"  # the group of a checkpoint that holds G's average, where one is kept


@dataclass
class State:
    """A training's state. `tensors()` names all of it; nothing else is needed to go on."""

    generator: GeneratorNet
    discriminator: DiscriminatorNet
    generator_moments: Moments
    discriminator_moments: Moments
    step: Int64[Tensor, ""]  # iterations of Algorithm 1 done
    averaged: GeneratorNet | None = None  # G with a moving average of its weights, where one is kept

    @classmethod
    def initial(
        cls, generator: GeneratorNet, discriminator: DiscriminatorNet, optimizer: OptimizerName, averaged: bool = False
    ) -> "State":
        """The state before the first step: moments at zero, and the average, if one is kept, at G."""
        return cls(
            generator,
            discriminator,
            zero_moments(optimizer, list(generator.parameters())),
            zero_moments(optimizer, list(discriminator.parameters())),
            torch.zeros((), dtype=torch.int64),
            copy.deepcopy(generator) if averaged else None,
        )

    def to(self, device: torch.device) -> "State":
        """The same state on a device."""

        def moved(moments: Moments) -> Moments:
            return {name: [tensor.to(device) for tensor in tensors] for name, tensors in moments.items()}

        return State(
            self.generator.to(device),
            self.discriminator.to(device),
            moved(self.generator_moments),
            moved(self.discriminator_moments),
            self.step.to(device),
            self.averaged.to(device) if self.averaged else None,
        )

    def update_ema(self, decay: float) -> None:
        """Let the average, if one is kept, follow G's weights; `decay` in [0, 1), as in `average_update`."""
        if self.averaged is not None:
            average_update(list(self.averaged.parameters()), list(self.generator.parameters()), decay, self.step)

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """All tensors by group and name (not copies): one group, one file of a checkpoint."""
        return {
            "generator": dict(self.generator.state_dict()),
            "discriminator": dict(self.discriminator.state_dict()),
            "optimizer": {
                "step": self.step,
                **_named_moments("generator", self.generator, self.generator_moments),
                **_named_moments("discriminator", self.discriminator, self.discriminator_moments),
            },
            **({AVERAGED: dict(self.averaged.state_dict())} if self.averaged else {}),
        }

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: what a checkpoint takes, but for its manifest."""
        return sum(tensor.nbytes for named in self.tensors().values() for tensor in named.values())

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Mapping[str, Tensor]], where: object = "checkpoint") -> None:
        """Take over the values of `tensors`, whose groups, names and shapes must be this state's.

        Raises:
            CheckpointError: If they are not.
        """
        for group, mine in self.tensors().items():
            load_tensors(mine, tensors.get(group, {}), f"{where}: {group}")


def step_of(tensors: Mapping[str, Mapping[str, Tensor]]) -> int:
    """The step of a state's tensors."""
    return int(tensors["optimizer"]["step"])


@torch.no_grad()
def load_tensors(mine: Mapping[str, Tensor], theirs: Mapping[str, Tensor], where: object) -> None:
    """Copy `theirs` into `mine`.

    Raises:
        CheckpointError: With the first three differences in names, shapes or types, and values that are not finite.
    """
    differences = [f"{name} is missing" for name in mine.keys() - theirs.keys()]
    differences += [f"{name} is unknown" for name in theirs.keys() - mine.keys()]
    for name in sorted(mine.keys() & theirs.keys()):
        ours, given = mine[name], theirs[name]
        if ours.shape != given.shape or ours.dtype != given.dtype:
            differences.append(f"{name} is {_kind(given)} where the model has {_kind(ours)}")
        elif not torch.isfinite(given).all():
            differences.append(f"{name} is not finite")
    if differences:
        raise CheckpointError(
            "weights do not fit", where, ", ".join(sorted(differences)[:3]), "the architecture of this configuration"
        )
    for name, tensor in mine.items():
        tensor.copy_(theirs[name])


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _named_moments(name_of_net: str, net: Net, moments: Moments) -> dict[str, Tensor]:
    names = [name for name, _ in net.named_parameters()]
    return {
        f"{name_of_net}.{moment}.{name}": tensor
        for moment, tensors in moments.items()
        for name, tensor in zip(names, tensors, strict=True)
    }
