"""Intervals and tests for a mean that stay valid however often one looks: confidence sequences by betting.

A bettor stakes on the mean being above, or below, a value m. Where m is the true mean nobody can expect to win, so
capital reaches ``1 / alpha`` with probability at most alpha, ever (Ville's inequality). The values m against which
neither bettor got that rich are the interval (the hedged capital process with predictable plug-in bets of
Waudby-Smith and Ramdas 2020, arXiv 2010.09686).
Invariant: a bet on an item depends on earlier items only, so looking after each item costs no validity.
Assumes that items come in random order; leaves out where their values come from, and more than one pair at a time:
each test has its own alpha.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray

__all__ = ["PairedTest", "certainly_better", "confidence_sequence"]

_MOST_AT_STAKE = 0.5  # of the capital that an item can cost: nobody is ruined by one surprise
_CELLS = 1000
_BEYOND = 1e-9  # values just outside their bounds are rounding


def confidence_sequence(
    values: Sequence[float] | FloatArray, alpha: float = 0.05, bounds: tuple[float, float] = (0.0, 1.0)
) -> tuple[FloatArray, FloatArray]:
    """Interval of the mean after each item; with probability ``1 - alpha`` the mean is in all of them at once.

    Ends are rounded outwards to a thousandth of the range. Intervals never widen.

    Args:
        values: one for each item in the order seen, within ``bounds``.
        alpha: chance that any of the intervals misses the mean, in (0, 1).
        bounds: the least and the largest value there can be; ``(-1, 1)`` for differences of scores.

    Returns:
        Low ends and high ends, each of shape (items,). Where the values contradict every mean, which happens with a
        chance of at most alpha, both ends stay where they last made sense.

    Raises:
        DataError: values out of bounds, or an alpha that is no chance.
    """
    low, high = bounds
    shares = _shares(values, low, high)
    bets = _bets(shares, _checked_alpha(alpha))
    means = np.linspace(0.0, 1.0, _CELLS + 1)
    limit = np.log(2 / alpha)
    above = np.maximum.accumulate(_log_capital(shares, bets, means), axis=0) >= limit
    below = np.maximum.accumulate(_log_capital(1 - shares, bets, 1 - means), axis=0) >= limit
    # The bettor on "above m" refutes small means, the one on "below m" large ones; both sets are intervals.
    lows = np.maximum(above.sum(axis=1) - 1, 0)
    highs = np.minimum(_CELLS + 1 - below.sum(axis=1), _CELLS)
    sound = lows < highs
    last = np.maximum.accumulate(np.where(sound, np.arange(len(shares)), 0))
    scale = (high - low) / _CELLS
    return low + scale * lows[last], low + scale * highs[last]


def certainly_better(differences: Sequence[float] | FloatArray, alpha: float = 0.05) -> int:
    """Whether the mean of paired differences was certainly above or below 0 at any time so far.

    Called after each item with all differences so far, it is wrong with probability at most ``alpha`` in all.

    Args:
        differences: ours minus theirs for each item of a shared order, from -1 to 1.
        alpha: chance of a verdict where the mean difference is 0, in (0, 1).

    Returns:
        1 where the first is better, -1 where the second is, 0 where neither is certain.

    Raises:
        DataError: differences out of bounds, or an alpha that is no chance.
    """
    test = PairedTest(alpha)
    test.update(differences)
    return test.verdict


class PairedTest:
    """A running test of paired differences in [-1, 1]: two bettors, one on each sign, at ``alpha / 2`` each.

    Args:
        alpha: chance of a verdict, ever, where the mean difference is 0.

    Attributes:
        verdict: 1, -1 or 0 as :func:`certainly_better` gives it; once it is not 0 it stays.
        items: differences seen.

    Raises:
        DataError: an alpha that is no chance.
    """

    def __init__(self, alpha: float = 0.05) -> None:
        self.alpha = _checked_alpha(alpha)
        self.verdict = 0
        self._differences: FloatArray = np.empty(0)

    @property
    def items(self) -> int:
        """Differences seen."""
        return len(self._differences)

    @property
    def e_value(self) -> float:
        """Evidence against a mean of 0: the mean capital of the two bettors, who began with 1 each."""
        if not self.items:
            return 1.0
        above, below = self._capitals()
        return float(np.exp(above[-1]) + np.exp(below[-1])) / 2

    def update(self, differences: Sequence[float] | FloatArray) -> int:
        """See further differences, in order.

        Returns:
            The verdict after them.

        Raises:
            DataError: a difference out of bounds; nothing is taken in then.
        """
        shares = _shares(differences, -1.0, 1.0)
        self._differences = np.concatenate([self._differences, 2 * shares - 1])
        if self.verdict == 0 and self.items:
            limit = np.log(2 / self.alpha)
            times = [np.flatnonzero(path >= limit) for path in self._capitals()]
            first = [int(reached[0]) if len(reached) else self.items for reached in times]
            self.verdict = int(first[0] < first[1]) - int(first[1] < first[0])
        return self.verdict

    def _capitals(self) -> tuple[FloatArray, FloatArray]:
        """Logarithm of the capital on "above 0" and on "below 0" after each item."""
        shares = (self._differences + 1) / 2
        bets = _bets(shares, self.alpha)
        middle = np.array([0.5])
        return _log_capital(shares, bets, middle)[:, 0], _log_capital(1 - shares, bets, middle)[:, 0]


def _bets(shares: FloatArray, alpha: float) -> FloatArray:
    """Predictable plug-in bets: larger where the values so far varied little, smaller as items come in."""
    count = np.arange(1, len(shares) + 1)
    means = (0.5 + np.cumsum(shares)) / (count + 1)
    variances = (0.25 + np.cumsum((shares - means) ** 2)) / (count + 1)
    before = np.concatenate([[0.25], variances[:-1]])
    return np.asarray(np.sqrt(2 * np.log(2 / alpha) / (before * count * np.log(count + 1))))


def _log_capital(shares: FloatArray, bets: FloatArray, means: FloatArray) -> FloatArray:
    """Logarithm of the capital of a bettor on a mean above each of ``means``, shape (items, means)."""
    with np.errstate(divide="ignore"):
        most = _MOST_AT_STAKE / means  # infinite for a mean of 0, against which no value can lose
    stakes = np.minimum(bets[:, None], most[None, :])
    return np.asarray(np.cumsum(np.log1p(stakes * (shares[:, None] - means[None, :])), axis=0))


def _shares(values: Sequence[float] | FloatArray, low: float, high: float) -> FloatArray:
    """Values as shares of their range."""
    given = np.asarray(values, dtype=np.float64)
    if given.ndim != 1:
        raise DataError(f"values of shape {given.shape} are no list of numbers; give one for each item")
    shares = (given - low) / (high - low)
    wrong = ~((shares >= -_BEYOND) & (shares <= 1 + _BEYOND))
    if wrong.any():
        raise DataError(f"the value {given[wrong][0]} is out of bounds; give numbers from {low} to {high}")
    return np.clip(shares, 0.0, 1.0)


def _checked_alpha(alpha: float) -> float:
    if not 0 < alpha < 1:
        raise DataError(f"alpha={alpha!r} is no chance; give a number between 0 and 1, such as 0.05")
    return alpha
