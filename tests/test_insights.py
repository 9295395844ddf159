"""What the log tells beside the winner, by slow twins on made-up scores."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores
from promptsearch.search.insights import Insights, _order
from promptsearch.search.space import Lengths, SearchSpace, Space

SPACE = SearchSpace(
    Space(),
    templates=("fields",),
    instructions=("",),
    pool=range(10),
    labels=[number % 2 for number in range(10)],
    lengths=Lengths({"": 0}, {number: 10 + number for number in range(10)}, 20.0, 40, 2000),
)
SET = Candidate(demonstrations=(1, 2, 3))


def toss(share: float, items: int, seed: int) -> Scores:
    values = (np.random.default_rng(seed).random(items) < share) * 1.0
    return Scores(values, values)


def test_the_front_is_what_nothing_beats_on_shared_items() -> None:
    log = {
        Candidate(): toss(0.5, 60, 0),
        Candidate(demonstrations=(1,)): toss(0.7, 100, 1),
        SET: toss(0.6, 100, 2),
        Candidate(demonstrations=(4, 5, 6, 7)): toss(0.9, 100, 3),
        Candidate(demonstrations=(9,)): toss(1.0, 24, 4),  # a short look, left out
    }
    found = Insights.of(SPACE, log, SET)
    assert found.front_items == 60
    arms = list(log)[:4]
    worth = {arm: (float(log[arm].values[:60].mean()), SPACE.prompt_tokens(arm)) for arm in arms}
    beaten = {
        arm
        for arm in arms
        for other in arms
        if worth[other] != worth[arm] and worth[other][0] >= worth[arm][0] and worth[other][1] <= worth[arm][1]
    }
    assert {arms[point.index] for point in found.front} == set(arms) - beaten
    tokens = [point.tokens for point in found.front]
    assert tokens == sorted(tokens)
    assert all(point.value.n == 60 for point in found.front)


ORDERS = [replace(SET, demonstrations=order) for order in permutations(SET.demonstrations)]


def test_orders_of_the_winning_set_that_it_was_not_chosen_for_are_compared() -> None:
    log = {order: toss(0.1 + 0.15 * at, 48, at) for at, order in enumerate(ORDERS)}
    log[ORDERS[-1]] = toss(0.9, 60, 5)
    log[Candidate(demonstrations=(4, 5))] = toss(1.0, 48, 9)
    found = Insights.of(SPACE, log, ORDERS[-1])
    assert found.order is not None
    means = [float(log[order].values.mean()) for order in ORDERS[1:-1]]
    assert (found.order.orders, found.order.items) == (4, 48)
    assert (found.order.low, found.order.high) == pytest.approx((min(means), max(means)))
    assert found.winner_order == pytest.approx(log[ORDERS[-1]].values[:48].mean())
    assert found.to_dict()["winner_order"] == found.winner_order


@pytest.mark.parametrize(
    "winner", [Candidate(demonstrations=(4, 5)), Candidate(), Candidate(mode="retrieved", count=2), SET]
)
def test_nothing_is_said_about_order_without_three_other_orders_of_the_winner(winner: Candidate) -> None:
    tried = ORDERS[:3] if winner == SET else ORDERS
    log = {order: toss(0.5, 48, at) for at, order in enumerate(tried)} | {winner: toss(0.6, 48, 9)}
    log |= {order: toss(0.5, 23, at) for at, order in enumerate(ORDERS) if order not in log}  # too short a look
    found = Insights.of(SPACE, log, winner)
    assert (found.order, found.winner_order) == (None, None)


def test_an_order_that_was_chosen_is_no_evidence_that_order_matters() -> None:
    """The best of 100 alike sets wins; six more of its orders are tried, and none differs from any other."""
    others = [Candidate(demonstrations=(number,)) for number in range(99)]
    drawn = list(permutations((1, 2, 3, 4)))[1:7]
    significant = 0
    for run in range(200):
        rng = np.random.default_rng([run, 7])
        tosses = (rng.random((106, 24)) < 0.6) * 1.0
        best = int(tosses[:100].mean(axis=1).argmax())
        tosses[[0, best]] = tosses[[best, 0]]
        arms = [Candidate(demonstrations=(1, 2, 3, 4)), *others]
        arms += [Candidate(demonstrations=order) for order in drawn]
        log = {arm: Scores(values, values) for arm, values in zip(arms, tosses, strict=True)}
        effect, own = _order(log, arms[0])
        assert effect is not None
        assert own is not None
        assert effect.orders == 6
        assert own == pytest.approx(tosses[0].mean())
        significant += effect.p_value < 0.05
    assert significant <= 16


def test_plain_values_are_json() -> None:
    log = {SET: toss(0.5, 48, 0), Candidate(): toss(0.6, 48, 1)}
    values = Insights.of(SPACE, log, SET).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["surrogate"] is None
