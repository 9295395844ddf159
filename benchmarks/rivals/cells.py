"""One cell: from a method's name to a job for a process of its own, and back.

Invariant: no two cells' processes run at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.rivals.jobs import DspyJob, OursJob, RecipeJob, Row, TaskJob
from benchmarks.rivals.methods import Method
from benchmarks.throughput_processes import DEFAULT, USERS_OWN, ContenderError, Spec, Worker

__all__ = ["Setting", "dspy_job", "measured", "recipe_tokens"]

_CONTEXT = 8192
_SECONDS_A_CELL = 6 * 3600.0
_MAKERS = {
    "ours": "benchmarks.rivals.our_side:OursContender",
    "recipe": "benchmarks.rivals.our_side:RecipeContender",
    "dspy": "benchmarks.rivals.dspy_contender:DspyContender",
}


@dataclass(frozen=True)
class Setting:
    """What holds for the whole run.

    Attributes:
        data: folder of datasets.
        weights: weight type that everybody runs.
        path: file that holds these weights.
        test_rows: test rows that are answered.
        training_rows: rows that DSPy's optimizers get.
        validation_rows: rows that they compare candidates on.
        pool_rows: labelled rows in all; None for all.
        tokens: what recipes of a budget in time may spend; None for what ours spent.
    """

    data: str
    weights: str
    path: str
    test_rows: int
    training_rows: int
    validation_rows: int
    pool_rows: int | None = None
    tokens: int | None = None


def measured(method: Method, dataset: str, seed: int, setting: Setting, cells: Mapping[str, Any]) -> dict[str, Any]:
    """The cell of a method, dataset and seed.

    Raises:
        ContenderError: it cannot run; or it is a recipe that may spend what ours spent, and ours has no cell yet.
    """
    task = TaskJob(setting.data, dataset, setting.test_rows, setting.pool_rows, seed)
    job: OursJob | RecipeJob | DspyJob
    if method.family == "ours":
        job = OursJob(task, _budget(method), prior=method.kind == "full")
    elif method.family == "recipe":
        job = RecipeJob(task, method.kind, recipe_tokens(method, dataset, seed, setting, cells))
    else:
        job = dspy_job(method, task, setting)
    spec = Spec(_MAKERS[method.family], None, setting.weights, setting.path, _CONTEXT)
    with Worker(spec, None if USERS_OWN else DEFAULT, _SECONDS_A_CELL) as worker:
        found: dict[str, Any] = worker.call("measure", job)
    return found


def recipe_tokens(method: Method, dataset: str, seed: int, setting: Setting, cells: Mapping[str, Any]) -> int:
    """What a recipe may spend on its choice: a budget of tokens itself, or what ours spent of one in time.

    Raises:
        ContenderError: nobody says.
    """
    if method.minutes is None and method.tokens is None:
        return 0
    if method.tokens is not None:
        return method.tokens
    if setting.tokens is not None:
        return setting.tokens
    ours = Method("ours", "full", minutes=method.minutes).name
    cell = cells.get(f"{dataset}|{ours}|{seed}")
    if cell is None:
        raise ContenderError(f"it may spend the tokens of {ours!r}, which is not measured yet; or give --tokens")
    return int(cell["tokens"])


def _budget(method: Method) -> ps.Budget:
    if method.tokens is not None:
        return ps.Budget(tokens=method.tokens)
    assert method.minutes is not None
    return ps.Budget(seconds=60 * method.minutes)


def dspy_job(method: Method, task: TaskJob, setting: Setting) -> DspyJob:
    """The rows that an optimizer gets: random ones of the splits that ours has, by seed."""
    made = task.task()
    splits = made.split(task.seed)
    rng = np.random.default_rng([task.seed, 12])
    pool = rng.permutation(splits.pool).tolist()
    validation = [*splits.search, *splits.confirm]

    def rows(numbers: list[int]) -> tuple[Row, ...]:
        return tuple((made.examples[number].text, made.examples[number].output) for number in numbers)

    return DspyJob(
        optimizer=method.kind,
        adapter=method.adapter,
        instruction=made.instructions[0] if made.instructions else "",
        labels=tuple(made.labels or ()),
        training=rows(pool[: setting.training_rows]),
        validation=rows(validation[: setting.validation_rows]),
        pool=rows(pool),
        test=rows(list(made.parts.test)),
        seed=task.seed,
        seconds=None if method.minutes is None else 60 * method.minutes,
    )
