"""Means over seeds and items at once, with intervals that answer for both.

The same items are asked under every seed, so that neither repeats the other: an effect has a part of its item, a
part of its seed's demonstrations, and a rest. With the mean squares of a two-way layout of one observation a cell
(Scheffe, The Analysis of Variance, 1959, chapter 7, both ways random) the variance of the grand mean is
``(MS_items + MS_seeds - MS_rest) / (seeds * items)``, and its degrees of freedom are Satterthwaite's (Biometrics
Bulletin 2, 1946). Few seeds give wide intervals, as they should.
Invariant: the value lies within its interval. Leaves out: what the effects are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptsearch.measurement import paired_difference

__all__ = ["Estimate", "average", "crossed_mean"]

_LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Attributes:
        value: the mean.
        low: lower end of the interval.
        high: upper end.
        seeds: seeds that it is over.
        items: items that it is over, of all datasets together.
        variance: of the mean.
        freedom: degrees of freedom of the variance.
    """

    value: float
    low: float
    high: float
    seeds: int
    items: int
    variance: float
    freedom: float


def crossed_mean(effects: NDArray[np.float64]) -> Estimate:
    """The mean of effects of shape (seeds, items), each of which seeds and items are a sample."""
    seeds, items = effects.shape
    if seeds == 1 or np.ptp(effects) < 1e-12:
        return _of_items(effects)
    mean = float(effects.mean())
    of_seeds, of_items = effects.mean(axis=1), effects.mean(axis=0)
    rest = effects - of_seeds[:, None] - of_items[None, :] + mean
    squares_rest = float((rest**2).sum()) / ((seeds - 1) * (items - 1))
    squares_seeds = items * float(of_seeds.var(ddof=1))
    squares_items = seeds * float(of_items.var(ddof=1))
    parts = [(max(squares_items, squares_rest), items - 1)]
    # Where they differ by no more than chance has it, seeds add nothing; two are too few to tell.
    if squares_seeds > squares_rest or seeds == 2:
        parts += [(max(squares_seeds, squares_rest), seeds - 1), (-squares_rest, (seeds - 1) * (items - 1))]
    total = sum(square for square, _ in parts)
    freedom = total**2 / max(sum(square**2 / degrees for square, degrees in parts), 1e-300)
    return _interval(mean, total / (seeds * items), freedom, seeds, items)


def average(estimates: Sequence[Estimate]) -> Estimate:
    """The plain average of estimates from different items, as of several datasets; at least one."""
    if len(estimates) == 1:
        return estimates[0]
    count = len(estimates)
    variance = sum(each.variance for each in estimates) / count**2
    parts = sum((each.variance / count**2) ** 2 / each.freedom for each in estimates)
    freedom = variance**2 / parts if parts else float(sum(each.freedom for each in estimates))
    value = float(np.mean([each.value for each in estimates]))
    seeds = max(each.seeds for each in estimates)
    return _interval(value, variance, freedom, seeds, sum(each.items for each in estimates))


def _of_items(effects: NDArray[np.float64]) -> Estimate:
    """Of one seed, or of effects that are all alike: the items are the sample."""
    seeds, items = effects.shape
    row = effects[0]
    scale = max(1.0, float(np.abs(row).max()))  # the paired difference's interval is within -1 and 1
    found = paired_difference(row / scale, np.zeros(items))
    half = scale * (found.high - found.low) / 2
    return Estimate(
        scale * found.value,
        scale * found.low,
        scale * found.high,
        seeds,
        items,
        (half / 1.96) ** 2,
        max(1.0, items - 1.0),
    )


def _interval(value: float, variance: float, freedom: float, seeds: int, items: int) -> Estimate:
    from scipy.stats import t

    half = float(t.ppf((1 + _LEVEL) / 2, max(freedom, 1.0))) * variance**0.5
    return Estimate(value, value - half, value + half, seeds, items, variance, freedom)
