"""Runs one search and measures what it found, on all test rows, outside its budget."""

from __future__ import annotations

import time
from typing import Any

import promptsearch as ps
from benchmarks.outside import best_search_value
from benchmarks.search.methods import Method
from promptsearch.embed.base import Encoder
from promptsearch.events import Event, Progress
from promptsearch.lm.base import Engine
from promptsearch.lm.resolve import OpenedModel


class PhaseTokens:
    """Hears a search's events, and notes how many tokens the model has run at the last one of each phase."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._start = tokens_run(engine)
        self._at: dict[str, int] = {}

    def __call__(self, event: Event) -> None:
        """Note one event."""
        if isinstance(event, Progress):
            self._at[event.phase] = tokens_run(self._engine) - self._start

    @property
    def choosing(self) -> int:
        """Tokens until the winner was chosen: race and confirmation, without the final measurement."""
        return self._at.get("confirm", self._at.get("search", 0))


def tokens_run(engine: Engine) -> int:
    """Tokens that the model has run, those whose result it still held among them."""
    return engine.tokens_decoded + engine.tokens_restored


def measure_search(
    task: ps.Task,
    method: Method,
    budget: str | ps.Budget,
    opened: OpenedModel,
    encoder: Encoder,
    seed: int,
) -> dict[str, Any]:
    """One method, budget and seed on one task."""
    heard = PhaseTokens(opened.engine)
    begun = time.perf_counter()
    result = ps.optimize(
        task,
        opened,
        budget,
        encoder=encoder,
        space=method.space,
        strategy=method.strategy,
        seed=seed,
        progress=heard,
    )
    seconds = time.perf_counter() - begun
    test = [task.examples[number] for number in task.split(seed).test]
    before = tokens_run(opened.engine)
    full = result.prompt.evaluate(test)
    spent = tokens_run(opened.engine) - before
    candidate = result.prompt.candidate
    return {
        "full": full.to_dict(),
        "full_without_prior": _without_prior(result.prompt, test, full).to_dict(),
        "tokens": result.cost.tokens,
        "choosing_tokens": heard.choosing,
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
