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

__all__ = ["Best", "Effect", "Range", "Scores", "Shift", "Speedup", "Sum", "difference", "slope"]


class Scores(Protocol):
    """Scores of one dataset, in one way of scoring."""

    def of(self, condition: Condition, model: str | None = None) -> NDArray[np.float64]:
        """Scores of shape (seeds, items), 0 or 1; of another model where one is named.

        Raises:
            KeyError: the condition was not measured.
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


class Effect(Protocol):
    """Something whose mean is estimated.

    Effects on accuracies are shares. One that has ``times`` is the logarithm to base 2 of a ratio.
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
    """The best of several conditions less the worst, chosen on other items than they are counted on."""

    conditions: Sequence[Condition]

    def values(self, scores: Scores) -> NDArray[np.float64]:
        """Differences on each half between what was best and worst on the other half."""
        table = _stacked([scores.of(condition) for condition in self.conditions])

        def gap(chosen_on: NDArray[np.float64], counted: NDArray[np.float64]) -> NDArray[np.float64]:
            means = chosen_on.mean(axis=1)
            return np.asarray(counted[int(means.argmax())] - counted[int(means.argmin())])

        return _crosswise(table, table, gap)


@dataclass(frozen=True)
class Best:
    """The best of several conditions, chosen on other items, less a reference.

    Attributes:
        conditions: what is chosen from.
        reference: one condition; None for the average of all of them.
        counted_in: the model whose scores are counted; None for the one whose scores choose.
    """

    conditions: Sequence[Condition]
    reference: Condition | None = None
    counted_in: str | None = None

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
