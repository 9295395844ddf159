"""From demonstrations and a query to the text that a model reads, in one of the package's plain templates.

The package's own renderer shows whole pairs; here either half may lack, and the label may stand first.
Invariant: prompts of one condition begin with the same text, and say how long it is; with whole pairs they are those
of :class:`promptsearch.template.Renderer`.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.lab.material import Row
from promptsearch.lm.base import Rendered, Segment
from promptsearch.template import TEMPLATES, Template

__all__ = ["channel_prompts", "form_of", "label_prompts"]


def form_of(template: str) -> Template:
    """A plain template with the names that are used here."""
    return TEMPLATES[template].named("Input", "Output")


def label_prompts(template: str, description: str, rows: Sequence[Row], texts: Sequence[str]) -> list[Rendered]:
    """Prompts that end where the label stands, one for each text."""
    form = form_of(template)
    before, _, after = form.field.partition("{text}")
    opening = _beginning(form, description, rows) + before
    ending = after + form.joint + form.cue
    return [Rendered([Segment(opening), Segment(text), Segment(ending)], shared=len(opening)) for text in texts]


def channel_prompts(template: str, description: str, rows: Sequence[Row], labels: Sequence[str]) -> list[Rendered]:
    """Prompts that end where the input stands, one for each label: label first, then input (Min et al. 2022).

    Inputs follow with a blank before them.
    """
    form = form_of(template)
    opening = f"{_beginning(form, description, rows, label_first=True)}{form.cue} "
    ending = form.joint + form.field.partition("{text}")[0].rstrip()
    return [Rendered([Segment(opening), Segment(label), Segment(ending)], shared=len(opening)) for label in labels]


def _beginning(form: Template, description: str, rows: Sequence[Row], label_first: bool = False) -> str:
    """All that stands before the query, the separator included."""
    parts = [description] if description else []
    for row in rows:
        lines = [form.field.format(text=row.text)] if row.text is not None else []
        if row.label is not None:
            lines.insert(0 if label_first else 1, f"{form.cue} {row.label}")
        parts.append(form.joint.join(lines))
    return "".join(part + form.separator for part in parts)
