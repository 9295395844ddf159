"""Which prompts are read together, held against walking their prefix tree one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from promptsearch.lm.llamacpp.reading_order import (
    _BATCH_COST,
    TILE,
    before_the_last,
    count_together,
    first_read,
    in_tiles,
    is_all_tiled,
    pieces,
    rounds,
    side_by_side,
    start_positions,
    tiled_length,
    token_of,
)

Tokens = tuple[int, ...]
token = st.integers(0, 2)
prompts = st.builds(
    lambda start, ends: sorted({(*start[: len(start) * cut // 4], *end) for cut, end in ends}),
    st.lists(token, max_size=40),
    st.lists(st.tuples(st.integers(0, 4), st.lists(token, min_size=1, max_size=30)), min_size=1, max_size=30),
)


def shared(one: Tokens, other: Tokens) -> int:
    return next((at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def walked(paths: Sequence[Tokens]) -> list[int]:
    """Where each prompt begins that goes on from the one before; two tokens are left, and none or two are held."""
    starts = [min(shared(before, path), len(path) - 2) for before, path in pairwise([(), *paths])]
    return [start if start >= 2 else 0 for start in starts]


def price(paths: Sequence[Tokens], starts: Sequence[int]) -> tuple[int, int]:
    """Tokens and batches, a batch for each group and each beginning that is decoded for a group."""
    tokens, batches, at = 0, 0, 0
    held: Tokens = ()
    while at < len(paths):
        count, start = count_together(paths[at:], starts[at:]), starts[at]
        group = paths[at : at + count]
        missing = start - min(start, shared(held, group[0]))
        tokens += missing + sum(len(path) - start for path in group)
        batches += 1 + (missing > 0)
        at, held = at + count, group[-1]
        assert all(path[:start] == held[:start] for path in group)
        assert count == 1 or all(len(path) - start >= 2 for path in group)
    return tokens, batches


@given(prompts)
def test_reading_together_takes_no_longer_than_one_by_one(paths: list[Tokens]) -> None:
    starts = start_positions(paths)
    assert len(starts) == len(paths)
    for path, start in zip(paths, starts, strict=True):
        assert start == 0 or 2 <= start <= len(path) - 2
    tokens, batches = price(paths, starts)
    alone, _ = price(paths, walked(paths))
    assert tokens >= alone
    assert tokens + _BATCH_COST * batches <= alone + _BATCH_COST * len(paths)


def test_short_questions_after_one_beginning_are_read_together() -> None:
    start = tuple(range(100, 300))
    questions = [(*start, 7, number, 8, 9) for number in range(40)]
    assert set(start_positions(questions)[1:]) == {201}
    assert price(questions, start_positions(questions)) == (201 + 40 * 3, 2)


def test_what_shares_much_is_not_read_twice() -> None:
    long = [tuple(range(number, number + 200)) for number in range(0, 2000, 400)]
    paths = sorted((*each, 5, end) for each in long for end in range(5000, 5002))
    assert price(paths, start_positions(paths))[0] <= price(paths, walked(paths))[0] + 2 * len(paths)
    assert start_positions([(1,), (2,), (2, 3, 4, 5)]) == [0, 0, 0]


@given(st.integers(2, 1500), st.integers(0, 1500), st.integers(0, 1500), st.integers(128, 600))
def test_pieces_cover_a_rest_each_read_in_its_own_way(length: int, opening: int, shared: int, batch: int) -> None:
    path = in_tiles(tuple(range(length)), min(opening, length))
    tiled, start = tiled_length(path), before_the_last(shared, path)
    cut = list(pieces(path, start, batch))
    assert [cut[0][0], cut[-1][1]] == [start, length]
    assert all(end == following for (_, end), (following, _) in pairwise(cut))
    for first, end in cut:
        assert TILE <= end - first <= batch if end <= tiled else 2 <= end - first < TILE
        assert end <= tiled or first >= tiled


@given(st.integers(1, 1500), st.integers(0, 1500))
def test_marks_follow_from_the_prompt_and_its_opening(length: int, opening: int) -> None:
    opening = min(opening, length)
    path = in_tiles(tuple(range(length)), opening)
    tiled, own = tiled_length(path), length - opening
    assert [token_of(token) for token in path] == list(range(length))
    assert [token != number for number, token in enumerate(path)] == [True] * tiled + [False] * (length - tiled)
    if opening and own >= 48:
        assert tiled == (length if length >= TILE else 0)
        assert is_all_tiled(path) == (length >= TILE)
        return
    assert tiled % TILE == 0
    assert tiled <= max(0, length - 2)
    if own >= 512:
        assert 128 <= length - tiled < 128 + TILE
    else:
        assert tiled <= opening


@given(st.integers(128, 700), st.integers(2, 47), st.integers(2, 47), st.integers(48, 700))
def test_prompts_with_one_opening_are_read_alike_up_to_its_end(opening: int, one: int, other: int, long: int) -> None:
    start = tuple(range(opening))
    paths = [in_tiles((*start, *(-1,) * own), opening) for own in (one, other, long)]
    end = opening // TILE * TILE
    assert {tiled_length(path) for path in paths[:2]} == {end}
    assert len({path[:end] for path in paths}) == 1


@given(st.lists(st.integers(64, 400), min_size=1, max_size=40), st.integers(0, 60))
def test_prompts_side_by_side_are_read_once_each_to_their_ends(lengths: list[int], held: int) -> None:
    ordered = sorted(lengths)
    start = min(held, ordered[0])
    seen: list[int] = []
    for size, members in side_by_side(ordered, start, 512):
        assert size >= TILE
        assert size * len(members) <= 512 or len(members) == 1
        for at in members:
            assert size >= ordered[at] - start  # all that is new
            assert size <= ordered[at]
        seen += members
    assert seen == list(range(len(ordered)))


def test_questions_of_a_few_lines_after_one_opening_are_read_side_by_side() -> None:
    start = tuple(range(1000, 1400))
    own = [tuple(range(5000 + 100 * number, 5050 + 101 * number)) for number in range(24)]
    paths = sorted(in_tiles((*start, *each), len(start)) for each in own)
    starts = start_positions(paths)
    assert set(starts) == {400}
    assert count_together(paths, starts) == 24
    assert before_the_last(400, paths[0]) == len(paths[0]) - TILE
    assert first_read(paths[0], 400) == len(paths[0]) - TILE
    assert first_read(paths[-1], 400) == min(400, len(paths[-1]) - TILE)


@given(st.integers(0, 700), st.integers(2, 900), st.integers(1, 700))
def test_a_prompt_that_goes_on_is_read_as_the_one_before(opening: int, own: int, further: int) -> None:
    before = tuple(range(opening + own))
    after = (*before, *range(9000, 9000 + further))
    assert in_tiles(after, opening, len(before)) == (*in_tiles(before, opening), *after[len(before) :])


def test_short_questions_about_a_long_text_are_read_together() -> None:
    """Also where nobody said how much of it they share."""
    for common in range(500, 800, 20):
        text = tuple(range(common))
        paths = sorted(in_tiles((*text, *(10_000 + 40 * number + at for at in range(30))), 0) for number in range(64))
        tokens, batches = price(paths, start_positions(paths))
        assert tokens < common + 64 * 30 + 64
        assert batches < 8


@given(st.integers(0, 700), st.integers(2, 700), st.integers(0, 700))
def test_held_tokens_leave_enough_to_read(shared: int, length: int, opening: int) -> None:
    path = in_tiles(tuple(range(length)), min(opening, length))
    tiled, held = tiled_length(path), before_the_last(shared, path)
    assert held <= min(shared, length - 2)
    assert min(held, tiled) in {0, tiled} or TILE <= held <= tiled - TILE
    assert held <= tiled or held >= tiled + 2 or held == length - 2
    assert shared - held < 2 * TILE or held in (tiled, length - 2, length - TILE)


@given(st.lists(st.integers(2, 300), min_size=1, max_size=150), st.integers(63, 600))
def test_rounds_read_every_stretch_once(lengths: list[int], most: int) -> None:
    done = [0] * len(lengths)
    for size, members in rounds(lengths, most):
        assert 2 <= size <= 63
        assert members == sorted(set(members))
        assert size * len(members) <= most
        for at in members:
            done[at] += size
            assert lengths[at] - done[at] != 1
    assert done == lengths
