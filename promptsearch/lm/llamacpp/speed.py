"""Measures how fast this machine runs a file's weights.

Invariant: the numbers are those of llama.cpp alone, without tokenizing, planning or sampling, so that they
compare weight types and nothing else.
Leaves out: the speed of a search, which :mod:`promptsearch.machine` measures, and which weights to choose.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.plan import Row

__all__ = ["PREFILL_TOKENS", "Speed", "measure_speed"]

PREFILL_TOKENS = 512  # of the prompt whose speed decides
_SHORTER = (32, 128)
_GENERATED = 32
_BATCH = 256


@dataclass(frozen=True)
class Speed:
    """Tokens per second.

    Attributes:
        prefill: of prompts, by their number of tokens; always holds :data:`PREFILL_TOKENS`.
        generation: of one sequence that goes on token by token; None where not measured.
    """

    prefill: Mapping[int, float]
    generation: float | None = None

    @property
    def deciding(self) -> float:
        """The one by which weight types are compared."""
        return self.prefill[PREFILL_TOKENS]

    def best(self, other: Speed) -> Speed:
        """The better of two measurements of the same lengths: other work on the machine only slows."""
        prefill = {tokens: max(speed, other.prefill[tokens]) for tokens, speed in self.prefill.items()}
        return Speed(prefill, self.generation and max(self.generation, other.generation or 0.0))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "prefill": {str(tokens): speed for tokens, speed in self.prefill.items()},
            "generation": self.generation,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Speed:
        """The other end of :meth:`to_dict`.

        Raises:
            ValueError, TypeError, KeyError, AttributeError: these are no such values.
        """
        prefill = {int(tokens): float(speed) for tokens, speed in values["prefill"].items()}
        generation = values["generation"]
        if not prefill[PREFILL_TOKENS] > 0:
            raise ValueError("a speed is above 0")
        return cls(prefill, None if generation is None else float(generation))


def measure_speed(path: Path, *, full: bool = False) -> Speed:
    """Measure the weights of a file once, on all cores that this process may use.

    Args:
        path: a GGUF file.
        full: also prompts of 32 and 128 tokens, and generation; otherwise a prompt of 512 tokens alone.

    Raises:
        ModelError: the file cannot be opened.
        BackendError: it cannot be run.
    """
    model = open_model(path)
    try:
        context = Context(model, cells=PREFILL_TOKENS + _GENERATED, batch=_BATCH, sequences=1, threads=usable_cores())
        try:
            _prefill(context, 64)  # the first batch also sets up the compute buffers
            counts = (*_SHORTER, PREFILL_TOKENS) if full else (PREFILL_TOKENS,)
            prefill = {count: _prefill(context, count) for count in counts}
            generation = _generation(context) if full else None
        finally:
            context.close()
    finally:
        llama().llama_model_free(model)
    return Speed(prefill, generation)


def _rows(first: int, end: int) -> list[Row]:
    """Tokens at positions ``first`` to ``end``, of the few that every vocabulary has."""
    return [Row(at % 97, at, (0,)) for at in range(first, end)]


def _prefill(context: Context, count: int) -> float:
    """Tokens per second of one prompt, from an empty memory, to a tenth."""
    context.clear()
    start = time.perf_counter()
    for first in range(0, count, _BATCH):
        rows = _rows(first, min(first + _BATCH, count))
        context.decode(rows, [len(rows) - 1])
    return round(count / (time.perf_counter() - start), 1)


def _generation(context: Context) -> float:
    """Tokens per second of one sequence that goes on after a short prompt, to a tenth."""
    context.clear()
    context.decode(_rows(0, _GENERATED), [_GENERATED - 1])
    start = time.perf_counter()
    for at in range(_GENERATED, 2 * _GENERATED):
        context.decode(_rows(at, at + 1), [0])
    return round(_GENERATED / (time.perf_counter() - start), 1)
