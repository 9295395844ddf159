"""Prompts decoded one after another, each going on from what it shares with the one before.

A sequence of its own, the *stem*, holds the newest prompt; the requests for it get copies. In sorted order no later
prompt shares more with any earlier one than with the newest, so that the stem cut back to what the next prompt shares
is all of their prefix tree that is ever needed again. It stays from call to call: the next one goes on from it too.

Invariant: a prompt's prediction is bit by bit the same whatever the stem held before, and whatever runs beside it.
On processors llama.cpp computes a row alike in all batches of 2 to 63 tokens of a sequence (alone it runs another
kernel, and from 64 on attention adds up in tiles), so prompts are decoded in pieces of such sizes.
Leaves out: what follows the prompts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.plan import Row, common_length

__all__ = ["FIRST_PLACE", "SCRATCH", "STEM", "FixedStem", "Stem"]

Tokens = tuple[int, ...]
Logits = NDArray[np.float32]

STEM = 0
"""The sequence of the newest prompt."""
SCRATCH = 1
"""A sequence whose only use is that no batch has a single row."""
FIRST_PLACE = 2
"""Requests have this sequence and those after it."""

_PIECE = 63  # tokens


class Stem:
    """The newest prompt, in a memory that can cut a sequence back.

    Args:
        context: one whose sequences have memories of their own.

    Attributes:
        path: the newest prompt's tokens; empty before the first.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.path: Tokens = ()
        self._prediction: Logits | None = None  # after the newest prompt

    def begin(self, paths: Sequence[Tokens]) -> int:
        """Get ready for sorted prompts.

        Returns:
            How many tokens of the first one are there already, from an earlier call.
        """
        self.context.drop(range(SCRATCH, self.context.sequences))
        return self._kept_for(paths[0]) if paths else 0

    def bring(self, path: Tokens, sequence: int) -> Logits:
        """Make an empty sequence hold a prompt.

        Returns:
            The logits after it, shape (vocabulary,).
        """
        if self._prediction is None or path != self.path:
            kept = self._kept_for(path)
            self._prediction = None  # whatever happens below, the stem is then known to be unfinished
            if kept < len(self.path):
                self.context.cut(STEM, kept)
            self.path = path[:kept]
            self._prediction = feed(self.context, path, kept, STEM).copy()
            self.path = path
        self.context.fork(STEM, [sequence])
        return self._prediction

    def go_on(self, sequence: int, held: Tokens, path: Tokens) -> Logits:
        """Make a sequence that holds ``held`` and perhaps one token more hold a prompt instead.

        Returns:
            The logits after it, shape (vocabulary,).
        """
        kept = max(0, min(common_length(held, path), len(path) - 2))
        self.context.cut(sequence, kept)
        return feed(self.context, path, kept, sequence).copy()

    def forget(self) -> None:
        """Start anew, after a failure that may have left anything."""
        self.context.clear()
        self.path, self._prediction = (), None

    def _kept_for(self, path: Tokens) -> int:
        """Tokens of a prompt that stay: all if it is the newest one, else so many that two at least are decoded."""
        if path == self.path and self._prediction is not None:
            return len(path)
        return max(0, min(common_length(self.path, path), len(path) - 2))


class FixedStem(Stem):
    """What all prompts of a call begin with, for a memory that cannot cut a sequence back.

    Each request copies it and decodes the rest of its prompt itself; nothing stays after the call.
    """

    def begin(self, paths: Sequence[Tokens]) -> int:
        """Get ready for sorted prompts; none of their tokens is there from an earlier call."""
        self.forget()
        if not paths:
            return 0
        shared = min(common_length(paths[0], paths[-1]), min(map(len, paths)) - 2)
        if shared > 0:
            self.path = paths[0][:shared]
            feed(self.context, self.path, 0, STEM)
        return 0

    def bring(self, path: Tokens, sequence: int) -> Logits:
        """Make an empty sequence hold a prompt; the logits after it, shape (vocabulary,)."""
        shared = len(self.path) if path[: len(self.path)] == self.path and len(path) >= len(self.path) + 2 else 0
        if shared:
            self.context.fork(STEM, [sequence])
        return feed(self.context, path, shared, sequence).copy()

    def go_on(self, sequence: int, held: Tokens, path: Tokens) -> Logits:
        """Make a sequence hold a prompt, from the beginning that all share."""
        self.context.drop([sequence])
        return self.bring(path, sequence)


def feed(context: Context, path: Tokens, start: int, sequence: int) -> Logits:
    """Decode a path from position ``start`` on; the logits after its last token, valid until the next batch."""
    logits: Logits | None = None
    for first, end in _pieces(start, len(path)):
        rows = [Row(path[position], position, (sequence,)) for position in range(first, end)]
        logits = context.decode_in_company(rows, [len(rows) - 1], SCRATCH)[0]
    assert logits is not None
    return logits


def _pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch into pieces of almost one size, none over the limit."""
    count = -(-(end - start) // _PIECE)
    bounds = [start + (end - start) * piece // count for piece in range(count + 1)]
    yield from pairwise(bounds)
