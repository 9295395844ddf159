"""The laboratory's page in English and Chinese, made from reports.

Invariant: every number on a page is a number of the reports, rounded to one digit after the point (two for times and
losses), and nothing is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab.sayings import DATASETS, REFERENCES, SAYINGS
from benchmarks.lab.ways import WAYS
from benchmarks.lab.words import LANGUAGES

__all__ = ["page", "pages"]


def pages(document: Mapping[str, Any], figures: Mapping[str, str]) -> dict[str, str]:
    """The page in each language.

    Args:
        document: see :func:`benchmarks.lab.documents.documented`.
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
    scale = document["settings"]
    text = environment.get_template("page.md.jinja").render(
        say=say,
        machines=say["join"].join(document["machines"]),
        command=document["command"],
        scale=say["scale line"].format(
            **{
                **scale,
                "datasets": _listed(scale["datasets"], language),
                "tasks": _listed(scale["tasks"], language),
                "tokens": f"{document['tokens']:,}",
            }
        ),
        asked=_asked(document, language),
        ways=[say[way] for way in WAYS],
        reports=[_shown(each, figures.get(each["slug"], ""), language) for each in document["claims"]],
        references=REFERENCES,
    )
    return text.rstrip() + "\n"


def _asked(document: Mapping[str, Any], language: str) -> str:
    """What is asked in the datasets that are known."""
    scale, colon = document["settings"], "：" if language == "zh" else ": "
    names = dict.fromkeys([*scale["datasets"], *scale["switched"], *scale["tasks"]])
    return SAYINGS[language]["join"].join(
        f"{name}{colon}{DATASETS[name][language]}" for name in names if name in DATASETS
    )


def _listed(names: Sequence[str], language: str) -> str:
    return ("、" if language == "zh" else ", ").join(names)


def _shown(report: Mapping[str, Any], figure: str, language: str) -> dict[str, Any]:
    say = SAYINGS[language]
    several = len(report["models"]) > 1
    left_out = len(report["left_out"])
    return {
        "number": report["number"],
        "title": report["title"][language],
        "says": report["says"][language],
        "method": report["method"][language],
        "remark": report["remark"][language] if report["remark"] else "",
        "measured": bool(report["models"]),
        "verdicts": _verdicts(report, say),
        "figure": figure,
        "left_out": say["left_out"].format(left_out, report["cells"]) if left_out else "",
        "sections": [_section(section, report, language, several) for section in report["models"]],
    }


def _verdicts(report: Mapping[str, Any], say: Mapping[str, str]) -> list[str]:
    """What the overview says: for both ways of scoring, or for the only way there is."""
    ways = WAYS if report["ways"] == list(WAYS) else report["ways"]
    found = []
    for way in ways:
        verdicts = [section["verdict"][way] for section in report["models"] if way in section["verdict"]]
        counted = (say["counts"].format(**{**each, "verdict": say[each["verdict"]]}) for each in verdicts)
        found.append("<br>".join(counted) or (say["unmeasured"] if not report["models"] else "–"))
    return [*found, *(["–"] * (len(WAYS) - len(found)))]


def _way(way: str, report: Mapping[str, Any], say: Mapping[str, str]) -> str:
    """What a way is called; answers that are written are not scored in one or another."""
    return say["written"] if report["ways"] == ["direct"] else say[way]


def _section(section: Mapping[str, Any], report: Mapping[str, Any], language: str, several: bool) -> dict[str, Any]:
    say = SAYINGS[language]
    ways = [way for way in report["ways"] if any(way in found["ways"] for found in section["findings"])]
    called = {way: _way(way, report, say) for way in report["ways"]}
    measured = (name for found in section["findings"] for way in found["ways"].values() for name in way["datasets"])
    datasets = list(dict.fromkeys(measured))
    head, rows = _table(section, report, language)
    return {
        "model": section["model"] if several else "",
        "sentences": [_sentence(section, way, called[way], language) for way in section["verdict"]],
        "ways": [called[way] for way in ways],
        "findings": [
            {
                "name": _named(found, language),
                "claimed": _claimed(found, say),
                "cells": [_effect(found, way, language) for way in ways],
            }
            for found in section["findings"]
        ],
        "columns": [say["column"].format(dataset=dataset, way=called[way]) for dataset in datasets for way in ways]
        if len(datasets) > 1
        else [],
        "by_dataset": [
            [
                found["name"][language],
                *(_of_dataset(found, way, dataset) for dataset in datasets for way in ways),
            ]
            for found in section["findings"]
        ],
        "head": head,
        "rows": rows,
    }


def _sentence(section: Mapping[str, Any], way: str, called: str, language: str) -> str:
    """Whether a claim holds, with the intervals that say so."""
    say = SAYINGS[language]
    parts = []
    for found in section["findings"]:
        if found["main"] and way in found["ways"]:
            values = found["ways"][way]
            number = _number(found, values, language)
            parts.append(say["part"].format(name=_on(found, language), number=number, verdict=say[values["verdict"]]))
    return say["sentence"].format(
        verdict=say[f"sentence {section['verdict'][way]['verdict']}"],
        way=say["sentence way"].format(called) if len(section["verdict"]) > 1 else "",
        parts=say["join"].join(parts),
    )


