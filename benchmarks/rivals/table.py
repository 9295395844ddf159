"""The table of ``benchmarks.rivals``: means over seeds, and how soon ours got as far.

*Time to reach* a method is the mean wall time of our shortest search whose prompt's mean test accuracy is at least
that method's final one. It is given for the prompt alone and with the prior.
All seeds answer the same test rows, so that further seeds make no interval narrower.
Invariant: pure. Cells in, text out; a method with fewer seeds than others is shown with its number of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import mean, stdev
from typing import Any

from scipy.stats import norm

__all__ = ["Figures", "figures", "reached", "table"]

WITH_PRIOR = "with prior"
WITHOUT_PRIOR = "prior taken away"
ALONE = "prompt alone"
_HEADS = (
    "method",
    "seeds",
    "test %",
    "95 %",
    "unread %",
    "seconds",
    "calls",
    "tokens",
    "ours reaches it alone / prior",
)
_LEGEND = (
    "+-: spread between seeds. 95 %: Wilson's interval of the mean over seeds, out of the test rows of one seed, "
    "since all seeds answer the same rows."
)


@dataclass
class Figures:
    """One method on one dataset, over seeds.

    Attributes:
        values: test accuracy of each seed.
        rows: test rows, the same for all seeds; the fewest, if one answered fewer.
        answers: to test rows, of all seeds.
        unread: answers that could not be parsed, of all seeds.
        seconds: wall seconds of each seed before its test rows; empty where there is nothing to time.
        calls: requests of each seed before its test rows.
        tokens: of each seed likewise: prompts and answers where all count, what ran through the model for ours.
        errors: how optimizers failed.
    """

    values: list[float] = field(default_factory=list)
    rows: int = 0
    answers: int = 0
    unread: int = 0
    seconds: list[float] = field(default_factory=list)
    calls: list[float] = field(default_factory=list)
    tokens: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def value(self) -> float:
        """Mean test accuracy."""
        return mean(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the mean over seeds, out of the rows of one seed.

        It tells what other test rows would change, as if one seed had answered them, which is never too little; what
        other seeds would change is the spread between them.
        """
        z = float(norm.ppf(0.975))
        weight = z**2 / self.rows
        middle = (self.value + weight / 2) / (1 + weight)
        half = math.sqrt(weight * self.value * (1 - self.value) + weight**2 / 4) / (1 + weight)
        return middle - half, middle + half

    def add(self, test: Mapping[str, Any], cell: Mapping[str, Any]) -> None:
        """Take in one seed."""
        self.values.append(test["value"])
        self.rows = min(self.rows or test["n"], test["n"])
        self.answers += test["n"]
        self.unread += test.get("failures", {}).get("unparsable", 0)
        usage = cell.get("usage", {})
        if "seconds" in cell and usage:
            self.seconds.append(cell["seconds"])
        if "calls" in usage:
            self.calls.append(usage["calls"])
        if "prompt_tokens" in usage:
            self.tokens.append(usage["prompt_tokens"] + usage["generated_tokens"])
        elif "evaluated_tokens" in usage:
            self.tokens.append(usage["evaluated_tokens"])
        if cell.get("optimizer_error"):
            self.errors.append(cell["optimizer_error"])


def figures(cells: Mapping[str, Mapping[str, Any]], dataset: str) -> dict[str, Figures]:
    """All methods on a dataset, by name, in the order of the cells."""
    found: dict[str, Figures] = {}
    for key, cell in cells.items():
        name, method, _ = key.split("|")
        if name == dataset:
            for row, test in _tests(method, cell):
                found.setdefault(row, Figures()).add(test, cell)
    return found


def _tests(method: str, cell: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """The measurements in a cell and what the table calls them."""
    if not method.startswith("ours"):
        if "measured" not in cell:
            return [(method, cell["test"])]
        words = method.split()
        ending = f" {words[2]}" if len(words) > 2 else ""
        return [(f"recipe {name}{ending}", test) for name, test in cell["measured"].items()]
    if method.endswith(" alone"):
        return [(f"{method.removesuffix(' alone')}, {ALONE}", cell["test"])]
    return [(f"{method}, {WITH_PRIOR}", cell["test"]), (f"{method}, {WITHOUT_PRIOR}", cell["test_without_prior"])]


def reached(found: Mapping[str, Figures], value: float, variant: str) -> float | None:
    """Mean seconds of our quickest search of a variant with at least this accuracy; None where none has."""
    ours = [row for name, row in found.items() if name.startswith("ours ") and name.endswith(variant) and row.seconds]
    times = [mean(row.seconds) for row in ours if row.value >= value]
    return min(times, default=None)


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """One table for each dataset, below what its columns mean."""
    parts = [_LEGEND]
    for dataset in dict.fromkeys(key.split("|")[0] for key in cells):
        found = figures(cells, dataset)
        rows = [_line(name, row, found) for name, row in found.items()]
        parts.append("\n".join([f"\n{dataset}", *_aligned([_HEADS, *rows]), *_errors(found)]))
    return "\n".join(parts)


def _line(name: str, row: Figures, found: Mapping[str, Figures]) -> tuple[str, ...]:
    spread = f" +- {100 * stdev(row.values):.1f}" if len(row.values) > 1 else ""
    low, high = row.interval
    return (
        name,
        str(len(row.values)),
        f"{100 * row.value:.1f}{spread}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * row.unread / row.answers:.1f}",
        *(f"{mean(values):,.0f}" if values else "-" for values in (row.seconds, row.calls, row.tokens)),
        "" if name.startswith("ours") else " / ".join(_speed(row, found, variant) for variant in (ALONE, WITH_PRIOR)),
    )


def _speed(row: Figures, found: Mapping[str, Figures], variant: str) -> str:
    """Seconds that ours needs, and how many times faster that is."""
    seconds = reached(found, row.value, variant)
    if seconds is None:
        return "not reached"
    times = f" (x {mean(row.seconds) / seconds:.1f})" if row.seconds and mean(row.seconds) > 0 else ""
    return f"{seconds:.0f} s{times}"


def _errors(found: Mapping[str, Figures]) -> list[str]:
    return [f"  {name} ended early: {error}" for name, row in found.items() for error in row.errors]


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
