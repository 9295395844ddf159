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
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import Dataset, Results, read_dataset
from promptsearch.calibration import batch_offsets, normalized
from promptsearch.candidate import Candidate
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.evaluation import Answers, Asker
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.measurement import Measurement
from promptsearch.prompting import PromptBuilder
from promptsearch.workbench import Neighbourhood, demonstrations_of, embed_splits

SHOTS = 8
CALIBRATION_ROWS = 64


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    opened = open_engine(options.model)
    settings = {"budget": options.budget, "model": opened.description, "test_rows": options.test_rows}
    results = Results(Path(options.json), settings)
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
    parser.add_argument("--skip-recipes", action="store_true", help="measure optimize alone")
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def _cell(
    dataset: Dataset, task: ps.Task, opened: OpenedModel, options: argparse.Namespace, seed: int
) -> dict[str, Any]:
    """One dataset, number of rows and seed."""
    start = time.perf_counter()
    result = ps.optimize(task, opened, options.budget, seed=seed, progress=False)
    seconds = time.perf_counter() - start
    test = [task.examples[number] for number in task.parts.test]
    measured = {"optimize": result.prompt.evaluate(test)}
    if not options.skip_recipes:
        measured.update(_recipes(task, opened, seed))
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


def _recipes(task: ps.Task, opened: OpenedModel, seed: int) -> dict[str, Measurement]:
    """The plain recipes on all test rows."""
    splits = task.split(seed)
    near = embed_splits(task, splits, resolve_encoder(None), lambda done, total: None)
    shown = demonstrations_of(task.examples, near.splits.pool)
    builder = PromptBuilder(opened.engine, task.inputs, task.output, shown, 16)
    asker = Asker(opened.engine, builder, task.labels)
    judge = near.judge(task, task.require_metric(), prior=False)
    items = list(near.splits.test)
    labels = len(task.labels or ())
    zero = Candidate(instruction=task.instructions[0] if task.instructions else "")
    random = replace(zero, demonstrations=_random_shots(task, near, seed))
    nearest = replace(zero, mode="retrieved", count=SHOTS)
    found = {}
    for name, candidate in (("zero_shot", zero), ("random_8", random), ("nearest_8", nearest)):
        answers = _ask(asker, task, near, candidate, items)
        calibrating = _ask(asker, task, near, candidate, list(near.splits.search[:CALIBRATION_ROWS]))
        offsets = batch_offsets(normalized(calibrating.log_probabilities))
        plain = judge.plain(labels)
        calibrated = replace(plain, calibration="batch", offsets=tuple(offsets.tolist()))
        found[name] = judge.measure(items, judge.judge(items, answers, plain))
        found[f"{name}_calibrated"] = judge.measure(items, judge.judge(items, answers, calibrated))
    for name, logs in (("label_vote", near.votes), ("embedding_prior", near.priors)):
        found[name] = judge.measure(items, judge.judge_labels(items, np.stack([logs[item] for item in items])))
    return found


def _ask(asker: Asker, task: ps.Task, near: Neighbourhood, candidate: Candidate, items: list[int]) -> Answers:
    values: list[object] = []
    for start in range(0, len(items), 128):
        part = items[start : start + 128]
        inputs = [task.examples[item].fields for item in part]
        values += asker.ask(candidate, inputs, near.matcher.matches(candidate, part))
    return asker.answers(values)


def _random_shots(task: ps.Task, near: Neighbourhood, seed: int) -> tuple[int, ...]:
    """Random demonstrations, as many of each label as goes."""
    rng = np.random.default_rng([seed, 11])
    groups: dict[str, list[int]] = {}
    for number in rng.permutation(near.pool.ids).tolist():
        groups.setdefault(task.examples[number].output, []).append(number)
    chosen: list[int] = []
    while len(chosen) < min(SHOTS, len(near.pool)):
        for label in rng.permutation(sorted(groups)).tolist():
            if groups[label] and len(chosen) < SHOTS:
                chosen.append(groups[label].pop())
    return tuple(chosen[place] for place in rng.permutation(len(chosen)))


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
