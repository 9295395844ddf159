"""Reasoning and answers by ``Llama.create_completion``, one after another: the rival of ``benchmarks.reasoning``.

It is a contender in a process of its own (see ``throughput_processes``), so that the binding's threads wait as its
users' do and no other engine is open there.
Leaves out: making prompts; they come as texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_cpp import LlamaGrammar

from benchmarks.dspy_engine import open_llama
from benchmarks.throughput_processes import Spec
from promptsearch.answer_form import GENERATED_TOKENS
from promptsearch.candidate import Candidate
from promptsearch.reasoning import has_ended

__all__ = ["StepByStep"]


class StepByStep:
    """The class with its best fair settings."""

    def __init__(self, spec: Spec) -> None:
        self._llama = open_llama(spec.path, spec.context_tokens)
        self._llama.create_completion("The first batch sets up the buffers.", max_tokens=2, temperature=0.0)

    def prepare(self, reading: Candidate, ends: Sequence[str], rules: str | None) -> None:
        """What holds for all prompts.

        Args:
            reading: how long the model may reason, and how reasoning ends.
            ends: texts that end it too.
            rules: grammar of the answer; None for any text.
        """
        self._reading = reading
        self._ends = list(ends)
        self._grammar = None if rules is None else LlamaGrammar.from_string(rules, verbose=False)

    def reason(self, prompt: str) -> str:
        """What the model writes after a prompt, streamed and left off where its reasoning has ended."""
        said = ""
        options: dict[str, Any] = {"max_tokens": self._reading.thinking_tokens, "temperature": 0.0}
        for part in self._llama.create_completion(prompt, **options, stop=self._ends, stream=True):
            said += part["choices"][0]["text"]
            if has_ended(self._reading, said):
                break
        return said

    def answer(self, prompt: str) -> str:
        """The answer after reasoning."""
        options: dict[str, Any] = {"max_tokens": GENERATED_TOKENS, "temperature": 0.0, "stop": ["\n"]}
        made = self._llama.create_completion(prompt, **options, grammar=self._grammar)
        return str(made["choices"][0]["text"])
