"""Which prompts are read in one batch, from which position on, and in pieces of which sizes.

Sorted prompts are a walk through their prefix tree: each goes on from what it shares with the one before. A batch of
a few tokens takes almost as long as one of some more, so that neighbours are read together where the batches that
this saves are worth more than the tokens that only some of them share, which each then reads for itself.

Long stretches are read in *tiles*, the name that llama.cpp's attention has for the way in which it takes 64 tokens of
a sequence and more: faster, and rounded in another way. So that a prompt's numbers are the same however it is
cut, its tokens are marked: those that are only ever read in tiles, and the others, which never are. What was read in
the one way serves no prompt that reads it in the other. Where less than a tile is new, tokens before it are read
again.

Invariant: all of it follows from the prompts, and from what is known of their openings, not from what a memory holds,
so that the same call reads as many tokens whatever ran before. A prompt's tiled tokens are its first ones.
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
    "first_read",
    "in_tiles",
    "is_all_tiled",
    "pieces",
    "rounds",
    "side_by_side",
    "start_positions",
    "tiled_length",
    "token_of",
]

Tokens = tuple[int, ...]

TILE = 64
"""Tokens of a sequence in a batch, from which on attention adds up in tiles."""
_TILED = 1 << 30  # added to a token's number
_TILED_REST = 48  # tokens after a known opening, from which on reading a tile for them takes no longer
_LONG_REST = 512  # tokens of a prompt whose opening is not known
_ENDING = 2 * TILE  # of such a prompt, not read in tiles: questions about one text differ there, and share the rest
_LONG_OPENING = 2 * TILE  # shorter ones take a batch or two in either way
_MOST_SIDE_BY_SIDE = 4 * TILE  # tokens of a prompt that is read in tiles beside others
_ALONE_COST = 1.4  # of a token in tiles, where no other prompt is read beside it

_BATCH_COST = 10  # tokens: a batch of 12 takes as long as some 22 of those of a large one
_PIECE = TILE - 1


def in_tiles(path: Tokens, opening: int, continued: int = 0) -> Tokens:
    """A prompt with marks for what is read in tiles.

    That is all of a prompt whose opening is known, unless hardly anything follows it; then its opening, if that has
    128 tokens and more, up to one place for all that begin so. Where no opening is known, other prompts may differ in
    a few tokens at the end: of one with 512 tokens and more all but its ending is read in tiles, and of others
    nothing. A prompt that goes on from another is read as that one was, and only its ending is new.

    Args:
        path: tokens of a prompt.
        opening: how many of its first tokens other prompts begin with too; 0 where that is not known.
        continued: how many tokens the prompt has that it goes on from; 0 for none.
    """
    length = min(continued or len(path), len(path))
    if opening and length - opening >= _TILED_REST:
        tiled = length if length >= TILE else 0
    else:
        shared = opening if opening >= _LONG_OPENING else 0
        tiled = length - _ENDING if length - opening >= _LONG_REST else shared
        tiled = max(0, min(tiled, length - 2)) // TILE * TILE
    return (*(token + _TILED for token in path[:tiled]), *path[tiled:])


def token_of(marked: int) -> int:
    """The number of a token, marked or not."""
    return marked % _TILED


def tiled_length(path: Tokens) -> int:
    """How many of a prompt's tokens are marked: the first ones."""
    return bisect_left(path, True, key=lambda token: token < _TILED)


def is_all_tiled(path: Tokens) -> bool:
    """Whether all of a prompt is read in tiles."""
    return tiled_length(path) == len(path) > 0


def first_read(path: Tokens, start: int) -> int:
    """Where reading begins once so many tokens of a prompt are there: before them where less than a tile is left."""
    return min(start, len(path) - TILE) if is_all_tiled(path) else start


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
    if is_all_tiled(paths[0]):
        while count < len(paths) and starts[count] == start and _may_stand_beside(paths, count, start):
            count += 1
        return count
    if len(paths[0]) - start < 2 or start < tiled_length(paths[0]):
        return 1
    while count < len(paths) and starts[count] == start and len(paths[count]) - start >= 2:
        if common_length(paths[count - 1], paths[count]) < start or start < tiled_length(paths[count]):
            break
        count += 1
    return count


def _may_stand_beside(paths: Sequence[Tokens], at: int, start: int) -> bool:
    """Whether a prompt can be read in tiles beside the one before it, from a position that they share."""
    pair = paths[at - 1 : at + 1]
    short = all(len(path) - start <= _MOST_SIDE_BY_SIDE for path in pair)
    return short and is_all_tiled(pair[1]) and common_length(*pair) >= start


def before_the_last(shared: int, path: Tokens) -> int:
    """The most of ``shared`` tokens of a prompt that can be held: two at least are read, or a tile."""
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
    if is_all_tiled(paths[first]):
        return _tiled_group(paths, walked, first)
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


def _tiled_group(paths: Sequence[Tokens], walked: Sequence[int], first: int) -> tuple[int, int]:
    """The same for prompts that are all read in tiles: side by side, each with a tile at least."""
    held, found, most = walked[first], (1, walked[first]), 0.0
    shared = longest = len(paths[first])
    alone, beside, position = _ALONE_COST * (shared - held), 0, -1  # tokens' time; the latter from a position on
    for at in range(first + 1, len(paths)):
        if not is_all_tiled(paths[at]):
            break
        shared, longest = min(shared, common_length(paths[at - 1], paths[at])), max(longest, len(paths[at]))
        alone += _ALONE_COST * (len(paths[at]) - walked[at])
        before, position = position, _where_tiles_begin(shared, held)
        if longest - position > _MOST_SIDE_BY_SIDE:
            break
        new = paths[at : at + 1] if position == before else paths[first : at + 1]
        beside = (beside if position == before else 0) + sum(max(TILE, len(path) - position) for path in new)
        saved = alone - beside - _ALONE_COST * max(0, position - held)
        if saved <= most:
            break
        found, most = (at - first + 1, position), saved
    return found


def _where_tiles_begin(shared: int, held: int) -> int:
    """Where prompts that share so many tokens begin side by side, if the first one finds ``held`` of them."""
    position = shared if shared >= held + TILE else min(shared, held)
    return position if position >= TILE else 0


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


def side_by_side(lengths: Sequence[int], start: int, most: int) -> Iterator[tuple[int, list[int]]]:
    """Read prompts in tiles, several in a batch: of each the same number of its last tokens.

    Args:
        lengths: tokens of each prompt, ascending, at least a tile.
        start: how many tokens of each are there already.
        most: tokens of a batch, at least as many as any prompt has after these.

    Yields:
        How many tokens are read of each, and of which prompts, ascending.
    """
    taken: list[int] = []
    for at, length in enumerate(lengths):
        size = max(TILE, length - start)
        if taken and (size * (len(taken) + 1) > most or size > lengths[taken[0]]):
            yield max(TILE, lengths[taken[-1]] - start), taken
            taken = []
        taken.append(at)
    if taken:
        yield max(TILE, lengths[taken[-1]] - start), taken


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
