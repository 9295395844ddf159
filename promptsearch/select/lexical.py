"""Selections by words: BM25, and its fusion with similarity of vectors.

Words are runs of letters, marks and digits, without regard to case and width; scripts written without spaces
(Chinese, Japanese, Korean, Thai, Lao, Khmer, Burmese) give overlapping pairs of characters instead. No stop
words and no stemming: both would have to know the language, and rarity already tells what matters.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from functools import cached_property, lru_cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.optional import require
from promptsearch.select.base import (
    Examples,
    Queries,
    best_first,
    checked_count,
    relevance,
    stand_ins,
)

__all__ = ["BM25", "Hybrid", "LexicalIndex", "words"]

_UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Burmese
    (0x1100, 0x11FF),  # Hangul, by letters
    (0x1780, 0x17FF),  # Khmer
    (0x3005, 0x3007),  # signs used among Han characters
    (0x3040, 0x30FF),  # Hiragana, Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0x9FFF),
    (0xAC00, 0xD7AF),  # Hangul, by syllables
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),
)
_RANK_OFFSET = 60  # of reciprocal-rank fusion (Cormack et al. 2009)


def words(text: str) -> list[str]:
    """The words of ``text`` in its order, repeated ones too; of unspaced runs each pair of neighbours."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    found: list[str] = []
    for kind, run in groupby(folded, _kind):
        characters = "".join(run)
        if kind == "word" or (len(characters) == 1 and kind):
            found.append(characters)
        elif kind:
            found.extend(characters[start : start + 2] for start in range(len(characters) - 1))
    return found


@lru_cache(maxsize=1 << 16)
def _kind(character: str) -> str:
    """``"word"``, ``"unspaced"``, or nothing for what belongs to no word."""
    if unicodedata.category(character)[0] not in "LMN":
        return ""
    return "unspaced" if any(low <= ord(character) <= high for low, high in _UNSPACED) else "word"


class LexicalIndex:
    """BM25 scores (Lucene's variant, k1 = 1.5, b = 0.75) of texts, by the library bm25s.

        sum over the query's words t, each as often as it is there, of
        ln(1 + (n - n_t + 0.5) / (n_t + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

    for n texts, n_t of which hold t, and a text of ``length`` words in which t is there f times.
    """

    def __init__(self, texts: tuple[str, ...]) -> None:
        self._count = len(texts)
        self._vocabulary: dict[str, int] = {}
        tokens = [
            [self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words(text)] for text in texts
        ]
        self._index: Any = None
        if self._vocabulary:
            self._index = require("bm25s", install="bm25s").BM25(k1=1.5, b=0.75, method="lucene", dtype="float64")
            self._index.index((tokens, self._vocabulary), create_empty_token=False, show_progress=False)

    def scores(self, queries: tuple[str, ...]) -> NDArray[np.float32]:
        """Of each text the mean of its scores for the queries (at least one), shape (n,), at least 0."""
        counted = Counter(word for query in queries for word in words(query) if word in self._vocabulary)
        alike: defaultdict[int, list[int]] = defaultdict(list)
        for word in sorted(counted):
            alike[counted[word]].append(self._vocabulary[word])
        total = np.zeros(self._count)
        # Scores add up over words: those that are there equally often are asked for together.
        for times in sorted(alike):
            total += times * self._index.get_scores_from_ids(alike[times])
        # Added up in double precision and rounded once: what is equal by the formula is equal here.
        mean: NDArray[np.float32] = (total / len(queries)).astype(np.float32)
        return mean


class BM25:
    """The examples with the highest mean BM25 score for the queries; without queries, for the examples' texts.

    Examples that share no word with a query are equal, and come last.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        if not count:
            return ()
        scores = self._index.scores(stand_ins(self._examples, queries).texts)
        return self._examples.ids_of(best_first(scores)[:count])

    @cached_property
    def _index(self) -> LexicalIndex:
        return LexicalIndex(self._examples.texts)


class Hybrid:
    """Reciprocal-rank fusion of similarity and BM25: 1 / (60 + rank) by the one plus the same by the other.

    Equal scores share a rank, and what shares no word with any query has no rank by BM25. Without queries the
    examples stand in for them.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        if not count:
            return ()
        served = stand_ins(self._examples, queries)
        lexical = self._index.scores(served.texts)
        fused = reciprocal_ranks(relevance(self._examples, served)) + reciprocal_ranks(lexical) * (lexical > 0)
        return self._examples.ids_of(best_first(fused)[:count])

    @cached_property
    def _index(self) -> LexicalIndex:
        return LexicalIndex(self._examples.texts)


def reciprocal_ranks(scores: NDArray[np.float32]) -> NDArray[np.float64]:
    """1 / (60 + rank) of each score; the rank is 1 plus the number of higher scores."""
    ascending = np.sort(scores)
    higher = len(scores) - np.searchsorted(ascending, scores, side="right")
    reciprocal: NDArray[np.float64] = 1.0 / (_RANK_OFFSET + 1 + higher)
    return reciprocal
