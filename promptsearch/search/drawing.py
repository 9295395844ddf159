"""Draws candidates at random, the better choices more often once something is known about them.

Invariant: what is drawn is in the space and fits the context; ``rng`` is the only source of chance.
Leaves out: what is known; callers bring it as numbers (see :mod:`promptsearch.search.effects`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from promptsearch.candidate import CUES, ORDERS, SHOWN_THOUGHT, Candidate
from promptsearch.search.space import SearchSpace

__all__ = [
    "Preferences",
    "central_members",
    "draw",
    "draw_any",
    "draw_balanced",
    "draw_demonstrations",
    "draw_fresh",
    "draw_reasoned",
    "draw_retrieved",
    "draw_routed",
    "kind_of",
    "retrieved_counts",
    "routed_counts",
    "usable_clusters",
]

Preferences = Mapping[str, Mapping[Any, float]]
"""For each kind of choice, how much better candidates with each of its levels did, in shares of the score."""

_Level = TypeVar("_Level")
_EAGERNESS = 50.0  # a choice that did two points better is drawn e times as often
_FIRST_LOOK = 24  # items over which a candidate's prefix is paid off when it is first looked at
_MOST_RETRIEVED = 8  # demonstrations for each query; each query pays for all of them
_FOUND_SHARE = 0.25  # of drawn candidates that show reasoning: those that find it for each query
_MOST_REASONED = 8  # demonstrations with reasoning: few long ones do what many do
_MOST_ROUTED = 8  # demonstrations of one cluster; each cluster's are read before its first query
_CHOSEN_SHARE = 0.25  # of drawn sets: those that a selection strategy chose
_NATURAL_SHARE = 0.2  # of drawn sets: those that take labels as they fall
_ORDER_ODDS = tuple(0.6 if order == "nearest-last" else 0.2 for order in ORDERS)
_CENTRAL = 6  # a route's demonstrations come from so many times their number around the cluster's centre


def draw(space: SearchSpace, rng: np.random.Generator, preferences: Preferences | None = None) -> Candidate:
    """A random static candidate that fits.

    Args:
        space: what there is.
        rng: randomness.
        preferences: how much better candidates with a given choice did; better choices are drawn more often.
    """
    known = preferences or {}
    for _ in range(50):
        count = int(_prefer("static shots", space.static_shots, _shot_odds(space), known, rng))
        candidate = _worded(space, known, rng, demonstrations=draw_demonstrations(space, count, rng))
        if space.fits(candidate):
            return candidate
    return Candidate(instruction=space.instructions[0], template=space.templates[0], calibration=space.calibration)


def kind_of(candidate: Candidate) -> str:
    """Which of the draws a candidate could come from: its mode, or "reasoned"."""
    return "reasoned" if candidate.reasons else candidate.mode


def draw_fresh(space: SearchSpace, rng: np.random.Generator, preferences: Preferences | None = None) -> Candidate:
    """A random candidate of the cheapest mode that the space has."""
    if "none" not in space.space.reasoning and space.reasonings:
        return draw_reasoned(space, rng, preferences) or draw(space, rng, preferences)
    if "static" in space.space.modes:
        return draw(space, rng, preferences)
    found = draw_routed(space, rng, preferences) if rng.random() < 0.5 else None
    found = found or draw_retrieved(space, rng, preferences) or draw_routed(space, rng, preferences)
    return found or draw(space, rng, preferences)


def draw_any(space: SearchSpace, rng: np.random.Generator) -> Candidate:
    """A random candidate of a random mode."""
    draws = {"static": draw, "retrieved": draw_retrieved, "routed": draw_routed, "reasoned": draw_reasoned}
    kind = str(rng.choice([*space.space.modes, *(("reasoned",) if space.reasonings else ())]))
    return draws[kind](space, rng) or draw(space, rng)


def draw_retrieved(
    space: SearchSpace, rng: np.random.Generator, preferences: Preferences | None = None
) -> Candidate | None:
    """A random candidate that retrieves, None where the space has none."""
    counts, retrievers = retrieved_counts(space), space.space.retrievers
    if not counts:
        return None
    known = preferences or {}
    candidate = _worded(
        space,
        known,
        rng,
        mode="retrieved",
        count=int(_prefer("retrieved shots", counts, _even(counts), known, rng)),
        retriever=_prefer("retriever", retrievers, _even(retrievers), known, rng),
        order=_prefer("order", ORDERS, _ORDER_ODDS, known, rng),
        reranker=str(rng.choice(space.space.rerankers)),
    )
    return candidate if space.fits(candidate) else None


def draw_routed(
    space: SearchSpace, rng: np.random.Generator, preferences: Preferences | None = None
) -> Candidate | None:
    """A random candidate with a set of demonstrations from each cluster, None where the space has none."""
    counts, numbers = routed_counts(space), usable_clusters(space)
    if not counts or not numbers:
        return None
    known = preferences or {}
    clusters = int(rng.choice(numbers))
    count = int(_prefer("routed shots", counts, _even(counts), known, rng))
    natural = rng.random() < 0.5
    routes = tuple(
        _from_group(space, central_members(space, clusters, cluster, count), count, rng, natural=natural)
        for cluster in range(clusters)
    )
    candidate = _worded(space, known, rng, mode="routed", routes=routes)
    return candidate if space.fits(candidate) else None


def draw_reasoned(
    space: SearchSpace, rng: np.random.Generator, preferences: Preferences | None = None
) -> Candidate | None:
    """A random candidate that reasons before it answers, None where the space has none."""
    kinds = space.reasonings
    if not kinds:
        return None
    known = preferences or {}
    kind = _prefer("reasoning", kinds, _even(kinds), known, rng)
    ids = space.rationales[kind].ids if kind in space.rationales else ()
    counts = tuple(count for count in space.shots if 0 < count <= min(_MOST_REASONED, len(ids)))
    if kind != "cue" and not counts:
        return None
    shown: dict[str, Any] = {}
    if kind != "cue":
        count = int(_prefer("static shots", counts, _even(counts), known, rng))
        if "static" not in space.space.modes or ("retrieved" in space.space.modes and rng.random() < _FOUND_SHARE):
            among = () if len(ids) == len(space.pool) else ids
            shown = {"mode": "retrieved", "count": count, "among": among}
        else:
            shown = {"demonstrations": draw_shown_reasoning(space, kind, count, rng)}
    thoughts = CUES if kind == "cue" else (SHOWN_THOUGHT, CUES[0])
    lengths, samples = space.space.thinking_tokens, space.space.samples
    candidate = _worded(
        space,
        known,
        rng,
        templates=space.plain_templates,
        reasoning=kind,
        thought=_prefer("thought", thoughts, _even(thoughts), known, rng),
        thinking_tokens=_prefer("thinking tokens", lengths, [1 / each for each in lengths], known, rng),
        samples=_prefer("samples", samples, [1 / each for each in samples], known, rng),
        **shown,
    )
    return candidate if space.allows(candidate) else None


def draw_shown_reasoning(space: SearchSpace, kind: str, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Demonstrations with reasoning, in random order: any, those of most steps, or those the model doubted most.

    Complexity: Fu et al. 2023 (arXiv 2210.00720); uncertainty: Diao et al. 2023 (arXiv 2302.12246); diversity: Zhang
    et al. 2023 (arXiv 2210.03493), which here is one from each part of the pool that k-means finds.
    """
    found = space.rationales[kind]
    ids = list(found.ids)
    way = str(rng.choice(["any", "complex", "diverse", "doubted"]))
    if way == "complex":
        ids = _foremost(ids, found.steps, count)
    elif way == "doubted" and found.doubt:
        ids = _foremost(ids, found.doubt, count)
    elif way == "diverse" and space.clusters:
        return _diverse(space, ids, count, rng)
    return _from_group(space, ids, count, rng, natural=False)


