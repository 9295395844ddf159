"""Labelled rows one by one: what a prompt said of each, and which labels it takes for which.

Leaves out: asking the model (:mod:`promptsearch.answering`), and files (:mod:`promptsearch.cli.items`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from promptsearch.data.text import quoted
from promptsearch.measurement import Measurement
from promptsearch.prediction import Prediction
from promptsearch.task import Example

__all__ = ["Confusion", "EvaluatedRow", "EvaluatedRows", "confusions_of"]


@dataclass(frozen=True)
class EvaluatedRow:
    """A labelled row under a prompt.

    Attributes:
        row: what stands there, by column, also in columns that the task does not know.
        example: the same as the task reads it.
        prediction: what the prompt says.
        score: of the metric, 0 where there is no answer; of a metric over all rows, such as macro F1, 1 where the
            label is right and else 0.
    """

    row: Mapping[str, Any]
    example: Example
    prediction: Prediction
    score: float


@dataclass(frozen=True)
class Confusion:
    """Rows of one label that are taken for another.

    Attributes:
        expected: the label as it stands in the data.
        predicted: the label that the prompt says; None where there is no answer.
        count: how many rows, at least 1.
    """

    expected: Any
    predicted: Any
    count: int

    def __str__(self) -> str:
        rows = f"{self.count:,} row{'s' * (self.count > 1)}"
        if self.predicted is None:
            return f"{quoted(self.expected)} without an answer: {rows}"
        return f"{quoted(self.expected)} taken for {quoted(self.predicted)}: {rows}"


@dataclass(frozen=True)
class EvaluatedRows:
    """A measurement and the rows that it comes from.

    Attributes:
        measurement: of all rows.
        rows: in the order in which they were given, without those that lack a text; of rows of free text with the
            same inputs, which count as one with all their answers, the first.
        confusions: the most frequent first; empty for free text.
    """

    measurement: Measurement
    rows: tuple[EvaluatedRow, ...] = field(repr=False)
    confusions: tuple[Confusion, ...]

    def __str__(self) -> str:
        return "\n".join([str(self.measurement), *(f"  {each}" for each in self.confusions)])


def confusions_of(
    rows: Sequence[EvaluatedRow], said: Sequence[str], label_values: Mapping[str, Any]
) -> tuple[Confusion, ...]:
    """What is taken for what, the most frequent first.

    Args:
        rows: all rows.
        said: the words of each row's predicted label, empty where there is none.
        label_values: what stands in the data for the words of each label.
    """
    pairs = Counter(
        (each.example.output, words)
        for each, words in zip(rows, said, strict=True)
        if words not in each.example.answers
    )
    return tuple(
        Confusion(label_values[right], label_values[words] if words else None, count)
        for (right, words), count in pairs.most_common()
    )
