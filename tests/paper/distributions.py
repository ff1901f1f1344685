"""Random pairs of distributions for the statements of section 4: zeros, disjoint supports and tiny masses included."""

import numpy as np
from hypothesis import strategies as st

MASSES = st.one_of(st.just(0.0), st.floats(1e-300, 1e-9), st.floats(1e-6, 1.0))


def normalised(masses: list[float]) -> np.ndarray:
    return np.array(masses) / np.sum(masses)


def distributions(points: int, masses: st.SearchStrategy[float] = MASSES) -> st.SearchStrategy[np.ndarray]:
    """A distribution over `points` points, of which at least one has a mass that is not tiny."""
    drawn = st.lists(masses, min_size=points, max_size=points)
    return drawn.filter(lambda values: max(values) > 1e-6).map(normalised)


def pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two distributions over the same 1 to 12 points."""
    return st.integers(1, 12).flatmap(lambda points: st.tuples(distributions(points), distributions(points)))


def disjoint_pairs() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """Two distributions, one over the first of the points and the other over the rest."""
    halves = st.tuples(st.integers(1, 6), st.integers(1, 6))
    return halves.flatmap(lambda sizes: st.tuples(*map(distributions, sizes))).map(
        lambda both: (np.pad(both[0], (0, len(both[1]))), np.pad(both[1], (len(both[0]), 0)))
    )


def pairs_with_positive_p_g() -> st.SearchStrategy[tuple[np.ndarray, np.ndarray]]:
    """As `pairs`, where the second has some mass everywhere."""
    return st.integers(1, 12).flatmap(
        lambda points: st.tuples(distributions(points), distributions(points, st.floats(1e-6, 1.0)))
    )
