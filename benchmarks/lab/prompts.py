"""From demonstrations and a query to the text that a model reads, in one of the package's plain templates.

Invariant: prompts of one condition begin with the same text, and say how long it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lab.material import Row
from promptsearch.lm.base import Rendered, Segment
from promptsearch.template import TEMPLATES, Template

__all__ = ["channel_prompts", "label_prompts"]

_INPUT, _OUTPUT = "Input", "Output"


def label_prompts(template: str, description: str, rows: Sequence[Row], texts: Sequence[str]) -> list[Rendered]:
    """Prompts that end where the label stands, one for each text."""
    form = TEMPLATES[template]
    beginning = _beginning(form, description, rows)
    before, after = _field(form).split("{text}")
    opening = beginning + before
    return [
        Rendered([Segment(opening), Segment(text), Segment(after + form.joint + _cue(form))], shared=len(opening))
        for text in texts
    ]


def channel_prompts(template: str, description: str, rows: Sequence[Row], labels: Sequence[str]) -> list[Rendered]:
    """Prompts that end where the input stands, one for each label: label first, then input (Min et al. 2022).

    Inputs follow with a blank before them.
    """
    form = TEMPLATES[template]
    beginning = _beginning(form, description, rows, label_first=True)
    opening = f"{beginning}{_cue(form)} "
    ending = form.joint + _field(form).split("{text}")[0].rstrip()
    return [Rendered([Segment(opening), Segment(label), Segment(ending)], shared=len(opening)) for label in labels]


def _beginning(form: Template, description: str, rows: Sequence[Row], label_first: bool = False) -> str:
    """All that stands before the query, the separator included."""
    parts = [description] if description else []
    for row in rows:
        lines = [_field(form).format(text=row.text)] if row.text is not None else []
        if row.label is not None:
            lines.insert(0 if label_first else 1, f"{_cue(form)} {row.label}")
        parts.append(form.joint.join(lines))
    return "".join(part + form.separator for part in parts)


def _field(form: Template) -> str:
    return form.field.replace("{name}", _INPUT)


def _cue(form: Template) -> str:
    return form.cue.replace("{output}", _OUTPUT)
