"""Orders of one set: every neighbour is a permutation, and order's effect is told from noise."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import DataError
from promptsearch.search.order import (
    adjacent_swaps,
    grouped_by_label,
    interleaved_by_label,
    neighbours,
    order_effect,
    other_last_labels,
    reversal,
    rotations,
)

sets = st.lists(st.integers(0, 50), unique=True, max_size=9).flatmap(
    lambda ids: st.tuples(st.just(tuple(ids)), st.fixed_dictionaries({each: st.integers(0, 5) for each in ids}))
)
Way = Callable[[Sequence[int], Mapping[int, int]], Iterator[tuple[int, ...]]]
WAYS: dict[str, Way] = {
    "swaps": lambda order, label_of: adjacent_swaps(order),
    "rotations": lambda order, label_of: rotations(order),
    "reversal": lambda order, label_of: reversal(order),
    "last labels": other_last_labels,
    "grouped": grouped_by_label,
    "interleaved": interleaved_by_label,
    "all": neighbours,
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
@given(given_set=sets)
def test_neighbours_are_other_permutations(way: Way, given_set: tuple[tuple[int, ...], dict[int, int]]) -> None:
    order, label_of = given_set
    found = list(way(order, label_of))
    assert all(sorted(each) == sorted(order) for each in found)
    assert order not in found
    assert len(set(found)) == len(found)
    assert list(way(list(order), label_of)) == found


@given(sets)
def test_together_they_are_all_of_each_kind(given_set: tuple[tuple[int, ...], dict[int, int]]) -> None:
    order, label_of = given_set
    each_kind = {found for name, way in WAYS.items() if name != "all" for found in way(order, label_of)}
    assert set(neighbours(order, label_of)) == each_kind


@given(sets)
def test_label_orders_do_what_they_say(given_set: tuple[tuple[int, ...], dict[int, int]]) -> None:
    order, label_of = given_set
    labels = sorted({label_of[number] for number in order})
    for found in grouped_by_label(order, label_of):
        runs = [label for label, _ in itertools.groupby(label_of[number] for number in found)]
        assert sorted(runs) == labels
    for found in (*grouped_by_label(order, label_of), *interleaved_by_label(order, label_of)):
        for label in labels:  # within a label the given order stays
            assert [n for n in found if label_of[n] == label] == [n for n in order if label_of[n] == label]
    for found in interleaved_by_label(order, label_of):
        fewest = min(sum(label_of[n] == label for n in order) for label in labels)
        end = [label_of[number] for number in found[len(found) - fewest * len(labels) :]]
        for start in range(0, len(end), len(labels)):
            assert end[start : start + len(labels)] == end[: len(labels)]
            assert sorted(end[: len(labels)]) == labels
    lasts = [label_of[found[-1]] for found in other_last_labels(order, label_of)]
    assert lasts == [label for label in labels if label != label_of[order[-1]]]


def test_by_hand() -> None:
    label_of = {1: 0, 2: 0, 3: 1, 4: 1}
    assert list(adjacent_swaps((1, 2, 3))) == [(1, 3, 2), (2, 1, 3)]
    assert list(rotations((1, 2, 3))) == [(2, 3, 1), (3, 1, 2)]
    assert list(reversal((1, 2, 3))) == [(3, 2, 1)]
    assert list(reversal((1,))) == []
    assert list(other_last_labels((1, 2, 3, 4), label_of)) == [(1, 3, 4, 2)]
    assert list(grouped_by_label((1, 3, 2, 4), label_of)) == [(1, 2, 3, 4), (3, 4, 1, 2)]
    assert list(interleaved_by_label((1, 2, 3, 4), label_of)) == [(1, 3, 2, 4), (3, 1, 4, 2)]
    assert list(interleaved_by_label((1, 2, 3), label_of)) == [(1, 3, 2)]


def test_every_label_order_of_few_and_some_of_many() -> None:
    four = list(range(4))
    assert len(list(grouped_by_label(four, {n: n for n in four}))) == 23  # and the given one
    many = list(range(77))
    found = list(grouped_by_label(many, {n: n for n in many}))
    assert len(found) == 2 * 77 - 1
    assert {each[-1] for each in found} == set(many)


# -- how much order matters ---------------------------------------------------------------------------------


def tosses(rng: np.random.Generator, orders: int, items: int, sd: float, ease_sd: float = 0.3) -> np.ndarray:
    """Rights and wrongs under orders whose true means differ by this standard deviation."""
    ease = rng.normal(0, ease_sd, items)
    chances = np.clip(0.6 + rng.normal(0, sd, orders)[:, None] + ease, 0.02, 0.98)
    return (rng.random((orders, items)) < chances) * 1.0


def test_numbers_by_loops() -> None:
    table = tosses(np.random.default_rng(0), 7, 40, 0.1)
    effect = order_effect(table, np.random.default_rng(1), 50)
    means = [statistics.fmean(row) for row in table.tolist()]
    assert (effect.orders, effect.items) == (7, 40)
    assert effect.mean == pytest.approx(statistics.fmean(means))
    assert effect.sd == pytest.approx(statistics.stdev(means))
    assert (effect.low, effect.high) == pytest.approx((min(means), max(means)))
    assert effect.spread == pytest.approx(max(means) - min(means))
    noise = 0.0
    for order in range(7):
        for item in range(40):
            column = statistics.fmean(table[:, item].tolist())
            noise += (table[order, item] - means[order] - column + effect.mean) ** 2
    variance = statistics.variance(means) - noise / (6 * 39) / 40
    assert effect.sd_beyond_noise == pytest.approx(math.sqrt(max(0.0, variance)))
    assert effect.spread_beyond_noise == pytest.approx(effect.spread * effect.sd_beyond_noise / effect.sd)


def test_the_spread_by_noise_is_that_of_every_way_to_shuffle() -> None:
    """Two orders, three items: all eight swaps, by counting."""
    table = np.array([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    spreads = []
    for swaps in itertools.product((False, True), repeat=3):
        rows = np.array([column[::-1] if swap else column for column, swap in zip(table.T, swaps, strict=True)]).T
        spreads.append(abs(rows[0].mean() - rows[1].mean()))
    effect = order_effect(table, np.random.default_rng(0), 4000)
    assert effect.spread_by_noise == pytest.approx(statistics.fmean(spreads), abs=0.02)
    share = sum(spread >= effect.spread - 1e-9 for spread in spreads) / 8
    assert effect.p_value == pytest.approx(share, abs=0.03)


def test_no_effect_is_told_from_noise() -> None:
    """The measured spread is noise's, and p-values are spread evenly."""
    rng = np.random.default_rng(0)
    effects = [order_effect(tosses(rng, 12, 100, 0.0), rng, 200) for _ in range(100)]
    assert np.mean([each.spread for each in effects]) > 0.1, "looks like much"
    assert np.mean([each.spread - each.spread_by_noise for each in effects]) == pytest.approx(0, abs=0.012)
    assert np.mean([each.sd_beyond_noise for each in effects]) < 0.02
    assert sum(each.p_value <= 0.05 for each in effects) <= 14


