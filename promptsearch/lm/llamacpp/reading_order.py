"""Which prompts are read in one batch, from which position on, and in pieces of which sizes.

Sorted prompts are a walk through their prefix tree: each goes on from what it shares with the one before. A batch of
a few tokens takes almost as long as one of some more, so that neighbours are read together where the batches that
this saves are worth more than the tokens that only some of them share, which each then reads for itself.

Long stretches are read in *tiles*, the name that llama.cpp's attention has for the way in which it takes 64 tokens of
a sequence and more: faster, and rounded in another way. So that a prompt's numbers are the same however it is
cut, its tokens are marked: those that are only ever read in tiles, and the others, which never are. What was read in
the one way serves no prompt that reads it in the other.

Invariant: all of it follows from the prompts, and from what is known of their openings, not from what a memory holds,
so that the same call reads as many tokens whatever ran before. A prompt's tiled tokens are its first ones, and at
least two others follow.
Leaves out: memory, and decoding (:mod:`promptsearch.lm.llamacpp.stem`).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import pairwise

from promptsearch.lm.plan import common_length

__all__ = [
    "TILE",
    "before_the_last",
    "count_together",
    "in_tiles",
    "pieces",
    "rounds",
    "start_positions",
    "tiled_length",
    "token_of",
]

Tokens = tuple[int, ...]

TILE = 64
"""Tokens of a sequence in a batch, from which on attention adds up in tiles."""
_TILED = 1 << 30  # added to a token's number
_LONG_REST = 512  # tokens after what other prompts share
_LONG_OPENING = 2 * TILE  # shorter ones take a batch or two in either way
_ENDING = 2 * TILE  # of a long prompt, not read in tiles: questions about one text differ there, and share the rest

_BATCH_COST = 10  # tokens: a batch of 12 takes as long as some 22 of those of a large one
_PIECE = TILE - 1


def in_tiles(path: Tokens, opening: int, continued: int = 0) -> Tokens:
    """A prompt with marks for what is read in tiles.

    That is all of a prompt whose own part has 512 tokens and more, but for its ending; of others what they share with
    other prompts, if it has 128 tokens and more, so that it ends at one place for all of these. A prompt that goes on
    from another is read as that one was, and only its ending is new.

    Args:
        path: tokens of a prompt.
        opening: how many of its first tokens other prompts begin with too; 0 where that is not known.
        continued: how many tokens the prompt has that it goes on from; 0 for none.
    """
    length = continued or len(path)
    shared = opening if opening >= _LONG_OPENING else 0
    tiled = length - _ENDING if length - opening >= _LONG_REST else shared
    tiled = max(0, min(tiled, length - 2, len(path) - 2)) // TILE * TILE
    return (*(token + _TILED for token in path[:tiled]), *path[tiled:])


def token_of(marked: int) -> int:
    """The number of a token, marked or not."""
    return marked % _TILED


def tiled_length(path: Tokens) -> int:
    """How many of a prompt's tokens are marked: the first ones."""
    return bisect_left(path, True, key=lambda token: token < _TILED)


def start_positions(paths: Sequence[Tokens]) -> list[int]:
    """From which position on each prompt is read; neighbours with the same one may be read together.

    Args:
        paths: tokens of each prompt, sorted, all different.

    Returns:
        Positions that :func:`before_the_last` could have given.
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
    if len(paths[0]) - start < 2 or start < tiled_length(paths[0]):
        return 1
    while count < len(paths) and starts[count] == start and len(paths[count]) - start >= 2:
        if common_length(paths[count - 1], paths[count]) < start or start < tiled_length(paths[count]):
            break
        count += 1
    return count


def before_the_last(shared: int, path: Tokens) -> int:
    """The most of ``shared`` tokens of a prompt that can be held: two at least are read, and no part of a tile."""
    return _cut(min(shared, len(path) - 2), tiled_length(path))


def _cut(position: int, tiled: int) -> int:
    """Where a prompt can be cut, not after a position.

    Each part of what is tiled has a tile or more, or nothing; each part of the rest two tokens or more, or nothing.
    """
    if position >= tiled:
        return position if position >= tiled + 2 else tiled
    before = min(position, tiled - TILE)
    return before if before >= TILE else 0


def _group(paths: Sequence[Tokens], walked: Sequence[int], first: int) -> tuple[int, int]:
    """How many prompts from ``first`` on are read together, and from which position on.

    Args:
        paths: all prompts.
        walked: where each one would begin if it were read by itself.
        first: the group's first prompt.
    """
    held, found, most = walked[first], (1, walked[first]), 0
    shared, kept, tiled = len(paths[first]) - 2, held, tiled_length(paths[first])
    for at in range(first + 1, len(paths)):
        shared = min(shared, common_length(paths[at - 1], paths[at]), len(paths[at]) - 2)
        if shared < 0 or tiled_length(paths[at]) != tiled:  # a prompt of one token, or tiles that each reads alone
            break
        kept += walked[at]
        count = at - first + 1
        positions = _positions(shared, held, tiled)
        if not positions:
            break
        worth, position = max(_worth(count, kept, held, each) for each in positions)
        if worth <= most:
            break
        found, most = (count, position), worth
    return found


def _positions(shared: int, held: int, tiled: int) -> set[int]:
    """Where a group whose first prompt finds ``held`` tokens may begin: after these, or after all it shares.

    It begins after what is read in tiles, which one sequence reads for all.
    """
    there, further = _cut(min(shared, held), tiled), _cut(shared, tiled)
    found = {there, further} if further >= held + 2 else {there}
    return {position for position in found if position >= tiled}


def _worth(count: int, kept: int, held: int, position: int) -> tuple[int, int]:
    """Tokens' time that reading together saves, and the position."""
    further = max(0, position - held)  # read once, in a batch of its own
    batches = count - 1 - (further > 0)
    return _BATCH_COST * batches - (kept - count * position + further), position


def pieces(path: Tokens, start: int, batch: int) -> Iterator[tuple[int, int]]:
    """Cut the rest of a prompt into pieces of almost one size, tiled tokens apart from the others.

    Args:
        path: tokens of the prompt.
        start: where the rest begins.
        batch: tokens that llama.cpp runs at once, at least two tiles.
    """
    tiled = tiled_length(path)
    if start < tiled:
        yield from _evenly(start, tiled, batch)
    if tiled < len(path):
        yield from _evenly(max(start, tiled), len(path), _PIECE)


def _evenly(start: int, end: int, most: int) -> Iterator[tuple[int, int]]:
    count = -(-(end - start) // most)
    yield from pairwise(start + (end - start) * piece // count for piece in range(count + 1))


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
