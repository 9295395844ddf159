"""All that is said about a file of results: reports of every claim, pages and figures.

Invariant: a document follows from the file of results alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.figures import draw
from benchmarks.lab.pages import pages
from benchmarks.lab.reports import report
from benchmarks.lab.settings import command_of, setting_of
from promptsearch.files import write_whole

__all__ = ["PAGES", "documented", "show"]

PAGES = {"en": "laboratory.md", "zh": "laboratory.zh.md"}


def documented(kept: Mapping[str, Any]) -> dict[str, Any]:
    """All reports of a file of results, with what a reader should know about them."""
    setting, cells = setting_of(kept["settings"]), kept["cells"]
    return {
        "command": command_of(kept["settings"]),
        "machines": [_machine(each) for each in kept["machines"]],
        "settings": kept["settings"],
        "tokens": sum(cell.get("tokens", 0) for cell in cells.values()),
        "seconds": round(sum(cell.get("seconds", 0.0) for cell in cells.values())),
        "claims": [report(make(setting), cells, setting) for make in CLAIMS],
    }


def show(document: Mapping[str, Any], folder: Path) -> None:
    """Write figures and pages."""
    figures = {}
    for each in document["claims"]:
        name = f"laboratory/{each['slug']}.svg"
        if draw(each, folder / name):
            figures[each["slug"]] = name
    for language, text in pages(document, figures).items():
        write_whole(folder / PAGES[language], text)


def _machine(facts: Mapping[str, Any]) -> str:
    """A machine and how the first model ran there, in a line."""
    processor = f"{facts['cores']} cores of {facts['processor']} ({', '.join(facts['instructions'])})"
    model = facts.get("model", "").partition(" (")[0]
    return f"{processor}, {facts['system']}, {model}"
