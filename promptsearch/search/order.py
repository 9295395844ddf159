"""Neighbours of a set of demonstrations in order space, and how much order alone moves the score.

Invariant: whatever comes out of a generator is a permutation of the ids that went in, other than the one given, and
none comes twice. Ids and label numbers only.
Leaves out: which orders are worth scoring.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, permutations

import numpy as np

from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray

__all__ = [
    "OrderEffect",
    "adjacent_swaps",
    "grouped_by_label",
    "interleaved_by_label",
    "neighbours",
    "order_effect",
    "other_last_labels",
    "reversal",
    "rotations",
]

Order = tuple[int, ...]
_ALL_LABEL_ORDERS = 4  # labels of which every order is tried: 24 orders
_SHUFFLES = 500


# -- neighbours ---------------------------------------------------------------------------------------------


def neighbours(order: Sequence[int], label_of: Mapping[int, int]) -> Iterator[Order]:
    """All neighbours of an order, the nearest kinds first: swaps, last labels, reversal, rotations, label orders.

    Args:
        order: ids of demonstrations as shown, each once.
        label_of: label number of each id.
    """
    return _new(
        order,
        chain(
            adjacent_swaps(order),
            other_last_labels(order, label_of),
            reversal(order),
            rotations(order),
            grouped_by_label(order, label_of),
            interleaved_by_label(order, label_of),
        ),
    )


def adjacent_swaps(order: Sequence[int]) -> Iterator[Order]:
    """Each pair of neighbours swapped, the last pair first: what stands near the query matters most."""
    given = tuple(order)
    for place in range(len(given) - 2, -1, -1):
        yield (*given[:place], given[place + 1], given[place], *given[place + 2 :])


def rotations(order: Sequence[int]) -> Iterator[Order]:
    """The first demonstrations moved to the end: one, two, and so on."""
    given = tuple(order)
    return _new(given, (given[place:] + given[:place] for place in range(1, len(given))))


def reversal(order: Sequence[int]) -> Iterator[Order]:
    """The order backwards, where that is another one."""
    given = tuple(order)
    return _new(given, iter([given[::-1]]))


def other_last_labels(order: Sequence[int], label_of: Mapping[int, int]) -> Iterator[Order]:
    """For each label that does not stand last, its last demonstration moved to the end."""
    given = tuple(order)
    last_places = {label_of[number]: place for place, number in enumerate(given)}
    for _, place in sorted(last_places.items()):
        if place != len(given) - 1:
            yield (*given[:place], *given[place + 1 :], given[place])


def grouped_by_label(order: Sequence[int], label_of: Mapping[int, int]) -> Iterator[Order]:
    """All of one label, then all of the next, for each order of the labels.

    Within a label the given order stays. With more than four labels their orders are rotations, forwards and
    backwards, so that each label comes last twice.
    """
    groups = _groups(order, label_of)
    found = (tuple(chain.from_iterable(groups[label] for label in labels)) for labels in _label_orders(list(groups)))
    return _new(order, found)


def interleaved_by_label(order: Sequence[int], label_of: Mapping[int, int]) -> Iterator[Order]:
    """The labels in turn, for each order of the labels as in :func:`grouped_by_label`.

    Where a label has more demonstrations than others, its surplus comes first, so that the end is mixed.
    """
    groups = _groups(order, label_of)
    return _new(order, (_interleaved(groups, labels) for labels in _label_orders(list(groups))))


def _interleaved(groups: Mapping[int, Sequence[int]], labels: Sequence[int]) -> Order:
    most = max(map(len, groups.values()), default=0)
    rounds = [
        groups[label][len(groups[label]) - left]
        for left in range(most, 0, -1)
        for label in labels
        if left <= len(groups[label])
    ]
    return tuple(rounds)


def _groups(order: Sequence[int], label_of: Mapping[int, int]) -> dict[int, list[int]]:
    """Ids of each label in the given order, labels by number."""
    groups: dict[int, list[int]] = {}
    for number in order:
        groups.setdefault(label_of[number], []).append(number)
    return dict(sorted(groups.items()))


def _label_orders(labels: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every order of few labels; of many, the rotations of one order and of its reverse."""
    if len(labels) <= _ALL_LABEL_ORDERS:
        yield from permutations(labels)
        return
    for given in (tuple(labels), tuple(reversed(labels))):
        yield given
        yield from (given[place:] + given[:place] for place in range(1, len(given)))


