"""Options that an item lists under the names of its labels: "(A) a bank", or a column of the name of each label.

A label that names an option says little by itself. The option's own text does: a small model that cannot pick a
letter often finds the right text likelier than the others (Brown et al. 2020, arXiv 2005.14165, section 2.4).
Invariant: pure. What is found is exactly what the item lists; an item is never half understood.
Leaves out: how the texts are asked for, see :mod:`promptsearch.prompting`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from promptsearch.errors import DataError

__all__ = ["Listed", "MultipleChoice", "find_multiple_choice"]

_LABEL = re.compile(r"[A-Za-z]|\d{1,2}")
_HEADER = re.compile(r"(?:^|\n)[^\n:]{0,30}:[ \t]*\Z")
_MOST_WORDS = 3  # of a line such as "Answer choices:" above the options


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
                f"{listed}, as the task's rows do"
            )
        return found


def find_multiple_choice(labels: Sequence[str] | None, items: Iterable[Mapping[str, str]]) -> MultipleChoice | None:
    """How a task's items list options; None where they do not, all of them, or where labels are words.

    Args:
        labels: words of the labels; None for free text.
        items: texts by column of every row.
    """
    if labels is None or len(labels) < 2 or not all(_LABEL.fullmatch(label) for label in labels):
        return None
    found = MultipleChoice(tuple(labels))
    return found if all(found.find(inputs) is not None for inputs in items) else None


def _taken_apart(text: str, labels: Sequence[str]) -> tuple[str, tuple[str, ...]] | None:
    """What stands before the options at a text's end, and the options; None where there are not all.

    Options are sought from the last one back, so that a question that holds a marker of its own stays whole.
    """
    options: list[str] = []
    end = len(text)
    for label in reversed(labels):
        marks = list(re.finditer(rf"(?:(?<=\s)|\A)[(\[]?{re.escape(label)}[)\].:][ \t]+(?=\S)", text[:end]))
        if not marks:
            return None
        option = text[marks[-1].end() : end].strip()
        if not option:
            return None
        options.append(option)
        end = marks[-1].start()
    question = _without_header(text[:end].rstrip())
    return (question, tuple(reversed(options))) if question else None


def _without_header(text: str) -> str:
    """A text without a last line such as "Options:"; a question of one such line stays."""
    header = _HEADER.search(text)
    if header is None or len(header[0].split()) > _MOST_WORDS or not text[: header.start()].strip():
        return text
    return text[: header.start()].rstrip()
