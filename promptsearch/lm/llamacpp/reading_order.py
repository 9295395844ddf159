"""Which prompts are read in one batch, and from which position on.

Sorted prompts are a walk through their prefix tree: each goes on from what it shares with the one before. A batch of
a few tokens takes almost as long as one of some more, so that neighbours are read together where the batches that
this saves are worth more than the tokens that only some of them share, which each then reads for itself.

Invariant: the order follows from the prompts alone, not from what a memory holds, so that the same call reads as many
tokens whatever ran before.
Leaves out: memory, and decoding (:mod:`promptsearch.lm.llamacpp.stem`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from promptsearch.lm.plan import common_length

__all__ = ["before_the_last", "count_together", "pieces", "rounds", "start_positions"]

Tokens = tuple[int, ...]

_BATCH_COST = 10  # tokens: a batch of 12 takes as long as some 22 of those of a large one
_PIECE = 63  # tokens of a sequence in a batch, see promptsearch.lm.llamacpp.stem


def start_positions(paths: Sequence[Tokens]) -> list[int]:
    """From which position on each prompt is read; neighbours with the same one may be read together.

    Args:
        paths: tokens of each prompt, sorted, all different.

    Returns:
        Positions that leave two tokens at least before and after them, or none before.
    """
    walked = [before_the_last(common_length(*pair), pair[1]) for pair in pairwise(((), *paths))]
    starts: list[int] = []
    while len(starts) < len(paths):
        count, position = _group(paths, walked, len(starts))
        starts += [position] * count
    return starts


def count_together(paths: Sequence[Tokens], starts: Sequence[int]) -> int:
    """How many of some prompts, the first ones, are read together.

    Args:
        paths: tokens of each prompt, sorted, all different, at least one.
        starts: from which position on each is read.
    """
    start, count = starts[0], 1
    if len(paths[0]) - start < 2:
        return 1
    while count < len(paths) and starts[count] == start and len(paths[count]) - start >= 2:
        if common_length(paths[count - 1], paths[count]) < start:
            break
        count += 1
    return count


def before_the_last(shared: int, path: Tokens) -> int:
    """The most of ``shared`` tokens of a prompt that can be held while two at least are read."""
    return _two_or_none(min(shared, len(path) - 2))


def _two_or_none(position: int) -> int:
    return position if position >= 2 else 0


def _group(paths: Sequence[Tokens], walked: Sequence[int], first: int) -> tuple[int, int]:
    """How many prompts from ``first`` on are read together, and from which position on.

    Args:
        paths: all prompts.
        walked: where each one would begin if it were read by itself.
        first: the group's first prompt.
    """
    held, found, most = walked[first], (1, walked[first]), 0
    shared, kept = len(paths[first]) - 2, held
    for at in range(first + 1, len(paths)):
        shared = min(shared, common_length(paths[at - 1], paths[at]), len(paths[at]) - 2)
        if shared < 0:  # a prompt of one token
            break
        kept += walked[at]
        count = at - first + 1
        worth, position = max(_worth(count, kept, held, each) for each in _positions(shared, held))
        if worth <= most:
            break
        found, most = (count, position), worth
    return found


def _positions(shared: int, held: int) -> set[int]:
    """Where a group whose first prompt finds ``held`` tokens may begin: after these, or after all it shares."""
    there = _two_or_none(min(shared, held))
    return {there, shared} if shared >= max(2, held + 2) else {there}


def _worth(count: int, kept: int, held: int, position: int) -> tuple[int, int]:
    """Tokens' time that reading together saves, and the position."""
    further = max(0, position - held)  # read once, in a batch of its own
    batches = count - 1 - (further > 0)
    return _BATCH_COST * batches - (kept - count * position + further), position


def pieces(start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut a stretch into pieces of almost one size, none over the limit."""
    count = -(-(end - start) // _PIECE)
    bounds = [start + (end - start) * piece // count for piece in range(count + 1)]
    yield from pairwise(bounds)


def rounds(lengths: Sequence[int], most: int) -> Iterator[tuple[int, list[int]]]:
    """Read stretches side by side: each round a piece of one size of some of them.

    No stretch is left with a single token, which another kernel would compute.

    Args:
        lengths: tokens of each stretch, at least 2.
        most: tokens of a round.

    Yields:
        The size of the pieces, and whose they are, ascending.
    """
    left = dict(enumerate(lengths))
    while left:
        fewest = min(left.values())
        size = fewest // -(-fewest // _PIECE)
        taken = [at for at, tokens in left.items() if tokens - size != 1][: max(1, most // size)]
        yield size, taken
        left = {at: tokens - size * (at in taken) for at, tokens in left.items() if at not in taken or tokens > size}
