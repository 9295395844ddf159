"""What the benchmark asks of its processes: plain values that cross a pipe.

Leaves out: how it is done, so that nothing heavy is imported here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import promptsearch as ps
from benchmarks.common import read_dataset

__all__ = ["DspyJob", "OursJob", "RecipeJob", "Row", "TaskJob"]

Row = tuple[str, str]


@dataclass(frozen=True)
class TaskJob:
    """Which task.

    Attributes:
        data: folder of datasets.
        dataset: name of one.
        test_rows: how many of its test rows are measured, from the first on.
        training_rows: labelled rows; None for all.
        seed: of the splits and of whatever is random.
    """

    data: str
    dataset: str
    test_rows: int | None
    training_rows: int | None
    seed: int

    def task(self) -> ps.Task:
        """The task."""
        return read_dataset(Path(self.data), self.dataset).task(self.training_rows, self.test_rows, self.seed)


@dataclass(frozen=True)
class OursJob:
    """One search.

    Attributes:
        task: the task.
        budget: of time or of tokens.
        prior: whether the prior, what labelled examples say without the model, may be added.
    """

    task: TaskJob
    budget: ps.Budget
    prior: bool


@dataclass(frozen=True)
class RecipeJob:
    """One recipe.

    Attributes:
        task: the task.
        recipe: a key of ``BUDGETED``, or ``"plain"`` for all that choose nothing.
        tokens: what it may spend on its choice.
    """

    task: TaskJob
    recipe: str
    tokens: int = 0


@dataclass(frozen=True)
class DspyJob:
    """One optimizer on one task.

    Attributes:
        optimizer: one of the kinds in ``methods``.
        adapter: one of :data:`benchmarks.rivals.methods.ADAPTERS`.
        instruction: of the signature.
        labels: to choose from.
        training: rows that demonstrations come from.
        validation: rows that candidates are compared on.
        pool: all rows that demonstrations could come from, for optimizers to which more rows cost nothing.
        test: rows measured at the end, outside the time.
        seed: of sampled requests, and of the optimizer where it takes one.
        seconds: what the optimizer may take; None for its own defaults.
    """

    optimizer: str
    adapter: str
    instruction: str
    labels: tuple[str, ...]
    training: tuple[Row, ...]
    validation: tuple[Row, ...]
    pool: tuple[Row, ...]
    test: tuple[Row, ...]
    seed: int
    seconds: float | None = None
