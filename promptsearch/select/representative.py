"""Selections that stand for all examples: vote-k on the graph of neighbours, and k-means.

They serve the examples' whole population: queries are not looked at, so to retrieve with them means to choose a
small pool by them first, and to ask another selector over that pool.
"""

from __future__ import annotations

import warnings
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.optional import require
from promptsearch.select.base import Examples, Queries, Rows, checked_count, first_best, rounded

__all__ = ["RELATIVE_TIE", "KMeans", "VoteK", "neighbour_rows"]

_NUMBERS_A_BLOCK = 4_000_000
RELATIVE_TIE = 2.0**-38
"""Sums of votes that differ by a smaller share are equal; relative, because late sums are small."""

_MOST_NEIGHBOURS = 150  # as in Su et al. 2022, for 3000 examples


class VoteK:
    """Takes again and again the example with the most votes, where voters already heard count less.

    Every example votes for its ``neighbours`` nearest others. A vote counts 10**-s when s examples that the
    voter votes for have been taken, and nothing once the voter itself is taken (Su et al. 2022).

    Args:
        examples: what is chosen from.
        neighbours: for how many an example votes; None: a twentieth of the examples, 3 at least, 150 at most.
    """

    def __init__(self, examples: Examples, neighbours: int | None = None) -> None:
        self._examples = examples.sorted
        wanted = max(3, min(_MOST_NEIGHBOURS, len(examples) // 20)) if neighbours is None else neighbours
        self._neighbours = max(0, min(wanted, len(examples) - 1))
        self._chosen: list[int] = []

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        chosen = self._chosen
        if len(chosen) < count:
            # A shorter selection is the beginning of a longer one, so the longest is kept.
            chosen = self._chosen = self._elected(count)
        return self._examples.ids_of(chosen[:count])

    def _elected(self, count: int) -> list[int]:
        voted_for = self._graph
        heard = np.zeros(len(voted_for), dtype=np.int64)
        chosen: list[int] = []
        while len(chosen) < count:
            weights = 10.0**-heard
            weights[chosen] = 0.0
            each_vote = np.repeat(weights, voted_for.shape[1])
            scores = np.bincount(voted_for.ravel(), weights=each_vote, minlength=len(voted_for)).astype(np.float64)
            scores[chosen] = -np.inf
            chosen.append(first_best(scores, max(RELATIVE_TIE * scores.max(), np.finfo(np.float64).tiny)))
            heard += (voted_for == chosen[-1]).any(axis=1)
        return chosen

    @cached_property
    def _graph(self) -> Rows:
        return neighbour_rows(self._examples.vectors, self._neighbours)


def neighbour_rows(vectors: NDArray[np.float32], count: int) -> Rows:
    """Rows of the ``count`` nearest others of each row, of equal ones the first, shape (n, count), ascending.

    Args:
        vectors: unit vectors, shape (n, d).
        count: less than n, or 0.
    """
    total = len(vectors)
    found = np.empty((total, count), dtype=np.intp)
    if not count:
        return found
    exact = vectors.astype(np.float64)
    block = max(1, _NUMBERS_A_BLOCK // total)
    for start in range(0, total, block):
        rows = np.arange(start, min(total, start + block))
        near = rounded(exact[rows] @ exact.T)
        near[np.arange(len(rows)), rows] = -np.inf
        last = np.partition(near, total - count, axis=1)[:, [total - count]]
        surely, perhaps = near > last, near == last
        room = count - surely.sum(axis=1, keepdims=True)
        taken = surely | (perhaps & (np.cumsum(perhaps, axis=1) <= room))
        found[rows] = np.nonzero(taken)[1].reshape(len(rows), count)
    return found


class KMeans:
    """The examples nearest to the centres of as many clusters, those of large clusters first.

    Clusters anew, by scikit-learn from a seed drawn from the generator, at every call: meant for a set that
    serves a whole task, not for a set for each query. Where examples coincide, so that there are fewer
    clusters than wanted, the clusters are gone round again, each giving its next nearest.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        seed = int(rng.integers(2**31))
        if not count:
            return ()
        vectors = self._examples.vectors.astype(np.float64)
        centres, clusters = _clustered(vectors, min(count, self._distinct), seed)
        distances = ((vectors - centres[clusters]) ** 2).sum(axis=1).astype(np.float32)
        members = [np.flatnonzero(clusters == cluster) for cluster in range(len(centres))]
        queues = [rows[np.argsort(distances[rows], kind="stable")] for rows in members if len(rows)]
        queues.sort(key=lambda rows: (-len(rows), rows[0]))
        rounds = (rows[turn] for turn in range(len(vectors)) for rows in queues if turn < len(rows))
        return self._examples.ids_of([row for row, _ in zip(rounds, range(count), strict=False)])

    @cached_property
    def _distinct(self) -> int:
        return len(np.unique(self._examples.vectors, axis=0))


def _clustered(vectors: NDArray[np.float64], count: int, seed: int) -> tuple[NDArray[np.float64], Rows]:
    """Centres, shape (count, d), and of each row its cluster."""
    cluster = require("sklearn.cluster", install="scikit-learn")
    unsettled = require("sklearn.exceptions", install="scikit-learn").ConvergenceWarning
    # Several threads would add up in an order of their own every time.
    with _thread_pools().limit(limits=1), warnings.catch_warnings():
        # Vectors that differ in their last bits only give fewer clusters than wanted.
        warnings.simplefilter("ignore", unsettled)
        model = cluster.KMeans(n_clusters=count, n_init=4, random_state=seed).fit(vectors)
    return model.cluster_centers_, model.labels_.astype(np.intp)


def _thread_pools() -> Any:
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
