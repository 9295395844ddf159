"""Prompts brought into the memories of requests, each going on from what it shares with the one before.

A sequence of its own, the *stem*, holds the newest prompt; the requests for it get copies. In sorted order no later
prompt shares more with any earlier one than with the newest, so that the stem cut back to what the next prompt shares
is all of their prefix tree that is ever needed again. It stays from call to call: the next one goes on from it too.
Prompts whose rests are short are read together, each in its own copy of what they share
(:mod:`promptsearch.lm.llamacpp.reading_order`).

Invariant: a prompt's prediction is bit by bit the same whatever the stem held before, and whatever runs beside it.
On processors llama.cpp computes a row alike in all batches of 2 to 63 tokens of a sequence, alike in all of 64 and
more, and alone by another kernel. So prompts say which of their tokens are read in the one way and which in the other
(:func:`promptsearch.lm.llamacpp.reading_order.in_tiles`), and are read in pieces of such sizes; a prediction is
computed alike in all batches that ask for two at least. The exception is a single token as the second prompt of a
request.
Leaves out: what follows the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.reading_order import (
    before_the_last,
    count_together,
    first_read,
    is_all_tiled,
    pieces,
    rounds,
    side_by_side,
    start_positions,
    token_of,
)
from promptsearch.lm.plan import Row, common_length

__all__ = ["FIRST_PLACE", "SCRATCH", "STEM", "FixedStem", "Stem"]

Tokens = tuple[int, ...]
"""A prompt's tokens, those that are read in tiles marked."""
Logits = NDArray[np.float32]
Brought = tuple[int, Logits]
"""The sequence that holds a prompt, and the logits after it, of shape (vocabulary,)."""

STEM = 0
"""The sequence of the newest prompt."""
SCRATCH = 1
"""A sequence whose only use is that no batch has a single row."""
FIRST_PLACE = 2
"""Requests have this sequence and those after it."""


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
        self._starts: dict[Tokens, int] = {}  # from which position on each of this call's prompts is read
        self._prediction: Logits | None = None  # after the newest prompt

    def begin(self, paths: Sequence[Tokens]) -> int:
        """Get ready for sorted prompts.

        Returns:
            How many tokens of the first one are there already, from an earlier call.
        """
        self.context.drop(range(SCRATCH, self.context.sequences))
        distinct = list(dict.fromkeys(paths))
        self._starts = dict(zip(distinct, start_positions(distinct), strict=True))
        if not distinct:
            return 0
        first = distinct[0]
        if self._holds(first):
            return len(first)
        there = before_the_last(common_length(self.path, first), first)
        self._starts[first] = max(there, self._starts[first])  # it is read alone if that is more than others share
        return self._kept(first, self._starts[first])

    def bring(self, paths: Sequence[Tokens], sequences: Sequence[int]) -> list[Brought]:
        """Make empty neighbouring sequences hold the next of the prompts that :meth:`begin` was told of.

        Args:
            paths: the prompts, in their order.
            sequences: ascending, one for each prompt; which one gets which is decided here.

        Returns:
            Where each prompt is, and what follows it.
        """
        found: dict[Tokens, Brought] = {}
        distinct = list(dict.fromkeys(paths))
        while len(found) < len(distinct):
            group = self._group(distinct[len(found) :])
            free = sequences[len(found) : len(found) + len(group)]
            found.update(zip(group, self._bring_group(group, free), strict=True))
        brought: list[Brought] = []
        copies = iter(sequences[len(distinct) :])
        for number, path in enumerate(paths):
            sequence, logits = found[path]
            if number and path == paths[number - 1]:
                copy = next(copies)
                self.context.fork(sequence, [copy])
                sequence = copy
            brought.append((sequence, logits))
        return brought

    def go_on(self, sequence: int, held: Tokens, path: Tokens) -> Logits:
        """Make a sequence that holds ``held`` and perhaps one token more hold a prompt instead.

        Returns:
            The logits after it, shape (vocabulary,).
        """
        kept = before_the_last(common_length(held, path), path)
        self.context.cut(sequence, kept)
        return feed(self.context, path, kept, sequence).copy()

    def forget(self) -> None:
        """Start anew, after a failure that may have left anything."""
        self.context.clear()
        self.path, self._prediction = (), None

    def _group(self, paths: Sequence[Tokens]) -> Sequence[Tokens]:
        """The first prompts that are read together."""
        if self._holds(paths[0]):
            return paths[:1]
        return paths[: count_together(paths, [self._starts[path] for path in paths])]

    def _bring_group(self, paths: Sequence[Tokens], sequences: Sequence[int]) -> list[Brought]:
        """Read prompts together, from the same position on."""
        newest = paths[-1]
        start = self._starts[newest]
        if len(paths) == 1:
            if not self._holds(newest):
                self._hold(newest, start)
                first = first_read(newest, start)
                if first < start:
                    self.context.cut(STEM, first)
                self._prediction = feed(self.context, newest, first, STEM).copy()
                self.path = newest
            assert self._prediction is not None
            self.context.fork(STEM, sequences)
            return [(sequences[0], self._prediction)]
        self._hold(newest, start)
        if start:
            self.context.fork(STEM, sequences)
        feed_group = _feed_side_by_side if is_all_tiled(newest) else _feed_together
        found = feed_group(self.context, paths, start, sequences)
        self.context.drop([STEM])
        self.context.fork(found[-1][0], [STEM])
        self.path, self._prediction = newest, found[-1][1]
        return found

    def _hold(self, path: Tokens, length: int) -> None:
        """Make the stem hold the first ``length`` tokens of a prompt."""
        kept = self._kept(path, length)
        self._prediction = None  # whatever happens below, the stem is then known to be unfinished
        if kept < len(self.path):
            self.context.cut(STEM, kept)
        self.path = path[:kept]
        if kept < length:
            feed(self.context, path[:length], kept, STEM)
        self.path = path[:length]

    def _holds(self, path: Tokens) -> bool:
        return path == self.path and self._prediction is not None

    def _kept(self, path: Tokens, length: int) -> int:
        """How much of the first ``length`` tokens of a prompt is there: all, or so much that two are decoded."""
        shared = common_length(self.path, path)
        return length if shared >= length else before_the_last(shared, path[:length])


