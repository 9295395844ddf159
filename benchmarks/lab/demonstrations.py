"""Draws demonstrations and changes one thing about them at a time.

Invariant: a smaller set is the beginning of a larger one drawn under the same seed; what a condition does not change
stays as it was (inputs, order, how often each label comes).
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np

from benchmarks.lab.conditions import Labelled
from benchmarks.lab.material import Material, Row
from promptsearch.errors import DataError
from promptsearch.select.base import Examples, Queries
from promptsearch.select.registry import SELECTORS

__all__ = ["NAMES", "drawn", "names_of", "shown"]

NAMES = (
    *("table", "river", "cloud", "guitar", "window", "bread", "forest", "button", "candle", "mirror", "ladder"),
    *("pencil", "garden", "bottle", "carpet", "engine", "feather", "hammer", "island", "jacket", "kitchen", "lemon"),
    *("market", "needle", "orange", "paper", "pocket", "rabbit", "saddle", "ticket", "valley", "wagon", "winter"),
    *("anchor", "basket", "camera", "desert", "blanket", "fountain", "glove", "helmet", "insect", "jungle", "kettle"),
)
"""Words that name no class of anything here, for label spaces without meaning."""

_MOST_PERMUTED = 6  # demonstrations whose permutations are listed
_FOREIGN = 300  # rows of another dataset among which one of like length is taken


def shown(material: Material, other: Material, condition: Labelled, seed: int) -> list[Row]:
    """The demonstrations of a condition, in the order shown.

    Args:
        material: whose labels, and inputs unless they are foreign.
        other: whose inputs foreign ones are.
        condition: what to show.
        seed: of everything drawn.

    Raises:
        DataError: there are not as many rows of that kind.
    """
    rows = _inputs(material, other, condition, seed)
    if len(rows) < condition.shots:
        raise DataError(f"{material.name} has {len(rows)} rows of this kind to show instead of {condition.shots}")
    labels = _labels([row.label or "" for row in rows], material.labels, condition.labels, seed)
    if condition.words:
        names = names_of(material.labels, seed)
        labels = [names[label] for label in labels]
    rows = [
        Row(row.text if condition.parts != "labels" else None, label if condition.parts != "inputs" else None)
        for row, label in zip(rows, labels, strict=True)
    ]
    return [rows[place] for place in _permutation(len(rows), condition.order, seed)]


def names_of(labels: Sequence[str], seed: int) -> dict[str, str]:
    """A random word for each label; beyond the list they are numbered."""
    places = np.random.default_rng([seed, 42]).permutation(len(NAMES)).tolist()
    count = len(NAMES)
    return {
        label: NAMES[places[number % count]] + (f" {number // count + 1}" if number >= count else "")
        for number, label in enumerate(labels)
    }


def drawn(
    material: Material, count: int, seed: int, labels: Sequence[str] | None = None, besides: Sequence[Row] = ()
) -> list[Row]:
    """Rows with labels in turn: each round has every label once, in random order.

    Args:
        material: where from.
        count: rows at most.
        seed: of the draw.
        labels: those that may come; None for all.
        besides: rows that may not come.
    """
    rng = np.random.default_rng([seed, 40])
    allowed = list(labels or material.labels)
    waiting: dict[str, list[Row]] = {label: [] for label in allowed}
    for place in rng.permutation(len(material.pool)).tolist():
        row = material.pool[place]
        if row.label in waiting and row not in besides:
            waiting[row.label].append(row)
    found: list[Row] = []
    while len(found) < count and any(waiting.values()):
        for place in rng.permutation(len(allowed)).tolist():
            if waiting[allowed[place]] and len(found) < count:
                found.append(waiting[allowed[place]].pop(0))
    return found


def _permutation(count: int, number: int, seed: int) -> list[int]:
    """Places in the order of a permutation; number 0 changes nothing, and no two numbers give the same."""
    if number == 0:
        return list(range(count))
    rng = np.random.default_rng([seed, 41])
    if count > _MOST_PERMUTED:
        return [int(place) for place in [rng.permutation(count) for _ in range(number)][-1]]
    others = list(itertools.permutations(range(count)))[1:]
    return list(others[rng.permutation(len(others))[number - 1]])


def _inputs(material: Material, other: Material, condition: Labelled, seed: int) -> list[Row]:
    count = condition.shots
    if condition.inputs == "foreign":
        return _foreign(drawn(material, count, seed), other, seed)
    if condition.inputs in ("one label", "half the labels"):
        kept = 1 if condition.inputs == "one label" else len(material.labels) // 2
        sizes = Counter(row.label for row in material.pool)
        enough = [label for label in material.labels if sizes[label] >= -(-count // kept)]
        places = np.random.default_rng([seed, 43]).permutation(len(enough))[:kept]
        return drawn(material, count, seed, [enough[place] for place in places.tolist()]) if len(places) else []
    rows = drawn(material, count, seed)
    if condition.inputs == "balanced":
        return rows
    return _chosen(material, [row.label or "" for row in rows], condition.inputs, seed)


def _foreign(rows: Sequence[Row], other: Material, seed: int) -> list[Row]:
    """Another dataset's inputs of like lengths, with the labels of these rows; as many as there are."""
    places = np.random.default_rng([seed, 44]).permutation(len(other.pool))[:_FOREIGN]
    left = [other.pool[place].text or "" for place in places.tolist()]
    found = []
    for row in rows[: len(left)]:
        length = len(row.text or "")
        found.append(left.pop(min(range(len(left)), key=lambda place: abs(len(left[place]) - length))))
    return [Row(text, row.label) for text, row in zip(found, rows, strict=False)]


