"""From cells to what is said: estimates with intervals, and verdicts that follow from them.

Invariant: a verdict depends on an interval and on what the claim says, on nothing else. ``"holds"``: the whole
interval lies where the claim says; ``"contradicted"``: all of it lies elsewhere; ``"not shown"``: it lies on both
sides. Several datasets count alike.
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
from benchmarks.lab.effects import Scores, Sum
from benchmarks.lab.measuring import scores_of
from promptsearch.measurement import measure

__all__ = ["CONTRADICTED", "HOLDS", "NOT_SHOWN", "PARTLY", "key_of", "overall", "report", "verdict"]

HOLDS, CONTRADICTED, NOT_SHOWN, PARTLY = "holds", "contradicted", "not shown", "partly"
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
        rows = [cell[self.way] for cell in self._cells(Needed(model or self.model, self.dataset, condition))]
        return np.stack([scores_of(row) for row in rows])

    def loss(self, model: str) -> float:
        """See :class:`benchmarks.lab.effects.Scores`."""
        return float(self.cells[key_of(Needed(model, TEXT, Passage()), 0)]["bits_per_byte"])

    def seconds(self, condition: Condition, what: str) -> NDArray[np.float64]:
        """See :class:`benchmarks.lab.effects.Scores`."""
        cells = self._cells(Needed(self.model, self.dataset, condition))
        return np.array([[task[what] for task in cell["tasks"].values()] for cell in cells])

    def in_way(self, way: str) -> Scores:
        """See :class:`benchmarks.lab.effects.Scores`."""
        return replace(self, way=way)

    def _cells(self, needed: Needed) -> list[Mapping[str, Any]]:
        seeds = self.claim.seeds_of(needed.condition, self.setting)
        return [self.cells[key_of(needed, seed)] for seed in range(seeds)]


def report(claim: Claim, cells: Cells, setting: Setting) -> dict[str, Any]:
    """Everything that is said about a claim, as plain values."""
    models = setting.models if claim.by_model else (setting.main,)
    keys = [
        key_of(needed, seed)
        for needed in claim.needed(setting)
        for seed in range(claim.seeds_of(needed.condition, setting))
    ]
    left_out = {key: cells[key]["left_out"] for key in keys if "left_out" in cells.get(key, {})}
    return {
        "number": claim.number,
        "slug": claim.slug,
        "title": claim.title.to_dict(),
        "says": claim.says.to_dict(),
        "method": claim.method.to_dict(),
        "remark": None if claim.remark is None else claim.remark.to_dict(),
        "axis": None if claim.axis is None else claim.axis.to_dict(),
        "ways": list(claim.ways),
        "models": [_of_model(claim, cells, setting, model) for model in models],
        "tokens": sum(cells[key].get("tokens", 0) for key in keys if key in cells),
        "cells": len(keys),
        "missing": sum(key not in cells for key in keys),
        "left_out": left_out,
    }


def verdict(low: float, high: float, above: float | None, below: float | None) -> str:
    """What an interval says about a claim that the value is above or below a number."""
    if above is not None:
        return HOLDS if low > above else CONTRADICTED if high < above else NOT_SHOWN
    assert below is not None
    return HOLDS if high < below else CONTRADICTED if low > below else NOT_SHOWN


def overall(verdicts: Sequence[str]) -> str:
    """Of several parts of a claim: all hold, some hold, none holds and one is contradicted, or nothing is shown."""
    if not verdicts:
        return NOT_SHOWN
    if all(each == HOLDS for each in verdicts):
        return HOLDS
    if HOLDS in verdicts:
        return PARTLY
    return CONTRADICTED if CONTRADICTED in verdicts else NOT_SHOWN


def _of_model(claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    findings = [found for each in claim.contrasts if (found := _finding(each, claim, cells, setting, model))]
    decisive = [found for found in findings if found["main"]]
    by_way = {
        way: [found["ways"][way]["verdict"] for found in decisive if way in found["ways"]] for way in claim.ways
    }
    return {
        "model": model,
        "verdict": {way: overall(verdicts) for way, verdicts in by_way.items() if verdicts},
        "findings": findings,
        "arms": [_arm(arm, claim, cells, setting, model) for arm in claim.arms],
        "points": [_point(claim, cells, setting, each) for each in claim.over_models],
        "times": _times(claim, cells, setting, model),
    }


def _finding(contrast: Contrast, claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any] | None:
    """A contrast in all its ways; None where its cells are not all there."""
    times = getattr(contrast.effect, "times", False)
    ways = {}
    for way in contrast.ways or claim.ways:
        estimates = {
            dataset: found
            for dataset in contrast.datasets or claim.datasets
            if (found := _estimate(contrast.effect, CellScores(cells, claim, setting, model, dataset, way)))
        }
        if not estimates:
            return None
        shown = _values(average(list(estimates.values())), times)
        ways[way] = {
            **shown,
            "verdict": verdict(shown["low"], shown["high"], contrast.above, contrast.below),
            "datasets": {dataset: _values(each, times) for dataset, each in estimates.items()},
        }
    return {
        "name": contrast.name.to_dict(),
        "main": contrast.main,
        "above": contrast.above,
        "below": contrast.below,
        "unit": "times" if times else "points",
        "ways": ways,
    }


def _estimate(effect: Any, scores: CellScores) -> Estimate | None:
    try:
        return crossed_mean(np.asarray(effect.values(scores), dtype=np.float64))
    except KeyError:  # not measured yet, or left out
        return None


def _arm(arm: Arm, claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """Accuracy of a condition by way and dataset."""
    ways: dict[str, dict[str, Any]] = {}
    for way in claim.ways:
        for dataset in arm.datasets or claim.datasets:
            try:
                scores = CellScores(cells, claim, setting, model, dataset, way).of(arm.condition)
            except KeyError:  # not measured yet, or left out
                continue
            ways.setdefault(way, {})[dataset] = _level(scores)
    return {"name": arm.name.to_dict(), "x": arm.x, "ways": ways}


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
    gains: dict[str, Any] = {}
    loss = None
    for way in claim.ways:
        parts = [CellScores(cells, claim, setting, model, dataset, way) for dataset in claim.datasets]
        found = [each for part in parts if (each := _estimate(Sum({after: 1.0, before: -1.0}), part))]
        if found:
            gains[way] = _values(average(found), times=False)
        try:
            loss = round(parts[0].loss(model), 4)
        except KeyError:
            loss = None
    return {"model": model, "bits_per_byte": loss, "gain": gains}


def _times(claim: Claim, cells: Cells, setting: Setting, model: str) -> dict[str, Any]:
    """Median seconds over rounds of everything that was timed, by task, and accuracies of the classifiers."""
    if claim.timed is None:
        return {}
    scores = CellScores(cells, claim, setting, model, claim.datasets[0], claim.ways[0])
    try:
        rounds = [cell["tasks"] for cell in scores._cells(Needed(model, claim.datasets[0], claim.timed))]
    except KeyError:
        return {}
    return {
        task: {name: round(float(np.median([each[task][name] for each in rounds])), 4) for name in rounds[0][task]}
        for task in rounds[0]
    }


def _values(found: Estimate, times: bool) -> dict[str, float]:
    ends = (found.value, found.low, found.high)
    shown = _rounded(*(2**each for each in ends)) if times else _rounded(*ends)
    return shown | {"seeds": found.seeds, "items": found.items}


def _rounded(value: float, low: float, high: float) -> dict[str, float]:
    return {"value": round(value, 4), "low": round(low, 4), "high": round(high, 4)}
