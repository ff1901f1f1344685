"""Precision, coverage, duplicates, memorisation, reference samples: what a Parzen score does not say."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics import pairwise_distances_chunked
from sklearn.neighbors import NearestNeighbors


@dataclass(frozen=True)
class Quality:
    """How samples compare with real points in pixel space, all in [0, 1] but density.

    `precision` and `recall` are those of Kynkaanniemi et al. 2019 (arXiv 1904.06991), `density` and
    `coverage` those of Naeem et al. 2020 (arXiv 2002.09797), which two equal distributions bring to
    about 1 (density, on average) and 1 - 2^-k.
    """

    precision: float
    recall: float
    density: float
    coverage: float
    duplicates: float  # about 0.01 for samples as varied as the data, 1 for a single image
    memorisation: float | None = None  # 1/2 for fresh images of the data's distribution, 1 for copies
    count: int = 0  # of real points, and of samples: recall and coverage change with it


def quality(
    real: Float[np.ndarray, "points width"],
    generated: Float[np.ndarray, "samples width"],
    training: Float[np.ndarray, "examples width"] | None = None,
    neighbours: int = 5,
    working_memory: int = 128,
) -> Quality:
    """Precision, recall, density, coverage, duplicates and, given the training images, memorisation.

    A ball reaches from each real point to its `neighbours`-th real neighbour (and from each sample to
    its own among samples): precision is the fraction of samples in a real ball, density the number of
    real balls that a sample is in, over `neighbours`; recall is the fraction of real points in a
    sample's ball, coverage that of real balls with a sample. Distances come in blocks of `working_memory` MiB.

    As many samples as real points are compared, the first of each: ten times as many samples cover more
    and are recalled less, whatever the model, so numbers are read side by side at one `count` alone.

    Raises:
        ValueError: If there are not more points, or samples, than neighbours.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"{len(real)} points and {len(generated)} samples; expected more than {neighbours} of each")
    real, generated = equally_many(real, generated)
    real_radii, generated_radii = (_radii(rows, neighbours) for rows in (real, generated))
    balls, recalled, covered, start = np.zeros(len(generated), np.int64), 0, 0, 0
    for distances in pairwise_distances_chunked(real, generated, working_memory=working_memory):
        radii = real_radii[start : start + len(distances), None]
        within = distances < radii
        balls += within.sum(axis=0)
        covered += int(within.any(axis=1).sum())
        recalled += int((distances < generated_radii).any(axis=1).sum())
        start += len(distances)
    return Quality(
        precision=float((balls > 0).mean()),
        recall=recalled / len(real),
        density=float(balls.mean()) / neighbours,
        coverage=covered / len(real),
        duplicates=duplicates(real, generated),
        memorisation=None if training is None else memorisation(real, generated, training),
        count=len(real),
    )


def equally_many(*rows: np.ndarray) -> list[np.ndarray]:
    """The first of each, as many as the fewest."""
    count = min(map(len, rows))
    return [some[:count] for some in rows]


def repeated(rows: Float[np.ndarray, "rows width"], count: int) -> Float[np.ndarray, "count width"]:
    """So many rows: the first, or all of them in turn, as a model that can draw no others would draw them."""
    return rows[np.arange(count) % len(rows)]


def coverage(
    real: Float[np.ndarray, "points width"], generated: Float[np.ndarray, "samples width"], neighbours: int = 5
) -> float:
    """The fraction of real points with a sample nearer than their `neighbours`-th real neighbour.

    Naeem et al. 2020 (arXiv 2002.09797), Eq. 9, in pixel space: near 1 for samples as varied as the
    data, near 0 for a collapsed model, whatever its Parzen score. Of as many samples as points.
    """
    real, generated = equally_many(real, generated)
    return float((to_nearest(real, generated) < _radii(real, neighbours)).mean())


def duplicates(real: Float[np.ndarray, "points width"], generated: Float[np.ndarray, "samples width"]) -> float:
    """The fraction of samples with another sample as near as only 1 % of real points have another.

    Of as many samples as there are real points, since the nearest of many is nearer.
    """
    real, generated = equally_many(real, generated)
    return float((_radii(generated, 1) <= np.quantile(_radii(real, 1), 0.01)).mean())


def memorisation(
    real: Float[np.ndarray, "points width"],
    generated: Float[np.ndarray, "samples width"],
    training: Float[np.ndarray, "examples width"],
    most: int = 2000,
) -> float:
    """How often a sample is nearer to the training images than a held-out real point is (ties: half).

    The Mann-Whitney probability of Meehan et al. 2020 (arXiv 2004.05675), over all their pairs among
    the first `most` of both. Smooth samples, too, are nearer than real images: read it beside samples
    with their neighbours.
    """
    of_samples, of_real = (to_nearest(rows[:most], training) for rows in (generated, real))
    return 1 - float(stats.mannwhitneyu(of_samples, of_real).statistic) / (len(of_samples) * len(of_real))


def _radii(rows: np.ndarray, neighbours: int) -> np.ndarray:
    """Each row's distance to its `neighbours`-th nearest other row."""
    distances, _ = NearestNeighbors(n_neighbors=neighbours + 1, algorithm="brute").fit(rows).kneighbors(rows)
    return distances[:, neighbours]


def to_nearest(
    rows: Float[np.ndarray, "rows width"], others: Float[np.ndarray, "others width"]
) -> Float[np.ndarray, " rows"]:
    """Each row's distance to the nearest of the others (L2)."""
    distances, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(others).kneighbors(rows)
    return distances[:, 0]


def nearest_neighbours(
    points: Float[np.ndarray, "points width"], data: Float[np.ndarray, "examples width"]
) -> Int[np.ndarray, " points"]:
    """For each point, the index of the nearest example (L2): the last column of Fig. 2."""
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(data).kneighbors(points, return_distance=False)
    return index[:, 0]


def reference_samples(images: Float[np.ndarray, "examples width"], count: int, least: int = 1) -> dict[str, np.ndarray]:
    """Stand-ins for a model's samples, to read its scores against.

    `training data`: the first `count` training images themselves. `k-means`: centroids of the
    training images, one for every ten, at least `least` and at most 500; they are smooth, and a Parzen window rewards
    that more than it should.
    """
    clusters = min(500, max(least, len(images) // 10))
    fitted = MiniBatchKMeans(clusters, batch_size=4096, n_init=1, max_iter=20, random_state=0).fit(images)
    return {"training data": images[:count], "k-means": fitted.cluster_centers_.astype(np.float32)}
