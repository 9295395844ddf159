"""A task, a model and an encoder that make a whole search take a second."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.fake import FakeLM

SCRIPT = "<script>alert('x')</script>"


class WordEncoder:
    """Bags of words, hashed."""

    name = "words"
    fingerprint = "words:32"
    dimension = 32

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        vectors = np.full((len(texts), self.dimension), 0.01, dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().split():
                vectors[row, int(hashlib.md5(word.encode()).hexdigest(), 16) % self.dimension] += 1
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def rows(count: int = 120) -> list[dict[str, Any]]:
    """Rows of two labels, with texts that a page must escape."""
    return [
        {
            "text": f"{SCRIPT} item {number} is {'good' if number % 2 else 'bad'} & <b>{number * 7919 % 1000}</b>",
            "label": f"<{'good' if number % 2 else 'bad'}>",
        }
        for number in range(count)
    ]


def task() -> ps.Task:
    return ps.Task(rows(), inputs="text", output="label", instruction=f"Say it {SCRIPT}.")


def model(of: ps.Task) -> FakeLM:
    """Right more often the more it is shown."""
    table = {example.text: example.output for example in of.examples}
    return FakeLM(table, reliability=lambda prompt: min(0.95, 0.5 + 0.05 * prompt.count("Label:")))


def result(**options: Any) -> ps.Result:
    """What a whole search finds."""
    of = task()
    given: dict[str, Any] = {"budget": "3000 evaluations", "encoder": WordEncoder(), "progress": False}
    return ps.optimize(of, model(of), **{**given, **options})


# -- a search that is over in an instant, and can be watched --------------------------------------------------


def numbered_rows(count: int, *, seed: int = 0, labels: Sequence[str] = ("bad", "good")) -> list[dict[str, Any]]:
    """Rows of made-up words, each with its number as the last word; the label says nothing about the words."""
    rng = np.random.default_rng(seed)
    words = [f"word{number}" for number in range(150)]
    return [
        {"text": f"{' '.join(rng.choice(words, 8))} #{number}.", "label": labels[number % len(labels)]}
        for number in range(count)
    ]


def last_number(prompt: str) -> str | None:
    """The number of the row that a prompt asks about."""
    found = re.findall(r"#(\d+)\.", prompt)
    return found[-1] if found else None


class WatchedLM(FakeLM):
    """Knows numbered rows, keeps what it is asked, and runs a shared start of many prompts once.

    Args:
        golds: right label by the row's number.
        reliability: as in ``FakeLM``.
        interrupt_at: the call, counted from 1, during which somebody presses Ctrl-C; 0 for none.
        journal: file to which each call adds a line: its prompts' hash.
        on_call: told the number of each call before it runs.
        context_tokens: words that prompt and answer may take together.
        seed: another seed errs on other prompts.

    Attributes:
        calls: the prompts of each call.
    """

    def __init__(
        self,
        golds: Mapping[str, str],
        *,
        reliability: float | Callable[[str], float] = 1.0,
        interrupt_at: int = 0,
        journal: Path | None = None,
        on_call: Callable[[int], None] | None = None,
        context_tokens: int = 4096,
        seed: int = 0,
    ) -> None:
        super().__init__(
            lambda prompt: golds.get(last_number(prompt) or ""),
            reliability=reliability,
            seed=seed,
            context_tokens=context_tokens,
        )
        self.calls: list[list[str]] = []
        self._interrupt_at = interrupt_at
        self._journal = journal
        self._on_call = on_call

    @property
    def shares_beginnings(self) -> bool:
        return True

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> NDArray[np.float64]:
        self._watch(prompts)
        return super().score(prompts, continuations)

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        self._watch(prompts)
        return super().generate(prompts, params)

    def _watch(self, prompts: Sequence[str]) -> None:
        self.calls.append(list(prompts))
        if self._on_call is not None:
            self._on_call(len(self.calls))
        if len(self.calls) == self._interrupt_at:
            raise KeyboardInterrupt
        if self._journal is not None:
            digest = hashlib.sha256("\x1f".join(prompts).encode()).hexdigest()
            with self._journal.open("a") as journal:
                journal.write(digest + "\n")

    def _count_decoded(self, tokens: int) -> None:
        """What sharing leaves of it: the words of the tree that the prompts of the last call make."""
        paths = sorted(prompt.split() for prompt in self.calls[-1])
        shared = 0
        for before, after in itertools.pairwise(paths):
            shared += next(
                (place for place, (left, right) in enumerate(zip(before, after, strict=False)) if left != right),
                min(len(before), len(after)),
            )
        super()._count_decoded(max(0, tokens - shared))


class TellingLM(WatchedLM):
    """Tells how likely each of sixty tokens comes next, and those know the label better than its own word does.

    Args:
        golds: right label by the row's number.
        clarity: nats by which the two tokens that know the label differ.
        options: as for ``WatchedLM``.
    """

    vocabulary = 60

    def __init__(self, golds: Mapping[str, str], *, clarity: float = 6.0, **options: Any) -> None:
        super().__init__(golds, **options)
        self._labels = sorted(set(golds.values()))
        self._clarity = clarity

    def likely_next(self, prompts: Sequence[str], count: int) -> list[list[tuple[int, float]]]:
        self._watch(prompts)
        self._count_decoded(sum(self.count_tokens(prompts)))
        found = []
        for prompt in prompts:
            logs = self._next(prompt)
            best = np.argsort(-logs, kind="stable")[:count]
            found.append([(int(token), float(logs[token])) for token in best])
        return found

    def score_and_next(
        self, prompts: Sequence[str], continuations: Sequence[str], tokens: Sequence[int]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        following = [self._next(prompt)[list(tokens)] for prompt in prompts]
        return self.score(prompts, continuations), np.array(following).reshape(len(prompts), len(tokens))

    def _next(self, prompt: str) -> NDArray[np.float64]:
        digest = int(hashlib.md5(prompt.encode()).hexdigest(), 16) % 2**32
        logits = np.random.default_rng(digest).normal(0, 1, self.vocabulary)
        gold = self._right_answer(prompt)
        if gold in self._labels:
            logits[7 + self._labels.index(gold)] += self._clarity
        return np.asarray(logits - np.log(np.exp(logits).sum()))


def numbered_task(count: int = 240, **options: Any) -> ps.Task:
    given: dict[str, Any] = {"inputs": "text", "output": "label", "instruction": "Say which.", **options}
    return ps.Task(numbered_rows(count), **given)


def golds_of(of: ps.Task) -> dict[str, str]:
    """Right label by the row's number."""
    return {number: example.output for example in of.examples if (number := last_number(example.text))}
