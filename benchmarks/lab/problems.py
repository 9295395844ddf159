"""Tasks with free answers and written reasoning: symbolic ones that make themselves, and real ones where given."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import read_dataset
from benchmarks.symbolic import TASKS, make_rows
from promptsearch.task import Example

__all__ = ["Problems"]

_ROWS = 200  # that demonstrations are drawn from


class Problems:
    """The tasks by name.

    Args:
        data: folder of real ones.
        items: rows of each that are asked about.
    """

    def __init__(self, data: Path, items: int) -> None:
        self._data = data
        self._items = items
        self.task = cache(self._task)

    def _task(self, name: str) -> ps.Task:
        """A task whose test rows are asked about."""
        columns: dict[str, Any] = {"inputs": "input", "output": "output", "labels": False, "rationale": "rationale"}
        if name in TASKS:
            made = make_rows(name, _ROWS + self._items, 0)
            return ps.Task(made[:_ROWS], **columns, test=made[_ROWS:])
        dataset = read_dataset(self._data, name)
        rng = np.random.default_rng([62, *name.encode()])
        rows = [dataset.train[place] for place in rng.permutation(len(dataset.train))[:_ROWS].tolist()]
        test = [dataset.test[place] for place in rng.permutation(len(dataset.test))[: self._items].tolist()]
        return ps.Task(rows, **columns, test=test)

    def shown(self, name: str, count: int, seed: int) -> list[Example]:
        """Demonstrations by lot."""
        task = self.task(name)
        pool = [example for number, example in enumerate(task.examples) if number not in set(task.parts.test)]
        places = np.random.default_rng([seed, 48]).permutation(len(pool))[:count]
        return [pool[place] for place in places.tolist()]
