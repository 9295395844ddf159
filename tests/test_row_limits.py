"""How many rows get vectors: monotone, alike for a time and its tokens, and never too few."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, numbered_task
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch import machine
from promptsearch.data.splits import Splits
from promptsearch.embed.base import CHUNK
from promptsearch.embed.cache import CachedEncoder
from promptsearch.machine import encoder_speed
from promptsearch.row_limits import RowCounts, RowLimit, RowLimits, drawn_order, first_rows, further_rows
from promptsearch.run.workbench import Neighbourhood, embed_splits, with_prior

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
    return Splits(tuple(range(2000)), tuple(range(2000, 2400)), tuple(range(2400, 2700)), tuple(range(2700, 4000)))


def limits() -> RowLimits:
    return RowLimits(splits(), drawn_order(splits().pool, None, 0), [100] * 4000, 134_000_000, 4)


@given(st.integers(1, 10**6), st.floats(0, 40))
def test_a_time_and_its_tokens_take_the_same_rows(tokens: int, row: float) -> None:
    """What the plan of a time comes to, given as a number of tokens, allows the same rows."""
    rule = limits()

    def left(counts: RowCounts) -> float:
        return max(1.0, tokens - row * sum(counts))

    counts = rule.counts_within(left)
    planned = min(left(counts), rule.most_tokens(counts))
    while (again := counts.within(rule.counts(int(planned)))) != counts:  # as where setting up took longer
        counts = again
        planned = min(planned, rule.most_tokens(counts))
    assert rule.counts(int(planned)) == counts


@given(st.integers(1, 2500), st.integers(1, 2500), st.integers(0, 100))
def test_what_is_taken_are_first_rows(pool: int, test: int, seed: int) -> None:
    whole = splits()
    drawn = drawn_order(whole.pool, None, seed)
    taken = first_rows(whole, drawn, RowCounts(pool, 10, 20, test))
    assert sorted(drawn) == list(whole.pool)
    assert set(taken.pool) == set(drawn[:pool])
    assert list(taken.pool) == sorted(taken.pool)
    assert (taken.search, taken.confirm, taken.test) == (whole.search[:10], whole.confirm[:20], whole.test[:test])
    assert RowCounts.of(taken) == RowCounts(min(pool, 2000), 10, 20, min(test, 1300))


@given(
    st.lists(st.integers(0, 1024), min_size=1, max_size=60), st.integers(0, 70), st.integers(0, 80), st.integers(0, 9)
)
def test_further_rows_are_the_next_ones_that_are_cheap_enough(
    sizes: list[int], pool: int, labels: int, seed: int
) -> None:
    drawn = drawn_order(range(len(sizes)), None, seed)
    further = further_rows(drawn, sizes, pool, labels)
    assert further == drawn[pool : pool + len(further)]
    taken, read = sum(sizes[row] for row in drawn[:pool]), sum(sizes[row] for row in further)
    if not labels:
        assert not further
        return
    assert read * labels <= 12 * taken
    left = drawn[pool + len(further) :]
    assert not left or (read + sizes[left[0]]) * labels > 12 * taken


def test_few_characters_are_counted_of_many_rows() -> None:
    assert sum([1000] * len(further_rows(range(10_000), [1000] * 10_000, 2000, 2))) == 1_000_000
    assert further_rows(range(10_000), [1000] * 10_000, 4000, 2) == []


@given(st.sets(st.integers(0, 300), min_size=1), st.sets(st.integers(0, 300)), st.integers(0, 50))
def test_the_order_of_some_rows_is_that_of_all(some: set[int], more: set[int], seed: int) -> None:
    every = drawn_order(sorted(some | more), None, seed)
    assert drawn_order(sorted(some), None, seed) == [row for row in every if row in some]


def test_rare_labels_come_first() -> None:
    labels = ["rare" if row in (7, 900) else f"common{row % 3}" for row in range(1000)]
    drawn = drawn_order(range(1000), labels, 0)
    assert sorted(drawn) == list(range(1000))
    assert {7, 900} <= set(drawn[:14])  # four of each of four labels, as far as there are


# -- in a search --------------------------------------------------------------------------------------------


class SizedLM(WatchedLM):
    """Says how large it is."""

    @property
    def parameters(self) -> int | None:
        return 30_000_000


def searched(budget: str, notes: list[str], run: Path | None = None, **options: Any) -> ps.Result:
    task = numbered_task(1500)
    return ps.optimize(
        task,
        SizedLM(golds_of(task), reliability=0.8, **options),
        budget=budget,
        encoder=WordEncoder(),
        space=ps.Space(modes=("static",)),
        run=run,
        progress=lambda event: notes.append(getattr(event, "text", "")),
    )


def test_a_small_budget_takes_fewer_rows(tmp_path: Path) -> None:
    notes: list[str] = []
    small = searched("15k tokens", notes, tmp_path)
    assert any("pool rows" in note and "the budget can make use of" in note for note in notes)
    assert small.facts["rows"]["pool"] < 700
    assert small.facts["further_rows"] > 0
    assert any("the prior's classifier of characters learns from" in note for note in notes)
    said = f"{small.facts['further_rows']:,} whose characters alone the prior learns from"
    assert said in " ".join(str(small).split())
    notes.clear()
    assert searched("15k tokens", notes, tmp_path).test == small.test  # from the record, with the same rows
    notes.clear()
    searched("4000 evaluations", notes)
    assert not any("the budget can make use of" in note for note in notes)


def standing_clock(monkeypatch: pytest.MonkeyPatch, folder: Path) -> list[float]:
    """Known speeds, nothing kept, and a clock that shows what stands in the list, however fast this machine is."""
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(folder / "cache"))
    monkeypatch.setattr("promptsearch.run.preparation.model_speed", lambda *_, **__: 1000.0)
    monkeypatch.setattr("promptsearch.run.preparation.encoder_speed", lambda *_: 20_000.0)
    now = [0.0]
    monkeypatch.setattr("promptsearch.budget.time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.mark.parametrize("slowness", [0.0, 15.0])
def test_a_time_and_the_tokens_of_its_plan_come_to_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, slowness: float
) -> None:
    """Also where setting up takes longer than was expected, so that rows are given up that have vectors."""
    late = standing_clock(monkeypatch, tmp_path)

    class Late(WordEncoder):
        def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
            late[0] = slowness  # once, and for all that follows
            return super().encode(texts)

    passes: list[int] = []

    def embedding(*arguments: Any, **options: Any) -> Neighbourhood:
        passes.append(1)
        return embed_splits(*arguments, **options)

    monkeypatch.setattr("promptsearch.run.preparation.embed_splits", embedding)
    monkeypatch.setattr("test_row_limits.WordEncoder", Late)
    timed = searched("30s", [], tmp_path / "run")
    plan = timed.facts["plan"]
    assert timed.stopped_by == "seconds"
    assert 200 < timed.facts["rows"]["pool"] < 625  # neither the fewest nor all
    assert (len(passes) > 1) == bool(slowness)
    again = searched("30s", [], tmp_path / "run")
    assert (again.test, again.facts["rows"]) == (timed.test, timed.facts["rows"])
    by_tokens = searched(f"{plan['total']} tokens", [])
    assert by_tokens.facts["rows"] == timed.facts["rows"]
    assert by_tokens.test == timed.test
    assert [trial.candidate for trial in by_tokens.trials] == [trial.candidate for trial in timed.trials]


@pytest.mark.parametrize("expected", [False, True])
def test_time_that_priors_take_costs_rows_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, expected: bool
) -> None:
    """Two fits at most, however long one takes: each would cost rows, for which it is fitted again."""
    monkeypatch.setattr("promptsearch.run.preparation._FITTED_A_SECOND", 1.0 if expected else math.inf)
    monkeypatch.setattr("promptsearch.run.preparation._MOST_FITTING", 12.0)
    late = standing_clock(monkeypatch, tmp_path)
    fitted: list[Neighbourhood] = []

    def fitting(task: ps.Task, near: Neighbourhood) -> Neighbourhood:
        late[0] += 12.0
        fitted.append(with_prior(task, near))
        return fitted[-1]

    monkeypatch.setattr("promptsearch.run.preparation.with_prior", fitting)
    found = searched("38s", [])
    assert len(fitted) == (1 if expected else 2)
    assert found.facts["rows"]["pool"] == len(fitted[-1].splits.pool)
    assert found.facts["plan"]["total"] > 1000 * (38 - 2 * 12) / 2
    assert 200 < found.facts["rows"]["pool"] < 625
    assert expected or found.facts["rows"]["pool"] < len(fitted[0].splits.pool)


def test_a_slow_encoder_gets_fewer_rows_also_where_the_models_size_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    task = numbered_task(1500)

    def pool_rows(bytes_a_second: float) -> int:
        monkeypatch.setattr("promptsearch.run.preparation.encoder_speed", lambda *_: bytes_a_second)
        result = ps.optimize(
            task,
            WatchedLM(golds_of(task), reliability=0.8),
            budget=ps.Budget(seconds=60.0, evaluations=2000),
            encoder=WordEncoder(),
            space=ps.Space(modes=("static",)),
        )
        return int(result.facts["rows"]["pool"])

    assert pool_rows(1e9) == len(task.split(0).pool)
    assert pool_rows(400.0) == 100


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
    assert encoder_speed(cached, texts) == pytest.approx(1000)  # the same call finds the same
    others = [f"other{number} text" for number in range(100)]
    assert encoder_speed(cached, others) == pytest.approx(1000 / 3)
    assert encoder_speed(cached, others[:80]) == pytest.approx(1000 / 3)  # nothing to measure on: as usual
    assert encoder_speed(cached, texts) == pytest.approx(1000)


def test_getting_ready_is_no_part_of_an_encoders_speed(slow: Slow) -> None:
    sizes: list[int] = []

    class Cold(Slow):
        """Its first large batch takes ten times as long."""

        def encode(self, texts: list[str]) -> NDArray[np.float32]:  # type: ignore[override]
            slow.slowness = 10.0 if len(texts) > 1 and max(sizes, default=1) == 1 else 1.0
            sizes.append(len(texts))
            return slow.encode(texts)

    texts = [f"word{number} and more" for number in range(200)]
    assert encoder_speed(CachedEncoder(Cold()), texts) == pytest.approx(1000)
    assert sum(sizes) == 1 + len(texts)  # each is encoded once, in batches as large as ever
    assert max(sizes) == CHUNK


def test_an_encoder_whose_vectors_are_all_kept_is_measured_all_the_same(slow: Slow, tmp_path: Path) -> None:
    cached = CachedEncoder(slow)
    cached.encode(["one", "two"])
    assert encoder_speed(cached, ["one", "two"]) == pytest.approx(1000)
    (tmp_path / "machine.json").unlink()
    assert encoder_speed(cached, ["one", "two"]) == pytest.approx(1000)  # and not how fast vectors are found again
    slow.slowness = 5.0
    assert encoder_speed(cached, [f"other{number} text" for number in range(100)]) == pytest.approx(200)
    assert encoder_speed(cached, ["one", "two"]) == pytest.approx(1000)  # the same call finds the same
