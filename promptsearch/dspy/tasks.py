"""A DSPy signature and its examples as a task of this package.

Invariant: the task's labels are the words that a prompt shows for the output's values.
Leaves out: programs; a task is one predictor's question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dspy

from promptsearch.dspy.fields import RATIONALES, choices_of, is_text, made_by_dspy, written
from promptsearch.errors import DataError

__all__ = ["task_arguments"]


def task_arguments(trainset: Sequence[Any], signature: Any) -> dict[str, Any]:
    """What :class:`promptsearch.Task` is made with.

    Args:
        trainset: examples that hold every input field and the output field.
        signature: a signature, its text such as ``"text -> label"``, or a module with one predictor.

    Raises:
        DataError: the signature has several outputs, or an example lacks a field.
    """
    asked = _signature(signature)
    outputs = [name for name in asked.output_fields if name not in RATIONALES]
    if len(outputs) != 1:
        raise DataError(
            f"the signature has the outputs {', '.join(outputs) or 'none'}, and a task has one; give a signature "
            "with one output field beside its reasoning"
        )
    output, inputs = outputs[0], list(asked.input_fields)
    rows = [_row(example, number, inputs, output) for number, example in enumerate(trainset)]
    reasoning = next((name for name in RATIONALES if rows and all(row.get(name) for row in rows)), None)
    field = asked.output_fields[output]
    choices = choices_of(field)
    instruction = asked.instructions.strip()
    return {
        "data": rows,
        "inputs": inputs,
        "output": output,
        "instruction": None if made_by_dspy(instruction) else instruction,
        "labels": list(choices.texts) if choices is not None else (None if is_text(field) else False),
        "rationale": reasoning,
        "metric": "numeric" if field.annotation in (int, float) and choices is None else None,
    }


def _signature(given: Any) -> Any:
    if isinstance(given, dspy.Module):
        predictors = given.predictors()
        if len(predictors) != 1:
            raise DataError(
                f"the program has {len(predictors)} predictors, and a task is the question of one; give a signature"
            )
        return predictors[0].signature
    if isinstance(given, str):
        return dspy.signatures.ensure_signature(given)
    if isinstance(given, type) and issubclass(given, dspy.Signature):
        return given
    raise DataError(
        f"{given!r} is no signature; give a dspy.Signature, a text such as 'text -> label', or a program with one "
        "predictor, such as dspy.Predict(signature)"
    )


def _row(example: Any, number: int, inputs: Sequence[str], output: str) -> dict[str, str]:
    values = example.toDict() if hasattr(example, "toDict") else dict(example)
    missing = [name for name in (*inputs, output) if values.get(name) is None]
    if missing:
        raise DataError(
            f"row {number} of the trainset lacks {missing[0]!r}; every field of the signature needs a value"
        )
    return {name: written(value) for name, value in values.items() if value is not None}
