"""Selections by similarity to the queries: the nearest alone (KATE), and the nearest that differ (MMR, DPP).

Where there are no queries the examples stand in for them: the most typical come first. MMR and DPP look at the
``CONSIDERED`` nearest only, so that difference never outweighs relevance altogether; without queries, at all.
Their selections come in the order of picking, not of similarity: a shorter one is the beginning of a longer one
(as long as ``count`` is at most half of ``CONSIDERED``).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptsearch.select.base import (
    Examples,
    Queries,
    Rows,
    best_first,
    checked_count,
    first_best,
    relevance,
    similarities,
    stand_ins,
)

__all__ = ["CONSIDERED", "DPP", "MMR", "Nearest", "greedy_map", "shortlist"]

CONSIDERED = 100
"""Nearest examples among which the ones that differ are chosen; twice the count where that is more."""

_SINGULAR = 1e-10  # a determinant that grows by no more is zero but for rounding


class Nearest:
    """The examples with the highest mean similarity to the queries."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        relevant = relevance(self._examples, stand_ins(self._examples, queries)) if count else np.empty(0)
        return self._examples.ids_of(best_first(relevant)[:count])


class MMR:
    """Maximal marginal relevance: what is near the queries and unlike what has been taken.

    Takes again and again the example with the highest

        weight * (mean similarity to the queries) - (1 - weight) * (highest similarity to one already taken)

    where the second part is 0 as long as none is taken.

    Args:
        examples: what is chosen from.
        weight: of relevance, in [0, 1].
    """

    def __init__(self, examples: Examples, weight: float = 0.6) -> None:
        self._examples = examples.sorted
        self._weight = weight

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        if not count:
            return ()
        relevant = relevance(self._examples, stand_ins(self._examples, queries))
        rows = shortlist(relevant, len(queries), count)
        vectors = self._examples.vectors[rows]
        scores = self._weight * relevant[rows].astype(np.float64)
        redundant = np.full(len(rows), -np.inf)
        chosen: list[int] = []
        while len(chosen) < count:
            penalty = (1.0 - self._weight) * redundant if chosen else 0.0
            open_scores = scores - penalty
            open_scores[chosen] = -np.inf
            chosen.append(first_best(open_scores))
            np.maximum(redundant, similarities(vectors, vectors[chosen[-1]]), out=redundant)
        return self._examples.ids_of(rows[chosen])


class DPP:
    """Determinantal point process: takes the examples whose kernel has a large determinant, greedily.

    The kernel of CEIL (Ye et al. 2023), with cosines c and relevance v = (mean cosine to the queries + 1) / 2:

        L[i, j] = r[i] * r[j] * (c[i, j] + 1) / 2        r[i] = exp((v[i] - max v) / (2 * scale))

    Where no example is left that adds to the determinant, the most relevant of the others fill up.

    Args:
        examples: what is chosen from.
        scale: the smaller, the more relevance counts against difference; above 0.
    """

    def __init__(self, examples: Examples, scale: float = 0.1) -> None:
        self._examples = examples.sorted
        self._scale = scale

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        if not count:
            return ()
        relevant = relevance(self._examples, stand_ins(self._examples, queries))
        rows = shortlist(relevant, len(queries), count)
        vectors = self._examples.vectors[rows]
        quality = np.exp((relevant[rows].astype(np.float64) - relevant.max()) / 2 / (2 * self._scale))
        chosen = greedy_map(vectors, quality, count)
        others = [row for row in best_first(relevant[rows]) if row not in set(chosen)]
        return self._examples.ids_of(rows[[*chosen, *others][:count]])


def shortlist(relevant: NDArray[np.float32], queries: int, count: int, considered: int = CONSIDERED) -> Rows:
    """Rows of the nearest, ``considered`` of them or 2 * ``count``, in the order of ids; all without queries."""
    if not queries:
        return np.arange(len(relevant))
    return np.sort(best_first(relevant)[: max(considered, 2 * count)])


def greedy_map(vectors: NDArray[np.float32], quality: NDArray[np.float64], count: int) -> list[int]:
    """Up to ``count`` rows, each the one that most enlarges the determinant of the kernel over those taken.

    Incremental Cholesky (Chen et al. 2018): ``gains`` holds what each row would multiply the determinant by.
    Stops where that is nothing for any row left.

    Args:
        vectors: unit vectors, shape (n, d).
        quality: of each row, in (0, 1], shape (n,).
        count: at most n.
    """
    # In double precision: rounded cosines would leave gains where the vectors' space is exhausted.
    exact = vectors.astype(np.float64)
    gains = quality**2 * ((exact**2).sum(axis=1) + 1) / 2
    factors = np.empty((count, len(vectors)))
    chosen: list[int] = []
    while len(chosen) < count and gains.max() >= _SINGULAR:
        best = first_best(gains)
        row = quality[best] * quality * (exact @ exact[best] + 1) / 2
        known = factors[: len(chosen)]
        factor = (row - known[:, best] @ known) / np.sqrt(gains[best])
        factors[len(chosen)] = factor
        gains = gains - factor**2
        chosen.append(best)
        gains[chosen] = -np.inf
    return chosen
