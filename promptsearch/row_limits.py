"""How many rows are worth a vector: what embedding costs is held to a share of what the model reads.

An encoder's work grows with the bytes of all rows, the model's with its budget of tokens and its size. Without a
limit a few thousand long rows take most of two minutes, and little is left to search with.
What counts characters is much cheaper than an encoder, and learns from further rows.
Invariant: the rows follow from tokens, bytes and the model's size alone. So a time and the tokens that its plan comes
to take the same rows, whatever else was kept or measured on the machine.
Leaves out: which rows; they are drawn in an order of their own, of which these are the first.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from promptsearch.data.splits import Splits

__all__ = ["RowCounts", "RowLimit", "RowLimits", "drawn_order", "first_rows", "further_rows", "read_size"]

# Bytes that the default encoder may read for a token that each million of the model's parameters reads. With the
# packaged model, 135 million parameters, embedding then takes about a fifth of the time.
_SHARES = (0.041, 0.009, 0.006, 0.009)  # for the parts in their order
_FEWEST_POOL, _FEWEST_POOL_OF_A_LABEL, _FEWEST_OTHERS = 200, 8, (300, 200, 100)
_FIRST_OF_A_LABEL = 4
_CHARACTERS_A_BYTE = 12.0  # bytes of further rows, times labels, for each byte of the pool: a fifth of its seconds
_MOST_CHARACTERS = 3_000_000  # bytes of pool and further rows together
_LONGEST = 1024  # bytes of a text that the encoder reads; about its 256 tokens
_STEP = 50  # rows


@dataclass(frozen=True)
class RowLimit:
    """The rule for some rows.

    Attributes:
        sizes: what the encoder reads of each row, in the order in which rows are taken.
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
        read = np.cumsum(np.asarray(self.sizes, dtype=np.int64))
        return [int(read[rows - 1]) if rows else 0 for rows in self._steps]


class RowCounts(NamedTuple):
    """How many rows of each part are taken."""

    pool: int
    search: int
    confirm: int
    test: int

    @classmethod
    def of(cls, splits: Splits) -> RowCounts:
        """All rows."""
        return cls(**{name: len(getattr(splits, name)) for name in cls._fields})

    def within(self, others: RowCounts) -> RowCounts:
        """The smaller count of each part."""
        return RowCounts(*map(min, self, others))


class RowLimits:
    """The rule for the splits of a task.

    Args:
        splits: all rows.
        drawn: the pool rows in the order in which they are taken, see :func:`drawn_order`.
        sizes: what the encoder reads of each row of the task, by number, see :func:`read_size`.
        parameters: of the model.
        labels: number of labels; 0 for free text.
    """

    def __init__(
        self, splits: Splits, drawn: Sequence[int], sizes: Sequence[int], parameters: int, labels: int
    ) -> None:
        millions = parameters / 1e6
        fewest = RowCounts(max(_FEWEST_POOL, _FEWEST_POOL_OF_A_LABEL * labels), *_FEWEST_OTHERS)
        rows = {**{name: getattr(splits, name) for name in RowCounts._fields}, "pool": drawn}
        self._parts = [
            RowLimit([sizes[number] for number in rows[name]], share * millions, least)
            for name, share, least in zip(RowCounts._fields, _SHARES, fewest, strict=True)
        ]

    def counts(self, tokens: float) -> RowCounts:
        """The rows for so many tokens of the model."""
        return RowCounts(*(part.rows(tokens) for part in self._parts))

    def counts_within(self, tokens_left: Callable[[RowCounts], float]) -> RowCounts:
        """The rows that the tokens which are left after embedding them allow.

        Args:
            tokens_left: from rows to tokens; the more rows, the fewer tokens.
        """
        most = self.counts(tokens_left(RowCounts(0, 0, 0, 0)))
        pool = self._parts[0].rows_within(lambda rows: tokens_left(most._replace(pool=rows)))
        counts = most._replace(pool=pool)
        return counts.within(self.counts(tokens_left(counts)))

    def most_tokens(self, counts: RowCounts) -> float:
        """The most whole tokens that allow no more than so many rows of any part; infinite where these are all."""
        return min(part.most_tokens(count) for part, count in zip(self._parts, counts, strict=True))


def read_size(text: str) -> int:
    """Bytes of a text that the default encoder reads, about."""
    return min(_LONGEST, len(text.encode("utf-8", "surrogatepass")))


def drawn_order(pool: Sequence[int], labels: Sequence[str] | None, seed: int) -> list[int]:
    """Pool rows in the order in which they are taken: a few of each label, then the rest.

    Where a row stands does not depend on which others there are beside those of its label.

    Args:
        pool: row numbers.
        labels: label of each row of the task, by number; None for free text.
        seed: of the order.
    """
    keys = np.random.default_rng([seed, 1]).random(max(pool, default=0) + 1)
    drawn = sorted(pool, key=lambda number: keys[number])
    if labels is None:
        return drawn
    seen: Counter[str] = Counter()
    first: list[int] = []
    rest: list[int] = []
    for number in drawn:
        seen[labels[number]] += 1
        (first if seen[labels[number]] <= _FIRST_OF_A_LABEL else rest).append(number)
    return [*first, *rest]


def first_rows(splits: Splits, drawn: Sequence[int], counts: RowCounts, further: Sequence[int] = ()) -> Splits:
    """The splits with the first rows of each part, of the pool those that are drawn first, and further ones."""
    others = {name: getattr(splits, name)[: getattr(counts, name)] for name in ("search", "confirm", "test")}
    return replace(splits, pool=tuple(sorted(drawn[: counts.pool])), further=tuple(further), **others)


def further_rows(drawn: Sequence[int], sizes: Sequence[int], pool: int, labels: int) -> list[int]:
    """The rows that are drawn next after those of the pool, as many as are worth counting their characters.

    Args:
        drawn: all pool rows in the order in which they are taken.
        sizes: what is read of each row of the task, by number.
        pool: how many of them the pool has.
        labels: number of labels; 0 for free text, of which nothing is counted.
    """
    if not labels:
        return []
    taken = sum(sizes[row] for row in drawn[:pool])
    most = min(_CHARACTERS_A_BYTE * taken / labels, _MOST_CHARACTERS - taken)
    read = np.cumsum([sizes[row] for row in drawn[pool:]], dtype=np.int64)
    return list(drawn[pool : pool + int(np.searchsorted(read, most, side="right"))])