def _new(order: Sequence[int], found: Iterable[Order]) -> Iterator[Order]:
    """What is not the given order and did not come before."""
    known = {tuple(order)}
    for each in found:
        if each not in known:
            known.add(each)
            yield each


# -- how much order matters ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class OrderEffect:
    """How the score of one set of demonstrations varies over orders.

    Attributes:
        orders: orders measured.
        items: items that each was measured on.
        mean: mean score over orders.
        sd: standard deviation of the orders' mean scores, item noise included.
        low: mean score of the worst order.
        high: mean score of the best.
        sd_beyond_noise: the same deviation with the part taken out that item noise alone explains; 0 where it
            explains all. This is what another order is expected to move the score by.
        spread_by_noise: best minus worst to expect on these items if order had no effect.
        p_value: chance of a spread as large as measured, if order had no effect.
    """

    orders: int
    items: int
    mean: float
    sd: float
    low: float
    high: float
    sd_beyond_noise: float
    spread_by_noise: float
    p_value: float

    @property
    def spread(self) -> float:
        """Best minus worst as measured; the best of many is partly luck."""
        return self.high - self.low

    @property
    def spread_beyond_noise(self) -> float:
        """Best minus worst, scaled by the share of the orders' deviation that item noise does not explain."""
        return self.spread * self.sd_beyond_noise / self.sd if self.sd > 0 else 0.0

    def __str__(self) -> str:
        return (
            f"{self.orders} orders of the same demonstrations score {100 * self.low:.1f} to {100 * self.high:.1f} %; "
            f"item noise alone would spread them over {100 * self.spread_by_noise:.1f} points "
            f"(p = {self.p_value:.2g}); order itself moves the score by {100 * self.sd_beyond_noise:.1f} points (sd)"
        )


def order_effect(scores: FloatArray, rng: np.random.Generator, shuffles: int = _SHUFFLES) -> OrderEffect:
    """How much order moves the score of one set of demonstrations.

    If order had no effect, an item's scores under the different orders could trade places. Shuffling them item by
    item therefore shows what spread noise makes. The deviation beyond noise is the variance component of the orders
    in a two-way analysis of variance of orders and items.

    Args:
        scores: item scores under each order, shape (orders, items); the orders should be drawn, not searched.
        rng: randomness of the shuffles.
        shuffles: how many, at least 1; the p-value is no finer than their reciprocal.

    Raises:
        DataError: fewer than two orders or two items, or no shuffles.
    """
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2:
        raise DataError(f"scores of shape {table.shape} show no order effect; give two orders or more on two items")
    if shuffles < 1:
        raise DataError(f"shuffles={shuffles!r} gives no comparison; give at least 1")
    means = table.mean(axis=1)
    spread = float(np.ptp(means))
    by_noise = np.array([np.ptp(rng.permuted(table, axis=0).mean(axis=1)) for _ in range(shuffles)])
    reached = int((by_noise >= spread - 1e-9).sum())
    return OrderEffect(
        orders=len(table),
        items=table.shape[1],
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)),
        low=float(means.min()),
        high=float(means.max()),
        sd_beyond_noise=_sd_beyond_noise(table),
        spread_by_noise=float(by_noise.mean()),
        p_value=(reached + 1) / (shuffles + 1),
    )


def _sd_beyond_noise(table: FloatArray) -> float:
    """Square root of the orders' variance component."""
    orders, items = table.shape
    means = table.mean(axis=1, keepdims=True)
    residuals = table - means - table.mean(axis=0, keepdims=True) + table.mean()
    noise = float((residuals**2).sum()) / ((orders - 1) * (items - 1))
    return float(np.sqrt(max(0.0, float(means.var(ddof=1)) - noise / items)))
