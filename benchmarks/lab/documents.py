"""All that is said about a file of results: reports of every claim, pages and figures.

Invariant: a document follows from kept cells alone, whatever was measured in between and in whatever order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab.claim import Setting
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.figures import draw
from benchmarks.lab.pages import pages
from benchmarks.lab.reader import rounded
from benchmarks.lab.reports import report
from benchmarks.lab.scales import Scale
from promptsearch.files import write_whole

__all__ = ["documented", "setting_of", "show"]

PAGES = {"en": "laboratory.md", "zh": "laboratory.zh.md"}


def setting_of(scale: Scale, models: Sequence[str]) -> Setting:
    """What claims are made from; the first of the models is the main one."""
    return Setting(
        main=models[0],
        models=tuple(models),
        roundings=tuple(rounded(models[0], kind) for kind in scale.roundings),
        datasets=scale.datasets,
        two_labels=tuple(name for name in scale.datasets if name in ("sst2", "rte", "chnsenticorp")),
        tasks=scale.tasks,
        shots=scale.shots,
        counts=scale.counts,
        seeds=scale.seeds,
        thinking_seeds=scale.thinking_seeds,
        thinking_shots=scale.thinking_shots,
        orders=scale.orders,
        order_seeds=scale.order_seeds,
        order_datasets=scale.datasets[: scale.order_datasets],
        templates=scale.templates,
        channel_datasets=scale.datasets[: scale.channel_datasets],
    )


def documented(kept: dict[str, Any], setting: Setting) -> dict[str, Any]:
    """All reports of a file of results, with what a reader should know about them."""
    return {
        "command": f"python -m benchmarks.lab {kept['command']}",
        "machines": [_machine(each) for each in kept["machines"]],
        "models": kept["settings"]["models"],
        "scale": {name: value for name, value in kept["settings"].items() if name != "models"},
        "tokens": sum(cell.get("tokens", 0) for cell in kept["cells"].values()),
        "seconds": round(sum(cell.get("seconds", 0.0) for cell in kept["cells"].values())),
        "claims": [report(make(setting), kept["cells"], setting) for make in CLAIMS],
    }


def show(document: dict[str, Any], folder: Path) -> None:
    """Write figures and pages."""
    figures = {}
    for each in document["claims"]:
        name = f"laboratory/{each['slug']}.svg"
        if draw(each, folder / name):
            figures[each["slug"]] = name
    for language, text in pages(document, figures).items():
        write_whole(folder / PAGES[language], text)


def _machine(facts: dict[str, Any]) -> str:
    processor = f"{facts['cores']} cores of {facts['processor']} ({', '.join(facts['instructions'])})"
    return f"{processor}, {facts['system']}, {facts.get('model', '')}"
