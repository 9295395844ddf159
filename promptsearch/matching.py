"""What a query is shown: its best matches by any retriever, and the cluster that it is routed by.

Invariant: the answer for a query depends on the examples, the candidate and the query, never on other queries, so
that a saved prompt shows what the search showed.
Leaves out: how much of it fits a prompt (:mod:`promptsearch.prompting`), and choosing by the model itself
(:mod:`promptsearch.reranking`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import CONSIDERED, Candidate
from promptsearch.embed.base import token_encoder
from promptsearch.pool import Pool
from promptsearch.routing import Router
from promptsearch.select.base import Examples, Queries, Selector
from promptsearch.select.registry import selector

__all__ = ["ItemMatcher", "Matching", "wanted_matches"]


def wanted_matches(reading: Candidate) -> int:
    """How many matches of each query a retrieving candidate looks at."""
    return max(reading.count, CONSIDERED) if reading.reranker != "none" else reading.count


class Matching:
    """Matches for any queries.

    Args:
        pool: the examples that may be shown, with their vectors.
        texts: their texts, by id.
        labels: their label indices, by id; all the same for free text.
        encoder: what made the vectors; asked only where a retriever compares single tokens.
        routers: by number of clusters.
    """

    def __init__(
        self,
        pool: Pool,
        texts: Mapping[int, str],
        labels: Mapping[int, int],
        encoder: object,
        routers: Mapping[int, Router] | None = None,
    ) -> None:
        self.pool = pool
        self.routers = dict(routers or {})
        self._texts = texts
        self._labels = labels
        self._encoder = encoder
        self._pools: dict[tuple[int, ...], Pool] = {(): pool}
        self._selectors: dict[tuple[str, tuple[int, ...]], Selector] = {}

    def matches(
        self,
        reading: Candidate,
        vectors: NDArray[np.float32],
        texts: Sequence[str],
        exclude: Sequence[int | None] | None = None,
    ) -> list[tuple[int, ...]]:
        """For each query the ids that a retrieving candidate may show, the best match first.

        Args:
            reading: the candidate.
            vectors: the queries' unit vectors, shape (queries, dimension).
            texts: the queries' texts.
            exclude: for each query an id that it must not be shown (its own), or None.
        """
        wanted = wanted_matches(reading)
        if reading.retriever == "nearest":
            found = self._pool(reading.among).nearest(vectors, wanted, exclude)
            return [tuple(row.tolist()) for row in found.ids]
        chosen = self._selector(reading)
        barred = exclude or [None] * len(texts)
        rng = np.random.default_rng(0)  # no retriever draws
        matches = []
        for place, text in enumerate(texts):
            query = Queries(vectors[place : place + 1], (text,))
            spare = 0 if barred[place] is None else 1
            ranked = chosen.select(query, wanted + spare, rng)
            matches.append(tuple(number for number in ranked if number != barred[place])[:wanted])
        return matches

    def clusters(self, reading: Candidate, vectors: NDArray[np.float32]) -> NDArray[np.int64]:
        """For each query the route that a routed candidate sends it on, shape (queries,)."""
        return self.routers[len(reading.routes)].clusters(vectors)

    def examples(self, among: tuple[int, ...] = ()) -> Examples:
        """The examples as selection strategies take them.

        Args:
            among: ids to choose from; empty for the whole pool.
        """
        pool = self.pool.subset(among) if among else self.pool
        return Examples(
            pool.ids,
            pool.vectors,
            np.array([self._labels[number] for number in pool.ids.tolist()], dtype=np.int64),
            tuple(self._texts[number] for number in pool.ids.tolist()),
            token_encoder(self._encoder),
        )

    def _pool(self, among: tuple[int, ...]) -> Pool:
        if among not in self._pools:
            self._pools[among] = self.pool.subset(among)
        return self._pools[among]

    def _selector(self, reading: Candidate) -> Selector:
        key = (reading.retriever, reading.among)
        if key not in self._selectors:
            self._selectors[key] = selector(reading.retriever, self.examples(reading.among))
        return self._selectors[key]


class ItemMatcher:
    """Matches for a task's own items, each found once.

    Args:
        matching: finds them.
        vectors: unit vector of each example of the task, shape (examples, dimension).
        texts: their texts.
    """

    def __init__(self, matching: Matching, vectors: NDArray[np.float32], texts: Sequence[str]) -> None:
        self.matching = matching
        self._vectors = vectors
        self._texts = texts
        self._known: dict[tuple[str, tuple[int, ...], int], dict[int, tuple[int, ...]]] = {}

    def matches(self, reading: Candidate, items: Sequence[int]) -> list[tuple[int, ...]]:
        """See :class:`promptsearch.evaluation.Matcher`."""
        # A strategy may choose few examples otherwise than the first of many, so numbers are kept apart.
        known = self._known.setdefault((reading.retriever, reading.among, wanted_matches(reading)), {})
        missing = [item for item in items if item not in known]
        if missing:
            texts = [self._texts[item] for item in missing]
            found = self.matching.matches(reading, self._vectors[missing], texts)
            known.update(zip(missing, found, strict=True))
        return [known[item] for item in items]

    def clusters(self, reading: Candidate, items: Sequence[int]) -> NDArray[np.int64]:
        """See :class:`promptsearch.evaluation.Matcher`."""
        return self.clusters_of(len(reading.routes), items)

    def clusters_of(self, count: int, items: Sequence[int]) -> NDArray[np.int64]:
        """Cluster of each item among so many, shape (items,)."""
        return self.matching.routers[count].clusters(self._vectors[list(items)])

    def queries(self, items: Sequence[int]) -> Queries:
        """The items as selection strategies take them."""
        return Queries(self._vectors[list(items)], tuple(self._texts[item] for item in items))
