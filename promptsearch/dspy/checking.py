"""What users give an optimization of a program: refused before anything runs, where it cannot work.

Invariant: what is refused is named, with the rule that it breaks and a way out; nothing is changed.
Leaves out: how many rows it takes, see :mod:`promptsearch.dspy.rows`.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import dspy

from promptsearch.dspy.fields import choices_of
from promptsearch.errors import DataError, UserError

__all__ = ["check_metric", "check_name", "check_rows", "check_structure"]


def check_metric(metric: object) -> None:
    """Refuse a metric that cannot be called as DSPy calls it.

    Raises:
        UserError: it takes other arguments.
    """
    if metric is None:
        return
    try:
        inspect.signature(metric).bind(None, None, None)  # type: ignore[arg-type]
    except TypeError as error:
        raise UserError(
            f"the metric {getattr(metric, '__name__', metric)!r} does not take an example, a prediction and a trace "
            f"({error}); give metric(example, prediction, trace=None)"
        ) from error
    except ValueError:  # a callable that does not tell what it takes
        return


def check_name(argument: str, given: object, known: Sequence[str] | dict[str, Any]) -> None:
    """Refuse a name that is not known.

    Raises:
        UserError: naming those that are.
    """
    if not isinstance(given, str) or given not in known:
        raise UserError(f"{argument}={given!r} is unknown; give one of {', '.join(known)}")


def check_rows(student: Any, parts: Mapping[str, Sequence[Any]], *, labels_compared: bool) -> None:
    """Refuse rows that the program cannot be called with, or whose outputs are not the program's.

    Args:
        student: the program.
        parts: rows by the name of their part, such as ``"trainset"``.
        labels_compared: whether right is what has a row's labels, since no metric is given.

    Raises:
        DataError: naming the row.
    """
    numbered = [(f"{name} row {number}", row) for name, rows in parts.items() for number, row in enumerate(rows)]
    for named, row in numbered:
        _check_marks(named, row)
    if _is_one_question(student):
        _check_fields(student.predictors()[0].signature, numbered, labels_compared=labels_compared)
    else:
        _check_call(student, numbered)


def _check_marks(named: str, row: Any) -> None:
    """Refuse a row that marks no inputs, or none that it has."""
    if not hasattr(row, "inputs") or getattr(row, "_input_keys", None) is None:
        raise DataError(f"{named} marks no inputs; make it with dspy.Example(...).with_inputs(<their names>)")
    if not row.inputs().toDict():
        raise DataError(
            f"{named} marks the inputs {', '.join(sorted(row._input_keys)) or '(none)'}, and has "
            f"{', '.join(row.toDict())}; name some of these in .with_inputs(...)"
        )


def _is_one_question(program: Any) -> bool:
    """Whether a program takes the fields of its one signature, and does nothing else with them."""
    forward = inspect.getattr_static(type(program), "forward", None)
    written_by = str(getattr(forward, "__module__", "")).split(".")[0]
    return isinstance(program, (dspy.Predict, dspy.ChainOfThought)) and written_by in ("dspy", "promptsearch")


def _check_call(program: Any, rows: Sequence[tuple[str, Any]]) -> None:
    """Refuse rows that the program cannot be called with."""
    if type(program).__call__ is not dspy.Module.__call__:
        return  # it takes what it likes
    forward = _forward(program)
    if forward is None:
        raise UserError(f"the program, a {type(program).__name__}, has no forward; give a module that can be called")
    asked = inspect.signature(forward)
    for named, row in rows:
        given = row.inputs().toDict()
        try:
            asked.bind(**given)
        except TypeError as error:
            raise DataError(
                f"{named} has the inputs {', '.join(given)}, which the program does not take ({error}); mark its "
                "inputs with .with_inputs(...)"
            ) from error


def _forward(program: Any) -> Any:
    """A module's method, None where it has none; asked for in the usual way, DSPy warns of it."""
    if "forward" in vars(program):
        return vars(program)["forward"]
    found = inspect.getattr_static(type(program), "forward", None)
    return found if found is None else found.__get__(program, type(program))


def _check_fields(signature: Any, rows: Sequence[tuple[str, Any]], *, labels_compared: bool) -> None:
    """Refuse rows that do not fit the one signature that a program has."""
    asked = [name for name, field in signature.input_fields.items() if field.is_required()]
    for named, row in rows:
        given, labels = row.inputs().toDict(), row.labels().toDict()
        missing = [name for name in asked if name not in given]
        if missing:
            raise DataError(
                f"{named} has the inputs {', '.join(given)}, and the program asks for {missing[0]!r}; name the "
                "fields alike, and mark the inputs with .with_inputs(...)"
            )
        told = [name for name in given if name in signature.output_fields]
        if told:
            raise DataError(
                f"{named} marks {told[0]!r} as an input, and it is what the program answers; mark the inputs alone "
                "with .with_inputs(...)"
            )
        strange = [name for name in labels if name not in signature.output_fields]
        if labels_compared and (strange or not labels):
            answered = ", ".join(signature.output_fields)
            raise DataError(
                f"{named} has the labels {', '.join(labels) or '(none)'}, and the program answers {answered}; name "
                "the fields alike, or give a metric"
            )
    _check_choices(signature, [row for _, row in rows])


def _check_choices(signature: Any, rows: Sequence[Any]) -> None:
    """Refuse rows of which not one has an output that is among the choices of its field."""
    for name, field in signature.output_fields.items():
        choices = choices_of(field)
        values = [row[name] for row in rows if row.get(name, None) is not None]
        if choices is not None and values and all(choices.place_of(value) is None for value in values):
            raise DataError(
                f"no row has a {name!r} that the signature knows: the first has {values[0]!r}, and the choices are "
                f"{', '.join(choices.texts[:8])}; give the values of the signature"
            )


def check_structure(teacher: Any, student: Any) -> None:
    """Refuse a teacher whose predictors do not have the student's fields.

    Raises:
        UserError: naming what lacks.
    """
    theirs, ours = teacher.named_predictors(), student.named_predictors()
    if len(theirs) != len(ours):
        raise UserError(
            f"the teacher has {len(theirs)} predictors and the student {len(ours)}; give one of its structure"
        )
    for (name, taught), (_, asked) in zip(theirs, ours, strict=True):
        lacking = [field for field in asked.signature.fields if field not in taught.signature.fields]
        if lacking:
            raise UserError(
                f"the teacher's predictor {name!r} has no field {lacking[0]!r}, which the student's has; give one of "
                "the student's structure"
            )
