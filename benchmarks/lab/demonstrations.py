"""Draws demonstrations and changes one thing about them at a time.

Invariant: a smaller set is the beginning of a larger one drawn under the same seed; everything that a condition does
not change stays as it was (inputs, order, the places of labels).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.lab.conditions import Labelled
from benchmarks.lab.material import Material, Row
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

_FOREIGN = 300  # rows of another dataset among which one of like length is taken


def shown(material: Material, other: Material, condition: Labelled, seed: int) -> list[Row]:
    """The demonstrations of a condition, in the order shown.

    Args:
        material: whose labels, and inputs unless they are foreign.
        other: whose inputs foreign ones are.
        condition: what to show.
        seed: of everything drawn.
    """
    rows = _inputs(material, other, condition, seed)
    labels = _labels([row.label or "" for row in rows], material.labels, condition.labels, seed)
    if condition.words:
        names = names_of(material.labels, seed)
        labels = [names[label] for label in labels]
    rows = [
        Row(row.text if condition.parts != "labels" else None, label if condition.parts != "inputs" else None)
        for row, label in zip(rows, labels, strict=True)
    ]
    if condition.order == 0:
        return rows
    places = np.random.default_rng([seed, 41, condition.order]).permutation(len(rows))
    return [rows[place] for place in places.tolist()]


def names_of(labels: Sequence[str], seed: int) -> dict[str, str]:
    """A word by lot for each label; beyond the list they are numbered."""
    places = np.random.default_rng([seed, 42]).permutation(len(NAMES)).tolist()
    count = len(NAMES)
    return {
        label: NAMES[places[number % count]] + (f" {number // count + 1}" if number >= count else "")
        for number, label in enumerate(labels)
    }


def drawn(
    material: Material, count: int, seed: int, labels: Sequence[str] | None = None, stream: int = 40
) -> list[Row]:
    """Rows with labels in turn: each round has every label once, in an order by lot.

    Args:
        material: where from.
        count: rows at most.
        seed: of the draw.
        labels: those that may come; None for all.
        stream: tells draws under one seed apart.
    """
    rng = np.random.default_rng([seed, stream])
    allowed = list(labels or material.labels)
    waiting: dict[str, list[Row]] = {label: [] for label in allowed}
    for place in rng.permutation(len(material.pool)).tolist():
        row = material.pool[place]
        if row.label in waiting:
            waiting[row.label].append(row)
    found: list[Row] = []
    while len(found) < count and any(waiting.values()):
        for place in rng.permutation(len(allowed)).tolist():
            if waiting[allowed[place]] and len(found) < count:
                found.append(waiting[allowed[place]].pop(0))
    return found


def _inputs(material: Material, other: Material, condition: Labelled, seed: int) -> list[Row]:
    count = condition.shots
    if condition.inputs == "foreign":
        return _foreign(drawn(material, count, seed), other, seed)
    if condition.inputs in ("one label", "half the labels"):
        kept = 1 if condition.inputs == "one label" else max(1, len(material.labels) // 2)
        places = np.random.default_rng([seed, 43]).permutation(len(material.labels))[:kept]
        return drawn(material, count, seed, [material.labels[place] for place in places.tolist()])
    rows = drawn(material, count, seed)
    if condition.inputs == "balanced":
        return rows
    return _chosen(material, [row.label or "" for row in rows], condition.inputs, seed)


def _foreign(rows: Sequence[Row], other: Material, seed: int) -> list[Row]:
    """Another dataset's inputs of like lengths, with the labels of these rows."""
    places = np.random.default_rng([seed, 44]).permutation(len(other.pool))[:_FOREIGN]
    left = [other.pool[place].text or "" for place in places.tolist()]
    found = []
    for row in rows:
        length = len(row.text or "")
        found.append(left.pop(min(range(len(left)), key=lambda place: abs(len(left[place]) - length))))
    return [Row(text, row.label) for text, row in zip(found, rows, strict=True)]


def _chosen(material: Material, labels: Sequence[str], how: str, seed: int) -> list[Row]:
    """Rows that are alike or spread within each label, in the places of these labels."""
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
    if how == "lot":
        return [labels[place] for place in rng.integers(len(labels), size=len(golds)).tolist()]
    if how == "moved":
        order = [labels[place] for place in rng.permutation(len(labels)).tolist()]
        following = {label: order[(number + 1) % len(order)] for number, label in enumerate(order)}
        return [following[gold] for gold in golds]
    wrong = len(golds) - round(float(how.removeprefix("share ")) * len(golds))
    changed = set(rng.permutation(len(golds))[:wrong].tolist())
    found = []
    for place, gold in enumerate(golds):
        others = [label for label in labels if label != gold]
        other = others[int(rng.integers(len(others)))]  # drawn for all, so that equal places get equal labels
        found.append(other if place in changed else gold)
    return found
