"""What is worth its tokens: the front and the choices from it, against loops over pairs."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import DataError, UserError
from promptsearch.lm.base import FloatArray
from promptsearch.search.front import choose, pareto_front


def rows_of(items: int) -> st.SearchStrategy[list[list[float]]]:
    row = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=items, max_size=items)
    return st.lists(row, min_size=1, max_size=6)


measured = (
    st.integers(1, 8)
    .flatmap(rows_of)
    .flatmap(
        lambda rows: st.tuples(
            st.just(rows), st.lists(st.integers(0, 4).map(float), min_size=len(rows), max_size=len(rows))
        )
    )
)
Measured = tuple[list[list[float]], list[float]]


def arrays(rows: list[list[float]]) -> list[FloatArray]:
    return [np.array(row) for row in rows]


def slow_front(rows: list[list[float]], tokens: list[float]) -> set[int]:
    """Those that no other beats, and of equals the first."""
    totals = [sum(row) for row in rows]
    kept = set()
    for at in range(len(rows)):
        beaten = False
        for other in range(len(rows)):
            as_good = totals[other] >= totals[at] and tokens[other] <= tokens[at]
            better = totals[other] > totals[at] or tokens[other] < tokens[at]
            beaten = beaten or (as_good and (better or other < at))
        if not beaten:
            kept.add(at)
    return kept


@given(measured)
def test_the_front_is_its_slow_twin(given_prompts: Measured) -> None:
    rows, tokens = given_prompts
    front = pareto_front(arrays(rows), tokens)
    assert {point.index for point in front} == slow_front(rows, tokens)
    assert [point.tokens for point in front] == sorted({tokens[point.index] for point in front})
    values = [point.value.value for point in front]
    assert values == sorted(values)
    for point in front:
        assert point.value.value == pytest.approx(statistics.fmean(rows[point.index]))
        assert point.value.low <= point.value.value + 1e-9
        assert point.value.value <= point.value.high + 1e-9


def slow_choice(rows: list[list[float]], tokens: list[float]) -> int:
    """The one-standard-error rule by its words."""
    front = slow_front(rows, tokens)
    best = max(front, key=lambda at: sum(rows[at]))
    within = []
    for at in front:
        deficits = [a - b for a, b in zip(rows[best], rows[at], strict=True)]
        error = statistics.stdev(deficits) / math.sqrt(len(deficits)) if len(deficits) > 1 else 0.0
        if statistics.fmean(deficits) <= error + 1e-12:
            within.append(at)
    return min(within, key=lambda at: tokens[at])


@given(measured)
def test_choices_are_their_slow_twins(given_prompts: Measured) -> None:
    rows, tokens = given_prompts
    accurate, cheap = choose(arrays(rows), tokens), choose(arrays(rows), tokens, "cheap")
    top = max(sum(row) for row in rows)
    cheapest = min(price for row, price in zip(rows, tokens, strict=True) if sum(row) == top)
    assert sum(rows[accurate]) == top
    assert tokens[accurate] == cheapest
    assert cheap == slow_choice(rows, tokens)
    assert tokens[cheap] <= tokens[accurate]


def test_a_cheaper_prompt_within_one_error() -> None:
    best = np.array([1.0] * 80 + [0.0] * 20)
    close = np.array([1.0] * 76 + [0.0] * 20 + [1.0] * 3 + [0.0])  # one point behind, seven items differ
    far = np.array([1.0] * 70 + [0.0] * 30)
    scores, tokens = [best, close, far], [300.0, 100.0, 20.0]
    assert choose(scores, tokens, prefer="accuracy") == 0
    assert choose(scores, tokens, prefer="cheap") == 1
    assert [point.index for point in pareto_front(scores, tokens)] == [2, 1, 0]


def test_equally_good_takes_the_cheaper_even_for_accuracy() -> None:
    rights = np.array([1.0, 0.0, 1.0, 1.0])
    assert choose([rights, rights[::-1]], [50.0, 20.0]) == 1
    assert choose([rights, rights], [20.0, 20.0]) == 0


def test_a_noisy_prompt_does_not_win_over_a_cheaper_and_better_one() -> None:
    """It is within its own large error of the best, where the better one misses a small error by little."""
    best = np.array([1.0] * 60 + [0.0] * 40)
    steady = np.array([1.0] * 57 + [0.0] * 43)  # 3 points behind, standard error 1.7
    noisy = np.array([1.0] * 36 + [0.0] * 24 + [1.0] * 20 + [0.0] * 20)  # 4 points behind, standard error 6.6
    assert choose([best, steady, noisy], [90.0, 30.0, 40.0], prefer="cheap") == 0


@pytest.mark.parametrize(
    ("scores", "tokens"),
    [
        ([], []),
        ([np.ones(3)], [1.0, 2.0]),
        ([np.ones(3), np.ones(4)], [1.0, 2.0]),
        ([np.ones(0)], [1.0]),
        ([np.ones((2, 2))], [1.0]),
        ([np.ones(3)], [-1.0]),
        ([np.ones(3)], [math.nan]),
    ],
)
def test_what_makes_no_front(scores: list[FloatArray], tokens: list[float]) -> None:
    with pytest.raises(DataError):
        pareto_front(scores, tokens)


def test_an_unknown_preference() -> None:
    with pytest.raises(UserError, match="give one of accuracy, cheap"):
        choose([np.ones(3)], [1.0], prefer="best")
