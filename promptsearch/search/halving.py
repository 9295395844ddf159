"""Successive halving on one shared item order, then rounds of mutation around the survivors.

A race scores all its candidates on few items, keeps the better half, doubles the items, and so on (Jamieson and
Talwalkar 2016). The first race draws candidates at random; later ones mutate the survivors, guided by how the
sets that held an example did (CondAcc: Chang and Jia 2023, arXiv 2212.10378), and newcomers must beat the
survivors at equal length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, StrategyRun, best_first
from promptsearch.search.drawing import Preferences, draw, draw_retrieved, draw_routed
from promptsearch.search.effects import choice_effects, conditional_accuracy
from promptsearch.search.mutation import mutate, recombine
from promptsearch.search.race import Race
from promptsearch.search.space import SearchSpace

__all__ = ["halving"]

_EXPLORING_SHARE = 0.6  # of the allowance, for the first race
_ANCHOR_SHARE = 0.3  # of the allowance, for first looks at candidates that must be tried
_ANCHORS_KEPT = 5  # one in so many goes on after the first look; the others have told what they could
_DEAR_SHARE = 0.15  # of the first race, for first looks at candidates of each dear mode
_FINALISTS = 5
_NEWCOMERS = 8
_FEWEST_ARMS = 6
_FRESH_SHARE = 0.35  # of newcomers: drawn anew with the choices that did well
_RECOMBINED_SHARE = 0.1
_LIKELY_SHARE = 0.5  # of a later race's price: most of its arms fall behind the survivors early


def halving(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """The default strategy."""
    race = Race(space, allowance)
    known = race.affordable(list(dict.fromkeys(anchors)), 0, race.rungs[0], _ANCHOR_SHARE)
    yield from race.score(known, race.rungs[0])  # a first look tells which choices to draw
    yield from race.run(_field(race, known, allowance.total * _EXPLORING_SHARE, rng))
    while True:
        survivors = race.survivors(_FINALISTS)
        newcomers = _newcomers(race, survivors, rng)
        if not newcomers or _LIKELY_SHARE * race.price_of_race(newcomers) > race.left:
            return survivors
        yield from race.run(newcomers, against=survivors[0])


def _field(race: Race, anchors: Sequence[Candidate], units: float, rng: np.random.Generator) -> list[Candidate]:
    """The arms of the first race: the best anchors and as many random ones as ``units`` pay for."""
    preferences = choice_effects(race.scores)
    looked = best_first({anchor: race.scores[anchor] for anchor in anchors})
    arms = looked[: max(2, len(looked) // _ANCHORS_KEPT)]
    arms += _dear_ones(race, arms, units, preferences, rng)
    for _ in range(1000):
        if len(arms) >= _FEWEST_ARMS and race.price_of_race(arms) > units:
            break
        arm = draw(race.space, rng, preferences)
        if arm not in arms:
            arms.append(arm)
    return arms


def _dear_ones(
    race: Race, arms: Sequence[Candidate], units: float, preferences: Preferences, rng: np.random.Generator
) -> list[Candidate]:
    """Random arms that retrieve or route, while first looks at all of a mode stay within their share."""
    first = race.rungs[0]
    found: list[Candidate] = []
    for mode, draw_one in (("retrieved", draw_retrieved), ("routed", draw_routed)):
        spent = sum(race.price(arm, 0, first) for arm in arms if arm.mode == mode)
        for _ in range(20):
            arm = draw_one(race.space, rng, preferences)
            if arm is None:
                break
            price = race.price(arm, 0, first)
            if arm in arms or arm in found or spent + price > _DEAR_SHARE * units:
                continue
            found.append(arm)
            spent += price
    return found


def _newcomers(race: Race, survivors: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
    """Mutations of survivors (better ones more often), recombinations, and some fresh draws."""
    weights = conditional_accuracy(race.scores)
    preferences = choice_effects(race.scores)
    found: list[Candidate] = []
    for _ in range(40 * _NEWCOMERS):
        if len(found) == _NEWCOMERS:
            break
        arm = _propose(race.space, survivors, weights, preferences, rng)
        if arm is not None and arm not in found and arm not in race.scores:
            found.append(arm)
    return found


def _propose(
    space: SearchSpace,
    survivors: Sequence[Candidate],
    weights: Mapping[int, float],
    preferences: Preferences,
    rng: np.random.Generator,
) -> Candidate | None:
    way = rng.random()
    parent = survivors[min(int(rng.geometric(0.5)) - 1, len(survivors) - 1)]
    if way < _FRESH_SHARE:
        return draw(space, rng, preferences)
    if way < _FRESH_SHARE + _RECOMBINED_SHARE:
        return recombine(space, parent, survivors[int(rng.integers(len(survivors)))], rng)
    return mutate(space, parent, weights, rng)
