"""Selections that together speak of everything the queries speak of: Set-BSR, the recall of BERTScore of a set.

Needs an encoder that tells tokens apart (``embed.base.TokenEncoder``); refuses where there is none. A text's
token vectors are asked for one text at a time, so that they are the same whatever else is asked, and kept under
a limit.
"""

from __future__ import annotations

import threading
from collections import Counter
from functools import cached_property

import numpy as np
from cachetools import LRUCache
from numpy.typing import NDArray

from promptsearch.embed.base import TokenEncoder, token_ids_checked, token_vectors_checked
from promptsearch.errors import BackendError, UserError
from promptsearch.select.base import (
    TIE,
    Examples,
    Queries,
    Rows,
    checked_count,
    first_best,
    relevance,
    stand_ins,
)
from promptsearch.select.nearest import shortlist

__all__ = ["CONSIDERED", "Coverage", "cover_greedily"]

CONSIDERED = 50
"""Nearest examples among which is chosen; twice the count where that is more."""

_STAND_INS = 100
_NUMBERS_KEPT = 64_000_000  # float32: 256 MB
_UNCOVERED = -1.0


class Coverage:
    """The examples whose tokens together come closest to the queries' tokens, greedily (Gupta et al. 2023).

        coverage of a set S = mean over the queries of  sum over the query's tokens t of
        w[t] * max over the tokens u of the examples in S of cos(t, u)

    with weights w in proportion to ln((n + 1) / (n_t + 1)) for n examples, n_t of which hold t, that add up to
    1 in each query (all alike where that is 0 for all). An example without tokens has cosine -1 with any.
    Where no example adds to the coverage, covering begins anew among those not yet taken.

    Queries without tokens do not count; where no query has any, the nearest are taken in their order. Where
    there are no queries, 100 examples at most, drawn from the generator, stand in for them.

    Raises:
        UserError: the examples come without anything that tells tokens apart.
    """

    def __init__(self, examples: Examples) -> None:
        if examples.tokens is None:
            raise UserError(
                "selector 'coverage' compares token vectors and this encoder has none; "
                "take the default encoder, or one with token_ids(texts) and token_vectors(texts)"
            )
        self._examples = examples.sorted
        self._tokens: TokenEncoder = examples.tokens
        self._kept: LRUCache[int, NDArray[np.float32]] = LRUCache(_NUMBERS_KEPT, getsizeof=lambda each: each.size + 1)
        self._lock = threading.Lock()

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``; the encoder may raise what it raises."""
        count = checked_count(count, self._examples)
        if not count:
            return ()
        served = stand_ins(self._examples, queries) if len(queries) else self._drawn(rng)
        relevant = relevance(self._examples, served)
        rows = shortlist(relevant, len(served), count, CONSIDERED)
        recalls = self._weighted_recalls(served.texts, rows)
        return self._examples.ids_of(rows[cover_greedily(recalls, relevant[rows], count)])

    def _drawn(self, rng: np.random.Generator) -> Queries:
        rows = np.sort(rng.permutation(len(self._examples))[:_STAND_INS])
        return Queries(self._examples.vectors[rows], tuple(self._examples.texts[row] for row in rows))

    def _weighted_recalls(self, texts: tuple[str, ...], rows: Rows) -> NDArray[np.float64]:
        """w[t] * max over u of cos(t, u), shape (examples, tokens of all queries together)."""
        ids = token_ids_checked(self._tokens, texts)
        vectors = token_vectors_checked(self._tokens, texts)
        _check_same_tokens(ids, vectors)
        if not sum(map(len, ids)):
            return np.empty((len(rows), 0))
        asked = np.concatenate([each for each in vectors if len(each)]).astype(np.float64)
        weights = np.concatenate([self._weights(each) for each in ids])
        weights /= sum(len(each) > 0 for each in ids)
        return np.stack([weights * _recall(asked, self._token_vectors(int(row))) for row in rows])

    def _weights(self, ids: NDArray[np.int64]) -> NDArray[np.float64]:
        holding = np.array([self._holding[int(each)] for each in ids], dtype=np.float64)
        rarity = np.log((len(self._examples) + 1) / (holding + 1))
        if not rarity.any():
            rarity[:] = 1.0
        weights: NDArray[np.float64] = rarity / rarity.sum() if len(ids) else rarity
        return weights

    @cached_property
    def _holding(self) -> Counter[int]:
        """In how many of the examples a token is."""
        texts = token_ids_checked(self._tokens, self._examples.texts)
        return Counter(int(token) for ids in texts for token in np.unique(ids))

    def _token_vectors(self, row: int) -> NDArray[np.float32]:
        with self._lock:
            if row in self._kept:
                return self._kept[row]
            (vectors,) = token_vectors_checked(self._tokens, [self._examples.texts[row]])
            if vectors.size < _NUMBERS_KEPT:
                self._kept[row] = vectors
            return vectors


def cover_greedily(recalls: NDArray[np.float64], relevant: NDArray[np.floating], count: int) -> list[int]:
    """Rows, each the one that most enlarges the sum over columns of the highest value taken.

    Where no row enlarges it, what was taken is forgotten, and the sum begins anew with the rows left.

    Args:
        recalls: shape (n, columns); without columns ``relevant`` decides alone.
        relevant: shape (n,).
        count: at most n.
    """
    if not recalls.shape[1]:
        return list(np.argsort(-relevant, kind="stable")[:count])
    chosen: list[int] = []
    covered: NDArray[np.float64] | None = None
    while len(chosen) < count:
        sums = (recalls if covered is None else np.maximum(recalls, covered)).sum(axis=1)
        sums[chosen] = -np.inf
        best = first_best(sums)
        if covered is not None and sums[best] <= covered.sum() + TIE:
            covered = None
            continue
        covered = recalls[best] if covered is None else np.maximum(recalls[best], covered)
        chosen.append(best)
    return chosen


def _recall(asked: NDArray[np.float64], tokens: NDArray[np.float32]) -> NDArray[np.float64]:
    if not len(tokens):
        return np.full(len(asked), _UNCOVERED)
    highest: NDArray[np.float64] = (asked @ tokens.astype(np.float64).T).max(axis=1)
    return highest


def _check_same_tokens(ids: list[NDArray[np.int64]], vectors: list[NDArray[np.float32]]) -> None:
    for places, rows in zip(ids, vectors, strict=True):
        if len(places) != len(rows):
            raise BackendError(
                f"encoder returned {len(rows)} token vectors for {len(places)} token ids of one text; "
                "both must speak of the same tokens"
            )
