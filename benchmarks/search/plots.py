"""Draws accuracy against tokens: one figure a dataset, one line a method, mean and spread over seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.search.summary import Point


def plot(dataset: str, methods: Mapping[str, Sequence[Point]], path: Path) -> None:
    """Write one figure; the file's ending says of what kind.

    A method with a budget of its own is a single point with its error bar.
    """
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for number, (name, line) in enumerate(methods.items()):
        tokens = np.array([point.tokens for point in line])
        means = np.array([100 * point.mean for point in line])
        spreads = np.array([100 * point.spread for point in line])
        colour = f"C{number % 10}"
        style = ("-", "--", ":")[number // 10 % 3]
        if len(line) == 1:
            axes.errorbar(tokens, means, spreads, fmt="D", color=colour, capsize=3, label=name)
            continue
        axes.plot(tokens, means, style, marker="o", color=colour, label=name)
        axes.fill_between(tokens, means - spreads, means + spreads, color=colour, alpha=0.12, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("model tokens of the whole run")
    axes.set_ylabel("test accuracy, %")
    axes.set_title(f"{dataset}: mean and standard deviation over seeds")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="best")
    path.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({"svg.hashsalt": dataset}):  # the same numbers give the same file
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
