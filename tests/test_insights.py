"""What the log tells beside the winner, by slow twins on made-up scores."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores
from promptsearch.search.insights import Insights
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


def test_orders_of_the_winning_set_are_compared() -> None:
    orders = [(1, 2, 3), (2, 1, 3), (3, 2, 1), (3, 1, 2)]
    log = {replace(SET, demonstrations=order): toss(0.3 + 0.2 * at, 48, at) for at, order in enumerate(orders)}
    log[Candidate(demonstrations=(4, 5))] = toss(1.0, 48, 9)
    found = Insights.of(SPACE, log, SET).order
    assert found is not None
    means = [float(log[replace(SET, demonstrations=order)].values.mean()) for order in orders]
    assert (found.orders, found.items) == (4, 48)
    assert (found.low, found.high) == pytest.approx((min(means), max(means)))


def test_nothing_is_said_about_order_from_two_orders() -> None:
    log = {SET: toss(0.5, 48, 0), replace(SET, demonstrations=(3, 2, 1)): toss(0.6, 48, 1)}
    assert Insights.of(SPACE, log, SET).order is None


def test_plain_values_are_json() -> None:
    log = {SET: toss(0.5, 48, 0), Candidate(): toss(0.6, 48, 1)}
    values = Insights.of(SPACE, log, SET).to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["surrogate"] is None
