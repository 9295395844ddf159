"""All that is said about a file of results: reports of every claim, pages and figures.

Invariant: a document follows from the file of results alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from benchmarks.lab.claim import Setting
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.figures import draw
from benchmarks.lab.pages import pages
from benchmarks.lab.reader import quantized
from benchmarks.lab.reports import report
from benchmarks.lab.scales import FULL, QUICK, Scale
from promptsearch.files import write_whole

__all__ = ["PAGES", "documented", "setting_of", "settings_of", "show"]

PAGES = {"en": "laboratory.md", "zh": "laboratory.zh.md"}


def settings_of(
    scale: Scale, models: Mapping[str, Any], labels: Mapping[str, int], content: Mapping[str, str]
) -> dict[str, Any]:
    """What a file of results says about how it was measured, as plain values.

    Args:
        scale: how large the experiments are.
        models: facts of each model by name, the first one first.
        labels: how many labels each dataset has.
        content: digests of everything that is asked about, by name.
    """
    values = {**asdict(scale), "labels": dict(labels), "content": dict(content), "models": dict(models)}
    return dict(json.loads(json.dumps(values)))


def setting_of(settings: Mapping[str, Any]) -> Setting:
    """What claims are made from."""
    scale = _scale_of(settings)
    models = tuple(settings["models"])
    return Setting(
        models=models,
        parameters=tuple(int(settings["models"][name]["parameters"]) for name in models),
        quantizations=tuple(quantized(models[0], kind) for kind in scale.quantizations),
        datasets=scale.datasets,
        labels=dict(settings["labels"]),
        tasks=scale.tasks,
        switched=scale.switched,
        shots=scale.shots,
        counts=scale.counts,
        seeds=scale.seeds,
        thinking_seeds=scale.thinking_seeds,
        thinking_shots=scale.thinking_shots,
        thinking_tokens=scale.thinking_tokens,
        orders=scale.orders,
        order_seeds=scale.order_seeds,
        order_datasets=scale.datasets[: scale.order_dataset_count],
        templates=scale.templates,
        channel_datasets=scale.datasets[: scale.channel_dataset_count],
    )


def documented(kept: Mapping[str, Any]) -> dict[str, Any]:
    """All reports of a file of results, with what a reader should know about them."""
    setting, cells = setting_of(kept["settings"]), kept["cells"]
    return {
        "command": _command(kept["settings"]),
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


def _scale_of(settings: Mapping[str, Any]) -> Scale:
    """The scale that settings hold."""
    values = {each.name: settings[each.name] for each in fields(Scale)}
    tuples: dict[str, Any] = {name: tuple(each) for name, each in values.items() if isinstance(each, list)}
    return Scale(**{**values, **tuples})


def _command(settings: Mapping[str, Any]) -> str:
    """A command that measures at these settings; files and folders by their role."""
    scale = _scale_of(settings)
    wanted = asdict(scale)
    nearest = min((QUICK, FULL), key=lambda one: sum(wanted[name] != value for name, value in asdict(one).items()))
    words = ["python -m benchmarks.lab --data DIR"]
    words += ["--quick"] if nearest == QUICK else []
    words += ["--models FILES"] if len(settings["models"]) > 1 else []
    for name, value in wanted.items():
        if value != asdict(nearest)[name]:
            shown = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else value
            words.append(f"--{name.replace('_', '-')} {shown}")
    return " ".join(words)


def _machine(facts: Mapping[str, Any]) -> str:
    processor = f"{facts['cores']} cores of {facts['processor']} ({', '.join(facts['instructions'])})"
    return f"{processor}, {facts['system']}, {facts.get('model', '')}"
