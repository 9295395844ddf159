"""The laboratory's page in English and Chinese, made from reports.

Invariant: every number on a page is a number of the reports, rounded to one digit after the point (two for times and
losses), and nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.lab.sayings import SAYINGS
from benchmarks.lab.words import LANGUAGES

__all__ = ["page", "pages"]


def pages(document: Mapping[str, Any], figures: Mapping[str, str]) -> dict[str, str]:
    """The page in each language.

    Args:
        document: reports with ``scale``, ``machines`` and ``command``, see :mod:`benchmarks.lab.__main__`.
        figures: path of each claim's figure from the page, by slug.
    """
    return {language: page(document, figures, language) for language in LANGUAGES}


def page(document: Mapping[str, Any], figures: Mapping[str, str], language: str) -> str:
    """The page in one language."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        autoescape=False,
        keep_trailing_newline=True,
    )
    say = SAYINGS[language]
    scale = document["scale"]
    joined = "、" if language == "zh" else ", "
    text = environment.get_template("page.md.jinja").render(
        say=say,
        machines="; ".join(document["machines"]),
        command=document["command"],
        scale=say["scale line"].format(
            **{
                **scale,
                "datasets": joined.join(scale["datasets"]),
                "tasks": joined.join(scale["tasks"]),
                "tokens": f"{document['tokens']:,}",
            }
        ),
        reports=[_shown(each, figures.get(each["slug"], ""), language) for each in document["claims"]],
    )
    return text.rstrip() + "\n"


def _shown(report: Mapping[str, Any], figure: str, language: str) -> dict[str, Any]:
    say = SAYINGS[language]
    several = len(report["models"]) > 1
    summaries = []
    for section in report["models"]:
        said = _verdicts(section["verdict"], say)
        summaries.append(f"{section['model']}: {said}" if several else said)
    left_out = len(report["left_out"])
    return {
        "number": report["number"],
        "title": report["title"][language],
        "says": report["says"][language],
        "method": report["method"][language],
        "remark": report["remark"][language] if report["remark"] else "",
        "measured": not report["missing"],
        "summary": say["unmeasured"] if report["missing"] else "<br>".join(summaries),
        "figure": figure,
        "left_out": say["left_out"].format(left_out, report["cells"]) if left_out else "",
        "sections": [_section(section, report, language, several) for section in report["models"]],
    }


def _verdicts(by_way: Mapping[str, str], say: Mapping[str, str]) -> str:
    """A verdict for each way of scoring; one alone where there is one way, or both agree."""
    if not by_way:
        return say["not shown"]
    if len(set(by_way.values())) == 1:
        return say[next(iter(by_way.values()))]
    return say["join"].join(
        say["in way"].format(verdict=say[verdict], way=say[way]) for way, verdict in by_way.items()
    )


def _section(section: Mapping[str, Any], report: Mapping[str, Any], language: str, several: bool) -> dict[str, Any]:
    say = SAYINGS[language]
    ways = [way for way in report["ways"] if any(way in found["ways"] for found in section["findings"])]
    head, rows = _table(section, report, language)
    verdicts = section["verdict"]
    alike = len(set(verdicts.values())) == 1
    said = [
        say["in way"].format(verdict=say[f"sentence {verdict}"], way=say[way]) for way, verdict in verdicts.items()
    ]
    sentence = say[f"sentence {next(iter(verdicts.values()))}"] if alike else say["join"].join(said)
    return {
        "model": section["model"] if several else "",
        "sentence": say["sentence"].format(sentence or say["sentence not shown"]),
        "ways": [say[way] for way in ways],
        "findings": [
            {
                "name": found["name"][language] + ("" if found["main"] else say["aside"]),
                "claimed": _claimed(found, say),
                "cells": [_effect(found, way, say) for way in ways],
            }
            for found in section["findings"]
        ],
        "head": head,
        "rows": rows,
    }


def _claimed(found: Mapping[str, Any], say: Mapping[str, str]) -> str:
    kind = "above" if found["above"] is not None else "below"
    number = found[kind]
    return say[kind].format(f"{number:g}×" if found["unit"] == "times" else f"{100 * number:g}")


def _effect(found: Mapping[str, Any], way: str, say: Mapping[str, str]) -> str:
    """Value, interval and verdict of one way."""
    if way not in found["ways"]:
        return "–"
    values = found["ways"][way]
    return f"{_with_interval(values, found['unit'])}: {say[values['verdict']]}"


def _with_interval(values: Mapping[str, float], unit: str) -> str:
    if unit == "times":
        return f"{values['value']:.2f}× [{values['low']:.2f}, {values['high']:.2f}]"
    return f"{100 * values['value']:+.1f} [{100 * values['low']:+.1f}, {100 * values['high']:+.1f}]"


def _accuracy(values: Mapping[str, float]) -> str:
    return f"{100 * values['value']:.1f} [{100 * values['low']:.1f}, {100 * values['high']:.1f}]"


def _table(section: Mapping[str, Any], report: Mapping[str, Any], language: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what was measured."""
    say = SAYINGS[language]
    if section["times"]:
        parts = list(next(iter(section["times"].values())))
        rows = [
            [task, *(f"{100 * each[part]:.1f}" if "accuracy" in part else f"{each[part]:.2f}" for part in parts)]
            for task, each in section["times"].items()
        ]
        return [say["task"], *(say[part] for part in parts)], rows
    if section["points"]:
        points = [point for point in section["points"] if point["bits_per_byte"] is not None]
        return [say["model"], say["loss"], *(say["gain"].format(say[way]) for way in report["ways"])], [
            [
                point["model"],
                f"{point['bits_per_byte']:.2f}",
                *(
                    _with_interval(point["gain"][way], "points") if way in point["gain"] else "–"
                    for way in report["ways"]
                ),
            ]
            for point in points
        ]
    measured = [arm["ways"].get(way, {}) for arm in section["arms"] for way in report["ways"]]
    datasets = dict.fromkeys(dataset for each in measured for dataset in each)
    columns = [(dataset, way) for dataset in datasets for way in report["ways"]]
    head = [say["condition"], *(f"{dataset}, {say[way]}" for dataset, way in columns)]
    rows = [
        [
            arm["name"][language],
            *(
                _accuracy(arm["ways"][way][dataset]) if dataset in arm["ways"].get(way, {}) else "–"
                for dataset, way in columns
            ),
        ]
        for arm in section["arms"]
    ]
    return head, rows if any(arm["ways"] for arm in section["arms"]) else []
