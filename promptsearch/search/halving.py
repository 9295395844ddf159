"""Successive halving on one shared item order, then rounds of mutation around the survivors.

A race scores all its candidates on few items, keeps the better half, doubles the items, and so on (Jamieson and
Talwalkar 2016). The first race draws candidates at random; later ones mutate the survivors, guided by how the
sets that held an example did (CondAcc: Chang and Jia 2023, arXiv 2212.10378), and newcomers must beat the
survivors at equal length.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Mapping, Sequence
from typing import Any

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, StrategyRun, best_first, rank_key
from promptsearch.search.space import Preferences, SearchSpace

__all__ = ["FIRST_RUNG", "halving", "random_search"]

FIRST_RUNG = 24
_KEEP = 0.5
_EXPLORING_SHARE = 0.6  # of the allowance, for the first race
_ANCHOR_SHARE = 0.3  # of the allowance, for first looks at candidates that must be tried
_ANCHORS_KEPT = 5  # one in so many goes on after the first look; the others have told what they could
_RETRIEVED_SHARE = 0.15  # of the first race, for first looks at candidates that retrieve: each query pays for all
_FINALISTS = 5
_NEWCOMERS = 8
_FEWEST_ARMS = 6
_MOST_REPEATED = 200
_FRESH_SHARE = 0.35  # of newcomers: drawn anew with the choices that did well
_RECOMBINED_SHARE = 0.1
_LIKELY_SHARE = 0.5  # of a later race's price: most of its arms fall behind the survivors early


def halving(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """The default strategy."""
    race = _Race(space, allowance)
    known = race.affordable_anchors(anchors)
    yield from race.score(known, race.rungs[0])  # a first look tells which choices to draw
    yield from race.run(race.field(known, allowance.total * _EXPLORING_SHARE, rng))
    while True:
        survivors = race.survivors(_FINALISTS)
        newcomers = race.newcomers(survivors, rng)
        if not newcomers or _LIKELY_SHARE * race.price_of_race(newcomers) > race.left:
            return survivors
        yield from race.run(newcomers, against=survivors[0])


def random_search(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """Random candidates, each scored on all items: the strategy to compare others with."""
    race = _Race(space, allowance)
    pending = list(anchors)
    repeated = 0
    while repeated < _MOST_REPEATED:  # a space may hold fewer candidates than the allowance pays for
        candidate = pending.pop(0) if pending else space.draw(rng)
        if candidate in race.scores:
            repeated += 1
            continue
        if race.price(candidate, 0, allowance.items) > race.left and race.scores:
            break
        repeated = 0
        yield from race.score([candidate], allowance.items)
    return race.survivors(_FINALISTS)


class _Race:
    """Scores seen so far, what is left to spend, and the rungs."""

    def __init__(self, space: SearchSpace, allowance: Allowance) -> None:
        self.space = space
        self.allowance = allowance
        self.left = allowance.total
        self.scores: dict[Candidate, Scores] = {}
        self.rungs = _rungs(allowance.items)

    def price(self, candidate: Candidate, start: int, stop: int) -> float:
        """Expected cost of scoring items ``start`` to ``stop``."""
        return self.allowance.price(self.space, candidate, start, stop)

    def price_of_race(self, arms: Sequence[Candidate]) -> float:
        """Expected cost of a whole race of these arms, with the mean arm's price at each rung."""
        total, alive, start = 0.0, float(len(arms)), 0
        for stop in self.rungs:
            mean = sum(self.price(arm, start, stop) for arm in arms) / len(arms)
            total += max(1.0, alive) * mean
            alive, start = alive * _KEEP, stop
        return total

    def affordable_anchors(self, anchors: Sequence[Candidate]) -> list[Candidate]:
        """The anchors, in order, whose first looks stay within their share; one at least."""
        kept: list[Candidate] = []
        left = _ANCHOR_SHARE * self.left
        for anchor in dict.fromkeys(anchors):
            left -= self.price(anchor, 0, self.rungs[0])
            if left >= 0 or not kept:
                kept.append(anchor)
        return kept

    def field(self, anchors: Sequence[Candidate], units: float, rng: np.random.Generator) -> list[Candidate]:
        """The arms of the first race: the best anchors and as many random ones as ``units`` pay for."""
        preferences = choice_effects(self.scores)
        looked = best_first({anchor: self.scores[anchor] for anchor in anchors})
        arms = looked[: max(2, len(looked) // _ANCHORS_KEPT)]
        arms += self._retrieving(arms, units, preferences, rng)
        for _ in range(1000):
            if len(arms) >= _FEWEST_ARMS and self.price_of_race(arms) > units:
                break
            arm = self.space.draw(rng, preferences)
            if arm not in arms:
                arms.append(arm)
        return arms

    def _retrieving(
        self, arms: Sequence[Candidate], units: float, preferences: Preferences, rng: np.random.Generator
    ) -> list[Candidate]:
        """Random arms that retrieve, while first looks at all of those stay within their share."""
        first = self.rungs[0]
        spent = sum(self.price(arm, 0, first) for arm in arms if arm.mode == "retrieved")
        found: list[Candidate] = []
        for _ in range(20):
            arm = self.space.draw_retrieved(rng, preferences)
            if arm is None:
                break
            price = self.price(arm, 0, first)
            if arm in arms or arm in found or spent + price > _RETRIEVED_SHARE * units:
                continue
            found.append(arm)
            spent += price
        return found

    def run(
        self, arms: Sequence[Candidate], against: Candidate | None = None
    ) -> Generator[Request, Mapping[Candidate, Scores], None]:
        """One race. With ``against``, an arm goes on only while it is not behind that one on the same items."""
        alive = list(arms)
        for rung, items in enumerate(self.rungs):
            yield from self.score(alive, items)
            if not alive or rung == len(self.rungs) - 1:
                return
            ranked = best_first({arm: self.scores[arm] for arm in alive}, items)
            keep = max(1, int(np.ceil(len(ranked) * _KEEP)))
            alive = [arm for arm in ranked[:keep] if not self._behind(arm, against, items)]
            following = self.rungs[rung + 1]
            alive = self._affordable(alive, items, following)

    def score(
        self, candidates: Sequence[Candidate], items: int
    ) -> Generator[Request, Mapping[Candidate, Scores], None]:
        """Have candidates scored on the first ``items`` items."""
        if not candidates:
            return
        for candidate in candidates:
            seen = self.scores[candidate].items if candidate in self.scores else 0
            self.left -= self.price(candidate, seen, items)
        self.scores.update((yield Request(tuple(candidates), items)))

    def survivors(self, count: int) -> list[Candidate]:
        """The best candidates among those that were scored on the most items."""
        most = max(scores.items for scores in self.scores.values())
        full = {arm: scores for arm, scores in self.scores.items() if scores.items == most}
        return best_first(full)[:count]

    def newcomers(self, survivors: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
        """Mutations of survivors (better ones more often), recombinations, and some fresh draws."""
        weights = conditional_accuracy(self.scores)
        preferences = choice_effects(self.scores)
        found: list[Candidate] = []
        for _ in range(40 * _NEWCOMERS):
            if len(found) == _NEWCOMERS:
                break
            arm = self._propose(survivors, weights, preferences, rng)
            if arm is not None and arm not in found and arm not in self.scores:
                found.append(arm)
        return found

    def _propose(
        self,
        survivors: Sequence[Candidate],
        weights: Mapping[int, float],
        preferences: Preferences,
        rng: np.random.Generator,
    ) -> Candidate | None:
        way = rng.random()
        parent = survivors[min(int(rng.geometric(0.5)) - 1, len(survivors) - 1)]
        if way < _FRESH_SHARE:
            return self.space.draw(rng, preferences)
        if way < _FRESH_SHARE + _RECOMBINED_SHARE:
            return self.space.recombine(parent, survivors[int(rng.integers(len(survivors)))], rng)
        return self.space.mutate(parent, weights, rng)

    def _behind(self, arm: Candidate, against: Candidate | None, items: int) -> bool:
        if against is None:
            return False
        return rank_key(self.scores[arm].upto(items)) < rank_key(self.scores[against].upto(items)) - 1e-9

    def _affordable(self, alive: Sequence[Candidate], start: int, stop: int) -> list[Candidate]:
        """The best arms whose next rung can still be paid for."""
        kept: list[Candidate] = []
        left = self.left
        for arm in alive:
            left -= self.price(arm, start, stop)
            if left < 0 and kept:
                break
            kept.append(arm)
        return kept


def choice_effects(scores: Mapping[Candidate, Scores], shrinkage: float = 1.0) -> dict[str, dict[Any, float]]:
    """How much better candidates with each choice did than all on average, shrunk by how few there were.

    Every candidate tells something about each of its choices, so a random field is a factorial experiment. All are
    compared on the first items, which every one has seen.
    """
    seen = {arm: kept for arm, kept in scores.items() if kept.items}
    if not seen:
        return {}
    shared = min(kept.items for kept in seen.values())
    values = {arm: rank_key(kept.upto(shared)) for arm, kept in seen.items()}
    mean = sum(values.values()) / len(values)
    sums: dict[str, dict[Any, list[float]]] = {}
    for arm, value in values.items():
        choices = {"template": arm.template, "instruction": arm.instruction, "shots": arm.shots}
        for factor, level in {**choices, "names": (arm.input_name, arm.output_name)}.items():
            sums.setdefault(factor, {}).setdefault(level, []).append(value - mean)
    return {
        factor: {level: sum(found) / (len(found) + shrinkage) for level, found in levels.items()}
        for factor, levels in sums.items()
    }


def conditional_accuracy(scores: Mapping[Candidate, Scores], shrinkage: float = 3.0) -> dict[int, float]:
    """How much better sets that hold an example did than sets on average, shrunk by how few there were.

    For candidates with ``n`` items each score counts ``n / (n + 32)``, since short ones are noise.
    """
    static = {arm: seen for arm, seen in scores.items() if arm.demonstrations and seen.items}
    if not static:
        return {}
    values = {arm: float(seen.values.mean()) for arm, seen in static.items()}
    trust = {arm: seen.items / (seen.items + 32.0) for arm, seen in static.items()}
    mean = sum(values[arm] * trust[arm] for arm in static) / sum(trust.values())
    sums: dict[int, float] = defaultdict(float)
    counts: dict[int, float] = defaultdict(float)
    for arm in static:
        for number in arm.demonstrations:
            sums[number] += trust[arm] * (values[arm] - mean)
            counts[number] += trust[arm]
    return {number: sums[number] / (counts[number] + shrinkage) for number in sorted(sums)}


def _rungs(items: int) -> tuple[int, ...]:
    """Cumulative items of each rung: doubling from the first, ending with all."""
    rungs = []
    size = min(FIRST_RUNG, items)
    while size < items:
        rungs.append(size)
        size *= 2
    if rungs and items < 1.3 * rungs[-1]:
        rungs.pop()  # a last rung of a few items more would only repeat the choice before it
    return (*rungs, items)
