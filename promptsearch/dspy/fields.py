"""What a signature's output field can hold: one of a few values, or a text that is read as its type.

A field of few values (``Literal``, ``bool``, ``Enum``, whole numbers between bounds) has *choices*: what the prompt
writes for each of them, and the value that it stands for. Any other type is written on one line, as JSON where it is
neither text nor a number.
Invariant: the text of a value is read back as that value.
Leaves out: how fields are laid out in a prompt, see :mod:`promptsearch.dspy.adapter`.
"""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args, get_origin

from dspy import Reasoning
from dspy.adapters.utils import parse_value
from pydantic import TypeAdapter

from promptsearch.lm.llamacpp.json_schema import schema_to_gbnf
from promptsearch.lm.wrapped import match_label

__all__ = [
    "RATIONALES",
    "Choices",
    "Shape",
    "choices_of",
    "given",
    "is_text",
    "made_by_dspy",
    "read_json",
    "read_value",
    "shape_of",
    "written",
]

RATIONALES = ("reasoning", "rationale")
"""Names of outputs that lead to an answer and are none."""

_MOST_CHOICES = 200


@dataclass(frozen=True)
class Choices:
    """The values that a field can have.

    Attributes:
        values: in the order of the annotation.
        texts: what the prompt writes for each; no two alike.
    """

    values: tuple[Any, ...]
    texts: tuple[str, ...]

    def place_of(self, value: Any) -> int | None:
        """Index of a value, or of its text; None where it is none of these."""
        for place, known in enumerate(self.values):
            if known is value or (type(known) is type(value) and known == value):
                return place
        text = str(value.value if isinstance(value, enum.Enum) else value).strip()
        return self.texts.index(text) if text in self.texts else None


def choices_of(field: Any) -> Choices | None:
    """The choices of an output field of a signature; None where it has no few values."""
    return _choices(*_few_values(field))


def _few_values(field: Any) -> tuple[Any, ...]:
    """The values that a field's type names, in its order; none where it names no few."""
    annotation = field.annotation
    if annotation is int:
        return _between_bounds(field.metadata)
    if get_origin(annotation) is Literal:
        return get_args(annotation)
    if annotation is bool:
        return (True, False)
    return tuple(annotation) if isinstance(annotation, type) and issubclass(annotation, enum.Enum) else ()


# Kept by the values and their types, never by the annotation: Literal["a", "b"] equals Literal["b", "a"].
@lru_cache(maxsize=256, typed=True)
def _choices(*values: Any) -> Choices | None:
    """Values as choices, where a prompt can write them and tell them apart."""
    texts = tuple(written(value) for value in values)
    usable = 2 <= len(values) <= _MOST_CHOICES and len(set(texts)) == len(texts)
    return Choices(values, texts) if usable and all(text and "\n" not in text for text in texts) else None


def _between_bounds(constraints: list[Any]) -> tuple[int, ...]:
    """The whole numbers that pydantic's constraints allow; none where they are too many."""
    low = high = None
    for constraint in constraints:
        for name, step in (("ge", 0), ("gt", 1)):
            if getattr(constraint, name, None) is not None:
                low = int(getattr(constraint, name)) + step
        for name, step in (("le", 0), ("lt", 1)):
            if getattr(constraint, name, None) is not None:
                high = int(getattr(constraint, name)) - step
    if low is None or high is None or high - low >= _MOST_CHOICES:
        return ()
    return tuple(range(low, high + 1))


def given(value: Any) -> str:
    """An input's value as a prompt shows it: several texts as a numbered list, others as :func:`written`."""
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n".join(f"[{number}] {part.strip()}" for number, part in enumerate(value, 1))
    return written(value)


def written(value: Any) -> str:
    """A value as a prompt shows it, and as it is read back; on one line unless it is a text of several."""
    if isinstance(value, enum.Enum):
        value = value.value
    if isinstance(value, str):
        return value.strip()
    try:
        plain = TypeAdapter(type(value)).dump_python(value, mode="json", fallback=str)
    except Exception:  # pydantic fails in many ways on what it does not know; its text is always there
        return str(value)
    return json.dumps(plain, ensure_ascii=False) if isinstance(plain, (dict, list)) else str(plain)


def is_text(field: Any) -> bool:
    """Whether a field holds a text as it stands."""
    return field.annotation is str or field.annotation is Reasoning


def read_value(text: str, field: Any) -> Any:
    """A field's value from what a model wrote.

    Raises:
        ValueError: the text is none of the field's type.
    """
    choices = choices_of(field)
    if choices is not None:
        return _chosen(text, choices)
    if is_text(field):
        return text.strip()
    return parse_value(text.strip(), field.annotation)


def read_json(text: str, field: Any) -> Any:
    """A field's value from JSON that follows :func:`shape_of`.

    Raises:
        ValueError: the text is no such JSON, as where it was cut.
    """
    return TypeAdapter(field.annotation).validate_json(text)


def _chosen(text: str, choices: Choices) -> Any:
    """The choice that a text names, see :func:`promptsearch.lm.wrapped.match_label`."""
    place = match_label(text, choices.texts)
    if place is None:
        shown = ", ".join(choices.texts[:8]) + (", …" if len(choices.texts) > 8 else "")
        raise ValueError(f"{text.strip()[:60]!r} names none of {shown}, or several")
    return choices.values[place]


@dataclass(frozen=True)
class Shape:
    """What is written for a field of another type than text.

    Attributes:
        kind: type of the JSON, such as "integer" or "array"; empty where there are several.
        grammar: GBNF of the rest of a line that holds it.
    """

    kind: str
    grammar: str


def shape_of(field: Any) -> Shape | None:
    """What is written for a field; None for a text, one of few values, and a type that no grammar can be made of."""
    return None if is_text(field) or choices_of(field) is not None else _shape_of_type(field.annotation)


@lru_cache(maxsize=256)
def _shape_of_type(annotation: Any) -> Shape | None:
    try:
        schema = TypeAdapter(annotation).json_schema()
        return Shape(str(schema.get("type", "")), schema_to_gbnf(schema, line=True))
    except Exception:  # pydantic cannot describe the type, or no grammar keeps its rules: read from free text
        return None


def made_by_dspy(instruction: str) -> bool:
    """Whether DSPy made an instruction from the fields' names."""
    return instruction.startswith("Given the fields `") and ", produce the fields `" in instruction
