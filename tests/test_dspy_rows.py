"""How the rows of a program's optimization are divided."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

dspy = pytest.importorskip("dspy")

from promptsearch.dspy.rows import split_rows  # noqa: E402


def rows_of(counts: list[int], seed: int) -> list[Any]:
    """So many rows of each label, in random order, all different."""
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    return [
        dspy.Example(text=f"text {number}x", label=int(label)).with_inputs("text")
        for number, label in enumerate(labels)
    ]


@given(st.lists(st.integers(8, 40), min_size=1, max_size=4), st.sampled_from([0, 0.4, 0.7]), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_every_part_has_its_share_of_each_label(counts: list[int], asked: float, seed: int) -> None:
    rows = rows_of(counts, seed)
    cut = int(asked * len(rows))
    parts = split_rows(rows[cut:], rows[:cut] or None, seed)
    assert sorted(row.text for row in [*parts.training, *parts.validation]) == sorted(row.text for row in rows)
    if not cut:
        _are_alike(parts.training, parts.validation)
    search, confirm = parts.validation[: parts.search], parts.validation[parts.search :]
    assert len(confirm) == 0 or len(confirm) >= 6
    if len(parts.validation) >= 12:
        assert len(confirm) >= min(20, len(parts.validation) // 2)
        if min(Counter(row.label for row in parts.validation).values()) > 1:
            _are_alike(search, confirm)
    first = [row.label for row in search][: len({row.label for row in search})]
    assert len(set(first)) == len(first)  # labels take turns


def _are_alike(some: list[Any], others: list[Any]) -> None:
    """Each label's share of both, up to a row."""
    together = Counter(row.label for row in [*some, *others])
    for label, count in together.items():
        share = count * len(some) / (len(some) + len(others))
        assert abs(sum(row.label == label for row in some) - share) <= 1


@given(st.integers(0, 20))
@settings(max_examples=10, deadline=None)
def test_rows_of_the_same_text_are_held_out_together(seed: int) -> None:
    rows = rows_of([24, 24], 0)
    twice = [*rows, *rows]
    for parts in (split_rows(twice, None, seed), split_rows(twice[::3], twice, seed), split_rows(rows, twice, seed)):
        held = (parts.training, parts.validation[: parts.search], parts.validation[parts.search :])
        shown, searched, confirmed = ({row.text for row in part} for part in held)
        assert not shown & (searched | confirmed)
        assert not searched & confirmed
        assert len(confirmed) >= 12
    assert len(parts.training) + len(parts.validation) == len(rows)


def test_a_row_in_both_parts_is_asked_about_unless_nothing_is_left_to_show() -> None:
    rows = rows_of([24, 24], 0)
    some = split_rows(rows[:30], rows[20:], 0)
    assert {row.text for row in some.training} == {row.text for row in rows[:20]}
    within = split_rows(rows[:20], rows, 0)
    assert {row.text for row in within.training} == {row.text for row in rows[:20]}
    assert {row.text for row in within.validation} == {row.text for row in rows[20:]}


def test_fields_that_are_all_different_are_no_labels() -> None:
    rows = [row.copy(id=number).with_inputs("text") for number, row in enumerate(rows_of([40, 8], 0))]
    for seed in range(8):
        parts = split_rows(rows, None, seed)
        rare = [sum(row.label == 1 for row in part) for part in (parts.training, parts.validation)]
        assert rare == [4, 4]


def test_same_seed_same_division() -> None:
    rows = rows_of([30, 20], 1)
    first, again, other = (split_rows(rows, None, seed) for seed in (3, 3, 4))
    assert [row.text for row in first.validation] == [row.text for row in again.validation]
    assert [row.text for row in first.validation] != [row.text for row in other.validation]
