"""Whether other weights answer as the file's own do.

The packaged example messages, the shortest 500 of them first to last, are put into one fixed prompt of the kind
that a search writes: an instruction, a demonstration of each label, and the message. The best of seven labels is
what the weights answer.

What a file's own weights answer is what they answer in full arithmetic: expanded to F32, which loses nothing.
Running a quantized file as it is does lose something, because its kernels round what flows between layers to
8 bits: with the packaged model (Q4_1) its answers differ from the exact ones on 25 of 500 messages, and BF16's on
4. Where the expansion is too large for the machine, the file as it is is the reference.

Rounding of that size moves the log-probability of one label against another's by some 0.1 to 0.2. Messages whose two
best labels lie within :data:`NEAR_TIE` in the reference are left out, and counted: there another answer says
nothing about the weights. On all others at most one answer in a hundred may differ. That separates rounding from
other weights: with the packaged model, on 430 messages that are no near ties, the file as it is, BF16 and F16
differ from the exact answers on none and Q8_0 on 4, but weights cut to Q6_K on 10 and to Q5_0 on 70.

Invariant: the clock decides only how many messages are read, never how an answer counts.
Leaves out: which weights to try, and what becomes of the answer.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.lm.base import FloatArray
from promptsearch.lm.llamacpp.engine import LlamaEngine

__all__ = [
    "FEWEST_CLEAR",
    "ITEMS",
    "NEAR_TIE",
    "SHARE",
    "Agreement",
    "compare",
    "labels_and_prompts",
    "reference_scores",
]

_logger = logging.getLogger(__name__)

ITEMS = 500
NEAR_TIE = 0.2  # difference of natural log-probabilities: the better label is at most 1.22 times as likely
SHARE = 0.99  # of the messages compared, the least that must get the same label
FEWEST_CLEAR = 25  # with fewer messages that are no near ties, nothing can be said
_FIRST, _CHUNK = 50, 150  # messages a call; a call decodes the shared beginning once
_INSTRUCTION = "Route the message to the team that handles it."

Tell = Callable[[float], None]


@dataclass(frozen=True)
class Agreement:
    """How often weights gave the reference's label.

    Attributes:
        kind: the weight type.
        items: messages compared, near ties left out. A type that disagrees is not compared to the end.
        agreed: those of them that got the same best label.
        ties: messages left out because their two best labels are near ties in the reference.
        reference: what it was compared with: ``"F32"`` or ``"as-is"``.
    """

    kind: str
    items: int
    agreed: int
    ties: int
    reference: str

    @property
    def share(self) -> float:
        """Share of the compared messages that got the same label, 0 to 1; 0 where none was compared."""
        return self.agreed / self.items if self.items else 0.0

    @property
    def holds(self) -> bool:
        """Whether the weights may stand for the file's own."""
        return self.items >= FEWEST_CLEAR and self.share >= SHARE

    def __str__(self) -> str:
        aside = f", {self.ties:,} near ties aside" if self.ties else ""
        return f"{self.agreed:,} of {self.items:,}{aside}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "share": round(self.share, 4)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Agreement:
        """The other end of :meth:`to_dict`.

        Raises:
            ValueError, TypeError, KeyError: these are no such values.
        """
        items, agreed, ties = (int(values[name]) for name in ("items", "agreed", "ties"))
        if not 0 <= agreed <= items or ties < 0:
            raise ValueError(f"{agreed} of {items} messages, {ties} ties")
        return cls(str(values["kind"]), items, agreed, ties, str(values["reference"]))


@lru_cache(maxsize=1)
def labels_and_prompts() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The seven labels as they follow a prompt, and 500 prompts in the order in which they are read."""
    text = files("promptsearch").joinpath("examples", "support_messages.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    rows.sort(key=lambda row: (len(row["text"]), row["text"]))
    labels = sorted({row["team"] for row in rows})
    shown = [next(row for row in rows[ITEMS:] if row["team"] == label) for label in labels]
    beginning = f"{_INSTRUCTION}\n\n" + "".join(f"{_asked(row)} {row['team']}\n\n" for row in shown)
    return tuple(f" {label}" for label in labels), tuple(beginning + _asked(row) for row in rows[:ITEMS])


def _asked(row: Mapping[str, str]) -> str:
    return f"Text: {row['text']}\nTeam:"


def reference_scores(
    path: Path, allowance: float, tell: Tell, clock: Callable[[], float] = time.monotonic
) -> FloatArray:
    """What the reference answers.

    Args:
        path: the reference's file.
        allowance: seconds; the reading ends before the messages that would take it beyond them, but never before
            50 messages are read. What is compared later is faster than the reference, or not worth comparing.
        tell: hears the share that is done, 0 to 1.
        clock: tells seconds.

    Returns:
        Natural log-probabilities, shape (messages read, labels); 500 messages where the time allows.

    Raises:
        PromptsearchError: these weights cannot answer.
    """
    labels, prompts = labels_and_prompts()
    scores = np.zeros((0, len(labels)))
    start = clock()
    with _opened(path) as engine:
        for first, end in _chunks(len(prompts)):
            if first and (clock() - start) * end / first > allowance:
                break
            scores = np.concatenate([scores, engine.score(prompts[first:end], labels)])
            tell(end / len(prompts))
    return scores


def compare(path: Path, kind: str, reference: FloatArray, reference_kind: str, tell: Tell) -> Agreement:
    """Compare weights with the reference.

    Args:
        path: the file whose weights are in question.
        kind: what they are called.
        reference: what :func:`reference_scores` returned.
        reference_kind: ``"F32"`` or ``"as-is"``.
        tell: hears the share that is done, 0 to 1.

    Raises:
        PromptsearchError: these weights cannot answer.
    """
    labels, prompts = labels_and_prompts()
    best, clear = clear_answers(reference)
    ties = len(reference) - len(clear)
    allowed = int(len(clear) * (1 - SHARE) + 1e-9)
    items = agreed = 0
    if len(clear) >= FEWEST_CLEAR:
        with _opened(path) as engine:
            for first, end in _chunks(len(clear)):
                rows = clear[first:end]
                scores = engine.score([prompts[row] for row in rows], labels)
                items += len(rows)
                agreed += int((scores.argmax(axis=1) == best[rows]).sum())
                tell(end / len(clear))
                if items - agreed > allowed:
                    break
    found = Agreement(kind, items, agreed, ties, reference_kind)
    _logger.info("%s gives the label of %s on %s", kind, reference_kind, found)
    return found


def clear_answers(scores: FloatArray) -> tuple[np.ndarray[Any, np.dtype[np.intp]], Sequence[int]]:
    """The best label of every row, and the rows whose best label is no near tie with the next."""
    ordered = np.sort(scores, axis=1)
    clear = np.flatnonzero(ordered[:, -1] - ordered[:, -2] > NEAR_TIE)
    return scores.argmax(axis=1), [int(row) for row in clear]


def _opened(path: Path) -> LlamaEngine:
    return LlamaEngine(path, name=path.stem, fingerprint=str(path))


def _chunks(count: int) -> list[tuple[int, int]]:
    """From and to of the messages of each call."""
    borders = [0, *range(_FIRST, count, _CHUNK), count]
    return list(pairwise(borders))
