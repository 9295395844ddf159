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

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
import numpy as np

from promptsearch.data.text import normalised
from promptsearch.dspy.fields import choices_of, written
from promptsearch.dspy.library import query_text
from promptsearch.dspy.running import Ran, Runner

__all__ = ["Shown", "bootstrapped", "demonstration_text", "labelled", "show_some", "unique"]

_TEACHER_SHOWS = 4
_PART = 32  # rows that run together


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
            values = row.toDict() if hasattr(row, "toDict") else dict(row)
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
) -> None:
    """Give each predictor of a teacher a few demonstrations, in place.

    Args:
        teacher: a program without demonstrations.
        ready: whole demonstrations; a predictor that has some shows some of those.
        rows: training rows.
        rng: randomness.
        parts: whether other predictors show rows that hold some of their outputs only.
    """
    for place, predictor in enumerate(teacher.predictors()):
        whole = [each.fields for each in ready if each.predictor == place]
        usable = whole or (_parts_of(predictor.signature, rows) if parts else [])
        chosen = [usable[at] for at in rng.permutation(len(usable))[:_TEACHER_SHOWS]]
        predictor.demos = [dspy.Example(**fields) for fields in chosen]


def _parts_of(signature: Any, rows: Sequence[Any]) -> list[Mapping[str, Any]]:
    """What rows hold of a signature's fields, where an output is among it."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        values = row.toDict()
        known = {name: values[name] for name in signature.fields if values.get(name) is not None}
        if set(known) & set(signature.output_fields):
            found.append(known)
    return found


def bootstrapped(
    teacher: Any,
    rows: Sequence[Any],
    runner: Runner,
    *,
    threshold: float | None,
    rounds: int,
    is_enough: Callable[[Sequence[Shown]], bool] = lambda found: False,
) -> list[Shown]:
    """Demonstrations from runs that the metric accepts.

    Args:
        teacher: a program of the student's structure, whose demonstrations may change.
        rows: training rows.
        runner: runs it.
        threshold: least score of an accepted run; None accepts scores of at least 1, which is what a truth value
            gives, or, where no run of a part reaches that, the better half of those above 0.
        rounds: attempts for each row, at least 1. The second shows what the first found, those after it are at
            temperature 1.
        is_enough: asked after each part of the rows with what was found so far; True ends it.
    """
    predictors = list(teacher.predictors())
    found: list[Shown] = []
    left = list(range(len(rows)))
    for number in range(rounds):
        if number > 0:
            _show_found(teacher, found)
        accepted: set[int] = set()
        with dspy.context(**_fresh_model(max(0, number - 1))):
            for part in (left[start : start + _PART] for start in range(0, len(left), _PART)):
                runs = runner.run(teacher, [rows[row] for row in part], traced=True)
                for row, ran in _accepted(part, runs, threshold):
                    accepted.add(row)
                    found += _shown(predictors, row, ran)
                if is_enough(found):
                    return found
        left = [row for row in left if row not in accepted]
    return found


def _accepted(rows: Sequence[int], runs: Sequence[Ran], threshold: float | None) -> list[tuple[int, Ran]]:
    least = _least(threshold, [ran.score for ran in runs])
    return [(row, ran) for row, ran in zip(rows, runs, strict=True) if not ran.failure and ran.score >= least]


def _shown(predictors: Sequence[Any], row: int, ran: Ran) -> list[Shown]:
    """What each call of a run shows."""
    places = {id(predictor): place for place, predictor in enumerate(predictors)}
    found = []
    for predictor, inputs, outputs in ran.trace:
        place = places.get(id(predictor))
        fields = None if place is None else _fields(predictors[place].signature, inputs, outputs)
        if place is not None and fields is not None:
            found.append(Shown(place, fields, "bootstrapped", row))
    return found


def _show_found(teacher: Any, found: Sequence[Shown]) -> None:
    """Have a teacher show what it found, at most a few for each predictor; those without any keep what they have."""
    for place, predictor in enumerate(teacher.predictors()):
        mine = [each.fields for each in found if each.predictor == place][:_TEACHER_SHOWS]
        if mine:
            predictor.demos = [dspy.Example(augmented=True, **fields) for fields in mine]


def _least(threshold: float | None, scores: Sequence[float]) -> float:
    if threshold is not None:
        return threshold
    positive = sorted(score for score in scores if score > 0)
    if not positive or positive[-1] >= 1.0:
        return 1.0
    return positive[len(positive) // 2]


def _fresh_model(number: int) -> dict[str, Any]:
    """Settings under which a further attempt differs from the first."""
    lm = dspy.settings.lm
    return {} if number == 0 or lm is None else {"lm": lm.copy(rollout_id=number, temperature=1.0)}


def _fields(signature: Any, inputs: Mapping[str, Any], outputs: Any) -> dict[str, Any] | None:
    """Every field of a call; None where one lacks or is empty."""
    known = {**{name: inputs.get(name) for name in signature.input_fields}}
    known |= {name: outputs.get(name, None) for name in signature.output_fields}
    return None if any(value is None or written(value) == "" for value in known.values()) else known


def unique(shown: Sequence[Shown], program: Any, forbidden: Sequence[Any] = ()) -> list[Shown]:
    """One demonstration for each input of a predictor, without rows whose inputs are those of forbidden ones.

    Args:
        shown: possible demonstrations; of two with the same inputs the first stays.
        program: tells each predictor's fields.
        forbidden: examples that will be asked about.
    """
    signatures = [predictor.signature for predictor in program.predictors()]
    taken: set[tuple[int, str]] = set()
    kept = []
    asked = [example.inputs().toDict() for example in forbidden]
    for each in shown:
        names = list(signatures[each.predictor].input_fields)
        key = (each.predictor, normalised(query_text(names, each.fields)))
        taken |= {
            (each.predictor, normalised(query_text(names, values))) for values in asked if set(names) <= set(values)
        }
        if key not in taken:
            taken.add(key)
            kept.append(each)
    return kept


def demonstration_text(signature: Any, fields: Mapping[str, Any]) -> str:
    """A demonstration's text, to count its tokens by."""
    return "\n".join(f"{name}: {written(fields[name])}" for name in signature.fields) + "\n\n"
