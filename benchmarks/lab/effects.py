"""What is compared: effects as item scores of shape (seeds, items), and their means with intervals.

An effect is a sum of conditions' scores with weights (a difference, a slope), or a gap between conditions that were
chosen by the scores. A choice is made on one half of the items and counted on the other half, and the other way
round: the gap between the best and the worst of several equal conditions is then zero on average, where the plain
gap is as large as chance makes it.
Leaves out: where scores come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.conditions import Condition
from benchmarks.lab.crossed import crossed_mean

__all__ = [
    "Best",
    "BySize",
    "Effect",
    "LeftOut",
    "Less",
    "Missing",
    "OfModel",
    "Range",
    "Scores",
    "Shift",
    "Speedup",
    "Spread",
    "Sum",
    "difference",
    "expected_range",
    "slope",
]


class Missing(LookupError):
    """Scores were not measured yet."""


class LeftOut(LookupError):
    """Scores could not be measured, or hold nothing to estimate from."""


class Scores(Protocol):
    """Scores of one dataset, in one way of scoring."""

    def of(self, condition: Condition, model: str | None = None) -> NDArray[np.float64]:
        """Scores of shape (seeds, items), 0 or 1; of another model where one is named.

        Raises:
            Missing: the condition was not measured yet.
            LeftOut: it could not be measured.
        """
        ...

    def loss(self, model: str) -> float:
        """A model's bits per byte on plain text."""
        ...

    def seconds(self, condition: Condition, what: str) -> NDArray[np.float64]:
        """Seconds of each task in each round, shape (rounds, tasks)."""
        ...

    def in_way(self, way: str) -> Scores:
        """The same, scored in another way."""
        ...

    def by_model(self, model: str) -> Scores:
        """The same of another model."""
        ...


class Effect(Protocol):
    """Something whose mean is estimated.

    Effects on accuracies are shares. One that has ``times`` is the logarithm to base 2 of a ratio. One that has
    ``least`` is on average no larger than what it estimates: it can show that this is large, never that it is small.
    """

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Shape (seeds, items)."""
        ...


@dataclass(frozen=True)
class Sum:
    """Conditions with weights, and a constant.

    Attributes:
        weights: of each condition.
        constant: added to every item.
    """

    weights: Mapping[Condition, float] = field(hash=False)
    constant: float = 0.0

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Weighted sum of scores."""
        parts = [weight * scores.of(condition) for condition, weight in self.weights.items()]
        return np.asarray(sum(parts[1:], start=parts[0]) + self.constant)


def difference(one: Condition, other: Condition) -> Sum:
    """What one condition gains over another."""
    return Sum({one: 1.0, other: -1.0})


def slope(conditions: Mapping[Any, float]) -> Sum:
    """Least-squares slope of the scores over a number for each condition, such as a share."""
    numbers = np.array(list(conditions.values()), dtype=np.float64)
    centred = numbers - numbers.mean()
    weights = centred / float((centred**2).sum())
    return Sum(dict(zip(conditions, weights.tolist(), strict=True)))


@dataclass(frozen=True)
class Range:
    """The best of several conditions less the worst, chosen on other items than they are counted on.

    Choice on few items errs, so that this is less than the true range where conditions differ little.
    """

    conditions: Sequence[Condition]
    least = True

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Differences on each half between what was best and worst on the other half."""
        table = _stacked([scores.of(condition) for condition in self.conditions])

        def gap(chosen_on: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
            means = chosen_on.mean(axis=1)
            return np.asarray(counted[int(means.argmax())] - counted[int(means.argmin())])

        return _crosswise(table, table, gap)


@dataclass(frozen=True)
class Spread:
    """The range of several conditions' accuracies that are alike but for chance, such as orders of one set.

    The variance between conditions is estimated without the items' noise, from pairs of different items (a
    U-statistic), and a range is as many standard deviations as that many normal draws have on average (Tippett,
    Biometrika 17, 1925). Values are the linear parts of the estimate (the delta method): their mean is the estimate.
    Where the conditions differ by no more than chance has it, the estimate is 0. The root has no slope there: the
    values are scaled so that their interval ends where that of the variance, laid around 0, ends.
    """

    conditions: Sequence[Condition]

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Shape (seeds, items)."""
        table = _stacked([scores.of(condition) for condition in self.conditions])
        conditions, _, items = table.shape
        centred = table - table.mean(axis=0)
        others = centred.sum(axis=2, keepdims=True) - centred
        shared = (centred * others).sum(axis=0) / ((conditions - 1) * (items - 1))  # its mean is the variance
        variances = 2 * shared - shared.mean(axis=1, keepdims=True)
        variance = float(variances.mean())
        if variance > 0:
            deviations = variance**0.5 + (variances - variance) / (2 * variance**0.5)
        elif np.ptp(variances) < 1e-12:
            deviations = np.zeros(variances.shape)
        else:
            around = crossed_mean(variances)
            deviations = (variances - variance) / (around.high - around.value) ** 0.5
        return np.asarray(expected_range(conditions) * deviations)


