"""Which pixels are observed (1) and which are missing (0): kinds to train on, and single masks by name."""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import numpy as np

from gan_core.randomness import stream

Masks = Literal["pixels", "halves", "squares", "all"]  # what is missing of an image
EVERY_MASK: tuple[Masks, ...] = get_args(Masks)
MaskName = Literal["left", "right", "top", "bottom", "square", "pixels"]
MASK_NAMES: tuple[MaskName, ...] = get_args(MaskName)
HALVES: tuple[MaskName, ...] = ("left", "right", "top", "bottom")


def drawn_masks(random: np.random.Generator, count: int, shape: Sequence[int], kinds: Sequence[Masks]) -> np.ndarray:
    """(count, *shape) masks, each of a kind drawn among `kinds`; a pixel's colours are missing together.

    `pixels`: each missing by itself, with a probability that is uniform over masks. `halves`: one of four.
    `squares`: a square anywhere, of a quarter to three quarters of the shorter side. `all`: everything,
    so that p(x) itself is among the conditionals.
    """
    height, width = shape[:2]
    chosen = random.integers(len(kinds), size=count)
    masks = np.zeros((count, height, width), np.float32)
    for index, kind in enumerate(kinds):
        of_kind = np.flatnonzero(chosen == index)
        masks[of_kind] = DRAWN[kind](random, len(of_kind), height, width)
    return _coloured(masks, shape)


def named_mask(name: MaskName, shape: Sequence[int], seed: int = 0) -> np.ndarray:
    """One mask of the given shape: a half that is missing, the middle square, or half of all pixels, by the seed."""
    height, width = shape[:2]
    mask = np.ones((height, width), np.float32)
    if name == "pixels":
        missing = stream(seed, "missing pixels").permutation(height * width)[: height * width // 2]
        mask.reshape(-1)[missing] = 0
    elif name == "square":
        side = min(height, width) // 2
        top, left = (height - side) // 2, (width - side) // 2
        mask[top : top + side, left : left + side] = 0
    else:
        mask[_half(name, height, width)] = 0
    return _coloured(mask[None], shape)[0]


def _half(name: MaskName, height: int, width: int) -> tuple[slice, slice]:
    whole = slice(None)
    return {
        "left": (whole, slice(width // 2)),
        "right": (whole, slice(width // 2, None)),
        "top": (slice(height // 2), whole),
        "bottom": (slice(height // 2, None), whole),
    }[name]


def _pixels(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    return random.random((count, height, width), np.float32) >= random.random((count, 1, 1), np.float32)


def _halves(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    four = np.ones((len(HALVES), height, width), np.float32)
    for mask, name in zip(four, HALVES, strict=True):
        mask[_half(name, height, width)] = 0
    return four[random.integers(len(HALVES), size=count)]


def _squares(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    shorter = min(height, width)
    sides = random.integers(max(1, shorter // 4), max(1, 3 * shorter // 4) + 1, size=(count, 1))
    top, left = (random.integers(0, length - sides + 1) for length in (height, width))
    rows, columns = np.arange(height), np.arange(width)
    within_rows, within_columns = (rows >= top) & (rows < top + sides), (columns >= left) & (columns < left + sides)
    return ~(within_rows[:, :, None] & within_columns[:, None, :])


def _all(random: np.random.Generator, count: int, height: int, width: int) -> np.ndarray:
    return np.zeros((count, height, width), np.float32)


DRAWN: dict[Masks, Callable[[np.random.Generator, int, int, int], np.ndarray]] = {
    "pixels": _pixels,
    "halves": _halves,
    "squares": _squares,
    "all": _all,
}


def _coloured(masks: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    return masks if len(shape) == 2 else np.repeat(masks[..., None], shape[2], axis=-1)
