"""Reasoning that the model itself writes for examples, kept only where it leads to the right answer.

For each example the model reasons without being shown how; once a few pieces were kept, it is shown those and tries
again, sampling. Where it still misses, the right answer stands as a hint beside the question, the model reasons
again, the hint is taken away, and the reasoning must lead to the answer without it (rationalization: Zelikman et al.
2022, arXiv 2203.14465). What is too short or too long, repeats itself, gives the answer away before any step, or does
not end in the answer is not kept.
Invariant: what is kept made the model answer rightly, as the model wrote it (it is kept and shown on one line), from
a prompt that does not hold the answer. Every attempt is in the run's record, with its fate in :class:`Attempt`.
Leaves out: which of the kept ones a prompt shows.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from promptsearch.calibration import batch_offsets
from promptsearch.candidate import CUES, SHOWN_THOUGHT, Candidate
from promptsearch.data.answers import answer_text
from promptsearch.evaluation import Asker, Evaluator
from promptsearch.metrics import Metric
from promptsearch.probabilities import normalized
from promptsearch.prompting import PromptBuilder
from promptsearch.reasoning import Answer, Reasoner, sentences
from promptsearch.task import Example

__all__ = ["KEPT", "Attempt", "Rationalizer", "fate_of"]

KEPT = "kept"
_FEWEST_WORDS = 4
_MOST_SENTENCES = 8
_REPEATED_WORDS = 4  # in a row, that may not stand in a piece of reasoning
_MOST_REPEATS = 2  # more than so many times
_SHOWN = 3  # kept pieces that later attempts are shown
_RIGHT = 0.99  # score from which an answer counts as right
_FEWEST_CALIBRATED = 8  # answers that batch calibration is fitted on
_RELATIONS = re.compile(r"[<>=]+")
_REFUSED: dict[str, object] = {"rationale": "", "answer": None, "finished": False}  # the prompt was too long


@dataclass(frozen=True)
class Attempt:
    """One piece of reasoning, and what became of it.

    Attributes:
        number: id of the example.
        text: the reasoning.
        way: ``"alone"``, ``"shown"`` (after kept ones) or ``"hinted"`` (with the answer).
        fate: :data:`KEPT`, or why it was not.
    """

    number: int
    text: str
    way: str
    fate: str


class Rationalizer:
    """Has a model write reasoning for examples.

    Args:
        evaluator: writes down what is asked, and counts it.
        examples: the task's examples, by id.
        metric: what an answer is worth.
        base: a candidate without demonstrations, whose words the model reads.
        thinking_tokens: tokens of one piece of reasoning at most.
        samples: attempts of each example that is shown kept ones; each is sampled anew.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        examples: Sequence[Example],
        metric: Metric,
        base: Candidate,
        thinking_tokens: int,
        samples: int = 2,
    ) -> None:
        asker = evaluator.asker
        self._evaluator = evaluator
        self._asker: Asker = asker
        self._builder: PromptBuilder = asker.builder
        self._reasoner: Reasoner = asker.reasoner
        self._examples = examples
        self._metric = metric
        self._samples = samples
        self._plain = replace(
            base,
            mode="static",
            demonstrations=(),
            reasoning="cue",
            thought=CUES[0],
            thinking_tokens=thinking_tokens,
            samples=1,
        )
        self.attempts: list[Attempt] = []
        self._outcomes: dict[int, list[bool]] = defaultdict(list)

    @property
    def kept(self) -> dict[int, str]:
        """The reasoning to show, by example: the first piece that was kept."""
        found: dict[int, str] = {}
        for attempt in self.attempts:
            if attempt.fate == KEPT:
                found.setdefault(attempt.number, attempt.text)
        return found

    @property
    def doubt(self) -> dict[int, float]:
        """Share of unhinted attempts that missed, by kept example."""
        return {number: 1.0 - float(np.mean(self._outcomes[number])) for number in self.kept}

    @property
    def fates(self) -> dict[str, int]:
        """Number of attempts by fate."""
        return dict(Counter(attempt.fate for attempt in self.attempts))

    def run(self, numbers: Sequence[int], may_go_on: Callable[[], bool]) -> None:
        """Try to find reasoning for examples.

        Args:
            numbers: ids of the examples.
            may_go_on: asked before each round of attempts; False ends it.
        """
        self._round("alone", self._plain, numbers, 0)
        for sample in range(self._samples):
            shown = self._shown_reading()
            left = [number for number in numbers if number not in self.kept]
            if shown is None or not left or not may_go_on():
                break
            self._round("shown", shown, left, sample)
        left = [number for number in numbers if number not in self.kept]
        if left and may_go_on():
            self._round("hinted", self._shown_reading() or self._plain, left, self._samples)

    def _shown_reading(self) -> Candidate | None:
        """A candidate that shows the shortest of the kept pieces; None while there are too few."""
        kept = self.kept
        if len(kept) < 2:
            return None
        shortest = sorted(kept, key=lambda number: (len(kept[number]), number))[:_SHOWN]
        self._builder.own_rationales.update({number: kept[number] for number in shortest})
        return replace(
            self._plain,
            demonstrations=tuple(shortest),
            reasoning="self",
            thought=SHOWN_THOUGHT,
            samples=2,  # sampled, so that another attempt is another one
        )

    # -- one round ------------------------------------------------------------------------------------------

    def _round(self, way: str, reading: Candidate, numbers: Sequence[int], sample: int) -> None:
        """One attempt for each example that fits."""
        asked = [number for number in numbers if self._fits(reading, number, hinted=way == "hinted")]
        if not asked:
            return

        def ask() -> list[dict[str, object]]:
            found = self._asker.within_context(lambda some: self._ask(way, reading, some, sample), asked)
            return [_REFUSED if value is None else value for value in found]

        values = self._evaluator.recorded(f"rationales: {way} {sample}", reading, asked, ask)
        said: list[Any] = list(values)
        right = self._are_right(asked, [each["answer"] for each in said])
        for number, each, is_right in zip(asked, said, right, strict=True):
            if way != "hinted":
                self._outcomes[number].append(is_right)
            gold = None if self._asker.labels is not None else self._reasoner.read(self._examples[number].output)
            fate = fate_of(each["rationale"], gold, hinted=way == "hinted", finished=each["finished"])
            fate = fate if is_right else "wrong answer"
            self.attempts.append(Attempt(number, each["rationale"], way, fate))

    def _ask(self, way: str, reading: Candidate, numbers: Sequence[int], sample: int) -> list[dict[str, object]]:
        prompts = [self._builder.render(reading, reading.demonstrations, self._inputs(number)) for number in numbers]
        begun = prompts
        if way == "hinted":
            hinted = [self._inputs(number, hinted=True) for number in numbers]
            begun = [self._builder.render(reading, reading.demonstrations, inputs) for inputs in hinted]
        return [
            {"rationale": thought.text, "answer": answer, "finished": thought.finish != "length"}
            for thought, answer in self._reasoner.reason(reading, begun, prompts, sample)  # answers without a hint
        ]

    def _inputs(self, number: int, *, hinted: bool = False) -> Mapping[str, str]:
        """An example's texts, with its answer as a hint at the end of the last one."""
        example = self._examples[number]
        if not hinted:
            return example.fields
        column = list(example.fields)[-1]
        return {
            **example.fields,
            column: f"{example.fields[column]} (The answer is {self._reasoner.read(example.output)}.)",
        }

    def _fits(self, reading: Candidate, number: int, *, hinted: bool) -> bool:
        prompt = self._builder.render(reading, reading.demonstrations, self._inputs(number, hinted=hinted))
        return self._builder.fits(prompt, reading)

    def _are_right(self, numbers: Sequence[int], answers: Sequence[Answer]) -> list[bool]:
        """Whether answers are right; label scores are calibrated among themselves first, where there are enough."""
        labels = self._asker.labels
        if labels is None:
            return [
                isinstance(answer, str) and self._metric(self._examples[number], answer) >= _RIGHT
                for number, answer in zip(numbers, answers, strict=True)
            ]
        rows = [answer if isinstance(answer, list) else [None] * len(labels) for answer in answers]
        logs = normalized(np.array([[-np.inf if cell is None else cell for cell in row] for row in rows]))
        offsets = batch_offsets(logs) if len(logs) >= _FEWEST_CALIBRATED else np.zeros(len(labels))
        chosen = (logs - offsets).argmax(axis=1)
        return [
            bool(np.isfinite(row).any()) and labels[place] == self._examples[number].output
            for number, row, place in zip(numbers, logs, chosen.tolist(), strict=True)
        ]