def _chosen(material: Material, labels: Sequence[str], how: str, seed: int) -> list[Row]:
    """Rows that are alike or representative within each label, in the places of these labels."""
    rng = np.random.default_rng([seed, 45])
    found: dict[str, list[Row]] = {}
    for label in dict.fromkeys(labels):
        members = [place for place, row in enumerate(material.pool) if row.label == label]
        examples = Examples(
            np.array(members),
            material.pool_vectors[members],
            np.zeros(len(members), dtype=np.int64),
            tuple(material.pool[place].text or "" for place in members),
        )
        queries = Queries.none()
        if how == "alike":
            anchor = members[int(rng.integers(len(members)))]
            queries = Queries(material.pool_vectors[[anchor]], (material.pool[anchor].text or "",))
        selector = SELECTORS["nearest" if how == "alike" else "k-means"](examples)
        chosen = selector.select(queries, labels.count(label), rng)
        found[label] = [material.pool[number] for number in chosen]
    return [found[label].pop(0) for label in labels]


def _labels(golds: Sequence[str], labels: Sequence[str], how: str, seed: int) -> list[str]:
    """The labels that demonstrations show."""
    rng = np.random.default_rng([seed, 46])
    if how == "gold":
        return list(golds)
    if how == "random":
        return [labels[place] for place in rng.integers(len(labels), size=len(golds)).tolist()]
    if how == "permuted":
        order = [labels[place] for place in rng.permutation(len(labels)).tolist()]
        following = {label: order[(number + 1) % len(order)] for number, label in enumerate(order)}
        return [following[gold] for gold in golds]
    wrong = len(golds) - round(float(how.removeprefix("share ")) * len(golds))
    return _with_wrong(golds, labels, wrong, rng)


def _with_wrong(golds: Sequence[str], labels: Sequence[str], wrong: int, rng: np.random.Generator) -> list[str]:
    """So many labels exchanged among themselves so that none stays right.

    They are taken from all labels in turn. Where one label has more than half of them, those that cannot be exchanged
    get another label at random.
    """
    turn: Counter[str] = Counter()
    turns = []
    for place in rng.permutation(len(golds)).tolist():
        turns.append((turn[golds[place]], place))
        turn[golds[place]] += 1
    changed = sorted((place for _, place in sorted(turns)[:wrong]), key=lambda place: golds[place])
    kept = [golds[place] for place in changed]
    step = max(Counter(kept).values(), default=0)
    found = list(golds)
    for number, place in enumerate(changed):
        label = kept[(number + step) % len(kept)]
        others = [each for each in labels if each != golds[place]]
        found[place] = label if label != golds[place] else others[int(rng.integers(len(others)))]
    return found
