"""Test accuracy of ``optimize`` against the plain recipes, on real datasets and by number of labelled rows.

    python -m benchmarks.accuracy --data DIR --datasets sst2,trec,agnews --budget 2m --seeds 3 --json FILE

``DIR`` holds a folder for each dataset with ``train.jsonl``, ``dev.jsonl``, ``test.jsonl`` (columns ``input`` and
``output``) and ``meta.json`` (with ``labels``). Every method answers the same test rows. The budget bounds
``optimize`` alone; its prompt is then measured on all test rows, outside the budget, as are the recipes.
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import Dataset, Results, end_on_other_settings, model_setting, read_dataset
from benchmarks.recipes import PLAIN_RECIPES, Bench
from promptsearch.lm.resolve import OpenedModel, open_engine


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    settings = {"budget": options.budget, "test_rows": options.test_rows, **model_setting(options.model)}
    end_on_other_settings(Path(options.json), settings)
    opened = open_engine(options.model)
    results = Results(Path(options.json), settings, opened.description)
    for name in options.datasets.split(","):
        dataset = read_dataset(Path(options.data), name)
        for rows in options.rows.split(","):
            for seed in range(options.seeds):
                key = f"{name}|{rows}|{seed}"
                if key not in results:
                    task = dataset.task(None if rows == "all" else int(rows), options.test_rows, seed)
                    results.add(key, _cell(dataset, task, opened, options, seed))
                    print(key, _line(results.cells[key]), flush=True)
    print(_table(results))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec,agnews")
    parser.add_argument("--rows", default="all", help="labelled rows: numbers and 'all', separated by commas")
    parser.add_argument("--budget", default="2m")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--model", default=None)
    parser.add_argument("--test-rows", type=int, default=None, help="only the first so many test rows")
    parser.add_argument("--recipes", type=_recipes, default=(), help="some of the recipes that ask the model")
    parser.add_argument("--skip-recipes", action="store_true", help="measure optimize alone")
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def _recipes(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    unknown = [name for name in names if name not in PLAIN_RECIPES]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PLAIN_RECIPES)}")
    return names


def _cell(
    dataset: Dataset, task: ps.Task, opened: OpenedModel, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One dataset, number of rows and seed."""
    start = time.perf_counter()
    result = ps.optimize(task, opened, options.budget, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    test = [task.examples[number] for number in task.parts.test]
    with_prior, alone = result.prompt.evaluate_twice(test)
    measured = {"optimize": with_prior, "prompt_alone": alone}
    if not options.skip_recipes:
        measured.update(Bench(task, opened, seed).plain_recipes(options.recipes))
    return {
        **{name: value.to_dict() for name, value in measured.items()},
        "inside": {
            "seconds": seconds,
            "tokens": result.cost.tokens,
            "test": result.test.to_dict(),
            "test_without_prior": result.test_without_prior.to_dict(),
            "validation": result.validation.to_dict(),
            "baselines": {name: value.to_dict() for name, value in result.baselines.items()},
            "mode": result.prompt.mode,
            "shots": result.prompt.candidate.shots,
            "trials": len(result.trials),
            "stopped_by": result.stopped_by,
            "notes": list(result.notes),
        },
    }


def _line(cell: dict[str, Any]) -> str:
    values = {name: value["value"] for name, value in cell.items() if name != "inside"}
    inside = cell["inside"]
    shown = "  ".join(f"{name} {100 * value:.1f}" for name, value in values.items())
    return f"{shown}  | {inside['seconds']:.0f} s, {inside['tokens']:,} tokens, {inside['trials']} trials"


def _table(results: Results) -> str:
    """Means over seeds, with the spread between seeds."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for key, cell in results.cells.items():
        name, rows, _ = key.split("|")
        groups.setdefault((name, rows), []).append(cell)
    lines = []
    for (name, rows), cells in groups.items():
        lines.append(f"\n{name}, {rows} labelled rows, {len(cells)} seed(s), {cells[0]['optimize']['n']} test rows")
        for method in [method for method in cells[0] if method != "inside"]:
            values = [100 * cell[method]["value"] for cell in cells if method in cell]
            spread = f" +- {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            lines.append(f"  {method:<28} {np.mean(values):5.1f}{spread}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
