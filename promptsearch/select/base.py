"""What is chosen from, for whom, and what a selector promises; and how all of them break ties.

Invariants: a selection holds distinct ids of the examples, min(count, number of examples) of them, best first,
whatever the vectors and texts are like. The same examples, queries, count and state of the generator give the
same selection, in any process, whatever was asked before and in whatever order the examples were given. Equal
scores are in the order of ids.
Left out: how good a selection is for a model; only a search can tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from promptsearch.embed.base import TokenEncoder
from promptsearch.errors import DataError

__all__ = [
    "TIE",
    "Examples",
    "Queries",
    "Rows",
    "Selector",
    "best_first",
    "checked_count",
    "first_best",
    "relevance",
    "rounded",
    "similarities",
    "stand_ins",
]

Rows = NDArray[np.intp]
"""Positions among the examples in the order of their ids."""

TIE = 1e-9
"""Scores of a greedy step that differ by less are equal: their last bits depend on the order of additions."""

_GRID = 2.0**24
_NUMBERS_A_BLOCK = 8_000_000  # in double precision at once: 64 MB


@dataclass(frozen=True)
class Examples:
    """What is chosen from.

    Attributes:
        ids: distinct, shape (n,), int64.
        vectors: finite unit vectors (or zeros), shape (n, d), float32.
        labels: classes as integers, shape (n,), int64; where there are no classes, all the same number.
        texts: n of them.
        tokens: what tells the tokens of ``texts`` apart, where something does (``embed.base.token_encoder``).

    Raises:
        DataError: ids that repeat, or parts of different lengths.
    """

    ids: NDArray[np.int64]
    vectors: NDArray[np.float32]
    labels: NDArray[np.int64]
    texts: tuple[str, ...]
    tokens: TokenEncoder | None = None

    def __post_init__(self) -> None:
        counts = (len(self.ids), len(self.vectors), len(self.labels), len(self.texts))
        if len(set(counts)) > 1:
            raise DataError(
                "examples have {} ids, {} vectors, {} labels and {} texts; give one of each".format(*counts)
            )
        if self.vectors.ndim != 2:
            raise DataError(f"examples' vectors have shape {self.vectors.shape}; give (examples, dimension)")
        if len(np.unique(self.ids)) != len(self.ids):
            raise DataError(f"{len(self.ids) - len(np.unique(self.ids))} ids repeat; give each example once")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def sorted(self) -> Examples:
        """The same examples in the order of their ids, so that of equal ones the first has the lowest id."""
        order = np.argsort(self.ids)
        return Examples(
            self.ids[order],
            self.vectors[order],
            self.labels[order],
            tuple(self.texts[row] for row in order),
            self.tokens,
        )

    def ids_of(self, rows: Sequence[int] | Rows) -> tuple[int, ...]:
        """The ids at these positions."""
        return tuple(int(self.ids[row]) for row in rows)


@dataclass(frozen=True)
class Queries:
    """Whom the examples shall serve: one query, many at once (each counts the same), or none.

    Attributes:
        vectors: finite unit vectors (or zeros), shape (m, d), float32, by the encoder of the examples.
        texts: m of them.

    Raises:
        DataError: parts of different lengths.
    """

    vectors: NDArray[np.float32]
    texts: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.texts):
            raise DataError(
                f"queries have vectors of shape {self.vectors.shape} for {len(self.texts)} texts; "
                f"give shape ({len(self.texts)}, dimension)"
            )

    def __len__(self) -> int:
        return len(self.texts)

    @classmethod
    def none(cls) -> Queries:
        """No query at all."""
        return cls(np.empty((0, 0), dtype=np.float32), ())


class Selector(Protocol):
    """A strategy made ready for some examples. Safe to share between threads."""

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """The ids of min(count, number of examples) distinct examples, best first.

        Args:
            queries: whom they shall serve; every selector takes none, one or many.
            count: at least 0.
            rng: read only by selectors that draw.

        Raises:
            DataError: a count below 0, or queries whose vectors are of another dimension.
        """
        ...


def checked_count(count: int, examples: Examples) -> int:
    """How many are to be chosen: ``count``, or all there are.

    Raises:
        DataError: a count below 0.
    """
    if count < 0:
        raise DataError(f"count={count} demonstrations cannot be chosen; count must be 0 or more")
    return min(count, len(examples))


def stand_ins(examples: Examples, queries: Queries) -> Queries:
    """``queries``, or the examples in their place where there are none: what is chosen then is typical of them.

    Raises:
        DataError: queries whose vectors are of another dimension.
    """
    if not len(queries):
        return Queries(examples.vectors, examples.texts)
    if queries.vectors.shape[1] != examples.vectors.shape[1]:
        raise DataError(
            f"queries have {queries.vectors.shape[1]} dimensions and the examples {examples.vectors.shape[1]}; "
            "encode both with the same encoder"
        )
    return queries


def relevance(examples: Examples, queries: Queries) -> NDArray[np.float32]:
    """Of each example the mean of its similarities to the queries (at least one), shape (n,), in [-1, 1]."""
    # The mean of inner products is the inner product with the mean.
    return similarities(examples.vectors, queries.vectors.mean(axis=0, dtype=np.float64))


def similarities(vectors: NDArray[np.float32], vector: NDArray[np.floating]) -> NDArray[np.float32]:
    """Inner product of each row with ``vector``, shape (n,), ``rounded``.

    Each row is added up by itself in double precision, so that equal rows get equal numbers wherever they stand.
    """
    found = np.empty(len(vectors), dtype=np.float32)
    block = max(1, _NUMBERS_A_BLOCK // max(1, vectors.shape[1]))
    for start in range(0, len(vectors), block):
        rows = vectors[start : start + block].astype(np.float64)
        found[start : start + block] = rounded(np.einsum("nd,d->n", rows, vector.astype(np.float64)))
    return found


def rounded(exact: NDArray[np.float64]) -> NDArray[np.float32]:
    """Similarities to the nearest multiple of 2**-24 in [-1, 1]: what is equal but for rounding is equal then.

    That is how fine float32 is near 1. Near 0 it is finer, and would tell noise of additions apart.
    """
    # Adding zero turns -0.0 into 0.0.
    return (np.clip(np.rint(exact * _GRID) / _GRID, -1.0, 1.0) + 0.0).astype(np.float32)


def best_first(scores: NDArray[np.floating]) -> Rows:
    """Rows by falling score, equal ones in their order."""
    return np.argsort(-scores, kind="stable")


def first_best(scores: NDArray[np.float64], tie: float = TIE) -> int:
    """The first row whose score is the highest, or less than ``tie`` below it; some score must be finite."""
    return int(np.argmax(scores > scores.max() - tie))
