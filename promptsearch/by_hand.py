"""Checks of prompts that are made by hand.

Invariant: what is refused is told with the way out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from promptsearch.candidate import CUES, SHOWN_THOUGHT, Candidate
from promptsearch.errors import UserError
from promptsearch.multiple_choice import find_multiple_choice
from promptsearch.reasoning import one_line
from promptsearch.task import Example, Task
from promptsearch.template import TEMPLATES, Demonstration

__all__ = ["demonstrations_from", "reasoning_candidate", "require_options"]


def demonstrations_from(task: Task, given: Iterable[Mapping[str, Any] | Example]) -> list[Demonstration]:
    """Rows as demonstrations, in their order."""
    rows = list(given)
    if not rows:
        return []
    if all(isinstance(row, Example) for row in rows):
        examples: Sequence[Example] = [row for row in rows if isinstance(row, Example)]
    else:
        examples = task.examples_from(rows, name="demonstrations", unite=False)
    return [Demonstration(example.fields, example.output, one_line(example.rationale or "")) for example in examples]


def require_options(task: Task, template: str, calibration: str, shown: Sequence[Demonstration]) -> None:
    """Refuse a template that scores options where there are none.

    Raises:
        UserError: saying why.
    """
    rows = [example.fields for example in task.examples]
    if find_multiple_choice(task.labels, [*rows, *(each.inputs for each in shown)]) is None:
        raise UserError(
            f"template={template!r} scores the texts of options, and not all rows list one for each label, as in "
            "'(A) a bank (B) a shop'; give another template"
        )
    if calibration == "contextual":
        raise UserError(
            "calibration='contextual' asks about inputs without content, which list no options; give 'none'"
        )


def reasoning_candidate(
    candidate: Candidate,
    shown: Sequence[Demonstration],
    reasoning: str,
    thought: str | None,
    thinking_tokens: int,
    samples: int,
) -> Candidate:
    """A candidate that reasons.

    Raises:
        UserError: it cannot.
    """
    if reasoning not in ("cue", "gold"):
        raise UserError(f"reasoning={reasoning!r} is no choice here; give 'none', 'cue' or 'gold'")
    if not TEMPLATES[candidate.template].takes_reasoning:
        raise UserError(
            f"template={candidate.template!r} has chat turns or scores options, and reasoning goes on a line; give a "
            "plain one"
        )
    if reasoning == "cue" and shown:
        raise UserError("reasoning='cue' shows no demonstrations and some were given; leave them out, or take 'gold'")
    lacking = next((place for place, each in enumerate(shown) if not each.rationale), None)
    if reasoning == "gold" and (lacking is not None or not shown):
        where = "there are no demonstrations" if lacking is None else f"demonstration {lacking} has none"
        raise UserError(
            f"reasoning='gold' shows each demonstration's rationale and {where}; name the column rationale="
        )
    for name, number in (("thinking_tokens", thinking_tokens), ("samples", samples)):
        if type(number) is not int or number < 1:
            raise UserError(f"{name}={number!r} is no number of them; give a whole number from 1")
    begins = one_line((CUES[0] if reasoning == "cue" else SHOWN_THOUGHT) if thought is None else thought)
    if not begins:
        raise UserError("thought='' leaves reasoning nothing to begin with; give a text such as 'Reasoning:'")
    return replace(candidate, reasoning=reasoning, thought=begins, thinking_tokens=thinking_tokens, samples=samples)
