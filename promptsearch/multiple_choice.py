"""Options that an item lists under the names of its labels: "(A) a bank", or a column of the name of each label.

A label that names an option says little by itself. The option's own text does: a small model that cannot pick a
letter often finds the right text likelier than the others (Brown et al. 2020, arXiv 2005.14165, section 2.4).
Invariant: pure. An item is understood where each label is marked once, all in one way, and nothing stands after the
options; else it lists none.
Leaves out: how the texts are asked for, see :mod:`promptsearch.prompting`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeGuard

from promptsearch.errors import DataError

__all__ = ["Listed", "MultipleChoice", "find_multiple_choice", "may_name_options"]

_LABEL = re.compile(r"[A-Za-z]|\d{1,2}")
_HEADER = re.compile(
    r"(?:^|\n)[ \t]*(?:answer[ \t]+)?(?:options|choices|answers|选项)[ \t]*[:：][ \t]*\Z", re.IGNORECASE
)
_ANSWER_LINE = re.compile(r"\n[ \t]*(?:the[ \t]+)?(?:answer|答案)[^\n]{0,40}\Z", re.IGNORECASE)
_MARKS = (
    (r"\(", r"\)[ \t]*"),
    (r"\[", r"\][ \t]*"),
    (r"（", r"）[ \t]*"),
    ("", r"\)[ \t]+"),
    ("", r"\.[ \t]+"),
    ("", r":[ \t]+"),
    ("", r"[．、：][ \t]*"),
)
"""What stands before and after a label that names an option; one item uses one of these."""
_PLACES = (r"(?:(?<=\n)|\A)[ \t]*(?:[-*][ \t]+)?", r"(?:(?<=\s)|\A)")
"""Where such a label stands: at the beginning of a line, or, where that finds none, after any white space."""


@dataclass(frozen=True)
class Listed:
    """An item taken apart.

    Attributes:
        inputs: its texts by column, without the options.
        options: text of each label's option, in the order of the labels.
    """

    inputs: Mapping[str, str]
    options: tuple[str, ...]


@dataclass(frozen=True)
class MultipleChoice:
    """How items of a task list their options.

    Attributes:
        labels: the labels' words, each of which names an option.
    """

    labels: tuple[str, ...]

    def find(self, inputs: Mapping[str, str]) -> Listed | None:
        """The options of one item, None where it does not list one for every label."""
        if all(inputs.get(label, "").strip() for label in self.labels):
            others = {name: text for name, text in inputs.items() if name not in self.labels}
            return Listed(others, tuple(inputs[label].strip() for label in self.labels)) if others else None
        for column, text in inputs.items():
            found = _taken_apart(text, self.labels)
            if found is not None:
                return Listed({**inputs, column: found[0]}, found[1])
        return None

    def with_placeholders(self, inputs: Mapping[str, str]) -> dict[str, str]:
        """Inputs that list a place for each label's option, for those that list none."""
        if not inputs or self.find(inputs) is not None:
            return dict(inputs)
        *_, last = inputs
        listed = "".join(f"\n({label}) <{label}>" for label in self.labels)
        return {**inputs, last: inputs[last] + listed}

    def require(self, inputs: Mapping[str, str]) -> Listed:
        """The options of one item.

        Raises:
            DataError: it does not list one for every label.
        """
        found = self.find(inputs)
        if found is None:
            listed = ", ".join(f"({label}) ..." for label in self.labels)
            raise DataError(
                f"the item {' '.join(inputs.values())[:60]!r} lists no option for each of the labels; end it with "
                f"{listed}"
            )
        return found


def may_name_options(labels: Sequence[str] | None) -> TypeGuard[Sequence[str]]:
    """Whether labels are such as name options: letters and numbers, two at least."""
    return labels is not None and len(labels) >= 2 and all(_LABEL.fullmatch(label) for label in labels)


def find_multiple_choice(labels: Sequence[str] | None, items: Iterable[Mapping[str, str]]) -> MultipleChoice | None:
    """How a task's items list options; None where they do not, all of them, or where labels are words.

    Args:
        labels: words of the labels; None for free text.
        items: texts by column of every row.
    """
    if not may_name_options(labels):
        return None
    found = MultipleChoice(tuple(labels))
    return found if all(found.find(inputs) is not None for inputs in items) else None


@lru_cache(maxsize=8192)  # demonstrations are shown with every query
def _taken_apart(text: str, labels: tuple[str, ...]) -> tuple[str, tuple[str, ...]] | None:
    """What stands before the options at a text's end, and the options in the order of the labels; None for none.

    Each label is marked once, all in the same way, and nothing follows the last option but a line such as "Answer:".
    """
    kept = _ANSWER_LINE.sub("", text.rstrip())
    for place in _PLACES:
        for before, after in _MARKS:
            marks = {
                label: list(re.finditer(rf"{place}{before}{re.escape(label)}{after}(?=\S)", kept)) for label in labels
            }
            if all(len(found) == 1 for found in marks.values()):
                return _cut(kept, {label: found[0].span() for label, found in marks.items()}, labels)
    return None


def _cut(
    text: str, marks: Mapping[str, tuple[int, int]], labels: Sequence[str]
) -> tuple[str, tuple[str, ...]] | None:
    """Question and options of a text whose labels stand at ``marks``; None where an option is empty or goes on."""
    placed = sorted(marks, key=lambda label: marks[label])
    ends = [*(marks[label][0] for label in placed[1:]), len(text)]
    options = {label: text[marks[label][1] : end].strip() for label, end in zip(placed, ends, strict=True)}
    question = _HEADER.sub("", text[: marks[placed[0]][0]].rstrip()).rstrip()
    if not question or not all(options.values()) or "\n" in options[placed[-1]]:
        return None
    return question, tuple(options[label] for label in labels)
