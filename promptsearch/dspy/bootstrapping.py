"""What each predictor of a program may show: labelled rows that hold all its fields, and runs that the metric liked.

A program is run on training rows by a teacher; where the metric accepts the result, what each predictor was asked and
answered becomes a demonstration of that predictor (Khattab et al. 2023, arXiv 2310.03714, section 4). All rows are
run at once. A teacher shows some labelled rows, or those of their fields that a predictor has; rows that fail are
tried again with what the first attempt found, and at temperature 1.
Invariant: a demonstration holds every field of its predictor's signature, so that no adapter moves it or shows a
placeholder for what it lacks.
Leaves out: which demonstrations are shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import dspy
import numpy as np

from promptsearch.data.text import normalised
from promptsearch.dspy.fields import choices_of, written
from promptsearch.dspy.library import query_text
from promptsearch.dspy.rows import plain_values
from promptsearch.dspy.running import Runner

__all__ = ["Attempt", "Shown", "bootstrapped", "demonstration_text", "labelled", "show_some", "unique"]

_TEACHER_SHOWS = 4
_PART = 32  # rows that run together
_GOOD_SHARE = 0.75  # of the best score so far, that an accepted run has at least


@dataclass(frozen=True)
class Shown:
    """A possible demonstration.

    Attributes:
        predictor: place of its predictor in the program.
        fields: every field of the signature, as plain values where DSPy can save them.
        source: ``"labelled"`` or ``"bootstrapped"``.
        row: training row that it comes from.
    """

    predictor: int
    fields: Mapping[str, Any]
    source: str
    row: int


def labelled(program: Any, rows: Sequence[Any]) -> list[Shown]:
    """Training rows as demonstrations of those predictors whose every field they hold."""
    found = []
    for place, predictor in enumerate(program.predictors()):
        names = list(predictor.signature.fields)
        for number, row in enumerate(rows):
            values = row.toDict()
            if all(values.get(name) is not None for name in names) and _possible(predictor.signature, values):
                found.append(Shown(place, {name: values[name] for name in names}, "labelled", number))
    return found


def _possible(signature: Any, values: Mapping[str, Any]) -> bool:
    """Whether the outputs are among their fields' choices, where there are any."""
    for name, field in signature.output_fields.items():
        choices = choices_of(field)
        if choices is not None and choices.place_of(values[name]) is None:
            return False
    return True


def show_some(
    teacher: Any, ready: Sequence[Shown], rows: Sequence[Any], rng: np.random.Generator, *, parts: bool
) -> frozenset[int]:
    """Give each predictor of a teacher a few demonstrations, in place.

    Args:
        teacher: a program without demonstrations.
        ready: whole demonstrations; a predictor that has some shows some of those.
        rows: training rows.
        rng: randomness.
        parts: whether other predictors show rows that hold some of their outputs only.

    Returns:
        The rows that are shown: the teacher knows their answers.
    """
    used: set[int] = set()
    for place, predictor in enumerate(teacher.predictors()):
        usable = [(each.row, each.fields) for each in ready if each.predictor == place]
        if not usable and parts:
            usable = _parts_of(predictor.signature, rows)
        chosen = [usable[at] for at in rng.permutation(len(usable))[:_TEACHER_SHOWS]]
        predictor.demos = [dspy.Example(**fields) for _, fields in chosen]
        used |= {row for row, _ in chosen}
    return frozenset(used)


def _parts_of(signature: Any, rows: Sequence[Any]) -> list[tuple[int, Mapping[str, Any]]]:
    """What rows hold of a signature's fields, where an output is among it."""
    found: list[tuple[int, Mapping[str, Any]]] = []
    for number, row in enumerate(rows):
        values = row.toDict()
        known = {name: values[name] for name in signature.fields if values.get(name) is not None}
        if set(known) & set(signature.output_fields):
            found.append((number, known))
    return found


@dataclass(frozen=True)
class Attempt:
    """What a run on one row showed.

    Attributes:
        row: the training row.
        score: what the metric said; 0 where there was no prediction.
        shown: for each call of a predictor its place and every field of its signature.
    """

    row: int
    score: float
    shown: tuple[tuple[int, Mapping[str, Any]], ...]

    def to_list(self) -> list[Any]:
        """Plain values."""
        return [self.row, self.score, [[place, plain_values(fields)] for place, fields in self.shown]]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Attempt:
        """The reverse of :meth:`to_list`."""
        row, score, shown = values
        return cls(int(row), float(score), tuple((int(place), fields) for place, fields in shown))


Recall = Callable[[str, Callable[[], list[Attempt]]], list[Attempt]]
"""Attempts by name: from the record, or made and recorded."""


