"""Gradients averaged over virtual shards as one binary tree, over any number of workers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as distributed
from torch import Tensor

# Floating-point addition does not associate: a mean over 2 workers of 2 shards and one over 4
# workers of 1 shard differ in their last bits, unless both add in one order. The order here is the
# balanced binary tree over all V shards. A worker's shards are consecutive, so it adds a subtree,
# and workers then add subtrees pairwise; since a + b = b + a to the bit, every worker gets the
# same sum, whatever their number.


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
            lower = self.batch_size - self.batch_size % self.virtual
            raise ValueError(
                f"algorithm.batch_size {self.batch_size} cannot be shared by {self.virtual} shards; "
                f"use {lower or self.virtual} or {lower + self.virtual}"
            )

    @property
    def rows(self) -> slice:
        """This worker's rows of the global batch."""
        size = self.batch_size // self.workers
        return slice(self.rank * size, (self.rank + 1) * size)

    def mean(self, gradients_of: Callable[[slice], list[Tensor]]) -> list[Tensor]:
        """The mean over all shards of what `gradients_of` computes from a shard's rows.

        Each worker calls it with its own shards (rows counted from its first row) and all of them
        get the same bits.
        """
        size = self.batch_size // self.virtual
        local = [gradients_of(slice(i * size, (i + 1) * size)) for i in range(self.virtual // self.workers)]
        total = tree_sum(local)
        if self.workers > 1:
            total = butterfly_sum(total, self.rank, self.workers)
        if self.virtual > 1:
            torch._foreach_mul_(total, 1 / self.virtual)
        return total


def tree_sum(shards: Sequence[list[Tensor]]) -> list[Tensor]:
    """The sum of 2^n lists of tensors, pairs first (in place: the first list becomes the sum)."""
    level = list(shards)
    while len(level) > 1:
        for left, right in zip(level[::2], level[1::2], strict=True):
            torch._foreach_add_(left, right)
        level = level[::2]
    return level[0]


def butterfly_sum(tensors: list[Tensor], rank: int, workers: int) -> list[Tensor]:
    """The workers' sums added pairwise: with the neighbour, then between pairs, and so on.

    log2(workers) exchanges of one flat buffer; after the last, all workers hold the root's bits.
    """
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    received = torch.empty_like(flat)
    distance = 1
    while distance < workers:
        peer = rank ^ distance
        exchange = [
            distributed.P2POp(distributed.isend, flat, peer),
            distributed.P2POp(distributed.irecv, received, peer),
        ]
        for work in distributed.batch_isend_irecv(exchange):
            work.wait()
        flat.add_(received)
        distance *= 2
    sizes = [tensor.numel() for tensor in tensors]
    return [part.view_as(tensor) for part, tensor in zip(flat.split(sizes), tensors, strict=True)]