def test_an_effect_is_found_and_not_overstated() -> None:
    rng = np.random.default_rng(0)
    effects = [order_effect(tosses(rng, 12, 100, 0.1, ease_sd=0.1), rng, 100) for _ in range(60)]
    assert np.mean([each.sd_beyond_noise for each in effects]) == pytest.approx(0.1, abs=0.015)
    assert np.mean([each.sd for each in effects]) > 0.105
    assert sum(each.p_value <= 0.05 for each in effects) >= 54


def test_orders_that_change_nothing() -> None:
    effect = order_effect(np.tile([1.0, 0.0, 1.0], (5, 1)), np.random.default_rng(0), 20)
    assert (effect.spread, effect.sd_beyond_noise, effect.spread_beyond_noise, effect.p_value) == (0, 0, 0, 1)
    assert "5 orders of the same demonstrations score 66.7 to 66.7 %" in str(effect)


def test_the_same_seed_gives_the_same() -> None:
    table = tosses(np.random.default_rng(0), 5, 30, 0.1)
    first, again = (order_effect(table, np.random.default_rng(3), 50) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(("shape", "shuffles"), [((1, 5), 10), ((5, 1), 10), ((5,), 10), ((3, 3), 0)])
def test_nothing_to_compare(shape: tuple[int, ...], shuffles: int) -> None:
    with pytest.raises(DataError, match="give"):
        order_effect(np.zeros(shape), np.random.default_rng(0), shuffles)
