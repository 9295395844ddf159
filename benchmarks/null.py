"""Null experiments on the packaged model: searches in worlds where nothing can be learnt, or next to nothing.

    python -m benchmarks.null --data DIR --datasets sst2,trec --seeds 10 --budget "60k tokens" --json FILE

``labels``: every part of the data gets labels by lot, each label equally often. No prompt is worth more than any
other, so every gain that a search reports is imagined. Labels are drawn evenly rather than permuted as they were:
with the data's own counts a prompt that learns the commonest label would honestly beat zero-shot.
``demonstrations``: the pool holds another dataset's texts with this one's label words by lot; validation and test
rows are real, and all prompts hold a fixed set. ``separators``: no demonstrations; the search chooses template and
names, and the names are words drawn by lot. In these two nothing can be learnt about the task, but a prompt still
shows label words and a format, and separators do matter, so a gain on test rows may be real: what must not be is
optimism, a gain on the search rows that the test rows do not confirm.

Calibration gains by itself and is no null. Each winner therefore meets zero-shot with the winner's own calibration
fitted on the same rows (``zero_shot_alike``; batch calibration, where a readout tells the winner's labels), and where
prompts may differ honestly also the average of candidates drawn at random from its space, calibrated in the same way
(``average``). All differences are paired, on test rows that the search never saw, outside its budget. Interrupted,
the same command goes on.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
from benchmarks.common import (
    INSTRUCTIONS,
    Dataset,
    Results,
    end_on_other_settings,
    in_points,
    mean_with_half_width,
    model_setting,
    read_dataset,
)
from benchmarks.outside import (
    SearchRows,
    best_search_value,
    calibrated,
    item_scores,
    race_score,
    search_rows,
    test_rows,
    uncalibrated,
)
from promptsearch.candidate import Candidate
from promptsearch.embed.base import Encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.measurement import measure, paired_difference
from promptsearch.prompting import PromptBuilder, answer_room
from promptsearch.run.workbench import demonstrations_of, make_space
from promptsearch.search.drawing import draw
from promptsearch.template import PLAIN_TEMPLATES

Rows = list[dict[str, Any]]
Scores = NDArray[np.float64]

CALIBRATIONS = (
    "batch",
    "fitted",
    "matrix",
    "none",
)  # "contextual" asks about inputs that Prompt.predict refuses: empty ones
NAMES = 24
_WORD = re.compile(r"[^\W\d_]{3,12}")


@dataclass(frozen=True)
class Experiment:
    """A null world.

    Attributes:
        task: from a dataset, another one, and a seed.
        space: what its searches may vary, by task and seed.
        sampled: whether winners are compared with the average of the space.
    """

    task: Callable[[Dataset, Dataset, int, Mapping[str, int]], ps.Task]
    space: Callable[[ps.Task, int], ps.Space]
    sampled: bool


# -- the worlds -------------------------------------------------------------------------------------------------


def labels_by_lot(count: int, labels: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Each label equally often (up to one), in random order."""
    extra = rng.permutation(len(labels))[: count % len(labels)]
    every = [*(list(labels) * (count // len(labels))), *(labels[place] for place in extra)]
    return [every[place] for place in rng.permutation(count)]


def _drawn(rows: Rows, count: int | None, rng: np.random.Generator) -> Rows:
    """So many rows by lot."""
    return [rows[place] for place in rng.permutation(len(rows))[:count].tolist()]


def _relabelled(rows: Rows, labels: Sequence[str], rng: np.random.Generator) -> Rows:
    outputs = labels_by_lot(len(rows), labels, rng)
    return [{**row, "output": output} for row, output in zip(rows, outputs, strict=True)]


def _task(dataset: Dataset, train: Rows, validation: Rows, test: Rows) -> ps.Task:
    columns: dict[str, Any] = {"inputs": "input", "output": "output", "labels": dataset.labels}
    instruction = INSTRUCTIONS.get(dataset.name)
    return ps.Task(train, **columns, instruction=instruction, validation=validation, test=test)


def shuffled_task(dataset: Dataset, other: Dataset, seed: int, sizes: Mapping[str, int]) -> ps.Task:
    """All labels by lot, in each part evenly."""
    rng = np.random.default_rng([seed, 30])
    parts = {
        "train": _drawn(dataset.train, sizes["train"], rng),
        "dev": _drawn(dataset.dev, None, rng),
        "test": _drawn(dataset.test, sizes["test"], rng),
    }
    train, dev, test = (_relabelled(rows, dataset.labels, rng) for rows in parts.values())
    return _task(dataset, train, dev, test)


def foreign_task(dataset: Dataset, other: Dataset, seed: int, sizes: Mapping[str, int]) -> ps.Task:
    """Another dataset's texts as the pool, with this one's labels by lot; real rows to search and test on."""
    rng = np.random.default_rng([seed, 31])
    pool = _relabelled(_drawn(other.train, sizes["train"], rng), dataset.labels, rng)
    return _task(dataset, pool, dataset.dev, _drawn(dataset.test, sizes["test"], rng))


def real_task(dataset: Dataset, other: Dataset, seed: int, sizes: Mapping[str, int]) -> ps.Task:
    """The dataset as it is."""
    rng = np.random.default_rng([seed, 32])
    train, test = _drawn(dataset.train, sizes["train"], rng), _drawn(dataset.test, sizes["test"], rng)
    return _task(dataset, train, dataset.dev, test)


def _everything(task: ps.Task, seed: int) -> ps.Space:
    return ps.Space()


def _demonstrations_only(task: ps.Task, seed: int) -> ps.Space:
    """Fixed sets of demonstrations vary and nothing else does, so that candidates drawn alike give an average."""
    return ps.Space(
        modes=("static",),
        templates=("fields",),
        names=(),
        instructions=False,
        prior=False,
        calibrations=CALIBRATIONS,
        reasoning=("none",),
    )


def _separators_only(task: ps.Task, seed: int) -> ps.Space:
    """Templates, and names that are words by lot."""
    return ps.Space(
        shots=(0,),
        modes=("static",),
        templates=tuple(template.name for template in PLAIN_TEMPLATES),
        names=random_names([example.text for example in task.examples], NAMES, np.random.default_rng([seed, 33])),
        instructions=False,
        prior=False,
        calibrations=CALIBRATIONS,
        reasoning=("none",),
    )


def random_names(texts: Sequence[str], count: int, rng: np.random.Generator) -> tuple[tuple[str, str], ...]:
    """Pairs of different words of the texts, drawn by lot and written as names are."""
    words = sorted({word.lower() for text in texts for word in _WORD.findall(text)})
    pairs = [rng.choice(len(words), size=2, replace=False) for _ in range(count)]
    return tuple((words[left].capitalize(), words[right].capitalize()) for left, right in pairs)


EXPERIMENTS = {
    "labels": Experiment(shuffled_task, _everything, sampled=False),
    "demonstrations": Experiment(foreign_task, _demonstrations_only, sampled=True),
    "separators": Experiment(real_task, _separators_only, sampled=True),
}


# -- measuring --------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure every cell that is not there yet, then print the summary."""
    options = _options()
    names, chosen = options.datasets.split(","), options.experiments.split(",")
    sizes = {"train": options.rows, "test": options.test_rows}
    settings = {"budget": options.budget, "sample": options.sample, **sizes, **model_setting(options.model)}
    end_on_other_settings(Path(options.json), settings)
    datasets = {name: read_dataset(Path(options.data), name) for name in names}
    opened, encoder = open_engine(options.model), CachedEncoder(resolve_encoder(None))
    results = Results(Path(options.json), settings, opened.description)
    for seed in range(options.seeds):
        for place, name in enumerate(names):
            for kind in chosen:
                key = f"{kind}|{name}|{seed}"
                if key in results:
                    continue
                experiment, other = EXPERIMENTS[kind], datasets[names[(place + 1) % len(names)]]
                task = experiment.task(datasets[name], other, seed, sizes)
                space = experiment.space(task, seed)
                sample = options.sample if experiment.sampled else 0
                cell = measure_null(task, space, opened, encoder, seed, budget=options.budget, sample=sample)
                results.add(key, cell)
                print(key, _line(cell), flush=True)
    print(table(results.cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec", help="each one's foreign texts come from the next")
    parser.add_argument("--experiments", default=",".join(EXPERIMENTS))
    parser.add_argument("--budget", default="60k tokens")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rows", type=int, default=1000, help="rows of the pool")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument(
        "--sample", type=int, default=8, help="random candidates whose average a winner is held against"
    )
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", required=True, help="file of results")
    options = parser.parse_args()
    unknown = set(options.experiments.split(",")) - set(EXPERIMENTS)
    if unknown:
        parser.error(f"unknown experiment {sorted(unknown)[0]!r}; give some of {', '.join(EXPERIMENTS)}")
    if "demonstrations" in options.experiments and len(set(options.datasets.split(","))) < 2:
        parser.error(
            "demonstrations from another dataset need two datasets at least; give more, or other experiments"
        )
    return options


def measure_null(
    task: ps.Task,
    space: ps.Space,
    opened: OpenedModel,
    encoder: Encoder,
    seed: int,
    *,
    budget: str,
    sample: int,
) -> dict[str, Any]:
    """One search, and its winner against the references on all test rows."""
    result = ps.optimize(task, opened, budget, encoder=encoder, space=space, seed=seed, progress=False)
    rows = search_rows(task, result, encoder, seed)
    test = test_rows(task, rows.near.splits)
    winner = item_scores(result.prompt, test)
    first = task.instructions[0] if task.instructions else ""
    zero = Candidate(instruction=first)
    calibration = result.prompt.candidate.calibration
    drawn = _sampled(task, space, opened, rows, sample, seed)
    tests = {
        "zero_shot": item_scores(uncalibrated(result.prompt, opened, zero), test),
        "zero_shot_alike": item_scores(calibrated(result.prompt, opened, zero, calibration, rows.fitted), test),
    }
    raced = rows.trial.candidate.calibration
    searches = {"zero_shot_alike": race_score(result.prompt, opened, zero, raced, rows.raced)}
    if space.prior:
        tests["label_vote"] = _vote_scores(task, rows)
    if drawn:
        alike = [calibrated(result.prompt, opened, each, calibration, rows.fitted) for each in drawn]
        tests["average"] = np.mean([item_scores(prompt, test) for prompt in alike], axis=0)
        scores = [race_score(result.prompt, opened, each, raced, rows.raced) for each in drawn]
        searches["average"] = float(np.mean(scores))
    return {
        "test": measure(winner).to_dict(),
        "chance": 1 / len(task.labels or ()),
        "reported": {
            "test": result.test.to_dict(),
            "improvement": result.improvement.to_dict(),
            "label_vote": result.against["label_vote"].to_dict(),
        },
        "search": {"winner": rows.trial.value, "best": best_search_value(result), "items": rows.trial.items},
        "against": {
            name: against(winner, scores, rows.trial.value, searches.get(name)) for name, scores in tests.items()
        },
        "winner": result.prompt.candidate.to_dict(),
        "prior_weight": result.prompt.weighing.prior_weight if result.prompt.weighing is not None else 0.0,
        "trials": len(result.trials),
        "tokens": result.cost.tokens,
        "seconds": result.cost.total_seconds,
        "stopped_by": result.stopped_by,
    }


def _sampled(
    task: ps.Task, space: ps.Space, opened: OpenedModel, rows: SearchRows, count: int, seed: int
) -> list[Candidate]:
    """Candidates drawn at random from a static space, as the search draws them before it knows anything."""
    labels, splits = task.labels, rows.near.splits
    room = answer_room(opened.engine, labels, task.answer_form)
    shown = demonstrations_of(task.examples, splits.pool)
    builder = PromptBuilder(opened.engine, task.inputs, task.output, shown, room)
    laid_out = make_space(task, splits, space, opened.engine, builder, room, rows.near.matcher)
    rng = np.random.default_rng([seed, 34])
    return [draw(laid_out, rng) for _ in range(count)]


def _vote_scores(task: ps.Task, rows: SearchRows) -> Scores:
    items = rows.near.splits.test
    judge = rows.near.judge(task, task.require_metric(), prior=False)
    return judge.judge_labels(items, np.stack([rows.near.votes[item] for item in items])).scores


def against(winner: Scores, reference: Scores, searched: float, reference_searched: float | None) -> dict[str, Any]:
    """The winner's gain over a reference on test rows, beside what the search rows promised.

    Args:
        winner: scores on test rows, shape (rows,).
        reference: the same of what it is compared with.
        searched: the winner's score on the search rows that it was chosen by.
        reference_searched: the reference's on the same rows, None where it has none.
    """
    values = paired_difference(winner, reference).to_dict()
    if reference_searched is None:
        return values
    gain = searched - reference_searched
    return {**values, "search_gain": gain, "optimism": gain - values["value"]}


# -- showing ----------------------------------------------------------------------------------------------------


def summary(cells: Mapping[str, dict[str, Any]]) -> dict[tuple[str, str, str], dict[str, Any]]:
    """Over seeds, for each experiment, dataset and reference: share of intervals that hold zero, gains, optimism.

    ``chance`` counts a reference too, in the experiment where no prompt can be better than it.
    """
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for key, cell in cells.items():
        kind, dataset, _ = key.split("|")
        compared = dict(cell["against"])
        compared["zero_shot, as reported"] = cell["reported"]["improvement"]
        if kind == "labels":
            compared["label_vote, as reported"] = cell["reported"]["label_vote"]
            test, chance = cell["test"], cell["chance"]
            shifted = {end: test[end] - chance for end in ("value", "low", "high")}
            compared["chance"] = {**shifted, "optimism": cell["search"]["winner"] - test["value"]}
        for name, difference in compared.items():
            groups.setdefault((kind, dataset, name), []).append(difference)
    return {key: _over_seeds(differences) for key, differences in groups.items()}


def _over_seeds(differences: Sequence[dict[str, Any]]) -> dict[str, Any]:
    gains = [each["value"] for each in differences]
    values: dict[str, Any] = {
        "seeds": len(differences),
        "hold_zero": sum(each["low"] <= 0 <= each["high"] for each in differences),
        "above": sum(each["low"] > 0 for each in differences),
        "below": sum(each["high"] < 0 for each in differences),
        "gain": mean_with_half_width(gains),
    }
    for name in ("search_gain", "optimism"):
        found = [each[name] for each in differences if name in each]
        if found:
            values[name] = mean_with_half_width(found)
    return values


def table(cells: Mapping[str, dict[str, Any]]) -> str:
    """The summary as lines; gains in points."""
    lines = [f"{'':52} {'zero in':>9} {'gain on test rows':>18} {'on search rows':>16} {'optimism':>14}"]
    for (kind, dataset, name), values in sorted(summary(cells).items()):
        held = f"{values['hold_zero']} of {values['seeds']}"
        shown = [
            f"{in_points(values[each])}" if each in values else "" for each in ("gain", "search_gain", "optimism")
        ]
        lines.append(
            f"{kind}, {dataset}, {name:28}"[:52].ljust(52)
            + f" {held:>9} {shown[0]:>18} {shown[1]:>16} {shown[2]:>14}"
        )
    lines.append(
        "An interval that covers 95 % leaves out zero in 1 of 20 null searches: 9 of 10 or more in 91 % of such rows."
    )
    return "\n".join(lines)


def _line(cell: dict[str, Any]) -> str:
    gains = "  ".join(f"over {name} {100 * each['value']:+.1f}" for name, each in cell["against"].items())
    searched = cell["search"]
    return (
        f"{100 * cell['test']['value']:.1f} (search rows {100 * searched['winner']:.1f})  {gains}  | "
        f"{cell['seconds']:.0f} s, {cell['tokens']:,} tokens, {cell['trials']} trials"
    )


if __name__ == "__main__":
    main()
