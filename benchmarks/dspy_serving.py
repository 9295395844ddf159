"""A small run of DSPy's own random search on the engine, and on an HTTP server of ``llama_cpp.Llama``.

DSPy makes such a run of two parts. It evaluates programs by many threads, so that requests come together; it
bootstraps demonstrations by one request after another, whatever the number of threads. Both are timed, since only
the first can gain by an engine that takes requests at once.
Leaves out: which program is best; the run is as small as it can be and have all kinds of candidates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import dspy
from dspy.teleprompt import BootstrapFewShotWithRandomSearch
from dspy.utils.callback import BaseCallback

import promptsearch as ps
from benchmarks.common import weights_file
from benchmarks.dspy_server import served
from benchmarks.dspy_tasks import THREADS, Work
from promptsearch.lm.resolve import OpenedModel

__all__ = ["WAYS", "EvaluationClock", "serving_cell"]

WAYS = {"concurrent": THREADS, "concurrent 32": 32, "one by one": 1, "server": THREADS}
"""Ways to be served, with the number of DSPy's threads; all but the last on the engine."""

_NO_LIMIT = 10_000  # unreadable answers: DSPy would end the optimizer after ten
_SHOTS = 8


class EvaluationClock(BaseCallback):  # type: ignore[misc]  # dspy has no types
    """Seconds that ``dspy.Evaluate`` takes and requests that are made meanwhile.

    Args:
        requests: how many were made so far.
    """

    def __init__(self, requests: Callable[[], int]) -> None:
        self.seconds = 0.0
        self.requests = 0
        self._count = requests
        self._began: dict[str, tuple[float, int]] = {}

    def on_evaluate_start(self, call_id: str, instance: Any, inputs: dict[str, Any]) -> None:
        """Start counting."""
        self._began[call_id] = (time.perf_counter(), self._count())

    def on_evaluate_end(self, call_id: str, outputs: Any, exception: BaseException | None = None) -> None:
        """Add what one evaluation took."""
        began, requests = self._began.pop(call_id)
        self.seconds += time.perf_counter() - began
        self.requests += self._count() - requests


def serving_cell(way: str, work: Work, opened: OpenedModel, max_tokens: int) -> dict[str, Any]:
    """Seconds and requests of one random search with DSPy's default adapter, and of its evaluations alone.

    Raises:
        UserError: a server cannot have the model's weights, since it is no GGUF file.
        ContenderError: the server does not start.
    """
    serving = _served(opened, max_tokens) if way == "server" else _in_process(opened, max_tokens)
    with serving as lm:
        clock = EvaluationClock(lambda: len(lm.history))
        with dspy.context(lm=lm, adapter=dspy.ChatAdapter(), callbacks=[clock]):
            optimizer = BootstrapFewShotWithRandomSearch(
                work.metric,
                num_candidate_programs=1,
                max_labeled_demos=_SHOTS,
                num_threads=WAYS[way],
                max_errors=_NO_LIMIT,
            )
            begun = time.perf_counter()
            program = optimizer.compile(work.make(), trainset=work.train, valset=work.validation)
            seconds = time.perf_counter() - begun
        return {
            "seconds": seconds,
            "calls": len(lm.history),
            "evaluating_seconds": clock.seconds,
            "evaluating_calls": clock.requests,
            "scores": [each["score"] for each in program.candidate_programs],
        }


@contextmanager
def _in_process(opened: OpenedModel, max_tokens: int) -> Iterator[Any]:
    yield ps.dspy.lm(opened, cache=False, max_tokens=max_tokens)


@contextmanager
def _served(opened: OpenedModel, max_tokens: int) -> Iterator[Any]:
    """The same weights behind HTTP."""
    with served(weights_file(opened), opened.kind) as address:
        yield dspy.LM(
            "openai/local", api_base=address, api_key="none", cache=False, temperature=0.0, max_tokens=max_tokens
        )
