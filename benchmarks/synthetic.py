"""A world whose truth is known: a model that errs by rule, and as many fresh rows as one wants.

Every row has an ease and every possible demonstration a helpfulness, both from a hash of its number; a prompt is
right about a row with a probability that their sum gives. Rows that no search saw are drawn from the same
distribution, so that what a prompt does on many of them is what it is worth.
Invariant: the same world and seed give the same rows and answers in every process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import HashingVectorizer

import promptsearch as ps
from promptsearch.lm.fake import FakeLM

LABELS = ("bad", "good")
_NUMBER = re.compile(r"#(\d+)\.")
_WORDS = 400
_FRESH = 1_000_000  # numbers from here on are fresh rows


@dataclass(frozen=True)
class World:
    """How far prompts and rows differ.

    Attributes:
        base: accuracy of a prompt without demonstrations.
        help: standard deviation of what one demonstration adds; 0 makes all prompts equally good.
        ease: rows are this much easier or harder at most.
        rows: rows that a search gets, test rows not among them.
        test: test rows.
    """

    base: float = 0.65
    help: float = 0.1
    ease: float = 0.25
    rows: int = 240
    test: int = 120

    def task(self, seed: int) -> ps.Task:
        """A task of its own rows for each seed."""
        numbers = [seed * (self.rows + self.test) + number for number in range(self.rows + self.test)]
        drawn = _drawn_rows(numbers)
        given = {"inputs": "text", "output": "label", "instruction": "Say which."}
        return ps.Task(drawn[: self.rows], **given, test=drawn[self.rows :])

    def fresh(self, count: int) -> list[dict[str, Any]]:
        """Rows that no search sees."""
        return _drawn_rows([_FRESH + number for number in range(count)])

    def model(self) -> FakeLM:
        """The model: it knows every row, and errs as the world has it."""
        return FakeLM(lambda prompt: _label(_numbers(prompt)[-1]), reliability=self.reliability)

    def reliability(self, prompt: str) -> float:
        """Probability of a right answer: what was shown helps on average, what is asked is easy or hard."""
        *shown, asked = _numbers(prompt)
        helped = sum(2 * _uniform("help", number) - 1 for number in shown) / max(1, len(shown)) ** 0.5
        ease = 2 * _uniform("ease", asked) - 1
        return float(np.clip(self.base + self.help * 3**0.5 * helped + self.ease * ease, 0.02, 0.98))


class HashedWords:
    """Encodes texts as hashed bags of words."""

    name = "hashed words"
    fingerprint = "hashed-words:256"
    dimension = 256

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Unit vectors, shape (texts, 256)."""
        found = HashingVectorizer(n_features=self.dimension, alternate_sign=False).transform(texts)
        return np.asarray(found.toarray(), dtype=np.float32)


@dataclass(frozen=True)
class Truth:
    """One search beside what its prompt is worth.

    Attributes:
        result: what the search reports.
        value: accuracy of its prompt on the fresh rows.
        gain: the same minus zero-shot's.
    """

    result: ps.Result
    value: float
    gain: float


def search(world: World, seed: int, *, budget: str = "1500 evaluations", fresh: int = 4000) -> Truth:
    """One whole search, and its prompt and zero-shot on fresh rows."""
    task, model = world.task(seed), world.model()
    result = ps.optimize(task, model, budget, encoder=HashedWords(), seed=seed, progress=False)
    rows = world.fresh(fresh)
    found, zero = (_right(prompt, rows) for prompt in (result.prompt, ps.Prompt(task, (), model)))
    return Truth(result, float(found.mean()), float((found - zero).mean()))


def _right(prompt: ps.Prompt, rows: list[dict[str, Any]]) -> NDArray[np.float64]:
    predictions = prompt.predict([row["text"] for row in rows])
    return np.array([float(p.output == row["label"]) for p, row in zip(predictions, rows, strict=True)])


@cache
def _uniform(what: str, number: int) -> float:
    digest = hashlib.blake2b(f"{what}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def _label(number: int) -> str:
    return LABELS[_uniform("label", number) < 0.5]


def _numbers(prompt: str) -> list[int]:
    return [int(found) for found in _NUMBER.findall(prompt)] or [0]


def _drawn_rows(numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Rows of eight words, each with its number as the last."""
    rows = []
    for number in numbers:
        words = " ".join(f"word{int(_WORDS * _uniform(f'word{place}', number))}" for place in range(8))
        rows.append({"text": f"{words} #{number}.", "label": _label(number)})
    return rows
