"""How far the scores that a search sees lie above what its prompt is worth, and whether the reported number does.

    python -m benchmarks.optimism --data DIR --datasets sst2,trec --seeds 10 --budget "60k tokens" --json FILE

For each dataset and seed one call of ``optimize``, whose prompt then answers all test rows outside the budget. Held
against that: the best score of the race, the score of the winner in the race, the confirmation score
(``result.validation``), and the number that is reported (``result.test``). The first two chose the winner and are
too high by construction; the reported number read other rows, so its mean difference must be zero within its
interval. Its rows are a part of all test rows, by lot: how far it may lie off by that alone stands beside it.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import (
    Results,
    end_on_other_settings,
    in_points,
    mean_with_half_width,
    model_setting,
    read_dataset,
)
from benchmarks.outside import best_search_value, winning_trial
from benchmarks.reported import expected_coverage, is_covered, rest_value, sampling_error
from promptsearch.embed.base import Encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.lm.resolve import OpenedModel, open_engine

SCORES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "best of the race": lambda cell: float(cell["best_search"]),
    "winner in the race": lambda cell: float(cell["winner_search"]),
    "confirmation": lambda cell: float(cell["validation"]["value"]),
    "reported": lambda cell: float(cell["test"]["value"]),
}


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    sizes = {"rows": options.rows, "test_rows": options.test_rows}
    settings = {"budget": options.budget, **sizes, **model_setting(options.model)}
    end_on_other_settings(Path(options.json), settings)
    opened, encoder = open_engine(options.model), CachedEncoder(resolve_encoder(None))
    results = Results(Path(options.json), settings, opened.description)
    for seed in range(options.seeds):
        for name in options.datasets.split(","):
            key = f"{name}|{seed}"
            if key not in results:
                task = read_dataset(Path(options.data), name).task(options.rows, options.test_rows, seed)
                results.add(key, measure_optimism(task, opened, encoder, seed, options.budget))
                print(key, _line(results.cells[key]), flush=True)
    print(table(results.cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec")
    parser.add_argument("--budget", default="60k tokens")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=None, help="labelled rows; all, if not given")
    parser.add_argument("--test-rows", type=int, default=None, help="only the first so many test rows")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def measure_optimism(task: ps.Task, opened: OpenedModel, encoder: Encoder, seed: int, budget: str) -> dict[str, Any]:
    """One search, what it believed, and what its prompt does on all test rows."""
    result = ps.optimize(task, opened, budget, encoder=encoder, seed=seed, progress=False)
    full = result.prompt.evaluate([task.examples[number] for number in task.split(seed).test])
    trial = winning_trial(result)
    return {
        "full": full.to_dict(),
        "test": result.test.to_dict(),
        "validation": result.validation.to_dict(),
        "best_search": best_search_value(result),
        "winner_search": trial.value,
        "winner_items": trial.items,
        "trials": len(result.trials),
        "tokens": result.cost.tokens,
        "seconds": result.cost.total_seconds,
        "stopped_by": result.stopped_by,
    }


# -- arithmetic -------------------------------------------------------------------------------------------------


def summary(cells: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean signed and absolute difference of each score to the value on all test rows, over seeds."""
    values: dict[str, Any] = {"seeds": len(cells)}
    for name, score in SCORES.items():
        differences = [score(cell) - cell["full"]["value"] for cell in cells]
        values[name] = {
            "signed": mean_with_half_width(differences),
            "absolute": mean_with_half_width([abs(each) for each in differences]),
        }
    errors = [sampling_error(cell) for cell in cells]
    held = [is_covered(cell) for cell in cells]
    values["absolute by sampling alone"] = float(np.mean(errors)) * math.sqrt(2 / math.pi)  # of a normal error
    values["covered"] = {"held": sum(held), "expected": float(np.mean([expected_coverage(cell) for cell in cells]))}
    rests = [cell["test"]["value"] - rest for cell in cells if (rest := rest_value(cell)) is not None]
    values["reported minus rows not read"] = mean_with_half_width(rests) if rests else None
    return values


# -- showing ----------------------------------------------------------------------------------------------------


def table(cells: Mapping[str, dict[str, Any]]) -> str:
    """The summary of each dataset, and of all together, in points."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        groups.setdefault(key.split("|")[0], []).append(cell)
    if len(groups) > 1:
        groups["all"] = list(cells.values())
    return "\n".join(line for name, group in groups.items() for line in _lines(name, summary(group)))


def _lines(name: str, values: Mapping[str, Any]) -> list[str]:
    lines = [f"\n{name}, {values['seeds']} searches; each score minus the accuracy on all test rows, in points"]
    for score in SCORES:
        signed, absolute = values[score]["signed"], values[score]["absolute"]
        lines.append(f"  {score:<20} {in_points(signed):>14}   absolute {in_points(absolute, sign=False)}")
    rest = values["reported minus rows not read"]
    if rest is not None:
        lines.append(f"  reported minus the test rows that it did not read: {in_points(rest)}")
    alone, covered = values["absolute by sampling alone"], values["covered"]
    lines.append(f"  absolute difference of the reported number by the choice of rows alone: {100 * alone:.1f}")
    lines.append(
        f"  its interval holds the value on all test rows in {covered['held']} of {values['seeds']} "
        f"(expected: {covered['expected']:.1%})"
    )
    return lines


def _line(cell: Mapping[str, Any]) -> str:
    found = "  ".join(f"{name} {100 * score(cell):.1f}" for name, score in SCORES.items())
    return f"{found}  all test rows {100 * cell['full']['value']:.1f}  | {cell['tokens']:,} tokens"


if __name__ == "__main__":
    main()