def fate_of(text: str, gold: str | None, *, hinted: bool, finished: bool) -> str:
    """:data:`KEPT`, or which rule a piece of reasoning that led to the right answer breaks.

    Args:
        text: the reasoning.
        gold: the right answer, which the last sentence must hold; None for labels, which reasoning need not name.
        hinted: whether the model saw the answer: then the first of several sentences must not hold it.
        finished: whether the model came to an end by itself.
    """
    steps = sentences(text)
    words = text.split()
    if not finished:
        return "not finished"
    if len(words) < _FEWEST_WORDS:
        return "too short"
    if len(steps) > _MOST_SENTENCES:
        return "too many steps"
    runs = Counter(tuple(words[at : at + _REPEATED_WORDS]) for at in range(len(words) - _REPEATED_WORDS + 1))
    if runs and max(runs.values()) > _MOST_REPEATS:
        return "repeats itself"
    if gold is None:
        return KEPT
    if hinted and len(steps) > 1 and _holds(steps[0], gold):
        return "tells the answer at once"
    return KEPT if _holds(steps[-1], gold) else "does not end in the answer"


def _holds(sentence: str, gold: str) -> bool:
    """Whether a sentence holds an answer, as whole words, as answers are compared; "2 + 4 = 6" holds "6"."""
    said, answer = (_RELATIONS.sub(r" \g<0> ", answer_text(text)).split() for text in (sentence, gold))
    return f" {' '.join(answer)} " in f" {' '.join(said)} "
