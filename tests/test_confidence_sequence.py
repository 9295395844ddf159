"""Betting: never wrong more often than promised however often one looks, and soon sure where the truth is plain."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray
from promptsearch.search.confidence_sequence import PairedTest, certainly_better, confidence_sequence

differences = st.lists(st.sampled_from([-1.0, 0.0, 1.0]) | st.floats(-1, 1), max_size=60)
shares = st.lists(st.sampled_from([0.0, 1.0]) | st.floats(0, 1), max_size=40)
alphas = st.sampled_from([0.01, 0.05, 0.3])


def slow_bets(values: list[float], alpha: float) -> list[float]:
    """Each bet from the values before it, by the formulas of the paper."""
    bets = []
    for t in range(1, len(values) + 1):
        squares = 0.25
        for i in range(1, t):
            mean = (0.5 + sum(values[:i])) / (i + 1)
            squares += (values[i - 1] - mean) ** 2
        variance = squares / t  # of the t - 1 values before, and the prior's one
        bets.append(math.sqrt(2 * math.log(2 / alpha) / (variance * t * math.log(t + 1))))
    return bets


def slow_capitals(values: list[float], alpha: float, mean: float) -> tuple[list[float], list[float]]:
    """Capital of a bettor on a larger mean and of one on a smaller mean, after each value."""
    above, below = [1.0], [1.0]
    for value, bet in zip(values, slow_bets(values, alpha), strict=True):
        up = bet if mean == 0 else min(bet, 0.5 / mean)
        down = bet if mean == 1 else min(bet, 0.5 / (1 - mean))
        above.append(above[-1] * (1 + up * (value - mean)))
        below.append(below[-1] * (1 - down * (value - mean)))
    return above[1:], below[1:]


def slow_verdict(given: list[float], alpha: float) -> int:
    above, below = slow_capitals([(each + 1) / 2 for each in given], alpha, 0.5)
    for up, down in zip(above, below, strict=True):
        if max(up, down) / 2 >= 1 / alpha:
            return 1 if up > down else -1
    return 0


@given(differences, alphas)
def test_the_verdict_is_its_slow_twin(given: list[float], alpha: float) -> None:
    assert certainly_better(given, alpha) == slow_verdict(given, alpha)
    assert certainly_better([-each for each in given], alpha) == -slow_verdict(given, alpha)


@settings(deadline=None)
@given(shares, alphas)
def test_intervals_are_their_slow_twin(values: list[float], alpha: float) -> None:
    """Every hundredth of the range: kept as long as neither bettor against it was rich."""
    lows, highs = confidence_sequence(values, alpha)
    for mean in [place / 100 for place in range(101)]:
        rich = False
        for place, pair in enumerate(zip(*slow_capitals(values, alpha, mean), strict=True)):
            rich = rich or max(pair) / 2 > 1 / alpha * (1 + 1e-9)
            if not rich:
                assert lows[place] <= mean + 1e-12
                assert mean - 1e-12 <= highs[place]
            elif lows[place] + 0.0011 < mean < highs[place] - 0.0011:
                pytest.fail(f"{mean} is refuted and inside")


@given(shares, alphas)
def test_intervals_only_shrink(values: list[float], alpha: float) -> None:
    lows, highs = confidence_sequence(values, alpha)
    assert lows.shape == highs.shape == (len(values),)
    assert (np.diff(lows) >= 0).all()
    assert (np.diff(highs) <= 0).all()
    assert (lows < highs).all()
    assert ((lows >= 0) & (highs <= 1)).all()
    mirrored_lows, mirrored_highs = confidence_sequence([1 - value for value in values], alpha)
    assert 1 - mirrored_highs == pytest.approx(lows, abs=0.0011)
    assert 1 - mirrored_lows == pytest.approx(highs, abs=0.0011)


@given(differences, alphas, st.data())
def test_looking_in_pieces_is_looking_at_once(given: list[float], alpha: float, data: st.DataObject) -> None:
    test = PairedTest(alpha)
    rest = given
    while rest:
        size = data.draw(st.integers(1, len(rest)))
        test.update(rest[:size])
        rest = rest[size:]
    assert test.verdict == certainly_better(given, alpha)
    assert test.items == len(given)
    above, below = slow_capitals([(each + 1) / 2 for each in given], alpha, 0.5) if given else ([1.0], [1.0])
    assert test.e_value == pytest.approx((above[-1] + below[-1]) / 2)


def test_a_verdict_stays() -> None:
    test = PairedTest()
    assert test.update([1.0] * 40) == 1
    assert test.update([-1.0] * 300) == 1


# -- what is promised ---------------------------------------------------------------------------------------


def paired(rng: np.random.Generator, items: int, gain: float, discordance: float) -> FloatArray:
    """Differences of rights and wrongs with this mean and share of items that differ."""
    chances = [(discordance - gain) / 2, 1 - discordance, (discordance + gain) / 2]
    return rng.choice([-1.0, 0.0, 1.0], size=items, p=chances)


@pytest.mark.parametrize("discordance", [0.05, 0.2, 0.6])
def test_equals_are_told_apart_no_more_often_than_promised(discordance: float) -> None:
    """Looking after each of 400 items, 3000 times over; more errors than these have a chance of 1 in 10,000."""
    rng = np.random.default_rng(0)
    errors = sum(certainly_better(paired(rng, 400, 0.0, discordance), 0.05) != 0 for _ in range(3000))
    assert errors <= binom.ppf(0.9999, 3000, 0.05)


@pytest.mark.parametrize("mean", [0.05, 0.5, 0.8])
def test_intervals_hold_the_mean_at_all_times_as_often_as_promised(mean: float) -> None:
    rng = np.random.default_rng(0)
    misses = 0
    for _ in range(200):
        lows, highs = confidence_sequence((rng.random(100) < mean) * 1.0, 0.1)
        misses += bool((lows > mean).any() or (highs < mean).any())
    assert misses <= binom.ppf(0.9999, 200, 0.1)


@pytest.mark.parametrize(("gain", "discordance", "items", "power"), [(0.3, 0.4, 150, 0.9), (0.1, 0.2, 400, 0.7)])
def test_clear_differences_are_found(gain: float, discordance: float, items: int, power: float) -> None:
    rng = np.random.default_rng(0)
    verdicts = [certainly_better(paired(rng, items, gain, discordance)) for _ in range(300)]
    assert verdicts.count(1) >= power * 300
    assert verdicts.count(-1) <= 1


def test_intervals_become_narrow() -> None:
    rng = np.random.default_rng(0)
    lows, highs = confidence_sequence((rng.random(1000) < 0.8) * 1.0)
    assert highs[-1] - lows[-1] < 0.12
    gains, most = confidence_sequence(paired(rng, 400, 0.0, 0.1), bounds=(-1.0, 1.0))
    assert -0.1 < gains[-1] < 0 < most[-1] < 0.1


def test_bounds_only_change_the_scale() -> None:
    values = np.random.default_rng(0).random(50)
    lows, highs = confidence_sequence(values)
    wide_lows, wide_highs = confidence_sequence(2 * values - 1, bounds=(-1.0, 1.0))
    np.testing.assert_allclose(wide_lows, 2 * lows - 1)
    np.testing.assert_allclose(wide_highs, 2 * highs - 1)


# -- what cannot be used ------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [1.5, -1.01, math.nan, math.inf])
def test_differences_out_of_bounds(wrong: float) -> None:
    test = PairedTest()
    with pytest.raises(DataError, match="out of bounds; give numbers from -1"):
        test.update([0.0, wrong])
    assert test.items == 0


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_no_chance(alpha: float) -> None:
    with pytest.raises(DataError, match="is no chance"):
        PairedTest(alpha)
    with pytest.raises(DataError, match="is no chance"):
        confidence_sequence([0.5], alpha)


def test_tables_are_refused() -> None:
    with pytest.raises(DataError, match="no list of numbers"):
        confidence_sequence(np.zeros((2, 2)))
