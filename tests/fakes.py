"""A task, a model and an encoder that make a whole search take a second."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
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
