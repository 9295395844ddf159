"""Example data packaged with promptsearch: messages to a shop, each with the team that handles it.

Invariant: the rows are those of the packaged files, in their order, and the test rows are the packaged split.
README.md in this folder says where the data comes from and what a score on it does not say.
"""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.task import Task

__all__ = ["example_task"]

_NAME = "support_messages"


def example_task() -> Task:
    """The packaged example as a task: 455 rows to search with and 201 to measure on."""
    from promptsearch.task import Task

    about = json.loads(_text(f"{_NAME}.meta.json"))
    rows = [json.loads(line) for line in _text(f"{_NAME}.jsonl").split("\n") if line]
    return Task(
        _part(rows, "train"),
        inputs=about["input"],
        output=about["output"],
        instruction=about["instruction"],
        labels=about["labels"],
        test=_part(rows, "test"),
    )


def _text(name: str) -> str:
    return files(__name__).joinpath(name).read_text("utf-8")


def _part(rows: list[dict[str, Any]], split: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["split"] == split]
