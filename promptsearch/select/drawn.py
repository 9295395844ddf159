"""Selections by chance: any examples, or as many of each class as of any other.

They serve nobody in particular: queries are not looked at. A shorter selection with the same state of the
generator is the beginning of a longer one.
"""

from __future__ import annotations

import numpy as np

from promptsearch.select.base import Examples, Queries, checked_count

__all__ = ["Balanced", "Random"]


class Random:
    """Each order of any examples with the same probability."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        return self._examples.ids_of(rng.permutation(len(self._examples))[:count])


class Balanced:
    """Goes round the classes, each round in another order, and takes from each class by chance.

    So after any number of examples no class that has some left is more than one behind another. This is the
    only selector that looks at labels.
    """

    def __init__(self, examples: Examples) -> None:
        self._examples = examples.sorted
        self._classes = [np.flatnonzero(self._examples.labels == label) for label in np.unique(examples.labels)]

    def select(self, queries: Queries, count: int, rng: np.random.Generator) -> tuple[int, ...]:
        """See ``Selector.select``."""
        count = checked_count(count, self._examples)
        shuffled = [rng.permutation(rows) for rows in self._classes]
        chosen: list[int] = []
        turn = 0
        while len(chosen) < count:
            for each in rng.permutation(len(shuffled)):
                chosen.extend(shuffled[each][turn : turn + 1])
            turn += 1
        return self._examples.ids_of(chosen[:count])
