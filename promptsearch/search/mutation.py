"""Neighbours of a candidate: one change each, of a demonstration, their order, or the words around them.

Invariant: a neighbour is another candidate that the space holds and that fits the context.
Leaves out: which candidates deserve to be changed, and by which examples; callers bring that knowledge as numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from promptsearch.candidate import CUES, ORDERS, SHOWN_THOUGHT, Candidate
from promptsearch.search.drawing import retrieved_counts
from promptsearch.search.space import SearchSpace

__all__ = ["mutate", "recombine"]

Weights = Mapping[int, float]
_Change = Callable[[SearchSpace, Candidate, Weights, np.random.Generator], Candidate | None]


def mutate(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate | None:
    """A neighbour of a candidate, None where the drawn change does not apply or does not fit.

    Args:
        space: what may vary.
        candidate: what to change.
        weights: how good the sets that held an example were, relative to all (0 is average); examples
            with high weights are drawn more often.
        rng: randomness.
    """
    changes = (_REASONING_CHANGES if candidate.reasons else _CHANGES)[candidate.mode]
    change = changes[int(rng.integers(len(changes)))]
    changed = change(space, candidate, weights, rng)
    changed = None if changed is None else space.usual(changed)
    return changed if changed is not None and changed != candidate and space.allows(changed) else None


def recombine(space: SearchSpace, left: Candidate, right: Candidate, rng: np.random.Generator) -> Candidate | None:
    """The left candidate with some of the right one's demonstrations in place of its own; None where it cannot."""
    if left.mode == right.mode == "routed" and len(left.routes) == len(right.routes):
        taken = rng.random(len(left.routes)) < 0.5
        pairs = zip(left.routes, right.routes, taken, strict=True)
        changed = replace(left, routes=tuple(theirs if take else ours for ours, theirs, take in pairs))
    elif left.mode == right.mode == "static" and left.demonstrations:
        others = [number for number in right.demonstrations if number not in left.demonstrations]
        if not others:
            return None
        mixed = list(left.demonstrations)
        for number in others[: max(1, len(mixed) // 2)]:
            mixed[int(rng.integers(len(mixed)))] = number
        changed = replace(left, demonstrations=tuple(dict.fromkeys(mixed)))
    else:
        return None
    return changed if changed != left and space.fits(changed) else None


# -- demonstrations -----------------------------------------------------------------------------------------


def _pick(
    space: SearchSpace,
    group: Sequence[int],
    excluded: Sequence[int],
    weights: Weights,
    rng: np.random.Generator,
) -> int | None:
    """An example of a group outside ``excluded``: one that did well half of the time, else any."""
    taken = set(excluded)
    if weights and rng.random() < 0.5:
        members = set(group)
        known = [number for number in weights if number in members and number not in taken]
        if known:
            strength = np.exp(np.clip([20 * weights[number] for number in known], -10, 10))
            return int(rng.choice(known, p=strength / strength.sum()))
    rest = [number for number in group if number not in taken]
    return int(rng.choice(rest)) if rest else None


def _swapped(
    space: SearchSpace, shown: Sequence[int], group: Sequence[int], weights: Weights, rng: np.random.Generator
) -> tuple[int, ...] | None:
    """One demonstration replaced, mostly by one of its own label."""
    if not shown:
        return None
    place = int(rng.integers(len(shown)))
    if rng.random() < 0.7:
        label = space.label_of(shown[place])
        group = [number for number in group if space.label_of(number) == label]
    number = _pick(space, group, shown, weights, rng)
    return None if number is None else (*shown[:place], number, *shown[place + 1 :])


def _grown(
    space: SearchSpace, shown: Sequence[int], group: Sequence[int], weights: Weights, rng: np.random.Generator
) -> tuple[int, ...] | None:
    if len(shown) >= space.most_shots:
        return None
    number = _pick(space, group, shown, weights, rng)
    if number is None:
        return None
    place = int(rng.integers(len(shown) + 1))
    return (*shown[:place], number, *shown[place:])


def _shrunk(
    space: SearchSpace, shown: Sequence[int], group: Sequence[int], weights: Weights, rng: np.random.Generator
) -> tuple[int, ...] | None:
    if len(shown) < 2:
        return None
    place = int(rng.integers(len(shown)))
    return (*shown[:place], *shown[place + 1 :])


def _reordered(
    space: SearchSpace, shown: Sequence[int], group: Sequence[int], weights: Weights, rng: np.random.Generator
) -> tuple[int, ...] | None:
    """Reversed, rotated, two neighbours swapped, or shuffled."""
    if len(shown) < 2:
        return None
    way = int(rng.integers(4))
    place = int(rng.integers(len(shown) - 1))
    if way == 0:
        return tuple(reversed(shown))
    if way == 1:
        return (*shown[place + 1 :], *shown[: place + 1])
    if way == 2:
        return (*shown[:place], shown[place + 1], shown[place], *shown[place + 2 :])
    return tuple(shown[at] for at in rng.permutation(len(shown)))


def _ended_otherwise(
    space: SearchSpace, shown: Sequence[int], group: Sequence[int], weights: Weights, rng: np.random.Generator
) -> tuple[int, ...] | None:
    """A demonstration of another label moved to the end: models lean towards the last label seen."""
    others = [place for place, number in enumerate(shown) if space.label_of(number) != space.label_of(shown[-1])]
    if not others:
        return None
    place = others[int(rng.integers(len(others)))]
    return (*shown[:place], *shown[place + 1 :], shown[place])


_SET_CHANGES = (*(_swapped,) * 4, *(_grown,) * 2, _shrunk, *(_reordered,) * 2, _ended_otherwise)


def _demonstrations(
    space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator
) -> Candidate | None:
    """The set changed, of a static candidate, or that of one route."""
    change = _SET_CHANGES[int(rng.integers(len(_SET_CHANGES)))]
    if candidate.mode not in space.space.modes:  # a baseline that the space itself does not hold
        return None
    if candidate.mode == "static":
        shown = change(space, candidate.demonstrations, space.showable(candidate).tolist(), weights, rng)
        return None if shown is None else replace(candidate, demonstrations=shown)
    cluster = int(rng.integers(len(candidate.routes)))
    members = space.members(len(candidate.routes), cluster)
    shown = change(space, candidate.routes[cluster], members, weights, rng)
    if shown is None:
        return None
    return replace(candidate, routes=(*candidate.routes[:cluster], shown, *candidate.routes[cluster + 1 :]))


# -- words and retrieval ------------------------------------------------------------------------------------


def _template(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    return replace(candidate, template=str(rng.choice(space.templates)))


def _instruction(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    return replace(candidate, instruction=str(rng.choice(space.instructions)))


def _names(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    input_name, output_name = space.names[int(rng.integers(len(space.names)))]
    return replace(candidate, input_name=input_name, output_name=output_name)


def _count(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate | None:
    """Another number of demonstrations for each query, None for a baseline whose mode the space itself lacks."""
    counts = retrieved_counts(space)
    return replace(candidate, count=int(rng.choice(counts))) if counts else None


def _order(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    return replace(candidate, order=str(rng.choice(ORDERS)))


def _retriever(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    return replace(candidate, retriever=str(rng.choice(space.space.retrievers)))


def _reranker(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    return replace(candidate, reranker=str(rng.choice(space.space.rerankers)))


def _among(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate | None:
    """Retrieve among the examples whose sets did best, as many of each label as there are, or among all."""
    if candidate.among:
        return replace(candidate, among=())
    curated = space.curated(weights)
    return replace(candidate, among=curated) if len(curated) > 2 * candidate.count else None


def _reasoning(
    space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator
) -> Candidate | None:
    """The same demonstrations with their reasoning, or without it."""
    if candidate.reasons:
        return candidate.without_reasoning()
    if not space.reasonings:
        return None
    kind = str(rng.choice(space.reasonings))
    return replace(
        candidate,
        reasoning=kind,
        thought=CUES[0] if kind == "cue" else SHOWN_THOUGHT,
        thinking_tokens=min(space.space.thinking_tokens),
    )


def _thinking(space: SearchSpace, candidate: Candidate, weights: Weights, rng: np.random.Generator) -> Candidate:
    """Another thought, length of reasoning, or number of samples."""
    which = int(rng.integers(3))
    if which == 0:
        thoughts = CUES if candidate.reasoning == "cue" else (SHOWN_THOUGHT, *CUES)
        return replace(candidate, thought=str(rng.choice(thoughts)))
    if which == 1:
        return replace(candidate, thinking_tokens=int(rng.choice(space.space.thinking_tokens)))
    return replace(candidate, samples=int(rng.choice(space.space.samples)))


_WORDS: tuple[_Change, ...] = (_template, _instruction, _names)
_CHANGES: Mapping[str, tuple[_Change, ...]] = {
    "static": (*(_demonstrations,) * 10, *_WORDS, _names, _reasoning),
    "routed": (*(_demonstrations,) * 12, *_WORDS),
    "retrieved": (_count, _count, _order, _retriever, _retriever, _reranker, _among, *_WORDS),
}
_REASONING_CHANGES: Mapping[str, tuple[_Change, ...]] = {
    "static": (*(_demonstrations,) * 6, *(_thinking,) * 3, _reasoning, *_WORDS),
    "retrieved": (_count, _order, _retriever, *(_thinking,) * 3, _reasoning, *_WORDS),
}
