"""Small data on which selectors can be checked exactly, and what several of their tests share."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptsearch.select.base import Examples, Queries

DYADIC = np.array(
    [
        *(sign * row for sign in (1, -1) for row in np.eye(4)),
        *itertools.product((0.5, -0.5), repeat=4),
        np.zeros(4),
    ],
    dtype=np.float32,
)
"""Unit vectors (and zeros) whose inner products are multiples of 1/4: no rounding, many ties."""

TEXTS = (
    "",
    "?!",
    "good film",
    "good good film",
    "film good",
    "a dull film, and long",
    "Long ago",
    "我喜欢这部电影",
    "这部电影很好",
    "好",
    "long 电影 film",
    "naïve café",
)


class TokenTable:
    """Tokens are words cut at spaces; each has one of the dyadic vectors, whatever stands beside it."""

    def token_ids(self, texts: Sequence[str], /) -> list[NDArray[np.int64]]:
        return [np.array([number(word) for word in text.split()], dtype=np.int64) for text in texts]

    def token_vectors(self, texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        return [DYADIC[ids % (len(DYADIC) - 1)] for ids in self.token_ids(texts)]


def number(word: str) -> int:
    return int(hashlib.sha256(word.encode()).hexdigest()[:8], 16)


@st.composite
def dyadic_examples(draw: st.DrawFn, smallest: int = 0, largest: int = 8) -> Examples:
    """Examples with ties, repeated texts and zero vectors, ids in any order."""
    n = draw(st.integers(smallest, largest))
    return Examples(
        ids=np.array(draw(st.lists(st.integers(0, 99), min_size=n, max_size=n, unique=True)), dtype=np.int64),
        vectors=DYADIC[draw(st.lists(st.integers(0, len(DYADIC) - 1), min_size=n, max_size=n))].reshape(n, 4),
        labels=np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n)), dtype=np.int64),
        texts=tuple(draw(st.lists(st.sampled_from(TEXTS), min_size=n, max_size=n))),
        tokens=TokenTable(),
    )


@st.composite
def dyadic_queries(draw: st.DrawFn, smallest: int = 0) -> Queries:
    m = draw(st.integers(smallest, 4))
    if not m:
        return Queries.none()
    vectors = DYADIC[draw(st.lists(st.integers(0, len(DYADIC) - 1), min_size=m, max_size=m))]
    return Queries(vectors, tuple(draw(st.lists(st.sampled_from(TEXTS), min_size=m, max_size=m))))


def random_units(rng: np.random.Generator, n: int, d: int) -> NDArray[np.float32]:
    rows = rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def random_examples(seed: int, n: int, d: int = 6) -> Examples:
    """Vectors in general position; texts and labels say nothing."""
    rng = np.random.default_rng(seed)
    ids = rng.permutation(3 * n)[:n].astype(np.int64)
    return Examples(ids, random_units(rng, n, d), np.zeros(n, dtype=np.int64), ("",) * n)


def random_queries(seed: int, m: int, d: int = 6) -> Queries:
    rng = np.random.default_rng(seed + 1_000_000)
    return Queries(random_units(rng, m, d), ("",) * m)


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def mean_similarity(examples: Examples, queries: Queries) -> dict[int, float]:
    """By id, from the definition, pair by pair; the examples themselves where there are no queries."""
    served = queries.vectors if len(queries) else examples.vectors
    return {
        int(example): sum(cosine(vector, query) for query in served) / len(served)
        for example, vector in zip(examples.ids, examples.vectors, strict=True)
    }


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return sum(float(x) * float(y) for x, y in zip(a, b, strict=True))


def vector_of(examples: Examples) -> dict[int, NDArray[np.float32]]:
    return {int(example): vector for example, vector in zip(examples.ids, examples.vectors, strict=True)}


def assert_each_is_best(
    chosen: Sequence[int],
    candidates: Sequence[int],
    score: Callable[[list[int], int], float],
    alike: Callable[[int], Hashable],
    tolerance: float,
) -> None:
    """Each of ``chosen`` had the best score (but for rounding), and no open example like it had a lower id."""
    for position, pick in enumerate(chosen):
        taken = list(chosen[:position])
        still_open = [each for each in candidates if each not in taken]
        assert pick in still_open
        best = max(score(taken, each) for each in still_open)
        assert score(taken, pick) >= best - tolerance, (position, pick)
        assert pick == min(each for each in still_open if alike(each) == alike(pick))
