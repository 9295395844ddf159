"""From cells to what is said: estimates with intervals, and verdicts that follow from them.

Invariant: a verdict on a part of a claim depends on an interval and on what the claim says, on nothing else.
``"holds"``: the whole interval lies where the claim says; ``"contradicted"``: all of it lies elsewhere;
``"not shown"``: it lies on both sides, or what it takes could not be measured. Several datasets count alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.lab.claim import TEXT, Arm, Claim, Contrast, Needed, Setting
from benchmarks.lab.conditions import Condition, Passage
from benchmarks.lab.crossed import Estimate, average, crossed_mean
from benchmarks.lab.effects import LeftOut, Missing, Scores, Sum
from benchmarks.lab.ways import scores_of
from promptsearch.measurement import measure

__all__ = [
    "CONTRADICTED",
    "HOLDS",
    "MIXED",
    "NOT_SHOWN",
    "PARTLY",
    "key_of",
    "overall",
    "report",
    "verdict",
]

HOLDS, CONTRADICTED, NOT_SHOWN, PARTLY, MIXED = "holds", "contradicted", "not shown", "partly", "mixed"
Cells = Mapping[str, Mapping[str, Any]]


def key_of(needed: Needed, seed: int) -> str:
    """What a cell is kept under."""
    return f"{needed.model}|{needed.dataset}|{needed.condition.name}|{seed}"


@dataclass(frozen=True)
class CellScores:
    """Scores of one dataset out of cells.

    Attributes:
        cells: all cells.
        claim: decides the seeds.
        setting: likewise.
        model: whose scores are meant where none is named.
        dataset: the dataset.
        way: the way of scoring.
    """

    cells: Cells
    claim: Claim
    setting: Setting
    model: str
    dataset: str
    way: str

    def of(self, condition: Condition, model: str | None = None) -> NDArray[np.float64]:
        """See :class:`benchmarks.lab.effects.Scores`."""
        rows = [cell[self.way] for cell in self.cells_of(Needed(model or self.model, self.dataset, condition))]
        return np.stack([scores_of(row) for row in rows])

    def loss(self, model: str) -> float:
        """See :class:`benchmarks.lab.effects.Scores`."""
        return float(self._cell(key_of(Needed(model, TEXT, Passage()), 0))["bits_per_byte"])

    def seconds(self, condition: Condition, what: str) -> NDArray[np.float64]:
        """See :class:`benchmarks.lab.effects.Scores`."""
        cells = self.cells_of(Needed(self.model, self.dataset, condition))
        return np.array([[task[what] for task in cell["tasks"].values()] for cell in cells])

    def in_way(self, way: str) -> Scores:
        """See :class:`benchmarks.lab.effects.Scores`."""
        return replace(self, way=way)

    def by_model(self, model: str) -> Scores:
        """See :class:`benchmarks.lab.effects.Scores`."""
        return replace(self, model=model)

    def cells_of(self, needed: Needed) -> list[Mapping[str, Any]]:
        """The cells of a condition, one a seed.

        Raises:
            Missing: one of them is not there.
            LeftOut: one of them could not be measured.
        """
        seeds = self.claim.seeds_of(needed.condition, self.setting)
        return [self._cell(key_of(needed, seed)) for seed in range(seeds)]

    def _cell(self, key: str) -> Mapping[str, Any]:
        if key not in self.cells:
            raise Missing(key)
        if "left_out" in self.cells[key]:
            raise LeftOut(self.cells[key]["left_out"])
        return self.cells[key]


def report(claim: Claim, cells: Cells, setting: Setting) -> dict[str, Any]:
    """Everything that is said about a claim, as plain values."""
    models = setting.models if claim.by_model else (setting.main,)
    keys = [
        key_of(needed, seed)
        for needed in claim.needed(setting)
        for seed in range(claim.seeds_of(needed.condition, setting))
    ]
    sections = [_of_model(claim, cells, setting, model) for model in models]
    return {
        "number": claim.number,
        "slug": claim.slug,
        "title": claim.title.to_dict(),
        "says": claim.says.to_dict(),
        "method": claim.method.to_dict(),
        "remark": None if claim.remark is None else claim.remark.to_dict(),
        "axis": None if claim.axis is None else claim.axis.to_dict(),
        "ways": list(claim.ways),
        "models": [section for section in sections if section["findings"] and not section["missing"]],
        "tokens": sum(cells[key].get("tokens", 0) for key in keys if key in cells),
        "cells": len(keys),
        "left_out": {key: cells[key]["left_out"] for key in keys if "left_out" in cells.get(key, {})},
    }


def verdict(low: float, high: float, above: float | None, below: float | None, least: bool = False) -> str:
    """What an interval says about a claim that the value is above or below a number; empty where it says neither.

    Args:
        low: lower end.
        high: upper end.
        above: the claim says that it is above this.
        below: the claim says that it is below this.
        least: whether the interval is of a lower bound, which is never evidence that a value is small.
    """
    number = above if above is not None else below
    if number is None:
        return ""
    is_above, is_below = low > number, high < number and not least
    if above is not None:
        return HOLDS if is_above else CONTRADICTED if is_below else NOT_SHOWN
    return HOLDS if is_below else CONTRADICTED if is_above else NOT_SHOWN


def overall(verdicts: Sequence[str]) -> str:
    """Of all parts of a claim: whether all hold, some do and others are contradicted or not shown, or none does."""
    if not verdicts:
        return NOT_SHOWN
    if all(each == HOLDS for each in verdicts):
        return HOLDS
    if HOLDS in verdicts:
        return MIXED if CONTRADICTED in verdicts else PARTLY
    return CONTRADICTED if CONTRADICTED in verdicts else NOT_SHOWN


def _of_model(claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    contrasts = [each for each in claim.contrasts if claim.datasets_of(each)]
    chosen = [each for each in contrasts if model == setting.main or not each.once]
    arms = [] if claim.spread else [arm for arm in claim.arms if claim.datasets_of(arm)]
    findings = [_finding(each, claim, cells, setting, model) for each in chosen]
    decisive = [found for found in findings if found["main"]]
    by_way = {
        way: [found["ways"][way]["verdict"] for found in decisive if way in found["ways"]] for way in claim.ways
    }
    return {
        "model": model,
        "missing": any(found["missing"] for found in decisive or findings),
        "verdict": {
            way: {
                "verdict": overall(verdicts),
                "parts": len(verdicts),
                "hold": verdicts.count(HOLDS),
                "contradicted": verdicts.count(CONTRADICTED),
            }
            for way, verdicts in by_way.items()
            if verdicts
        },
        "findings": findings,
        "arms": [_arm(arm, claim, cells, setting, model) for arm in arms],
        "spread": _spread(claim, cells, setting, model) if claim.spread else [],
        "points": [_point(claim, cells, setting, each) for each in claim.over_models],
        "times": _times(claim, cells, setting, model),
    }


def _finding(contrast: Contrast, claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """A contrast in all its ways; a part that could not be measured is not shown.

    ``whole`` says whether each average is over all of the claim's datasets.
    """
    times, least = (getattr(contrast.effect, name, False) for name in ("times", "least"))
    ways: dict[str, Any] = {}
    missing = False
    for way in contrast.ways or claim.ways:
        estimates: dict[str, Estimate] = {}
        for dataset in claim.datasets_of(contrast):
            scores = CellScores(cells, claim, setting, model, dataset, way)
            try:
                values = np.asarray(contrast.effect.values(scores), dtype=np.float64)
            except Missing:
                missing = True
            except LeftOut:
                continue
            else:
                estimates[dataset] = crossed_mean(values)
        if not estimates:
            ways[way] = {"verdict": NOT_SHOWN, "datasets": {}}
            continue
        shown = _values(average(list(estimates.values())), times)
        ways[way] = {
            **shown,
            "verdict": verdict(shown["low"], shown["high"], contrast.above, contrast.below, least),
            "datasets": {dataset: _values(each, times) for dataset, each in estimates.items()},
        }
    return {
        "name": contrast.name.to_dict(),
        "main": contrast.main,
        "above": contrast.above,
        "below": contrast.below,
        "least": least,
        "unit": "times" if times else "points",
        "missing": missing,
        "whole": all(set(each["datasets"]) == set(claim.datasets) for each in ways.values() if each["datasets"]),
        "ways": ways,
    }


def _arm(arm: Arm, claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """Accuracy of a condition by way and dataset."""
    ways: dict[str, dict[str, Any]] = {}
    for way in claim.ways:
        for dataset in claim.datasets_of(arm):
            scores = _found(CellScores(cells, claim, setting, model, dataset, way), arm.condition)
            if scores is not None:
                ways.setdefault(way, {})[dataset] = _level(scores)
    return {"name": arm.name.to_dict(), "x": arm.x, "ways": ways}


def _spread(claim: Claim, cells: Cells, setting: Setting, model: str) -> list[dict[str, Any]]:
    """Accuracies of all arms under each seed, by dataset."""
    rows = []
    for dataset in claim.datasets:
        by_way = {}
        for way in claim.ways:
            scores = CellScores(cells, claim, setting, model, dataset, way)
            found = [each for arm in claim.arms if (each := _found(scores, arm.condition)) is not None]
            if found:
                by_way[way] = np.stack(np.broadcast_arrays(*found)).mean(axis=2).T
        for seed in range(len(next(iter(by_way.values()), []))):
            ways = {way: [round(float(each), 4) for each in table[seed]] for way, table in by_way.items()}
            rows.append({"dataset": dataset, "seed": seed, "ways": ways})
    return rows


def _found(scores: CellScores, condition: Condition) -> NDArray[np.float64] | None:
    try:
        return scores.of(condition)
    except (Missing, LeftOut):
        return None


def _level(scores: NDArray[np.float64]) -> dict[str, float]:
    """An accuracy, whose interval lies within 0 and 1: Wilson's where there is one seed."""
    if len(scores) == 1:
        alone = measure(scores[0])
        return _rounded(alone.value, alone.low, alone.high) | {"seeds": 1, "items": alone.n}
    found = crossed_mean(scores)
    low, high = max(0.0, found.low), min(1.0, found.high)
    return _rounded(found.value, low, high) | {"seeds": found.seeds, "items": found.items}


