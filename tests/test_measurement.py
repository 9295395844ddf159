"""Intervals and p-values against known values and slow twins."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from promptsearch.errors import DataError
from promptsearch.measurement import Measurement, measure, measure_statistic, paired_difference

binary = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=60)
fractions = st.lists(st.floats(0, 1), min_size=1, max_size=30)


def wilson(right: int, count: int) -> tuple[float, float]:
    """Wilson's interval by its formula."""
    z, share = 1.959963984540054, right / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return middle - half, middle + half


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_known_values(right: int, count: int, low: float, high: float) -> None:
    """From Newcombe 1998, table I, method 3."""
    found = measure([1.0] * right + [0.0] * (count - right))
    assert (found.low, found.high) == pytest.approx((low, high), abs=6e-5)
    assert found.interval == "Wilson 95 %"
    assert (found.value, found.n) == (right / count, count)


@given(binary)
def test_right_or_wrong_is_wilson(scores: list[float]) -> None:
    found = measure(scores)
    low, high = wilson(int(sum(scores)), len(scores))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)
    assert found.low - 1e-12 <= found.value <= found.high + 1e-12


@given(fractions)
def test_fractions_are_bootstrapped(scores: list[float]) -> None:
    found = measure(scores)
    assert found.value == pytest.approx(math.fsum(scores) / len(scores))
    assert 0 <= found.low <= found.value + 1e-9
    assert found.value - 1e-9 <= found.high <= 1
    assert found == measure(np.array(scores))
    if max(scores) - min(scores) > 1e-9 and any(score not in (0.0, 1.0) for score in scores):
        assert found.interval == "bootstrap 95 %"
        assert min(scores) - 1e-9 <= found.low
        assert found.high <= max(scores) + 1e-9


@pytest.mark.parametrize(("value", "count"), [(0.25, 1), (0.5, 30), (0.9, 200)])
def test_one_value_throughout_is_no_certainty(value: float, count: int) -> None:
    """Where one in so many items had another value, none of them was seen with at least one chance in forty."""
    found = measure([value] * count)
    others = (value - found.low) / value
    assert (1 - others) ** count == pytest.approx(0.025)
    assert (found.high - value) / (1 - value) == pytest.approx(others)
    assert found.interval == "Clopper-Pearson 95 %"
    shifted = paired_difference([value] * count, [value / 3] * count)
    assert -1 <= shifted.low < shifted.value < shifted.high <= 1


def test_the_bootstrap_is_as_wide_as_theory_says() -> None:
    scores = np.random.default_rng(0).random(400)
    found = measure(scores)
    half = 1.96 * scores.std(ddof=1) / math.sqrt(400)
    assert found.high - found.value == pytest.approx(half, rel=0.08)
    assert found.value - found.low == pytest.approx(half, rel=0.08)


@pytest.mark.parametrize("scores", [[], [[0.5, 0.5]], 0.5])
def test_no_scores(scores: list[float]) -> None:
    with pytest.raises(DataError) as caught:
        measure(scores)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError):
        paired_difference(scores, scores)


def test_failures_are_shown_and_survive_a_file() -> None:
    found = measure([1.0, 0.0], {"too long": 1, "empty answer": 2})
    assert found.to_dict()["failures"] == {"empty answer": 2, "too long": 1}
    assert Measurement.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    plain = measure([1.0, 0.5])
    assert set(plain.to_dict()) == {"value", "low", "high", "n", "interval"}
    assert Measurement.from_dict(plain.to_dict()) == plain


def test_a_statistic_has_its_percentiles() -> None:
    found = measure_statistic(0.5, np.linspace(0, 1, 1001), 77)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.5, 0.025, 0.975, 77))


def test_in_words() -> None:
    assert str(Measurement(0.5, 0.25, 0.75, 12, "Wilson 95 %")) == "50.0 % [25.0, 75.0], n = 12"


# -- pairs --------------------------------------------------------------------------------------------------


@given(fractions)
def test_nothing_differs_from_itself(scores: list[float]) -> None:
    found = paired_difference(scores, scores)
    assert (found.value, found.p_value, found.n) == (0.0, 1.0, len(scores))
    assert found.low == -found.high < 0  # another item may differ
    assert found.high < 2.8 / len(scores)


def bonett_price(better: int, worse: int, count: int) -> tuple[float, float]:
    """Bonett and Price 2012, in their symbols, cut to what a difference of shares can be."""
    p12, p21 = (better + 1) / (count + 2), (worse + 1) / (count + 2)
    half = 1.959963984540054 * math.sqrt((p12 + p21 - (p12 - p21) ** 2) / (count + 2))
    return max(-1.0, p12 - p21 - half), min(1.0, p12 - p21 + half)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 60))
def test_right_or_wrong_differences_are_bonett_and_prices(better: int, worse: int, same: int) -> None:
    ours = [1.0] * better + [0.0] * worse + [1.0] * (same + 1)
    theirs = [0.0] * better + [1.0] * worse + [1.0] * (same + 1)
    found = paired_difference(ours, theirs)
    assert (found.low, found.high) == pytest.approx(bonett_price(better, worse, len(ours)))
    assert -1 <= found.low <= found.value <= found.high <= 1
    assert found.interval == "Bonett-Price 95 %"


