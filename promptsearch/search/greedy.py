"""Forward selection: one demonstration after another, each the best of a handful, then local search.

Zhang et al. 2022 (arXiv 2211.04486) compare every example of the pool at each step. Here each step races a few, and
compares the best with the set so far on the same items; a longer set is kept unless it is worse by more than the
error of that comparison. A step that finds none is repeated with other examples before the selection ends, because
the first demonstrations often help only together.
Leaves out: sets of retrieved and routed candidates; they are tried as anchors, and changed by the local search.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, StrategyRun, best_first
from promptsearch.search.drawing import draw_any, draw_demonstrations
from promptsearch.search.log_knowledge import conditional_accuracy
from promptsearch.search.mutation import mutate
from promptsearch.search.race import Race
from promptsearch.search.space import SearchSpace

__all__ = ["greedy"]

_ANCHORS_KEPT = 5  # one in so many goes on after the first look; the others have told what they could
_STEP_SHARE = 0.05  # of the allowance, for one step
_IMPROVING_SHARE = 0.15  # of the allowance, left for the local search
_FEWEST_EXAMPLES = 2  # compared in one step, whatever its share
_MOST_EXAMPLES = 12
_TOLERANCE = 1.0  # standard errors of the paired difference
_PATIENCE = 3  # steps in a row that find no longer set
_NEIGHBOURS = 8
_REWORDED_EVERY = 3  # one neighbour in so many has other words, the others mostly other demonstrations
_LIKELY_SHARE = 0.5  # of a race's price: most of its arms fall behind the incumbent early
_FINALISTS = 5

_Steps = Generator[Request, Mapping[Candidate, Scores], None]
_Proposer = Callable[[Race, Sequence[int], np.random.Generator], "int | None"]


def greedy(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """First looks at the anchors, forward selection in the best one's words, then local search."""
    race = Race(space, allowance)
    looked = yield from race.first_looks(anchors)
    ranked = best_first({anchor: race.scores[anchor] for anchor in looked})
    yield from race.run(_field(race, ranked, rng))
    if "static" in space.space.modes and "none" in space.space.reasoning:
        yield from _select_forward(race, _worded_like(ranked[0]), rng)
    yield from _improve(race, rng)
    return race.survivors(_FINALISTS)


def _worded_like(candidate: Candidate) -> Candidate:
    """The words of a candidate without its demonstrations."""
    return Candidate(
        instruction=candidate.instruction,
        template=candidate.template,
        input_name=candidate.input_name,
        output_name=candidate.output_name,
        calibration=candidate.calibration,
    )


