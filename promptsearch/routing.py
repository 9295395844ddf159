"""Sends queries to the prompt of their cluster.

Invariant: a query's cluster depends on its vector alone, so that it is the same in the search, in a saved prompt and
in a batch of any size.
Leaves out: what each cluster's prompt shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Router", "fit_router"]

_STARTS = 3
_MOST_ROWS = 20_000  # that a clustering is fitted on; more hardly move the centres


@dataclass(frozen=True)
class Router:
    """Centres of clusters.

    Attributes:
        centres: unit vectors, shape (clusters, dimension), float32.
    """

    centres: NDArray[np.float32]

    @property
    def count(self) -> int:
        """Number of clusters."""
        return len(self.centres)

    def similarities(self, vectors: NDArray[np.float32]) -> NDArray[np.float64]:
        """Cosine similarity of unit vectors with each centre, shape (vectors, clusters).

        Each pair is summed up by itself, so that it does not depend on what else is asked.
        """
        return np.asarray(np.einsum("nd,kd->nk", vectors.astype(np.float64), self.centres.astype(np.float64)))

    def clusters(self, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """Cluster of each unit vector, shape (vectors,): the nearest centre, the first of equal ones."""
        return np.asarray(self.similarities(vectors).argmax(axis=1), dtype=np.int64)

    def members(self, ids: Sequence[int], vectors: NDArray[np.float32]) -> tuple[tuple[int, ...], ...]:
        """For each cluster the ids whose vectors fall into it, nearest to its centre first.

        Args:
            ids: example ids.
            vectors: their unit vectors, shape (ids, dimension).
        """
        near = self.similarities(vectors)
        own = near.argmax(axis=1)
        groups = []
        for cluster in range(self.count):
            places = np.flatnonzero(own == cluster)
            order = sorted(places.tolist(), key=lambda at: (-float(near[at, cluster]), ids[at]))
            groups.append(tuple(int(ids[at]) for at in order))
        return tuple(groups)

    def to_list(self) -> list[list[float]]:
        """Plain values, exact in float32."""
        return [[float(value) for value in row] for row in self.centres]

    @classmethod
    def from_list(cls, values: Any) -> Router:
        """The reverse of :meth:`to_list`.

        Raises:
            TypeError, ValueError: no centres.
        """
        centres = np.asarray(values, dtype=np.float32)
        if centres.ndim != 2 or not centres.size or not np.isfinite(centres).all():
            raise ValueError("no centres of clusters")
        return cls(centres)


def fit_router(vectors: NDArray[np.float32], clusters: int, seed: int) -> Router | None:
    """K-means on unit vectors (scikit-learn).

    Args:
        vectors: unit vectors, shape (n, dimension).
        clusters: how many, at least 2.
        seed: of the starts.

    Returns:
        None where the vectors do not fall into so many clusters with an example in each.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    if len(np.unique(vectors, axis=0)) < clusters:
        return None
    kept = vectors
    if len(vectors) > _MOST_ROWS:
        kept = vectors[np.sort(np.random.default_rng(seed).permutation(len(vectors))[:_MOST_ROWS])]
    with threadpool_limits(limits=1):  # sums in another order could move a query to another cluster
        found = KMeans(clusters, n_init=_STARTS, random_state=seed % 2**32).fit(kept).cluster_centers_
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    router = Router((found / np.where(lengths > 0, lengths, 1.0)).astype(np.float32))
    filled = np.bincount(router.clusters(kept), minlength=clusters)
    return router if (filled > 0).all() else None
