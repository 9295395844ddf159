"""What output fields hold, and how it is written and read."""

from __future__ import annotations

import datetime
import enum
import string
from typing import Any, Literal

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

dspy = pytest.importorskip("dspy")

from promptsearch.dspy.fields import (  # noqa: E402
    choices_of,
    read_json,
    read_value,
    shape_of,
    written,
)


class Mood(enum.Enum):
    GOOD = "fine"
    BAD = "not fine"


def field(annotation: Any, **constraints: Any) -> Any:
    signature = dspy.Signature({"x": (str, dspy.InputField()), "y": (annotation, dspy.OutputField(**constraints))})
    return signature.output_fields["y"]


@pytest.mark.parametrize(
    ("annotation", "texts"),
    [
        (Literal["a", "b c"], ("a", "b c")),
        (Literal[1, 2, 30], ("1", "2", "30")),
        (bool, ("True", "False")),
        (Mood, ("fine", "not fine")),
    ],
)
def test_choices_are_read_back(annotation: Any, texts: tuple[str, ...]) -> None:
    choices = choices_of(field(annotation))
    assert choices is not None
    assert choices.texts == texts
    for value, text in zip(choices.values, choices.texts, strict=True):
        assert read_value(f" {text.upper()}.", field(annotation)) == value
        assert choices.place_of(value) == choices.place_of(text) == choices.texts.index(text)
    assert choices.place_of("none of these") is None


def test_choices_come_in_the_order_of_each_annotation() -> None:
    """``Literal["a", "b"] == Literal["b", "a"]`` and ``1 == True``, also where choices are kept for the next call."""
    orders = ((Literal["up", "down"], ("up", "down")), (Literal["down", "up"], ("down", "up")))
    for annotation, texts in (*orders, (Literal[1, 0], ("1", "0")), (Literal[True, False], ("True", "False"))):
        choices = choices_of(field(annotation))
        assert choices is not None
        assert choices.texts == texts


def test_whole_numbers_between_bounds_are_choices() -> None:
    choices = choices_of(field(int, ge=1, lt=6))
    assert choices is not None
    assert choices.values == (1, 2, 3, 4, 5)
    assert choices_of(field(int)) is None
    assert choices_of(field(int, ge=0, le=100_000)) is None


@pytest.mark.parametrize("annotation", [str, float, list[str], dict[str, int], Literal["one"], Literal["a\nb", "c"]])
def test_others_have_no_choices(annotation: Any) -> None:
    assert choices_of(field(annotation)) is None


def test_the_longest_choice_that_a_text_begins_with() -> None:
    asked = field(Literal["no", "no idea", "yes"])
    assert read_value("no idea at all", asked) == "no idea"
    assert read_value("I would say yes", asked) == "yes"
    for text in ("nothing", "It is yes, not no"):
        with pytest.raises(ValueError, match="names none of no, no idea, yes, or several"):
            read_value(text, asked)


@given(st.text(alphabet=string.printable, max_size=40))
def test_reading_any_text_gives_a_choice_or_says_why_not(text: str) -> None:
    asked = field(Literal["yes", "no"])
    try:
        value = read_value(text, asked)
    except ValueError:
        value = None
    assert value in ("yes", "no", None)


@given(
    st.one_of(
        st.integers(),
        st.lists(st.integers(), max_size=5),
        st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
    )
)
def test_what_is_written_is_read_back(value: Any) -> None:
    annotation = {int: int, list: list[int], dict: dict[str, int]}[type(value)]
    asked = field(annotation)
    assert "\n" not in written(value)
    assert read_value(written(value), asked) == read_json(written(value), asked) == value
    shape = shape_of(asked)
    assert shape is not None
    assert shape.kind == {int: "integer", list: "array", dict: "object"}[type(value)]


@given(st.lists(st.text(max_size=8), max_size=4))
def test_lists_of_texts_are_read_back(value: list[str]) -> None:
    assert read_value(written(value), field(list[str])) == read_json(written(value), field(list[str])) == value


class Sized(pydantic.BaseModel):
    size: int = pydantic.Field(ge=0)


@pytest.mark.parametrize("annotation", [datetime.date, set[str], Sized])
def test_types_beyond_a_grammar_are_read_from_text(annotation: Any) -> None:
    assert shape_of(field(annotation)) is None
    texts = {datetime.date: "2026-11-26", set[str]: '["a"]', Sized: '{"size": 3}'}
    read = read_value(texts[annotation], field(annotation))
    assert read in (datetime.date(2026, 11, 26), {"a"}, Sized(size=3))


def test_texts_need_no_shape() -> None:
    assert shape_of(field(str)) is None
    assert read_value("  a text\n", field(str)) == "a text"