def _field(race: Race, ranked: Sequence[Candidate], rng: np.random.Generator) -> list[Candidate]:
    """The best anchors; where no forward selection follows, also random candidates for what a step would cost."""
    field = list(ranked[: max(2, len(ranked) // _ANCHORS_KEPT)])
    if "static" in race.space.space.modes and "none" in race.space.space.reasoning:
        return field
    for _ in range(10 * _NEIGHBOURS):
        arm = draw_any(race.space, rng)
        if arm not in race.scores and arm not in field and _fits_step(race, [*field, arm]):
            field.append(arm)
    return field


def _fits_step(race: Race, arms: Sequence[Candidate]) -> bool:
    return _LIKELY_SHARE * race.price_of_race(arms) <= _STEP_SHARE * race.allowance.total


def _payable(race: Race, arms: Sequence[Candidate]) -> list[Candidate]:
    """The first arms whose race is likely to be paid by what is left; none where it pays for none."""
    kept = list(arms)
    while kept and _LIKELY_SHARE * race.price_of_race(kept) > race.left:
        kept.pop()
    return kept


# -- forward selection --------------------------------------------------------------------------------------


def _select_forward(race: Race, words: Candidate, rng: np.random.Generator) -> _Steps:
    """Add demonstrations while a longer set is found that is not worse."""
    items = race.rungs[-1]
    incumbent: Candidate | None = None
    if 0 in race.space.shots:
        if race.price(words, race.seen(words), items) > race.left:
            return
        if race.seen(words) < items:
            yield from race.score([words], items)
        incumbent = words
    misses = 0
    while misses < _PATIENCE and race.left > _IMPROVING_SHARE * race.allowance.total:
        arms = _payable(race, _extensions(race, incumbent or words, rng))
        if not arms:
            return
        yield from race.run(arms)
        best = best_first({arm: race.scores[arm] for arm in arms if race.seen(arm) == items})[0]
        if incumbent is None or _holds_up(race.scores[best], race.scores[incumbent]):
            incumbent, misses = best, 0
        else:
            misses += 1


def _holds_up(ours: Scores, theirs: Scores) -> bool:
    """Whether scores are not worse than others by more than the error of the paired difference.

    The others were the best of their own step and so are too high; without tolerance their luck would end the search.
    """
    difference = ours.values - theirs.values
    error = float(difference.std(ddof=1)) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()) >= -_TOLERANCE * error - 1e-9


def _extensions(race: Race, incumbent: Candidate, rng: np.random.Generator) -> list[Candidate]:
    """The set with one more demonstration, at its end or front, for a handful of examples; and a larger set."""
    arms: list[Candidate] = []
    examples = 0
    for shown in _longer_sets(race, incumbent.demonstrations, rng):
        every = [replace(incumbent, demonstrations=each) for each in shown]
        new = [arm for arm in every if arm not in arms and arm not in race.scores and race.space.fits(arm)]
        if not new:
            continue
        if examples >= _FEWEST_EXAMPLES and not _fits_step(race, [*arms, *new]):
            break
        arms += new
        examples += 1
    return arms


def _longer_sets(
    race: Race, shown: tuple[int, ...], rng: np.random.Generator
) -> Iterator[tuple[tuple[int, ...], ...]]:
    """Demonstrations to try; what an example makes in both its places comes together."""
    counts = [count for count in race.space.shots if count > 0]
    if not counts or len(shown) >= counts[-1]:
        return
    if len(shown) < counts[0] - 1:  # the space holds no smaller sets, so the first step takes one whole
        for _ in range(_MOST_EXAMPLES):
            yield (draw_demonstrations(race.space, counts[0], rng),)
        return
    tried: set[int] = set()
    for turn in range(2 * _MOST_EXAMPLES):
        number = _PROPOSERS[turn % len(_PROPOSERS)](race, (*shown, *tried), rng)
        if turn % len(_PROPOSERS) == 1 and len(shown) > 1:
            yield (_doubled(race, shown, counts[-1], rng),)
        if number is None or len(tried) == _MOST_EXAMPLES:
            continue
        tried.add(number)
        yield ((*shown, number), (number, *shown)) if shown else ((number,),)


def _doubled(race: Race, shown: tuple[int, ...], most: int, rng: np.random.Generator) -> tuple[int, ...]:
    """A set with as many again, labels in turn: steps of one would never reach large sets."""
    longer = shown
    while len(longer) < min(2 * len(shown), most):
        number = _balancing(race, longer, rng)
        if number is None:
            break
        longer = (*longer, number)
    return longer


# -- proposals: an example beside those that are taken ------------------------------------------------------


def _any(race: Race, taken: Sequence[int], rng: np.random.Generator) -> int | None:
    rest = np.setdiff1d(race.space.pool, taken)
    return int(rng.choice(rest)) if len(rest) else None


def _balancing(race: Race, taken: Sequence[int], rng: np.random.Generator) -> int | None:
    """One of a label that was taken least often."""
    labels, counts = np.unique(race.space.labels, return_counts=True)
    shown = np.array([sum(race.space.label_of(number) == label for number in taken) for label in labels])
    open_ones = labels[shown < counts]
    if not len(open_ones):
        return None
    fewest = open_ones[shown[shown < counts] == shown[shown < counts].min()]
    group = race.space.pool[race.space.labels == rng.choice(fewest)]
    return int(rng.choice(np.setdiff1d(group, taken)))


def _known(race: Race, taken: Sequence[int], rng: np.random.Generator) -> int | None:
    """The one whose sets did best so far, where any did better than sets on average."""
    weights = conditional_accuracy(race.scores)
    better = [number for number, weight in weights.items() if weight > 0 and number not in taken]
    return max(better, key=lambda number: weights[number], default=None)


def _chosen(race: Race, taken: Sequence[int], rng: np.random.Generator) -> int | None:
    """One that a selection strategy would choose for a set of this size."""
    if not race.space.choosers:
        return None
    name = str(rng.choice(sorted(race.space.choosers)))
    count = min(len(race.space.pool), len(taken) + 1)
    rest = [number for number in race.space.choosers[name](count, rng) if number not in taken]
    return int(rng.choice(rest)) if rest else None


_PROPOSERS: tuple[_Proposer, ...] = (_balancing, _known, _chosen, _any)


# -- local search -------------------------------------------------------------------------------------------


def _improve(race: Race, rng: np.random.Generator) -> _Steps:
    """Race neighbours of the best candidate against it until nothing new is found or paid for."""
    while True:
        incumbent = race.survivors(1)[0]
        arms = _payable(race, _neighbours(race, incumbent, rng))
        if not arms:
            return
        yield from race.run(arms, against=incumbent)


def _neighbours(race: Race, incumbent: Candidate, rng: np.random.Generator) -> list[Candidate]:
    """Candidates one change away that were not tried; random ones where there are none."""
    weights = conditional_accuracy(race.scores)
    found: list[Candidate] = []
    arm: Candidate | None
    for turn in range(60 * _NEIGHBOURS):
        if len(found) == _NEIGHBOURS:
            break
        if turn >= 40 * _NEIGHBOURS:
            arm = draw_any(race.space, rng)
        elif turn % _REWORDED_EVERY == 0:
            arm = _reworded(race.space, incumbent, rng)
        else:
            arm = mutate(race.space, incumbent, weights, rng)
        if arm is not None and arm not in found and arm not in race.scores:
            found.append(arm)
    return found


def _reworded(space: SearchSpace, candidate: Candidate, rng: np.random.Generator) -> Candidate | None:
    """Another template, instruction or pair of names; None where it does not fit."""
    input_name, output_name = space.names[int(rng.integers(len(space.names)))]
    changes = (
        replace(candidate, template=str(rng.choice(space.templates))),
        replace(candidate, instruction=str(rng.choice(space.instructions))),
        replace(candidate, input_name=input_name, output_name=output_name),
    )
    changed = space.usual(changes[int(rng.integers(len(changes)))])
    return changed if space.allows(changed) else None