def _point(claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """A model's loss, and what demonstrations gain it on average."""
    before, after = (arm.condition for arm in claim.arms)
    gain = Sum({after: 1.0, before: -1.0})
    gains: dict[str, Any] = {}
    loss: float | None = None
    try:
        for way in claim.ways:
            parts = [CellScores(cells, claim, setting, model, dataset, way) for dataset in claim.datasets]
            gains[way] = _values(average([crossed_mean(gain.values(part)) for part in parts]), times=False)
            loss = round(parts[0].loss(model), 4)
    except (Missing, LeftOut):
        return {"model": model, "bits_per_byte": None, "gain": {}}
    return {"model": model, "bits_per_byte": loss, "gain": gains}


def _times(claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """Median over rounds of everything that was timed, by task, and accuracies."""
    if claim.timed is None:
        return {}
    scores = CellScores(cells, claim, setting, model, claim.datasets[0], claim.ways[0])
    try:
        rounds = [cell["tasks"] for cell in scores.cells_of(Needed(model, claim.datasets[0], claim.timed))]
    except (Missing, LeftOut):
        return {}
    return {
        task: {
            name: round(float(np.median([each[task][name] for each in rounds if name in each[task]])), 4)
            for name in rounds[0][task]
        }
        for task in rounds[0]
    }


def _values(found: Estimate, times: bool) -> dict[str, float]:
    ends = (found.value, found.low, found.high)
    shown = _rounded(*(2**each for each in ends)) if times else _rounded(*ends)
    return shown | {"seeds": found.seeds, "items": found.items}


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    ends = {"value": value, "low": low, "high": high}
    return {name: round(end, 4) + 0.0 for name, end in ends.items()}  # the sum makes -0.0 a plain 0.0
