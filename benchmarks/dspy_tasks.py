"""Programs to optimize: what ``benchmarks.dspy_programs`` and ``benchmarks.dspy_serving`` run.

``classify`` has one predictor (SST-2, TREC or AG News), ``look up`` two (what to search for in notes, then the
answer; made by itself), ``reason`` one that reasons before it gives one of six labels (TREC).
Invariant: the same seed gives the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import bm25s
import dspy
import numpy as np

from benchmarks.common import INSTRUCTIONS, read_dataset

__all__ = ["PROGRAMS", "THREADS", "LookUp", "Notes", "Work", "classify", "look_up", "reason"]

THREADS = 8
"""Of optimizers and measurements, where nothing else is asked for."""

_NAMES = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Liam",
    "Mia",
    "Noah",
)
_JOBS = ("baker", "nurse", "teacher", "pilot", "painter", "farmer", "cook", "driver", "singer", "judge")
_CITIES = ("Rome", "Paris", "London", "Berlin", "Madrid", "Vienna", "Oslo", "Lisbon", "Dublin", "Prague")
_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink")
_KINDS = 3  # of questions: job, city, colour
_THINGS = ("bicycle", "hat", "boat", "lamp", "bag", "car", "coat", "door")


@dataclass(frozen=True)
class Work:
    """A program with its rows.

    Attributes:
        make: a fresh program.
        train: rows for demonstrations.
        validation: rows for choosing.
        test: rows that measure.
        metric: of DSPy's form.
        threads: that optimizers and measurements run it in.
    """

    make: Callable[[], Any]
    train: list[Any]
    validation: list[Any]
    test: list[Any]
    metric: Callable[..., Any]
    threads: int = THREADS


def classify(data: Path, seed: int, rows: int, test_rows: int, *, name: str = "sst2") -> Work:
    """One predictor."""
    choice: Any = Literal
    dataset = read_dataset(data, name)
    fields = {"text": (str, dspy.InputField()), "label": (choice[tuple(dataset.labels)], dspy.OutputField())}
    signature = dspy.Signature(fields, INSTRUCTIONS[name])
    return _labelled(dataset, lambda: dspy.Predict(signature), "text", seed, rows, test_rows)


def reason(data: Path, seed: int, rows: int, test_rows: int) -> Work:
    """Reasoning, then a label."""
    choice: Any = Literal
    dataset = read_dataset(data, "trec")
    fields = {"question": (str, dspy.InputField()), "label": (choice[tuple(dataset.labels)], dspy.OutputField())}
    signature = dspy.Signature(fields, INSTRUCTIONS["trec"])
    return _labelled(dataset, lambda: dspy.ChainOfThought(signature), "question", seed, rows, test_rows)


def _labelled(dataset: Any, make: Callable[[], Any], name: str, seed: int, rows: int, test_rows: int) -> Work:
    drawn = np.random.default_rng([seed, 20]).permutation(len(dataset.train))[: 2 * rows]
    examples = [
        dspy.Example(**{name: row["input"], "label": row["output"]}).with_inputs(name)
        for row in [*(dataset.train[at] for at in drawn), *dataset.test[:test_rows]]
    ]

    def metric(example: Any, prediction: Any, trace: object = None, *_of_gepa: object) -> bool:
        return bool(example.label == prediction.label)

    return Work(make, examples[:rows], examples[rows : 2 * rows], examples[2 * rows :], metric)


class LookUp(dspy.Module):  # type: ignore[misc]  # dspy has no types
    """Says what to search for, searches the notes, answers from the best one."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.ask = dspy.Predict(dspy.Signature("question -> search_words", "Name the person to search for."))
        self.answer = dspy.Predict(
            dspy.Signature("note, question -> answer", "Answer the question by the note, in one word.")
        )
        self.notes = notes

    def forward(self, question: str) -> Any:
        """Answer a question."""
        words = self.ask(question=question).search_words
        return self.answer(note=self.notes.best(words), question=question)


class Notes:
    """Sentences with a BM25 index; copies share it."""

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(sentences, show_progress=False), show_progress=False)

    def __deepcopy__(self, memo: dict[int, object]) -> Notes:
        return self

    def best(self, words: str) -> str:
        """The sentence that fits some words best."""
        tokens = bm25s.tokenize([words], show_progress=False)
        found, _ = self._index.retrieve(tokens, k=1, show_progress=False)
        return self.sentences[int(found[0, 0])]


def look_up(data: Path, seed: int, rows: int, test_rows: int) -> Work:
    """Two predictors; only the second one's output is in the rows. Test rows ask for facts that no other row has."""
    rng = np.random.default_rng([seed, 21])
    people = {name: [str(rng.choice(words)) for words in (_JOBS, _CITIES, _COLOURS, _THINGS)] for name in _NAMES}
    notes = Notes(
        [
            f"{name} is a {job} from {city} and has a {colour} {thing}."
            for name, (job, city, colour, thing) in people.items()
        ]
    )
    facts = [(asked, kind) for asked in _NAMES for kind in range(_KINDS)]
    seen = {facts[at] for at in rng.permutation(len(facts))[: len(facts) // 2]}  # test rows ask for the others
    known, unknown = ([fact for fact in facts if (fact in seen) is kept] for kept in (True, False))
    examples = [*_questions(people, known, 2 * rows, rng), *_questions(people, unknown, test_rows, rng)]

    def metric(example: Any, prediction: Any, trace: object = None, *_of_gepa: object) -> bool:
        return bool(str(prediction.answer).strip().strip(".").lower() == example.answer.lower())

    return Work(lambda: LookUp(notes), examples[:rows], examples[rows : 2 * rows], examples[2 * rows :], metric)


def _questions(
    people: Mapping[str, list[str]], facts: Sequence[tuple[str, int]], count: int, rng: np.random.Generator
) -> list[Any]:
    """So many questions for some facts, no two alike."""
    every = [(asking, *fact) for fact in facts for asking in people if asking != fact[0]]
    if count > len(every):
        raise SystemExit(f"{count} questions are wanted, and there are {len(every)}; ask for fewer rows")
    return [_question(people, *every[at]) for at in rng.permutation(len(every))[:count]]


def _question(people: Mapping[str, list[str]], asking: str, asked: str, kind: int) -> Any:
    job, city, colour, thing = people[asked]
    text = (
        f"what is the job of {asked}?",
        f"which city is {asked} from?",
        f"what colour is the {thing} of {asked}?",
    )[kind]
    return dspy.Example(question=f"{asking} asks: {text}", answer=(job, city, colour)[kind]).with_inputs("question")


PROGRAMS: dict[str, Callable[[Path, int, int, int], Work]] = {
    "classify": classify,
    "classify trec": partial(classify, name="trec"),
    "classify agnews": partial(classify, name="agnews"),
    "look up": look_up,
    "reason": reason,
}