def _named(found: Mapping[str, Any], language: str) -> str:
    """An effect's name, with where it was measured, and whether it decides."""
    return _on(found, language) + ("" if found["main"] else SAYINGS[language]["aside"])


def _on(found: Mapping[str, Any], language: str) -> str:
    """An effect's name, with the datasets that it was measured on where these are not all.

    Where they are not the same in each way, they stand with the numbers instead.
    """
    covered = _covered(found)
    name: str = found["name"][language]
    return name if found["whole"] or len(covered) != 1 else name + _over(covered[0], language)


def _covered(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The sets of datasets that an effect's averages are over, each once."""
    return list(dict.fromkeys(tuple(each["datasets"]) for each in found["ways"].values() if each["datasets"]))


def _over(datasets: Sequence[str], language: str) -> str:
    return SAYINGS[language]["on"].format(_listed(datasets, language))


def _claimed(found: Mapping[str, Any], say: Mapping[str, str]) -> str:
    """What the claim says of an effect; nothing where it stands for comparison."""
    kind = "above" if found["above"] is not None else "below"
    number = found[kind]
    if number is None or not found["main"]:
        return "–"
    return say[kind].format(f"{number:g}×" if found["unit"] == "times" else f"{100 * number:g}")


def _effect(found: Mapping[str, Any], way: str, language: str) -> str:
    """Value and interval of one way, with the verdict where it decides."""
    if way not in found["ways"]:
        return "–"
    say, values = SAYINGS[language], found["ways"][way]
    number = _number(found, values, language)
    return say["cell"].format(number=number, verdict=say[values["verdict"]]) if found["main"] else number


def _number(found: Mapping[str, Any], values: Mapping[str, Any], language: str) -> str:
    say = SAYINGS[language]
    if "value" not in values:
        return say["no number"]
    on = "" if found["whole"] or len(_covered(found)) == 1 else _over(tuple(values["datasets"]), language)
    return _with_interval(values, found["unit"]) + (say["at least"] if found["least"] else "") + on


def _of_dataset(found: Mapping[str, Any], way: str, dataset: str) -> str:
    values = found["ways"].get(way, {}).get("datasets", {}).get(dataset)
    return "–" if values is None else _with_interval(values, found["unit"])


def _with_interval(values: Mapping[str, float], unit: str) -> str:
    if unit == "times":
        return f"{values['value']:.2f}× [{values['low']:.2f}, {values['high']:.2f}]"
    return f"{100 * values['value']:+.1f} [{100 * values['low']:+.1f}, {100 * values['high']:+.1f}]"


def _accuracy(values: Mapping[str, float]) -> str:
    return f"{100 * values['value']:.1f} [{100 * values['low']:.1f}, {100 * values['high']:.1f}]"


def _table(section: Mapping[str, Any], report: Mapping[str, Any], language: str) -> tuple[list[str], list[list[str]]]:
    """Head and rows of what was measured."""
    say = SAYINGS[language]
    ways = {way: _way(way, report, say) for way in report["ways"]}
    for kind, table in (("times", _times), ("spread", _spread), ("points", _points)):
        if section[kind]:
            return table(section[kind], ways, say)
    measured = [arm["ways"].get(way, {}) for arm in section["arms"] for way in report["ways"]]
    datasets = dict.fromkeys(dataset for each in measured for dataset in each)
    columns = [(dataset, way) for dataset in datasets for way in report["ways"]]
    first = say["condition"]
    if report["axis"]:
        first = say["on axis"].format(axis=report["axis"][language], condition=first)
    head = [first, *(say["column"].format(dataset=dataset, way=ways[way]) for dataset, way in columns)]
    rows = []
    for arm in section["arms"]:
        values = (arm["ways"].get(way, {}).get(dataset) for dataset, way in columns)
        rows.append([arm["name"][language], *("–" if each is None else _accuracy(each) for each in values)])
    return head, rows


def _times(
    times: Mapping[str, Any], ways: Mapping[str, str], say: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    parts = list(next(iter(times.values())))
    rows = [
        [task, *(f"{100 * each[part]:.1f}" if "accuracy" in part else f"{each[part]:.2f}" for part in parts)]
        for task, each in times.items()
    ]
    return [say["task"], *(say[part] for part in parts)], rows


def _spread(
    spread: Sequence[Mapping[str, Any]], ways: Mapping[str, str], say: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Lowest, median and highest accuracy of each set."""
    places = ("lowest", "median", "highest")
    head = [say["set"], *(say[place].format(ways[way]) for way in ways for place in places)]
    rows = []
    for row in spread:
        cells = []
        for way in ways:
            ordered = sorted(row["ways"][way])
            # Of an even number the lower middle one: a number that was measured.
            cells += [f"{100 * each:.1f}" for each in (ordered[0], ordered[(len(ordered) - 1) // 2], ordered[-1])]
        rows.append([f"{row['dataset']} {row['seed'] + 1}", *cells])
    return head, rows


def _points(
    points: Sequence[Mapping[str, Any]], ways: Mapping[str, str], say: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    head = [say["model"], say["loss"], *(say["gain"].format(ways[way]) for way in ways)]
    rows = []
    for point in points:
        if point["bits_per_byte"] is not None:
            gains = (_with_interval(point["gain"][way], "points") for way in ways)
            rows.append([point["model"], f"{point['bits_per_byte']:.2f}", *gains])
    return head, rows
