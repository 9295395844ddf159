"""Arithmetic and tables over measured cells; pure.

A cell's key is ``dataset|method|budget|seed``; the budget of a method that has its own is "own".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.common import in_points, mean_with_half_width
from benchmarks.reported import expected_coverage, is_covered, rest_value
from benchmarks.search.methods import RECIPE
from promptsearch.search.registry import STRATEGIES

Cells = Mapping[str, Mapping[str, Any]]

DEFAULT = next(name for name, strategy in STRATEGIES.items() if name != "auto" and strategy is STRATEGIES["auto"])
"""The strategy that ``optimize`` uses by itself."""


@dataclass(frozen=True)
class Point:
    """One method at one budget on one dataset, over seeds.

    Attributes:
        budget: as it was given.
        tokens: mean tokens of the whole run.
        choosing: mean tokens until the winner was chosen.
        values: test accuracy of each seed.
        without_prior: the same of the prompt alone.
        per_query: mean tokens of a query under the prompts found.
    """

    budget: str
    tokens: float
    choosing: float
    values: tuple[float, ...]
    without_prior: tuple[float, ...]
    per_query: float

    @property
    def mean(self) -> float:
        """Mean test accuracy."""
        return float(np.mean(self.values))

    @property
    def spread(self) -> float:
        """Standard deviation over seeds; 0 for one seed."""
        return float(np.std(self.values, ddof=1)) if len(self.values) > 1 else 0.0


def points(cells: Cells) -> dict[str, dict[str, list[Point]]]:
    """By dataset and method, the points in the order of their tokens."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        dataset, method, budget, _ = key.split("|")
        groups.setdefault((dataset, method, budget), []).append(cell)
    found: dict[str, dict[str, list[Point]]] = {}
    for (dataset, method, budget), group in groups.items():
        found.setdefault(dataset, {}).setdefault(method, []).append(_point(budget, group))
    for methods in found.values():
        for line in methods.values():
            line.sort(key=lambda point: point.tokens)
    return found


def _point(budget: str, cells: Sequence[Mapping[str, Any]]) -> Point:
    def mean(name: str) -> float:
        return float(np.mean([cell[name] for cell in cells]))

    return Point(
        budget,
        mean("tokens"),
        mean("choosing_tokens"),
        tuple(cell["full"]["value"] for cell in cells),
        tuple(cell["full_without_prior"]["value"] for cell in cells),
        mean("tokens_per_query"),
    )


def tokens_to_reach(line: Sequence[Point], value: float) -> float | None:
    """Tokens of choosing at which a method's mean accuracy first reaches a value; None where it never does.

    Between two budgets accuracy is taken to grow evenly with the logarithm of tokens. Reached at the smallest
    budget, it may have been reached before: the answer is then that budget's tokens, an upper bound.
    """
    ordered = sorted(line, key=lambda point: point.choosing)
    for before, after in zip([None, *ordered[:-1]], ordered, strict=True):
        if after.mean < value - 1e-12:
            continue
        if before is None or after.mean <= before.mean:
            return after.choosing
        share = (value - before.mean) / (after.mean - before.mean)
        return float(np.exp(np.interp(share, [0.0, 1.0], np.log([before.choosing, after.choosing]))))
    return None


