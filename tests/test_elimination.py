"""Who falls in a race, and to whom."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, ttest_rel

from promptsearch.candidate import Candidate
from promptsearch.errors import DataError
from promptsearch.search.base import Scores
from promptsearch.search.elimination import FIRST_TEST, falls_to, paired_p_value, survivors


def arm(number: int) -> Candidate:
    return Candidate(demonstrations=(number,))


def scored(*rows: list[float]) -> dict[Candidate, Scores]:
    return {arm(place): Scores(np.array(row), np.array(row)) for place, row in enumerate(rows)}


def slow_mcnemar(ours: list[float], theirs: list[float]) -> float:
    """Twice the chance of so few items in favour of the weaker side, by counting."""
    better = sum(a > b for a, b in zip(ours, theirs, strict=True))
    worse = sum(a < b for a, b in zip(ours, theirs, strict=True))
    count = better + worse
    tail = sum(math.comb(count, k) for k in range(min(better, worse) + 1)) / 2**count
    return min(1.0, 2 * tail)


rights = st.integers(2, 60).flatmap(
    lambda items: st.tuples(*(st.lists(st.sampled_from([0.0, 1.0]), min_size=items, max_size=items),) * 2)
)
graded = st.integers(2, 30).flatmap(
    lambda items: st.tuples(*(st.lists(st.integers(0, 8).map(lambda n: n / 8), min_size=items, max_size=items),) * 2)
)


@given(rights | graded)
def test_p_values_are_their_slow_twins(pair: tuple[list[float], list[float]]) -> None:
    ours, theirs = pair
    found = paired_p_value(np.array(ours), np.array(theirs))
    gaps = [a - b for a, b in zip(ours, theirs, strict=True)]
    if not any(gaps):
        assert found == 1.0
    elif set(gaps) <= {-1.0, 0.0, 1.0} and sum(gap != 0 for gap in gaps) < 25:
        assert found == pytest.approx(slow_mcnemar(ours, theirs))
    elif len(set(gaps)) == 1:
        assert found == 0.0
    else:
        assert found == pytest.approx(float(ttest_rel(ours, theirs).pvalue), abs=1e-12)
    assert found == paired_p_value(np.array(theirs), np.array(ours))


def slow_survivors(scores: dict[Candidate, Scores], first_test: int, alpha: float) -> list[Candidate]:
    """By the words of the module: loop over all, find the best rival on one's own items, test."""
    left = []
    for each, seen in scores.items():
        own = seen.values.tolist()
        best, best_total = None, sum(own)
        for rival in sorted(scores, key=lambda one: one.key):
            theirs = scores[rival].values.tolist()
            if len(theirs) >= len(own) and sum(theirs[: len(own)]) > best_total + 1e-9:
                best, best_total = rival, sum(theirs[: len(own)])
        if len(own) >= first_test and best is not None:
            p_value = paired_p_value(scores[best].values[: len(own)], seen.values)
            if p_value < alpha:
                continue
        left.append(each)
    return left


logs = st.lists(st.tuples(st.integers(0, 2**20), st.integers(0, 20), st.integers(2, 30)), min_size=1, max_size=6).map(
    lambda arms: scored(
        *[((np.random.default_rng(seed).random(items) < chance / 20) * 1.0).tolist() for seed, chance, items in arms]
    )
)


@given(logs, st.integers(2, 20), st.sampled_from([0.05, 0.3]))
def test_survivors_are_their_slow_twin(scores: dict[Candidate, Scores], first_test: int, alpha: float) -> None:
    found = survivors(scores, first_test=first_test, alpha=alpha)
    assert found == slow_survivors(scores, first_test, alpha)
    most = max(seen.items for seen in scores.values())
    assert any(scores[each].items == most for each in found), "nobody is left"
    for each in scores:
        rival = falls_to(each, scores, scores, first_test=first_test, alpha=alpha)
        if rival is not None:
            assert scores[rival].items >= scores[each].items >= first_test


def test_a_long_seen_one_does_not_fall_to_a_short_look() -> None:
    lucky, steady = [1.0] * 50, [0.0] * 50 + [1.0] * 150
    scores = scored(lucky, steady)
    assert survivors(scores) == [arm(0), arm(1)]
    assert survivors(scored(lucky + [1.0] * 150, steady)) == [arm(0)]


def test_a_short_seen_one_falls_to_a_long_seen_one() -> None:
    assert survivors(scored([0.0] * 40, [1.0] * 200)) == [arm(1)]


def test_nobody_falls_before_the_first_test() -> None:
    before = scored([0.0] * (FIRST_TEST - 1), [1.0] * 200)
    assert survivors(before) == [arm(0), arm(1)]
    assert survivors(before, first_test=FIRST_TEST - 1) == [arm(1)]


def test_equals_stay() -> None:
    same = [1.0, 0.0] * 30
    assert len(survivors(scored(same, same, same[::-1]))) == 3


def test_only_named_rivals_count() -> None:
    scores = scored([0.0] * 60, [1.0] * 60, [0.0, 1.0] * 30)
    assert falls_to(arm(0), [arm(2)], scores) == arm(2)
    assert falls_to(arm(0), scores, scores) == arm(1)
    assert falls_to(arm(1), scores, scores) is None
    assert falls_to(arm(0), [arm(0)], scores) is None


def test_one_test_takes_equals_for_worse_as_rarely_as_promised() -> None:
    """One look at two equals of 60 % on 100 items, 2000 times; more than this has a chance of 1 in 10,000."""
    rng = np.random.default_rng(0)
    fallen = 0
    for _ in range(2000):
        rows = (rng.random((2, 100)) < 0.6) * 1.0
        fallen += len(survivors(scored(*rows.tolist()))) < 2
    assert fallen <= binom.ppf(0.9999, 2000, 0.05)
    assert fallen >= 2000 * 0.02


def test_a_race_keeps_the_best_for_less() -> None:
    """Elimination every 8 items against scoring everybody on everything: about as good, for far fewer items."""
    regrets, spent = [], []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        chances = np.clip(rng.normal(0.65, 0.05, 32)[:, None] + rng.normal(0, 0.2, 200), 0.02, 0.98)
        table = (rng.random((32, 200)) < chances) * 1.0
        alive, used = [arm(place) for place in range(32)], 0
        scores: dict[Candidate, Scores] = {}
        for stop in range(8, 201, 8):
            for each in alive:
                row = table[each.demonstrations[0], :stop]
                scores[each] = Scores(row, row)
                used += 8
            alive = survivors({each: scores[each] for each in alive})
        best = max(alive, key=lambda each: float(scores[each].values.mean()))
        truth = chances.mean(axis=1)
        regrets.append(truth.max() - truth[best.demonstrations[0]])
        spent.append(used / (32 * 200))
    assert np.mean(regrets) < 0.02
    assert np.mean(spent) < 0.6


@pytest.mark.parametrize("wrong", [{"first_test": 1}, {"alpha": 0.0}, {"alpha": 1.0}])
def test_what_cannot_be_tested(wrong: dict[str, float]) -> None:
    with pytest.raises(DataError, match="give"):
        survivors(scored([1.0] * 50), **wrong)  # type: ignore[arg-type]


def test_scores_of_other_items_cannot_be_paired() -> None:
    with pytest.raises(DataError, match="of the same items"):
        paired_p_value(np.ones(3), np.ones(4))
