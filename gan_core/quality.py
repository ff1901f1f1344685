"""Coverage and collapse, nearest neighbours, and reference scores: what a Parzen score does not say."""

import numpy as np
from jaxtyping import Float, Int
from sklearn.cluster import MiniBatchKMeans
from sklearn.neighbors import NearestNeighbors


def coverage(
    real: Float[np.ndarray, "points width"], generated: Float[np.ndarray, "samples width"], neighbours: int = 5
) -> float:
    """The fraction of real points with a sample nearer than their `neighbours`-th real neighbour.

    Naeem et al. 2020 (arXiv 2002.09797), Eq. 9, in pixel space: near 1 for samples as varied as the
    data, near 0 for a collapsed model, whatever its Parzen score.
    """
    to_real, _ = NearestNeighbors(n_neighbors=neighbours + 1, algorithm="brute").fit(real).kneighbors(real)
    to_generated, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(generated).kneighbors(real)
    return float((to_generated[:, 0] < to_real[:, neighbours]).mean())


def nearest_neighbours(
    points: Float[np.ndarray, "points width"], data: Float[np.ndarray, "examples width"]
) -> Int[np.ndarray, " points"]:
    """For each point, the index of the nearest example (L2): the last column of Fig. 2."""
    index = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(data).kneighbors(points, return_distance=False)
    return index[:, 0]


def reference_samples(images: Float[np.ndarray, "examples width"], count: int) -> dict[str, np.ndarray]:
    """Stand-ins for a model's samples, to read its scores against.

    `training data`: the first `count` training images themselves. `k-means`: centroids of the
    training images, one for every ten and at most 500; they are smooth, and a Parzen window rewards
    that more than it should.
    """
    clusters = min(500, max(1, len(images) // 10))
    fitted = MiniBatchKMeans(clusters, batch_size=4096, n_init=1, max_iter=20, random_state=0).fit(images)
    return {"training data": images[:count], "k-means": fitted.cluster_centers_.astype(np.float32)}