def recipe_lines(measured: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[str]:
    """What each strategy needs to reach best of 64 random, in shares of the tokens of that."""
    lines = []
    for dataset, methods in measured.items():
        for recipe in [name for name in methods if name.startswith(RECIPE)]:
            (target,) = methods[recipe]
            lines.append(f"{dataset}: {recipe} has {100 * target.mean:.1f} after {target.choosing:,.0f} tokens")
            for name, line in methods.items():
                if name in STRATEGIES:  # the prompt alone, as the recipe is
                    lines.append(f"  {name:<28} {_reached(line, target)}")
    return lines


def _reached(line: Sequence[Point], target: Point) -> str:
    tokens = tokens_to_reach(line, target.mean)
    if tokens is None:
        best = max(line, key=lambda point: point.mean)
        return f"not reached: {100 * best.mean:.1f} at most, after {best.choosing:,.0f} tokens"
    first = min(line, key=lambda point: point.choosing)
    bound = "at most " if tokens == first.choosing else ""
    return f"{bound}{tokens:,.0f} tokens, {tokens / target.choosing:.2f} of it"


def mode_lines(measured: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[str]:
    """At the largest budget: accuracy and tokens a query of each mode, and what of retrieval's gain routing takes."""
    lines = []
    for dataset, methods in measured.items():
        modes = {name.removesuffix(" only"): line[-1] for name, line in methods.items() if name.endswith(" only")}
        if "static" not in modes:
            continue
        static = modes["static"]
        lines.append(f"{dataset}, {static.budget}")
        for mode, point in modes.items():
            ratio = point.per_query / static.per_query
            shown = f"{100 * point.mean:5.1f}  {point.per_query:6.1f} tokens a query, {ratio:.2f} of static's"
            gained = (
                share_of_gain(static, modes.get("retrieved"), point) if mode not in ("static", "retrieved") else None
            )
            lines.append(f"  {mode:<12} {shown}" + ("" if gained is None else f"; {gained:.2f} of retrieval's gain"))
    return lines


def share_of_gain(static: Point, retrieved: Point | None, other: Point) -> float | None:
    """What part of the gain of retrieved over static another mode takes; None where retrieval gains nothing."""
    if retrieved is None or retrieved.mean <= static.mean:
        return None
    return (other.mean - static.mean) / (retrieved.mean - static.mean)


def strategy_lines(cells: Cells) -> list[str]:
    """Each strategy against the default one where both ran: mean paired difference over datasets and seeds.

    Every strategy is given as the prompt alone; an interval is Student's over the differences.
    """
    lines = []
    budgets = dict.fromkeys(key.split("|")[2] for key in cells if key.split("|")[1] == DEFAULT)
    for budget in budgets:
        for name in STRATEGIES:
            pairs = _pairs(cells, name, budget)
            if name == DEFAULT or not pairs:
                continue
            mean, usual = (100 * float(np.mean(values)) for values in zip(*pairs, strict=True))
            difference = in_points(mean_with_half_width([value - other for value, other in pairs]))
            lines.append(f"{budget:>6}  {name:<8} {mean:.1f}, {DEFAULT} {usual:.1f}: {difference}  n = {len(pairs)}")
    return lines


def _pairs(cells: Cells, name: str, budget: str) -> list[tuple[float, float]]:
    """Accuracies of a strategy and of the default one on the same dataset and seed."""
    found = []
    for key, cell in cells.items():
        dataset, method, its_budget, seed = key.split("|")
        usual = cells.get(f"{dataset}|{DEFAULT}|{budget}|{seed}")
        if (method, its_budget) == (name, budget) and usual is not None:
            found.append((float(cell["full"]["value"]), float(usual["full"]["value"])))
    return found


def reported_lines(cells: Cells) -> list[str]:
    """How far the reported numbers lie from the test rows that they did not read, and how often they cover.

    Runs on one dataset and seed share their test rows, so that they count as one: an interval is over the means of
    datasets and seeds.
    """
    partial = []
    groups: dict[str, dict[str, list[float]]] = {}
    for key, cell in cells.items():
        rest = rest_value(cell) if "test" in cell else None
        if rest is not None:
            dataset, *_, seed = key.split("|")
            groups.setdefault(dataset, {}).setdefault(seed, []).append(cell["test"]["value"] - rest)
            partial.append(cell)
    lines = []
    for dataset, seeds in groups.items():
        count = sum(map(len, seeds.values()))
        lines.append(f"{dataset:<14} {_mean_in_points(list(seeds.values()))}  n = {count}, {len(seeds)} seeds")
    if partial:
        every = [values for seeds in groups.values() for values in seeds.values()]
        held = sum(map(is_covered, partial))
        expected = float(np.mean([expected_coverage(cell) for cell in partial]))
        lines.append(f"{'all':<14} {_mean_in_points(every)}  n = {len(partial)}, {len(every)} datasets and seeds")
        lines.append(
            f"intervals hold the value on all test rows in {held} of {len(partial)} (expected: {expected:.1%})"
        )
    return lines


def _mean_in_points(groups: Sequence[Sequence[float]]) -> str:
    return in_points(mean_with_half_width([float(np.mean(values)) for values in groups]))


def table(cells: Cells) -> str:
    """All accuracies by dataset, method and budget, then the summaries."""
    measured = points(cells)
    lines = []
    for dataset, methods in measured.items():
        lines.append(f"\n{dataset}: test accuracy (prompt alone), +- standard deviation over seeds; tokens a query")
        for method, line in methods.items():
            for point in line:
                spread = f" +- {100 * point.spread:.1f}" if len(point.values) > 1 else ""
                alone = f"({100 * float(np.mean(point.without_prior)):.1f})"
                lines.append(
                    f"  {method:<28} {point.budget:>12} {100 * point.mean:6.1f} {alone:>7}{spread:<9} "
                    f"{point.per_query:7.1f}  n = {len(point.values)}"
                )
    for title, found in (
        ("Tokens until the winner is chosen, to reach best of 64 random", recipe_lines(measured)),
        ("Modes", mode_lines(measured)),
        (f"Strategies against {DEFAULT}, means over datasets and seeds", strategy_lines(cells)),
        ("The reported number minus the test rows that it did not read, in points", reported_lines(cells)),
    ):
        if found:
            lines += ["", title, *(f"  {line}" for line in found)]
    return "\n".join(lines)
