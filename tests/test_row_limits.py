"""How many rows get vectors: monotone, alike for a time and its tokens, and never too few."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, numbered_task
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch import machine
from promptsearch.data.splits import Splits
from promptsearch.embed.cache import CachedEncoder
from promptsearch.machine import encoder_speed
from promptsearch.row_limits import RowCounts, RowLimit, RowLimits, drawn_order, first_rows

LIMITS = st.builds(
    RowLimit,
    st.lists(st.integers(1, 3000), max_size=700),
    st.floats(0.01, 100),
    st.integers(0, 300),
)


@given(LIMITS, st.integers(0, 10**6), st.integers(0, 10**6))
def test_more_tokens_never_take_fewer_rows(limit: RowLimit, one: int, other: int) -> None:
    fewer, more = limit.rows(min(one, other)), limit.rows(max(one, other))
    assert min(limit.fewest, len(limit.sizes)) <= fewer <= more <= len(limit.sizes)
    assert limit.rows(10**12) == len(limit.sizes)


@given(LIMITS, st.integers(0, 10**6))
def test_most_tokens_are_the_most(limit: RowLimit, tokens: int) -> None:
    rows = limit.rows(tokens)
    most = limit.most_tokens(rows)
    assert most >= tokens
    if math.isfinite(most):
        assert limit.rows(most) == rows < limit.rows(most + 1)
    else:
        assert rows == len(limit.sizes)


@given(LIMITS, st.integers(0, 10**5), st.floats(0, 50))
def test_rows_within_leave_the_tokens_that_allow_them(limit: RowLimit, tokens: int, row: float) -> None:
    def left(rows: int) -> float:
        return tokens - row * rows

    rows = limit.rows_within(left)
    fewest = min(limit.fewest, len(limit.sizes))
    assert rows == fewest or limit.rows(left(rows)) >= rows
    more = [step for step in range(rows + 1, len(limit.sizes)) if step % 50 == 0]
    assert not more or limit.rows(left(more[0])) < more[0]


def splits() -> Splits:
    return Splits(tuple(range(2000)), (2000, 2001), (2002,), tuple(range(2003, 3000)))


@given(st.integers(1, 10**6), st.floats(0, 40))
def test_a_time_and_its_tokens_take_the_same_rows(tokens: int, row: float) -> None:
    """What the plan of a time comes to, given as a number of tokens, allows the same rows."""
    limits = RowLimits(splits(), [100] * 3000, 134_000_000, 4, 0)

    def left(counts: RowCounts) -> float:
        return max(1.0, tokens - row * (counts.pool + counts.test))

    counts = limits.counts_within(left)
    planned = min(left(counts), limits.most_tokens(counts))
    again = limits.counts(int(planned))
    while again.pool < counts.pool or again.test < counts.test:  # as where setting up took longer
        counts = again
        planned = min(planned, limits.most_tokens(counts))
        again = limits.counts(int(planned))
    assert again == counts


@given(st.integers(1, 2500), st.integers(1, 2500), st.integers(0, 100))
def test_what_is_taken_are_first_rows(pool: int, test: int, seed: int) -> None:
    whole = splits()
    drawn = drawn_order(whole.pool, seed)
    taken = first_rows(whole, drawn, RowCounts(pool, test))
    assert sorted(drawn) == list(whole.pool)
    assert set(taken.pool) == set(drawn[:pool])
    assert list(taken.pool) == sorted(taken.pool)
    assert taken.test == whole.test[:test]
    assert (taken.search, taken.confirm) == (whole.search, whole.confirm)


# -- in a search --------------------------------------------------------------------------------------------


class SizedLM(WatchedLM):
    """Says how large it is."""

    @property
    def parameters(self) -> int | None:
        return 10_000_000


def searched(budget: str, notes: list[str], run: Path | None = None) -> ps.Result:
    task = numbered_task(1500)
    return ps.optimize(
        task,
        SizedLM(golds_of(task), reliability=0.8),
        budget=budget,
        encoder=WordEncoder(),
        space=ps.Space(modes=("static",)),
        run=run,
        progress=lambda event: notes.append(getattr(event, "text", "")),
    )


def test_a_small_budget_takes_fewer_rows(tmp_path: Path) -> None:
    notes: list[str] = []
    small = searched("15k tokens", notes, tmp_path)
    assert any("pool rows" in note and "as many as the budget can make use of" in note for note in notes)
    notes.clear()
    assert searched("15k tokens", notes, tmp_path).test == small.test  # from the record, with the same rows
    notes.clear()
    searched("4000 evaluations", notes)
    assert not any("as many as the budget can make use of" in note for note in notes)


# -- how fast the encoder is ----------------------------------------------------------------------------------


class Slow(WordEncoder):
    """Takes a thousandth of a second of the clock that is watched for each character."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slowness = 1.0

    def encode(self, texts: list[str]) -> NDArray[np.float32]:  # type: ignore[override]
        self.now += self.slowness * sum(map(len, texts)) / 1000
        return super().encode(texts)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slow:
    encoder = Slow()
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    monkeypatch.setattr(machine.time, "perf_counter", lambda: encoder.now)
    return encoder


def test_an_encoder_is_measured_on_texts_that_it_has_to_encode(slow: Slow) -> None:
    cached = CachedEncoder(slow)
    texts = [f"word{number} and more" for number in range(100)]
    assert encoder_speed(cached, texts) == pytest.approx(1000)
    assert cached.unknown(texts) == []
    slow.slowness = 3.0
    assert encoder_speed(cached, texts) == pytest.approx(1000)  # nothing to measure on: what is kept
    others = [f"other{number} text" for number in range(100)]
    assert encoder_speed(cached, others) == pytest.approx(1000 / 3)  # busy now
    slow.slowness = 0.5
    assert encoder_speed(cached, [f"third{number}" for number in range(100)]) == pytest.approx(2000)


def test_an_encoder_whose_vectors_are_all_kept_is_measured_once(slow: Slow) -> None:
    cached = CachedEncoder(slow)
    cached.encode(["one", "two"])
    assert encoder_speed(cached, ["one", "two"]) == pytest.approx(1000)
