"""How many rows are worth a vector: what embedding costs is held to a share of what the model reads.

An encoder's work grows with the bytes of all rows, the model's with its budget of tokens and its size. Without a
limit a few thousand long rows take most of two minutes, and little is left to search with.
Invariant: the rows follow from tokens, bytes and the model's size alone. So a time and the tokens that its plan comes
to take the same rows, whatever else was kept or measured on the machine.
Leaves out: which rows; they are drawn in an order of their own, of which these are the first.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from promptsearch.data.splits import Splits

__all__ = ["RowCounts", "RowLimit", "RowLimits", "drawn_order", "first_rows"]

# Bytes that the default encoder may read for a token that each million of the model's parameters reads. With the
# packaged model, 135 million parameters, embedding then takes about a fifth of the time.
_POOL_SHARE, _TEST_SHARE = 0.041, 0.009
_FEWEST_POOL, _FEWEST_POOL_OF_A_LABEL, _FEWEST_TEST = 200, 8, 100
_LONGEST = 1024  # bytes of a text that the encoder reads; about its 256 tokens
_STEP = 50  # rows


@dataclass(frozen=True)
class RowLimit:
    """The rule for some rows.

    Attributes:
        sizes: bytes of each row, in the order in which rows are taken.
        bytes_a_token: that the encoder may read of them for each token of the model's budget, above 0.
        fewest: rows that are taken in any case.
    """

    sizes: Sequence[int]
    bytes_a_token: float
    fewest: int

    def rows(self, tokens: float) -> int:
        """Rows for so many tokens of the model; the more tokens, the more rows."""
        return self._steps[max(0, bisect_right(self._bytes, tokens * self.bytes_a_token) - 1)]

    def rows_within(self, tokens_left: Callable[[int], float]) -> int:
        """The most rows that the tokens which are left after embedding them allow.

        Args:
            tokens_left: from a number of rows to tokens; the more rows, the fewer tokens.
        """
        found = bisect_left(self._steps, True, key=lambda rows: self.rows(tokens_left(rows)) < rows)
        return self._steps[max(0, found - 1)]

    def most_tokens(self, rows: int) -> float:
        """The most whole tokens for which there are no more than so many rows; infinite where these are all."""
        more = bisect_right(self._steps, rows)
        if more == len(self._steps):
            return math.inf
        tokens = math.ceil(self._bytes[more] / self.bytes_a_token)
        while self.rows(tokens) > rows:  # by rounding, once at most
            tokens -= 1
        return tokens

    @cached_property
    def _steps(self) -> list[int]:
        """The numbers of rows that there can be, ascending."""
        every, fewest = len(self.sizes), min(self.fewest, len(self.sizes))
        return sorted({fewest, *range((fewest // _STEP + 1) * _STEP, every, _STEP), every})

    @cached_property
    def _bytes(self) -> list[int]:
        """Bytes that the encoder reads of each of these numbers of rows."""
        read = np.cumsum(np.minimum(np.asarray(self.sizes, dtype=np.int64), _LONGEST))
        return [int(read[rows - 1]) if rows else 0 for rows in self._steps]


class RowCounts(NamedTuple):
    """How many rows of two parts get vectors; all rows of the others do."""

    pool: int
    test: int


class RowLimits:
    """The rule for the splits of a task.

    Args:
        splits: all rows.
        sizes: bytes of each row of the task, by number.
        parameters: of the model.
        labels: number of labels; 0 for free text.
        seed: of the order in which pool rows are taken.
    """

    def __init__(self, splits: Splits, sizes: Sequence[int], parameters: int, labels: int, seed: int) -> None:
        drawn = drawn_order(splits.pool, seed)
        millions = parameters / 1e6
        fewest = max(_FEWEST_POOL, _FEWEST_POOL_OF_A_LABEL * labels)
        self._pool = RowLimit([sizes[number] for number in drawn], _POOL_SHARE * millions, fewest)
        self._test = RowLimit([sizes[number] for number in splits.test], _TEST_SHARE * millions, _FEWEST_TEST)

    def counts(self, tokens: float) -> RowCounts:
        """The rows for so many tokens of the model."""
        return RowCounts(self._pool.rows(tokens), self._test.rows(tokens))

    def counts_within(self, tokens_left: Callable[[RowCounts], float]) -> RowCounts:
        """The rows that the tokens which are left after embedding them allow.

        Args:
            tokens_left: from rows to tokens; the more rows, the fewer tokens.
        """
        test = self._test.rows(tokens_left(RowCounts(0, 0)))
        pool = self._pool.rows_within(lambda rows: tokens_left(RowCounts(rows, test)))
        return RowCounts(pool, min(test, self._test.rows(tokens_left(RowCounts(pool, test)))))

    def most_tokens(self, counts: RowCounts) -> float:
        """The most whole tokens that allow no more than so many rows of either part; infinite where these are all."""
        return min(self._pool.most_tokens(counts.pool), self._test.most_tokens(counts.test))


def drawn_order(pool: Sequence[int], seed: int) -> list[int]:
    """Pool rows in the order in which they are taken."""
    return [pool[place] for place in np.random.default_rng([seed, 1]).permutation(len(pool))]


def first_rows(splits: Splits, drawn: Sequence[int], counts: RowCounts) -> Splits:
    """The splits with the first rows of two parts, whose pool stands in its own order."""
    pool = splits.pool if counts.pool >= len(splits.pool) else tuple(sorted(drawn[: counts.pool]))
    return replace(splits, pool=pool, test=splits.test[: counts.test])
