"""Our side of ``benchmarks.throughput``: the engine, what the hardware allows it, and where its time goes.

Each class is a contender in a process of its own (see ``throughput_processes``).
Leaves out: the alternatives, in ``throughput_rivals``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.throughput_cases import Case
from benchmarks.throughput_processes import ContenderError, Spec
from promptsearch.lm import plan as planning
from promptsearch.lm.base import GenerationParams, segments_of
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.plan import Row
from promptsearch.lm.resolve import open_engine

__all__ = ["Ours", "Profile", "Raw"]

_BATCH = 512
_BATCHES = 2
_STEPS = 32


class Ours:
    """The library's engine: all prompts of a case in one call."""

    def __init__(self, spec: Spec) -> None:
        engine = open_engine(spec.model, spec.weights).engine
        if not isinstance(engine, LlamaEngine):
            raise ContenderError("this benchmark compares the llama.cpp engine; give --model a GGUF file")
        self.engine = engine
        engine.score(["The first batch sets up the buffers."], [" yes", " no"])

    def tokens(self, case: Case) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """Tokens of each prompt, and of each label."""
        vocabulary = self.engine.vocabulary
        prompts = [tuple(vocabulary.tokenize(segments_of(prompt))) for prompt in case.prompts]
        labels = [tuple(vocabulary.tokenize_continuation(label)) for label in case.continuations]
        return prompts, labels

    def measure(self, case: Case) -> dict[str, Any]:
        """Answer a case in one call that finds nothing of an earlier one, as rivals do."""
        self.engine.forget()
        before, restored_before = self.engine.tokens_decoded, self.engine.tokens_restored
        start = time.perf_counter()
        if case.labels:
            scores = self.engine.score(case.prompts, case.continuations)
        else:
            completions = self.engine.generate(case.prompts, GenerationParams(max_tokens=case.max_tokens))
        seconds = time.perf_counter() - start
        measured: dict[str, Any] = {
            "seconds": seconds,
            "decoded": self.engine.tokens_decoded - before,
            "restored": self.engine.tokens_restored - restored_before,
        }
        if case.labels:
            return {**measured, "answers": _grouped(scores.argmax(axis=1).tolist(), case)}
        return {
            **measured,
            "answers": _grouped([each.text for each in completions], case),
            "generated": sum(each.tokens for each in completions),
            # the last token of a text that ran out of room is never read by the model
            "read_again": sum(each.tokens - (each.finish == "length") for each in completions),
        }


def _grouped(answers: list[Any], case: Case) -> list[list[Any]]:
    rest = iter(answers)
    return [[next(rest) for _ in group] for group in case.groups]


class Raw:
    """What one sequence gets out of the hardware, at a given depth and with the weights that ours runs."""

    def __init__(self, spec: Spec) -> None:
        self._model = open_model(Path(spec.path))
        cells = spec.context_tokens + _BATCH
        self._context = Context(self._model, cells=cells, batch=_BATCH, sequences=1, threads=usable_cores())
        self.rates([1] * _BATCH, 0)  # the first batches set up the buffers

    def rates(self, tokens: list[int], depth: int) -> dict[str, float]:
        """Tokens per second after ``depth`` tokens of one sequence.

        Args:
            tokens: the case's own, as many as one batch and ``depth`` take.
            depth: tokens that the sequence already holds.

        Returns:
            ``prefill``: batches of 512 that ask for the last token's logits; ``all_logits``: the same asking for
            each token's; ``generation``: one token at a time.
        """
        return {
            "prefill": _BATCH * _BATCHES / sum(self._batch(tokens, depth, [_BATCH - 1]) for _ in range(_BATCHES)),
            "all_logits": _BATCH / self._batch(tokens, depth, list(range(_BATCH))),
            "generation": _STEPS / self._generation(tokens, depth),
        }

    def _batch(self, tokens: list[int], depth: int, outputs: list[int]) -> float:
        """Seconds of one batch."""
        self._fill(tokens, depth)
        rows = [Row(token, depth + at, (0,)) for at, token in enumerate(tokens[depth : depth + _BATCH])]
        start = time.perf_counter()
        self._context.decode(rows, outputs)
        return time.perf_counter() - start

    def _generation(self, tokens: list[int], depth: int) -> float:
        """Seconds of some single tokens."""
        self._fill(tokens, depth)
        start = time.perf_counter()
        for at in range(depth, depth + _STEPS):
            self._context.decode([Row(tokens[at], at, (0,))], [0])
        return time.perf_counter() - start

    def _fill(self, tokens: list[int], depth: int) -> None:
        self._context.clear()
        for first in range(0, depth, _BATCH):
            end = min(depth, first + _BATCH)
            self._context.decode([Row(tokens[at], at, (0,)) for at in range(first, end)], [])


class Profile:
    """Where a call's time goes: a fresh engine whose C functions and planner are timed one by one.

    The functions are replaced in the module that the engine calls, before the engine is made, so that one that
    keeps a function at hand keeps the timed one.
    """

    def __init__(self, spec: Spec) -> None:
        self._seconds: dict[str, float] = {}
        self._calls: dict[str, int] = {}
        self._time_library()
        self._time_planner()
        self._ours = Ours(spec)

    def measure(self, case: Case) -> dict[str, Any]:
        """Seconds of a call by where they went, and the number of batches."""
        self._seconds.clear()
        self._calls.clear()
        total = float(self._ours.measure(case)["seconds"])
        if not self._calls.get("llama_decode"):
            raise ContenderError("the engine called llama_decode in a way that the profile does not see")
        in_c = sum(seconds for name, seconds in self._seconds.items() if name.startswith("llama_"))
        decode, tokenize = (self._seconds.get(name, 0.0) for name in ("llama_decode", "llama_tokenize"))
        planned = self._seconds.get("plan", 0.0)
        return {
            "total": total,
            "llama_decode": decode,
            "llama_tokenize": tokenize,
            "other C": in_c - decode - tokenize,
            "planning": planned,
            "everything else": total - in_c - planned,
            "batches": self._calls["llama_decode"],
        }

    def _time_library(self) -> None:
        """Time every C function of llama.cpp, under each name that Python code can call it by."""
        package = llama()
        foreign = type(package.llama_decode)  # what ctypes makes of each C function
        for module in (package, sys.modules[f"{package.__name__}.llama_cpp"]):
            for name, function in vars(module).copy().items():
                if name.startswith("llama_") and isinstance(function, foreign):
                    setattr(module, name, self._timed(name, function))

    def _time_planner(self) -> None:
        """Time the planner in every module that has it by name; its schedule is drawn step by step."""
        modules = [module for name, module in sys.modules.copy().items() if name.startswith("promptsearch.lm")]
        for name in ("plan", "label_tail"):
            function: Callable[..., Any] = getattr(planning, name)
            for module in modules:
                if isinstance(module, ModuleType) and getattr(module, name, None) is function:
                    setattr(module, name, self._timed("plan", function))

    def _timed(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                answer = function(*arguments, **options)
            finally:
                self._add(name, start)
            return self._timed_steps(name, answer) if isinstance(answer, Iterator) else answer

        return timed

    def _timed_steps(self, name: str, steps: Iterator[Any]) -> Iterator[Any]:
        while True:
            start = time.perf_counter()
            try:
                step = next(steps)
            except StopIteration:
                return
            finally:
                self._add(name, start)
            yield step

    def _add(self, name: str, start: float) -> None:
        self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - start
        self._calls[name] = self._calls.get(name, 0) + 1
