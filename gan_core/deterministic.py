"""The same bits from a GPU's convolutions: cuDNN's deterministic kernels, for as long as they are asked for."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """A block of work, or a function, whose convolutions give the same bits again; cuDNN is then set as it was.

    cuDNN may otherwise sum a gradient in whatever order its threads end.
    """
    before = torch.backends.cudnn.deterministic
    torch.backends.cudnn.deterministic = True
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic = before
