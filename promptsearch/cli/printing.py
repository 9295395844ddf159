"""What commands print in the same way: one JSON object, a prediction, what is taken for what."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.evaluated_rows import Confusion
    from promptsearch.prediction import Prediction

__all__ = ["confusion_lines", "prediction_line", "prediction_values", "print_json"]

_SHOWN_CONFUSIONS = 5


def print_json(value: object) -> None:
    """One object in ASCII, which every terminal and every reader of JSON takes."""
    from promptsearch.data.text import json_value

    print(json.dumps(json_value(value), indent=2, allow_nan=False))


def prediction_values(prediction: Prediction) -> dict[str, Any]:
    """A prediction as plain values."""
    return {
        "output": prediction.output,
        "probabilities": dict(prediction.probabilities),
        "rationale": prediction.rationale,
        "demonstrations": [
            {"inputs": dict(each.inputs), "output": each.output}
            | ({"rationale": each.rationale} if each.rationale else {})
            for each in prediction.demonstrations
        ],
        "failure": prediction.failure,
        **({} if prediction.text is None else {"text": prediction.text}),
    }


def prediction_line(prediction: Prediction) -> str:
    """The output in one line, then a tab and its probability, or why there is none."""
    if prediction.failure is not None:
        return f"\t{prediction.failure}"
    output = " ".join(str(prediction.output).split())
    if not prediction.probabilities:
        return output
    return f"{output}\t{prediction.probabilities[prediction.output]:.3f}"


def confusion_lines(confusions: Sequence[Confusion]) -> list[str]:
    """The most frequent mistakes, and how many others there are."""
    told = [each for each in confusions if each.predicted is not None]
    lines = [str(each) for each in told[:_SHOWN_CONFUSIONS]]
    others = sum(each.count for each in told[_SHOWN_CONFUSIONS:])
    return [*lines, f"other labels taken for others: {others:,} row{'s' * (others > 1)}"] if others else lines