def expected_range(count: int) -> float:
    """Mean range of so many draws from a standard normal distribution."""
    from scipy.integrate import quad
    from scipy.stats import norm

    def inside(x: float) -> float:
        below = float(norm.cdf(x))
        return 1.0 - below**count - (1.0 - below) ** count

    return float(quad(inside, -10.0, 10.0)[0])


@dataclass(frozen=True)
class Best:
    """The best of several conditions, chosen on other items, less a reference.

    Attributes:
        conditions: what is chosen from.
        reference: one condition; None for the average of all of them.
        counted_in: the model whose scores are counted; None for the one whose scores choose.

    Choice on few items errs, so that this is less than what the truly best one gains.
    """

    conditions: Sequence[Condition]
    reference: Condition | None = None
    counted_in: str | None = None

    @property
    def least(self) -> bool:
        """Whether what is chosen and what is counted are of one model."""
        return self.counted_in is None

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """What each half gains by the choice of the other half."""
        choosing = _stacked([scores.of(condition) for condition in self.conditions])
        seen = [scores.of(condition, self.counted_in) for condition in self.conditions]
        reference = (
            np.mean(np.broadcast_arrays(*seen), axis=0)
            if self.reference is None
            else scores.of(self.reference, self.counted_in)
        )
        counted = _stacked([*seen, reference])

        def gain(chosen_on: NDArray[np.float64], seen: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.asarray(seen[int(chosen_on.mean(axis=1).argmax())] - seen[-1])

        return _crosswise(choosing, counted, gain)


@dataclass(frozen=True)
class Less:
    """One effect less another."""

    effect: Effect
    other: Effect

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Difference on each item."""
        return self.effect.values(scores) - self.other.values(scores)


@dataclass(frozen=True)
class OfModel:
    """An effect in a model that is named."""

    effect: Effect
    model: str

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """The effect's values there."""
        return self.effect.values(scores.by_model(self.model))


@dataclass(frozen=True)
class BySize:
    """Slope of an effect over models, for each doubling of their weights. The models are taken as they are.

    Attributes:
        effect: what is measured of each model.
        parameters: number of weights by model.
    """

    effect: Effect
    parameters: Mapping[str, int] = field(hash=False)

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Weighted sum over models."""
        sizes = np.log2(list(self.parameters.values()))
        centred = sizes - sizes.mean()
        weights = (centred / max(float((centred**2).sum()), 1e-12)).tolist()
        parts = [self.effect.values(scores.by_model(model)) for model in self.parameters]
        return np.asarray(sum(weight * part for weight, part in zip(weights, parts, strict=True)))


@dataclass(frozen=True)
class Shift:
    """How much larger an effect is in one way of scoring than in another."""

    effect: Effect
    way: str
    other: str

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Difference of the effect's two values on each item."""
        return self.effect.values(scores.in_way(self.way)) - self.effect.values(scores.in_way(self.other))


def _stacked(parts: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Shape (conditions, seeds, items); what does not vary with seeds is the same under each."""
    return np.stack(np.broadcast_arrays(*parts))


@dataclass(frozen=True)
class Speedup:
    """How many times faster one thing is than another, as a logarithm to base 2.

    Attributes:
        condition: whose cells hold the seconds.
        fast: name of what should be faster.
        slow: name of what it is held against.
    """

    condition: Condition
    fast: str
    slow: str
    times = True

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Shape (rounds, tasks)."""
        return np.log2(scores.seconds(self.condition, self.slow) / scores.seconds(self.condition, self.fast))


class _Counted(Protocol):
    def __call__(self, chosen_on: NDArray[np.float64], counted: NDArray[np.float64], /) -> NDArray[np.float64]: ...


def _crosswise(choosing: NDArray[np.float64], counted: NDArray[np.float64], use: _Counted) -> NDArray[np.float64]:
    """Under each seed, choose on the even items and count on the odd ones, and the other way round.

    Args:
        choosing: shape (conditions, seeds, items).
        counted: the same, or with more conditions.
        use: makes item values, shape (items of one half,), from both halves' scores, shape (conditions, items).
    """
    seeds, items = counted.shape[1:]
    found = np.empty((seeds, items))
    for seed in range(seeds):
        for one, other in ((slice(0, None, 2), slice(1, None, 2)), (slice(1, None, 2), slice(0, None, 2))):
            found[seed, other] = use(choosing[:, seed, one], counted[:, seed, other])
    return found