def mid_p_mcnemar(better: int, worse: int) -> float:
    """Two-sided binomial test of the changed items, the outcome itself counted half in each tail."""
    changed, rarer = better + worse, min(better, worse)
    tail = sum(math.comb(changed, k) for k in range(rarer)) + math.comb(changed, rarer) / 2
    return 2 * tail / 2**changed


@pytest.mark.parametrize(
    ("better", "worse", "p_value"), [(10, 2, 0.02246), (5, 0, 0.03125), (6, 6, 1.0), (1, 0, 0.5)]
)
def test_mcnemar_known_values(better: int, worse: int, p_value: float) -> None:
    ours = [1.0] * better + [0.0] * worse + [1.0] * 20
    theirs = [0.0] * better + [1.0] * worse + [1.0] * 20
    found = paired_difference(ours, theirs)
    assert found.p_value == pytest.approx(p_value, abs=5e-5)
    assert found.value == pytest.approx((better - worse) / (better + worse + 20))


@given(st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40))
def test_mcnemar_is_its_slow_twin(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    better, worse = sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    found = paired_difference(ours, theirs)
    assert found.p_value == pytest.approx(mid_p_mcnemar(better, worse) if better + worse else 1.0)


@pytest.mark.parametrize("n", [50, 120, 500])
def test_interval_and_test_agree_but_at_the_edge(n: int) -> None:
    """An interval above or below zero stands beside a p under 0.05, apart from what lies at the very edge."""
    edge = []
    for better in range(n // 3):
        for worse in range(better % 5, n // 3, 1 + n // 60):
            found = paired_difference([1.0] * better + [0.0] * (n - better), [0.0] * (n - worse) + [1.0] * worse)
            if (found.low > 0 or found.high < 0) != (found.p_value < 0.05):
                edge.append(found.p_value)
    assert all(0.015 < p_value < 0.07 for p_value in edge)
    assert len(edge) <= 0.03 * (n // 3) ** 2 / (1 + n // 60)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_the_other_way_round(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    here, there = paired_difference(ours, theirs), paired_difference(theirs, ours)
    assert here.value == pytest.approx(-there.value)
    assert (here.low, here.high) == pytest.approx((-there.high, -there.low), abs=1e-9)
    assert here.p_value == pytest.approx(there.p_value)
    assert here.low - 1e-9 <= here.value <= here.high + 1e-9
    assert 0 <= here.p_value <= 1


def test_p_values_are_seldom_small_where_there_is_nothing() -> None:
    rng = np.random.default_rng(5)
    for draw in (lambda: rng.integers(2, size=30).astype(float), lambda: rng.random(30)):
        small = [paired_difference(draw(), draw()).p_value < 0.05 for _ in range(100)]
        assert np.mean(small) < 0.1


def test_a_clear_gain_is_clear() -> None:
    rng = np.random.default_rng(6)
    scores = rng.random(100)
    found = paired_difference(np.minimum(1, scores + 0.1 * rng.random(100)), scores)
    assert found.low > 0
    assert found.p_value < 1e-6


@given(st.lists(st.tuples(st.sampled_from([0, 1]), st.sampled_from([0, 1])), min_size=2, max_size=40))
def test_percents_are_shares_times_a_hundred(pairs: list[tuple[int, int]]) -> None:
    ours, theirs = (np.array(each, dtype=float) for each in zip(*pairs, strict=True))
    assume(max(ours.max(), theirs.max()) == 1)
    share, percent = paired_difference(ours, theirs), paired_difference(100 * ours, 100 * theirs)
    assert (percent.low, percent.value, percent.high) == pytest.approx(
        (100 * share.low, 100 * share.value, 100 * share.high)
    )
    assert (percent.p_value, percent.interval) == (share.p_value, share.interval)
    if ours.max() == 1:
        one, other = measure(ours), measure(100 * ours)
        assert (other.low, other.value, other.high) == pytest.approx((100 * one.low, 100 * one.value, 100 * one.high))


@given(st.lists(st.tuples(st.floats(-50, 500), st.floats(-50, 500)), min_size=1, max_size=30))
@settings(deadline=None, max_examples=40)
def test_values_of_any_scale_lie_within_their_intervals(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = zip(*pairs, strict=True)
    for found in (measure(ours), paired_difference(ours, theirs)):
        assert found.low - 1e-6 <= found.value <= found.high + 1e-6


def test_pairs_need_as_many() -> None:
    with pytest.raises(DataError, match="3 and 2"):
        paired_difference([1.0, 0.0, 1.0], [1.0, 0.0])


@settings(deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=3, max_size=40).filter(lambda values: np.ptp(values) > 1e-6))
def test_interval_and_p_value_of_scores_agree(differences: list[float]) -> None:
    found = paired_difference(differences, [0.0] * len(differences))
    if found.interval == "paired t 95 %" and found.low > -1 and found.high < 1:
        assert (found.low <= 0 <= found.high) == (found.p_value >= 0.05)
