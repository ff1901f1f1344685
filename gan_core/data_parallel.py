"""Gradients averaged over virtual shards as one binary tree, over any number of workers."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain
from typing import Any, TypeVar

import torch
import torch.distributed as distributed
from torch import Tensor

# Floating-point addition does not associate: a mean over 2 workers of 2 shards and one over 4
# workers of 1 shard differ in their last bits, unless both add in one order. The order here is the
# balanced binary tree over all V shards. A worker's shards are consecutive, so it adds a subtree,
# and workers then add subtrees pairwise; since a + b = b + a to the bit, every worker gets the
# same sum, whatever their number.

Tensors = TypeVar("Tensors", bound=Sequence[Any])  # tensors in lists and named tuples, of any depth


@dataclass(frozen=True)
class Shards:
    """How a batch of `batch_size` rows is divided: V shards in all, shared evenly by the workers."""

    batch_size: int
    virtual: int = 1
    workers: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        for name, count in (("train.virtual_shards", self.virtual), ("train.workers", self.workers)):
            if count < 1 or count & (count - 1):
                raise ValueError(f"{name} {count} is not a power of two")
        if self.virtual % self.workers:
            raise ValueError(f"train.virtual_shards {self.virtual} cannot be shared by {self.workers} workers")
        if self.batch_size % self.virtual:
            lower = self.batch_size // self.virtual * self.virtual
            usable = f"{lower} or {lower + self.virtual}" if lower else f"{self.virtual}"
            raise ValueError(
                f"algorithm.batch_size {self.batch_size} cannot be shared by {self.virtual} shards; use {usable}"
            )

    @property
    def rows(self) -> slice:
        """This worker's rows of the global batch."""
        size = self.batch_size // self.workers
        return slice(self.rank * size, (self.rank + 1) * size)

    @property
    def share(self) -> float:
        """What a shard counts for in a mean: 1/V, a power of two, by which a loss and its gradients scale exactly."""
        return 1 / self.virtual

    def sum(self, share_of: Callable[[slice], Tensors]) -> Tensors:
        """The sum over all shards of what `share_of` computes from a shard's rows, tensor by tensor.

        That is the mean where each shard computes `share` times its own: in the loss it costs nothing,
        while to scale the sum of all gradients would be one more pass over them. Each worker calls it with
        its own shards (rows counted from its first row) and all of them get the same bits.
        """
        size = self.batch_size // self.virtual
        count = self.virtual // self.workers
        shards = (share_of(slice(i * size, (i + 1) * size)) for i in range(count))
        first = next(shards)
        total = tree_sum(map(_flat, chain([first], shards)))
        return _shaped(butterfly_sum(total, self.rank, self.workers) if self.workers > 1 else total, first)


def _flat(shard: Sequence[Any]) -> list[Tensor]:
    return [tensor for part in shard for tensor in ([part] if isinstance(part, Tensor) else _flat(part))]


def _shaped(tensors: Iterable[Tensor], like: Tensors) -> Tensors:
    """The tensors of `_flat` in the lists and named tuples they came in."""

    def shaped(like: Any) -> Any:
        parts = [next(rest) if isinstance(part, Tensor) else shaped(part) for part in like]
        return parts if isinstance(like, list) else type(like)(*parts)

    rest: Iterator[Tensor] = iter(tensors)
    return shaped(like)


def tree_sum(shards: Iterable[list[Tensor]]) -> list[Tensor]:
    """The sum of 2^n lists of tensors, pairs first (in place: the first list becomes the sum).

    Two subtrees of a size are added as soon as both are there, so n + 1 lists exist at a time.
    """
    subtrees: list[tuple[int, list[Tensor]]] = []
    for total in shards:
        size = 1
        while subtrees and subtrees[-1][0] == size:
            _, left = subtrees.pop()
            torch._foreach_add_(left, total)
            size, total = 2 * size, left
        subtrees.append((size, total))
    ((_, total),) = subtrees
    return total


def butterfly_sum(tensors: list[Tensor], rank: int, workers: int) -> list[Tensor]:
    """The workers' sums added pairwise: with the neighbour, then between pairs, and so on.

    log2(workers) sums of one flat buffer over pairs of workers; after the last, all hold the root's
    bits. A sum over a pair is one addition, whichever of the two does it.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    for group in _pair_groups(rank, workers, distributed.group.WORLD):
        distributed.all_reduce(flat, group=group)
    sizes = [tensor.numel() for tensor in tensors]
    return [part.view_as(tensor) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]


@cache
def _pair_groups(rank: int, workers: int, world: object) -> list[Any]:
    """This worker's pair at each distance 1, 2, 4, .. (all workers make all groups, as they must)."""
    if workers == 2:
        return [world]
    mine: list[Any] = []
    for distance in (2**level for level in range(workers.bit_length() - 1)):
        for first in range(workers):
            if not first & distance:
                group = distributed.new_group([first, first | distance])
                if rank in (first, first | distance):
                    mine.append(group)
    return mine