def _foremost(ids: Sequence[int], rank: Mapping[int, float], count: int) -> list[int]:
    """Those of some ids that rank highest, half of them and ``count`` at least: a set is drawn among them."""
    ranked = sorted(ids, key=lambda number: (-rank.get(number, 0.0), number))
    return ranked[: max(count, len(ids) // 2)]


def _diverse(space: SearchSpace, ids: Sequence[int], count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """One of each cluster of the pool, among some ids, filled up at random."""
    usable = set(ids)
    clusterings = sorted(space.clusters)
    number = next((each for each in clusterings if each >= count), clusterings[-1])
    groups = [[each for each in members if each in usable] for members in space.clusters[number].members]
    taken = [group[int(rng.integers(len(group)))] for group in groups if group]
    taken = [taken[place] for place in rng.permutation(len(taken))][:count]
    rest = [each for each in ids if each not in taken]
    taken += [rest[place] for place in rng.permutation(len(rest))[: count - len(taken)]]
    return tuple(taken[place] for place in rng.permutation(len(taken)))


def retrieved_counts(space: SearchSpace) -> tuple[int, ...]:
    """Numbers of demonstrations of candidates that retrieve; none where the space has no such candidates."""
    counts = tuple(count for count in space.shots if count > 0) if "retrieved" in space.space.modes else ()
    return tuple(count for count in counts if count <= _MOST_RETRIEVED) or counts[:1]


def routed_counts(space: SearchSpace) -> tuple[int, ...]:
    """Numbers of demonstrations of each cluster; none where the space has no routed candidates."""
    routed = "routed" in space.space.modes
    return tuple(count for count in space.shots if 0 < count <= _MOST_ROUTED) if routed else ()


def usable_clusters(space: SearchSpace) -> tuple[int, ...]:
    """Numbers of clusters that the queries do fall into."""
    return tuple(number for number in space.space.clusters if number in space.clusters)


def central_members(space: SearchSpace, clusters: int, cluster: int, count: int) -> tuple[int, ...]:
    """The examples that so many demonstrations of one cluster come from, nearest to its centre first."""
    return space.members(clusters, cluster)[: max(_CENTRAL * count, 2 * _MOST_ROUTED)]


def draw_demonstrations(space: SearchSpace, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Random demonstrations in random order.

    Mostly as many of each label, sometimes as the labels fall, sometimes what a selection strategy chooses.
    """
    if count == 0:
        return ()
    if space.choosers and rng.random() < _CHOSEN_SHARE:
        name = str(rng.choice(sorted(space.choosers)))
        chosen = space.choosers[name](count, rng)
        return tuple(chosen[place] for place in rng.permutation(len(chosen)))
    return _from_group(space, space.pool.tolist(), count, rng, natural=rng.random() < _NATURAL_SHARE)


def draw_balanced(space: SearchSpace, count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Random demonstrations, as many of each label, in random order."""
    return _from_group(space, space.pool.tolist(), count, rng, natural=False)


def _from_group(
    space: SearchSpace, group: Sequence[int], count: int, rng: np.random.Generator, *, natural: bool
) -> tuple[int, ...]:
    """Some of a group in random order: as the labels fall, or as many of each label."""
    shuffled = [group[place] for place in rng.permutation(len(group))]
    if natural:
        return tuple(shuffled[:count])
    queues: dict[int, list[int]] = {}
    for number in shuffled:
        queues.setdefault(space.label_of(number), []).append(number)
    taken: list[int] = []
    labels = sorted(queues)
    while len(taken) < min(count, len(group)):
        for label in (labels[place] for place in rng.permutation(len(labels))):
            if queues[label] and len(taken) < count:
                taken.append(queues[label].pop())
    return tuple(taken[place] for place in rng.permutation(len(taken)))


def _worded(
    space: SearchSpace,
    preferences: Preferences,
    rng: np.random.Generator,
    templates: Sequence[str] = (),
    **others: Any,
) -> Candidate:
    """A candidate with drawn instruction, template and names."""
    templates = templates or space.templates
    names = _prefer("names", space.names, _even(space.names), preferences, rng)
    odds = [0.4 * max(1, len(templates) - 1), *_even(templates[1:])]  # the usual one, two times in five
    drawn = Candidate(
        instruction=_prefer("instruction", space.instructions, _even(space.instructions), preferences, rng),
        template=_prefer("template", templates, odds, preferences, rng),
        input_name=names[0],
        output_name=names[1],
        calibration=space.calibration,
        **others,
    )
    return space.usual(drawn)


def _prefer(
    factor: str,
    levels: Sequence[_Level],
    odds: Sequence[float],
    preferences: Preferences,
    rng: np.random.Generator,
) -> _Level:
    """One level of a factor, by its odds and by what is known of it."""
    known = preferences.get(factor, {})
    weights = np.array(
        [odd * np.exp(_EAGERNESS * known.get(level, 0.0)) for level, odd in zip(levels, odds, strict=True)]
    )
    return levels[int(rng.choice(len(levels), p=weights / weights.sum()))]


def _shot_odds(space: SearchSpace) -> list[float]:
    """Dear numbers of demonstrations are drawn more rarely: the same tokens try more cheap ones."""
    return [
        1 / max(1.0, count * space.mean_length + _FIRST_LOOK * space.lengths.query) for count in space.static_shots
    ]


def _even(levels: Sequence[object]) -> list[float]:
    return [1.0] * len(levels)
