"""Every random number as a function of (seed, purpose, index): there is no other random state."""

import hashlib
from functools import lru_cache

import numpy as np


def stream(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """The generator of one purpose at one index (a step, an epoch), the same on every machine.

    Philox is a counter-based generator: (seed, purpose) is its key and the index a word of its
    counter, so opening a stream costs microseconds and no two streams overlap (each has 2^128
    blocks). Nothing has to be saved to resume: step 10,000 can be drawn without the 9,999 before.
    """
    return np.random.Generator(np.random.Philox(key=_key(seed, purpose), counter=[0, 0, index, 0]))


@lru_cache(maxsize=256)
def _key(seed: int, purpose: str) -> np.ndarray:
    return np.frombuffer(hashlib.sha256(f"{purpose}/{seed}".encode()).digest()[:16], dtype="<u8")