def bootstrapped(
    teacher: Any,
    signatures: Sequence[Any],
    rows: Sequence[Any],
    runner: Runner,
    *,
    threshold: float | None,
    rounds: int,
    passed_over: Collection[int] = (),
    is_enough: Callable[[Sequence[Shown]], bool] = lambda found: False,
    recall: Recall = lambda name, make: make(),
) -> list[Shown]:
    """Demonstrations from runs that the metric accepts.

    Args:
        teacher: a program of the student's structure, whose demonstrations may change.
        signatures: those of the student's predictors.
        rows: training rows.
        runner: runs it.
        threshold: least score of an accepted run; None accepts three quarters of the best score so far, which of
            truth values are the true ones.
        rounds: attempts for each row, at least 1. The second shows what the first found, those after it are at
            temperature 1.
        passed_over: rows that the teacher shows in the first round.
        is_enough: asked after each part of the rows with what was found so far; True ends it.
        recall: finds or makes and records the attempts of one part.
    """
    found: list[Shown] = []
    best = 0.0
    left = [row for row in range(len(rows)) if row not in passed_over]
    for number in range(rounds):
        if number > 0:
            _show_found(teacher, found)
        accepted: set[int] = set()
        with _fresh_model(teacher, max(0, number - 1)):
            for start in range(0, len(left), _PART):
                part = left[start : start + _PART]
                make = partial(_attempts, teacher, signatures, rows, part, runner)
                attempts = recall(f"{number}:{start}", make)
                best = max([best, *(each.score for each in attempts)])
                least = _GOOD_SHARE * best - 1e-9 if threshold is None else threshold
                for each in attempts:
                    if each.shown and each.score >= least and (threshold is not None or each.score > 0):
                        accepted.add(each.row)
                        found += [Shown(place, fields, "bootstrapped", each.row) for place, fields in each.shown]
                if is_enough(found):
                    return found
        left = [row for row in left if row not in accepted]
    return found


def _attempts(
    teacher: Any, signatures: Sequence[Any], rows: Sequence[Any], part: Sequence[int], runner: Runner
) -> list[Attempt]:
    places = {id(predictor): place for place, predictor in enumerate(teacher.predictors())}
    attempts = []
    for row, ran in zip(part, runner.run(teacher, [rows[row] for row in part], traced=True), strict=True):
        calls = [
            (places[id(called)], inputs, outputs) for called, inputs, outputs in ran.trace if id(called) in places
        ]
        shown = [(place, _fields(signatures[place], inputs, outputs)) for place, inputs, outputs in calls]
        whole = tuple((place, fields) for place, fields in shown if fields is not None)
        attempts.append(Attempt(row, ran.score, () if ran.failure else whole))
    return attempts


def _show_found(teacher: Any, found: Sequence[Shown]) -> None:
    """Have a teacher show what it found, at most a few for each predictor; those without any keep what they have."""
    for place, predictor in enumerate(teacher.predictors()):
        mine = [each.fields for each in found if each.predictor == place][:_TEACHER_SHOWS]
        if mine:
            predictor.demos = [dspy.Example(augmented=True, **fields) for fields in mine]


@contextmanager
def _fresh_model(teacher: Any, number: int) -> Iterator[None]:
    """Settings under which a further attempt differs from the first."""
    lm = dspy.settings.lm
    if number == 0:
        yield
        return
    for predictor in teacher.predictors():
        if predictor.lm is not None:
            predictor.lm = predictor.lm.copy(rollout_id=number, temperature=1.0)
    with dspy.context(**({} if lm is None else {"lm": lm.copy(rollout_id=number, temperature=1.0)})):
        yield


def _fields(signature: Any, inputs: Mapping[str, Any], outputs: Any) -> dict[str, Any] | None:
    """Every field of a call; None where one lacks or is empty."""
    known = {name: inputs.get(name) for name in signature.input_fields}
    known |= {name: outputs.get(name, None) for name in signature.output_fields}
    return None if any(value is None or written(value) == "" for value in known.values()) else known


def unique(shown: Sequence[Shown], program: Any) -> list[Shown]:
    """One demonstration for each input of a predictor; of two the first stays.

    Args:
        shown: possible demonstrations.
        program: tells each predictor's fields.
    """
    signatures = [predictor.signature for predictor in program.predictors()]
    taken: set[tuple[int, str]] = set()
    kept = []
    for each in shown:
        names = list(signatures[each.predictor].input_fields)
        key = (each.predictor, normalised(query_text(names, each.fields)))
        if key not in taken:
            taken.add(key)
            kept.append(each)
    return kept


def demonstration_text(signature: Any, fields: Mapping[str, Any]) -> str:
    """A demonstration's text, to count its tokens by."""
    return "\n".join(f"{name}: {written(fields[name])}" for name in signature.fields) + "\n\n"
