"""Which prompts are read together, held against walking their prefix tree one by one."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby, pairwise

from hypothesis import given
from hypothesis import strategies as st

from promptsearch.lm.llamacpp.reading_order import _BATCH_COST, count_together, pieces, rounds, start_positions

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


@given(st.integers(0, 500), st.integers(2, 1000))
def test_pieces_cover_a_stretch_and_are_neither_single_nor_large(start: int, length: int) -> None:
    cut = list(pieces(start, start + length))
    assert [cut[0][0], cut[-1][1]] == [start, start + length]
    assert all(end == following for (_, end), (following, _) in pairwise(cut))
    assert all(2 <= end - first <= 63 for first, end in cut)


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


@given(st.lists(st.integers(2, 300), min_size=1, max_size=60))
def test_rounds_of_ascending_lengths_fall_into_two_runs_at_most(lengths: list[int]) -> None:
    """llama.cpp runs neighbouring sequences together."""
    for _, members in rounds(sorted(lengths), 10**6):
        runs = groupby(enumerate(members), key=lambda pair: pair[1] - pair[0])
        assert sum(1 for _ in runs) <= 2
