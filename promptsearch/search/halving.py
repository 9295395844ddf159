"""Successive halving on one shared item order, then rounds of proposals against the survivors.

A race scores all its candidates on few items, keeps the better half, doubles the items, and so on (Jamieson and
Talwalkar 2016, arXiv 1502.07943). The first race draws candidates at random, with the choices that did well in first
looks at the baselines and the wordings. Later rounds take proposals from sources that are credited by what became
of their candidates; newcomers go on while they are not measurably behind the leader on the same items. All these
races end where a candidate can be trusted to lead. At the end other orders of the best set are tried, which also
tells how much order alone moves its score, and the leaders are scored on all items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, StrategyRun, best_first
from promptsearch.search.drawing import Preferences, draw_fresh, draw_reasoned, draw_retrieved, draw_routed, kind_of
from promptsearch.search.effects import choice_effects
from promptsearch.search.log_knowledge import candidate_effects
from promptsearch.search.order import neighbours
from promptsearch.search.proposals import Proposals
from promptsearch.search.race import Race
from promptsearch.search.space import SearchSpace

__all__ = ["halving"]

_EXPLORING_SHARE = 0.25  # of the allowance, for the first race
_ANCHORS_KEPT = 5  # one in so many goes on after the first look; the others have told what they could
_DEAR_SHARE = 0.15  # of the first race, for first looks at candidates of each dear kind
_ORDER_SHARE = 0.05  # of the allowance, for other orders of the best set
_FINAL_SHARE = 0.15  # of the allowance, for scoring the leaders on all items
_PROMISING_SHARE = 0.3  # of the allowance at most, for a dear candidate to be seen on as many items as cheap ones
_MOST_ORDERS = 6
_FINALISTS = 5
_FEWEST_WHOLE = 3
_NEWCOMERS = 8
_FEWEST_ARMS = 6
_MOST_ARMS = 1000
_MOST_MISSED = 100
_FREE_ROUNDS = 5  # in a row: routes that are known can be put together in more ways than anyone can count
_LIKELY_SHARE = 0.5  # of a later race's price: most of its arms fall behind the survivors early


def halving(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """The default strategy."""
    race = Race(space, allowance)
    known = yield from race.first_looks(anchors)  # they tell which choices to draw
    final = _final_share(race) * allowance.total
    kept_back = final + (_ORDER_SHARE * allowance.total if "static" in space.space.modes else 0.0)
    field = _field(race, known, allowance.total * _EXPLORING_SHARE, rng)
    yield from race.run(field, rungs=race.short_rungs, reserve=kept_back)
    proposals = Proposals(rng)
    yield from race.score(_promising(race, _PROMISING_SHARE * allowance.total), race.short_rungs[-1])
    free_rounds = 0
    while free_rounds < _FREE_ROUNDS:
        survivors = race.leaders(_FINALISTS)
        newcomers = proposals.newcomers(race, survivors, _NEWCOMERS, _LIKELY_SHARE * (race.left - kept_back))
        price = race.price_of_race(newcomers, race.short_rungs) if newcomers else 0.0
        if not newcomers or _LIKELY_SHARE * price > race.left - kept_back:
            break
        free_rounds = free_rounds + 1 if price == 0 else 0
        yield from race.run(newcomers, survivors[0], race.short_rungs, kept_back)
        proposals.learn(race, newcomers)
    yield from race.run(_orders(race, survivors), survivors[0], race.short_rungs, final)
    yield from race.score(_rising(race), race.short_rungs[-1])
    for _ in range(_FINALISTS):  # all items may bring up others
        unfinished = [each for each in race.leaders(_FEWEST_WHOLE) if race.seen(each) < allowance.items]
        payable = race.affordable(unfinished, 0, allowance.items, race.left)
        if not payable:
            break
        yield from race.score(payable, allowance.items)
    finalists = race.finalists(_FINALISTS, _FEWEST_WHOLE)
    whole = [finalist for finalist in finalists if race.seen(finalist) == allowance.items]
    # Whoever leads goes on, even where asking it about all items was too dear: then all are compared on what it saw.
    if len(whole) < _FEWEST_WHOLE or whole[0] != finalists[0]:
        return finalists
    return best_first({finalist: race.scores[finalist] for finalist in whole})


def _promising(race: Race, units: float) -> list[Candidate]:
    """The best candidate of a dear kind at first look that is not measurably behind the leader, if ``units`` pay.

    A race gives its price to many cheap candidates before one dear one comes to the items that make it trusted.
    """
    first, leader = race.rungs[0], race.leaders(1)[0]
    dear = {arm: seen.upto(first) for arm, seen in race.scores.items() if kind_of(arm) != "static"}
    best = [arm for arm in best_first(dear) if not race.is_behind(arm, leader, first)][:1]
    return [] if not best or race.seen(best[0]) >= race.short_rungs[-1] else _payable_rest(race, best, units)


def _payable_rest(race: Race, arms: Sequence[Candidate], units: float) -> list[Candidate]:
    """The arms whose items up to those that make them trusted are paid by ``units`` and by what is left."""
    return race.affordable(arms, 0, race.short_rungs[-1], min(units, race.left))


def _rising(race: Race) -> list[Candidate]:
    """Whoever did better than the leader on fewer items than can be trusted, if what is left pays for those."""
    effects = candidate_effects(race.scores)
    leader = race.leaders(1)[0]
    better = [arm for arm in effects if effects[arm] > effects[leader] + 1e-9]
    ranked = sorted(better, key=lambda arm: (-round(effects[arm], 9), arm.key))
    return _payable_rest(race, ranked[:1], race.left)


def _final_share(race: Race) -> float:
    """Share of the allowance for scoring leaders on all items; none where every race goes that far."""
    return 0.0 if race.short_rungs[-1] == race.allowance.items else _FINAL_SHARE


def _field(race: Race, anchors: Sequence[Candidate], units: float, rng: np.random.Generator) -> list[Candidate]:
    """The arms of the first race: the best anchors and as many random ones as ``units`` pay for."""
    preferences = choice_effects(race.scores)
    looked = best_first({anchor: race.scores[anchor] for anchor in anchors})
    arms = looked[: max(2, len(looked) // _ANCHORS_KEPT)]
    if "static" in race.space.space.modes:  # else all arms are dear
        arms += _dear_ones(race, arms, units, preferences, rng)
    missed = 0  # draws in a row that brought nothing new: the space holds hardly more
    while missed < _MOST_MISSED and len(arms) < _MOST_ARMS:
        if len(arms) >= _FEWEST_ARMS and race.price_of_race(arms, race.short_rungs) > units:
            break
        arm = draw_fresh(race.space, rng, preferences)
        is_new = arm not in arms and race.space.reasons_alike(arm)
        missed = 0 if is_new else missed + 1
        if is_new:
            arms.append(arm)
    return arms


def _dear_ones(
    race: Race, arms: Sequence[Candidate], units: float, preferences: Preferences, rng: np.random.Generator
) -> list[Candidate]:
    """Random arms that retrieve, route or reason, while first looks at all of a kind stay within their share."""
    first = race.rungs[0]
    found: list[Candidate] = []
    draws = (("retrieved", draw_retrieved), ("routed", draw_routed), ("reasoned", draw_reasoned))
    for kind, draw_one in draws:
        spent = sum(race.price(arm, 0, first) for arm in arms if kind_of(arm) == kind)
        for _ in range(20):
            arm = draw_one(race.space, rng, preferences)
            if arm is None:
                break
            price = race.price(arm, 0, first)
            known = arm in arms or arm in found
            if known or not race.space.reasons_alike(arm) or spent + price > _DEAR_SHARE * units:
                continue
            found.append(arm)
            spent += price
    return found


def _orders(race: Race, survivors: Sequence[Candidate]) -> list[Candidate]:
    """Some other orders of the best static set, of every kind."""
    best = next((each for each in survivors if each.mode == "static" and len(each.demonstrations) > 1), None)
    if best is None:
        return []
    options = [
        replace(best, demonstrations=order) for order in neighbours(best.demonstrations, race.space.labels_by_id)
    ]
    unknown = [option for option in options if option not in race.scores]
    step = max(1, len(unknown) // _MOST_ORDERS)  # neighbours come kind by kind
    return list(islice(unknown, 0, None, step))[:_MOST_ORDERS]