class FixedStem(Stem):
    """What all prompts of a call begin with, for a memory that cannot cut a sequence back.

    Each request copies it and decodes the rest of its prompt itself; nothing stays after the call. It cuts prompts
    anywhere, so that none of their tokens may be marked.
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

    def bring(self, paths: Sequence[Tokens], sequences: Sequence[int]) -> list[Brought]:
        """Make empty sequences hold prompts."""
        pairs = zip(paths, sequences, strict=True)
        return [(sequence, self._bring_one(path, sequence)) for path, sequence in pairs]

    def go_on(self, sequence: int, held: Tokens, path: Tokens) -> Logits:
        """Make a sequence hold a prompt, from the beginning that all share."""
        self.context.drop([sequence])
        return self._bring_one(path, sequence)

    def _bring_one(self, path: Tokens, sequence: int) -> Logits:
        shared = len(self.path) if path[: len(self.path)] == self.path and len(path) >= len(self.path) + 2 else 0
        if shared:
            self.context.fork(STEM, [sequence])
        return feed(self.context, path, shared, sequence).copy()


def feed(context: Context, path: Tokens, start: int, sequence: int) -> Logits:
    """Decode a path from position ``start`` on; the logits after its last token, valid until the next batch."""
    *before, (last, end) = pieces(path, start, context.at_once)
    for stretch in before:
        context.decode_in_company(_rows(path, range(*stretch), sequence), [], SCRATCH)
    rows = _rows(path, range(last, end), sequence)
    newest: Logits = context.decode_in_company(rows, [len(rows) - 1], SCRATCH)[0]
    return newest


def _feed_together(context: Context, paths: Sequence[Tokens], start: int, sequences: Sequence[int]) -> list[Brought]:
    """Decode paths from position ``start`` on, pieces of several in a batch.

    Shorter paths get the lower sequences, so that those that are left are mostly neighbours, which llama.cpp runs
    together.
    """
    lengths = [len(path) - start for path in paths]
    ascending = sorted(range(len(paths)), key=lambda at: lengths[at])
    places = dict(zip(ascending, sequences, strict=True))
    done = [start] * len(paths)
    found: dict[int, Brought] = {}
    for size, members in rounds([lengths[at] for at in ascending], context.batch):
        rows: list[Row] = []
        ending: dict[int, int] = {}  # of paths that end here, the row of the last token
        for at in (ascending[member] for member in members):
            rows += _rows(paths[at], range(done[at], done[at] + size), places[at])
            done[at] += size
            if done[at] == len(paths[at]):
                ending[at] = len(rows) - 1
        logits = context.decode(rows, [row for last in ending.values() for row in (last - 1, last)])
        found.update({at: (places[at], logits[2 * place + 1].copy()) for place, at in enumerate(ending)})
    return [found[at] for at in range(len(paths))]


def _feed_side_by_side(
    context: Context, paths: Sequence[Tokens], start: int, sequences: Sequence[int]
) -> list[Brought]:
    """Decode paths in tiles from position ``start`` on, or a little before it where less than a tile is new.

    llama.cpp runs equally many tokens of each sequence together, and neighbours only: shorter paths get the lower
    sequences, and those of about one length are read in a batch.
    """
    ascending = sorted(range(len(paths)), key=lambda at: len(paths[at]))
    places = dict(zip(ascending, sequences, strict=True))
    found: dict[int, Brought] = {}
    for size, members in side_by_side([len(paths[at]) for at in ascending], start, context.at_once):
        rows: list[Row] = []
        taken = [ascending[member] for member in members]
        for at in taken:
            first = len(paths[at]) - size
            if first < start:
                context.cut(places[at], first)
            context.tokens_decoded -= first_read(paths[at], start) - first  # it would not read these by itself
            rows += _rows(paths[at], range(first, len(paths[at])), places[at])
        ends = [size * (place + 1) for place in range(len(taken))]
        logits = context.decode(rows, [row for end in ends for row in (end - 2, end - 1)])
        found.update({at: (places[at], logits[2 * place + 1].copy()) for place, at in enumerate(taken)})
    return [found[at] for at in range(len(paths))]


def _rows(path: Tokens, positions: range, sequence: int) -> list[Row]:
    return [Row(token_of(path[position]), position, (sequence,)) for position in positions]
