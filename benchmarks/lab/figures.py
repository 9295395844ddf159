"""One figure a claim: bars for conditions, lines where they are numbers, points where models are compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.lab.sayings import SAYINGS

__all__ = ["draw"]

_COLOURS = {"direct": "C0", "calibrated": "C1"}


def draw(report: Mapping[str, Any], path: Path) -> bool:
    """Write a claim's figure; False where there is nothing to draw yet. The same numbers give the same file."""
    import matplotlib
    from matplotlib.figure import Figure

    panels = [(section, *panel) for section in report["models"] for panel in _panels(section)]
    if not panels:
        return False
    with matplotlib.rc_context({"svg.hashsalt": report["slug"], "font.size": 9}):
        figure = Figure(figsize=(min(14, 4.6 * len(panels)), 3.6), layout="constrained")
        for axes, (section, kind, title) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _DRAW[kind](axes, section, title, report)
            several = len(report["models"]) > 1
            axes.set_title(f"{section['model']}: {title}" if several else title)
            axes.grid(alpha=0.3)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        if len(labels) > 1:
            figure.axes[0].legend(handles, labels, fontsize="small")
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def _panels(section: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and title of each part of a model's figure."""
    if section["times"]:
        return [("times", "seconds, median of rounds")]
    if section["points"]:
        return [("points", "gain against loss")]
    if section["spread"]:
        return [("spread", dataset) for dataset in dict.fromkeys(row["dataset"] for row in section["spread"])]
    measured = [dataset for arm in section["arms"] for way in arm["ways"].values() for dataset in way]
    return [("arms", dataset) for dataset in dict.fromkeys(measured)]


def _arms(axes: Any, section: Mapping[str, Any], dataset: str, report: Mapping[str, Any]) -> None:
    for way in report["ways"]:
        arms = [arm for arm in section["arms"] if dataset in arm["ways"].get(way, {})]
        values = [arm["ways"][way][dataset] for arm in arms]
        numbers = [arm["x"] for arm in arms]
        is_line = all(number is not None for number in numbers)
        shift = 0.0 if is_line else 0.12 * (report["ways"].index(way) - (len(report["ways"]) - 1) / 2)
        x = numbers if is_line else [place + shift for place in range(len(arms))]
        _error_bars(axes, x, values, way, joined=is_line)
        if not is_line:
            axes.set_xticks(range(len(arms)), [arm["name"]["en"] for arm in arms], rotation=40, ha="right")
    axes.set_ylabel("accuracy, %")
    if report["axis"]:
        axes.set_xlabel(report["axis"]["en"])


def _spread(axes: Any, section: Mapping[str, Any], dataset: str, report: Mapping[str, Any]) -> None:
    """One point an order, beside each other for each set."""
    rows = [row for row in section["spread"] if row["dataset"] == dataset]
    for way in report["ways"]:
        shift = 0.16 * (report["ways"].index(way) - (len(report["ways"]) - 1) / 2)
        x = [row["seed"] + 1 + shift for row in rows for _ in row["ways"][way]]
        y = [100 * each for row in rows for each in row["ways"][way]]
        axes.plot(x, y, "o", color=_COLOURS[way], alpha=0.5, markersize=4, label=SAYINGS["en"][way])
    axes.set_xticks([row["seed"] + 1 for row in rows])
    axes.set_xlabel("set of demonstrations")
    axes.set_ylabel("accuracy, %")


def _points(axes: Any, section: Mapping[str, Any], title: str, report: Mapping[str, Any]) -> None:
    for way in report["ways"]:
        points = [point for point in section["points"] if way in point["gain"] and point["bits_per_byte"] is not None]
        _error_bars(
            axes, [point["bits_per_byte"] for point in points], [point["gain"][way] for point in points], way, False
        )
    for point in section["points"]:
        if point["gain"].get("direct") and point["bits_per_byte"] is not None:
            place = point["bits_per_byte"], 100 * point["gain"]["direct"]["value"]
            axes.annotate(
                point["model"].rpartition("@")[2],
                place,
                fontsize="x-small",
                xytext=(3, 3),
                textcoords="offset points",
            )
    axes.set_xlabel("loss on plain text, bits per byte")
    axes.set_ylabel("gain from demonstrations, points")


def _times(axes: Any, section: Mapping[str, Any], title: str, report: Mapping[str, Any]) -> None:
    tasks = list(section["times"])
    timed = [part for part in section["times"][tasks[0]] if "accuracy" not in part]
    for number, part in enumerate(timed):
        places = [place + 0.16 * (number - 2) for place in range(len(tasks))]
        seconds = [section["times"][task][part] for task in tasks]
        axes.bar(places, seconds, width=0.15, label=part.replace("_", " "))
    axes.set_yscale("log")
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_ylabel("seconds")


def _error_bars(axes: Any, x: Sequence[float], values: Sequence[Mapping[str, float]], way: str, joined: bool) -> None:
    middle = [100 * each["value"] for each in values]
    below = [max(0.0, 100 * (each["value"] - each["low"])) for each in values]
    above = [max(0.0, 100 * (each["high"] - each["value"])) for each in values]
    form, label = "o-" if joined else "o", SAYINGS["en"][way]
    axes.errorbar(x, middle, [below, above], fmt=form, color=_COLOURS[way], capsize=2, label=label)


_DRAW = {"arms": _arms, "points": _points, "spread": _spread, "times": _times}
