"""What a prompt says about one item.

Leaves out: asking the model (:mod:`promptsearch.answering`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from promptsearch.template import Demonstration

__all__ = ["Prediction"]


@dataclass(frozen=True)
class Prediction:
    """What a prompt says about one item.

    Attributes:
        output: the label as it stands in the data, or the text; None where there is no answer.
        probabilities: probability of each label; empty for free text.
        rationale: the model's reasoning, None where it was not asked for any.
        demonstrations: what the model was shown for this item.
        failure: why there is no answer: "too long" or "not understood", from ``promptsearch predict`` also "no text";
            None where there is one.
        text: of free text all that the model wrote as its answer, of which ``output`` may be a part; None for labels.
    """

    output: Any
    probabilities: Mapping[Any, float] = field(default_factory=dict)
    rationale: str | None = None
    demonstrations: tuple[Demonstration, ...] = ()
    failure: str | None = None
    text: str | None = None
