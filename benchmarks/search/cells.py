"""Runs one search and measures what it found, on all test rows, outside its budget."""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
import time
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest.mock import patch

import promptsearch as ps
from benchmarks.outside import best_search_value
from benchmarks.search.methods import OWN_STRATEGIES, Method
from promptsearch.embed.base import Encoder
from promptsearch.lm.resolve import OpenedModel
from promptsearch.search.registry import STRATEGIES
from promptsearch.store import RunStore


def choosing_tokens(run: Path, test_items: Collection[int]) -> int:
    """Tokens that a recorded run was charged until its winner was chosen: before it first asked about a test row.

    Args:
        run: the run's folder.
        test_items: ids of the test rows.
    """
    with closing(sqlite3.connect(run / RunStore.FILE)) as record:
        calls = record.execute("SELECT items, tokens FROM calls ORDER BY rowid").fetchall()
    tested = set(test_items)
    before = itertools.takewhile(lambda call: tested.isdisjoint(json.loads(call[0])), calls)
    return sum(int(tokens) for _, tokens in before)


def measure_search(
    task: ps.Task,
    method: Method,
    budget: str | ps.Budget,
    opened: OpenedModel,
    encoder: Encoder,
    seed: int,
) -> dict[str, Any]:
    """One method, budget and seed on one task."""
    numbers = task.split(seed).test
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, patch.dict(STRATEGIES, OWN_STRATEGIES):
        result = ps.optimize(
            task,
            opened,
            budget,
            encoder=encoder,
            space=method.space,
            strategy=method.strategy,
            seed=seed,
            run=folder,
            progress=False,
        )
        choosing = choosing_tokens(Path(folder), numbers)
    seconds = time.perf_counter() - begun
    test = [task.examples[number] for number in numbers]
    before = opened.engine.tokens_decoded
    full = result.prompt.evaluate(test)
    spent = opened.engine.tokens_decoded - before
    candidate = result.prompt.candidate
    return {
        "full": full.to_dict(),
        "full_without_prior": _without_prior(result.prompt, test, full).to_dict(),
        "tokens": result.cost.tokens,
        "choosing_tokens": choosing,
        "tokens_per_query": spent / len(test),
        "test": result.test.to_dict(),
        "validation": result.validation.to_dict(),
        "best_search": best_search_value(result),
        "mode": candidate.mode,
        "shots": candidate.shots,
        "winner": candidate.to_dict(),
        "trials": len(result.trials),
        "raced_to_the_end": _raced_to_the_end(result),
        "stopped_by": result.stopped_by,
        "seconds": seconds,
    }


def _without_prior(prompt: ps.Prompt, test: list[Any], full: ps.Measurement) -> ps.Measurement:
    return prompt.without_prior().evaluate(test) if prompt.parts.uses_prior else full


def _raced_to_the_end(result: ps.Result) -> int:
    """Candidates that were scored on as many rows as any."""
    most = max(trial.items for trial in result.trials)
    return sum(trial.items == most for trial in result.trials)
