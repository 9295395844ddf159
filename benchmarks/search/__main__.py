"""Test accuracy against model tokens, for each strategy, mode and prior.

    python -m benchmarks.search --data DIR --datasets sst2,trec,agnews,rte,banking77,chnsenticorp --seeds 3 \
        --budgets 25k,75k,200k --json FILE --plots FOLDER

Every found prompt is measured on all test rows after its run, outside the budget. Tokens are what ``optimize``
spent in all; beside them stands what it spent until the winner was chosen, which is what "best of 64 random" (64
random candidates, each scored on all search rows) is compared by. ``--methods`` narrows what runs to names and
patterns ("halving*,static only"), ``--list`` prints all names, ``--show`` prints what is measured and draws it.
Interrupted, the same command goes on; a budget too small for a dataset is said and left out.
"""

from __future__ import annotations

import argparse
import fnmatch
from pathlib import Path

import promptsearch as ps
from benchmarks.common import Dataset, Results, end_on_other_settings, model_setting, read_dataset
from benchmarks.search.cells import measure_search
from benchmarks.search.methods import Method, methods, recipe_budget
from benchmarks.search.plots import plot
from benchmarks.search.summary import points, table
from promptsearch.embed.base import Encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import BudgetError
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.run.workbench import embed_splits

OWN_BUDGET = "own"


def main() -> None:
    """Measure every cell that is not there yet, then print the tables and draw the plots."""
    options = _options()
    if options.list:
        print("\n".join(methods()))
        return
    chosen = _chosen(options.methods)
    path = Path(options.json)
    if options.show:
        results = Results(path, {})
    else:
        settings = {"rows": options.rows, "test_rows": options.test_rows, **model_setting(options.model)}
        end_on_other_settings(path, settings)
        opened, encoder = open_engine(options.model), CachedEncoder(resolve_encoder(None))
        results = Results(path, settings, opened.description)
        for seed in range(options.seeds):
            for name in options.datasets.split(","):
                dataset = read_dataset(Path(options.data), name)
                _measure(results, dataset, seed, chosen, options, opened, encoder)
    print(table(results.cells))
    if options.plots:
        for name, lines in points(results.cells).items():
            plot(name, lines, Path(options.plots) / f"{name}.{options.format}")


def _measure(
    results: Results,
    dataset: Dataset,
    seed: int,
    chosen: list[Method],
    options: argparse.Namespace,
    opened: OpenedModel,
    encoder: Encoder,
) -> None:
    """All methods and budgets of one dataset and seed."""
    task = dataset.task(options.rows, options.test_rows, seed)
    for method in chosen:
        for budget in options.budgets.split(",") if method.budgeted else [OWN_BUDGET]:
            key = f"{dataset.name}|{method.name}|{budget}|{seed}"
            if key in results:
                continue
            limits = f"{budget} tokens" if method.budgeted else recipe_budget(_search_rows(task, encoder, seed))
            try:
                cell = measure_search(task, method, limits, opened, encoder, seed)
            except BudgetError as error:
                print(f"{key}: left out, {error}", flush=True)
                continue
            results.add(key, cell)
            shown = f"{100 * cell['full']['value']:.1f}, {cell['tokens_per_query']:.0f} tokens a query"
            print(f"{key}: {shown}  | {cell['tokens']:,} tokens, {cell['trials']} trials", flush=True)


def _search_rows(task: ps.Task, encoder: Encoder, seed: int) -> int:
    """Rows that a search races on: those left when near duplicates are removed."""
    return len(embed_splits(task, task.split(seed), encoder, lambda done, total: None).splits.search)


def _chosen(words: str | None) -> list[Method]:
    """The methods whose names match one of the patterns; all without any.

    Raises:
        SystemExit: a pattern that matches none.
    """
    every = methods()
    if not words:
        return list(every.values())
    patterns = [word.strip() for word in words.split(",")]
    for pattern in patterns:
        if not fnmatch.filter(every, pattern):
            raise SystemExit(f"no method is called {pattern!r}; --list prints their names")
    return [method for name, method in every.items() if any(fnmatch.fnmatchcase(name, each) for each in patterns)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec,agnews,rte,banking77,chnsenticorp")
    parser.add_argument("--budgets", default="25k,75k,200k", help="model tokens")
    parser.add_argument("--methods", default=None, help="names or patterns, separated by commas; see --list")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=None, help="labelled rows; all, if not given")
    parser.add_argument("--test-rows", type=int, default=None, help="only the first so many test rows")
    parser.add_argument("--model", default=None)
    parser.add_argument("--plots", default=None, help="folder for the figures")
    parser.add_argument("--format", default="svg", choices=("svg", "png"))
    parser.add_argument("--list", action="store_true", help="print the names of the methods")
    parser.add_argument("--show", action="store_true", help="measure nothing; print and draw what is there")
    parser.add_argument("--json", help="file of results")
    options = parser.parse_args()
    if not options.list and (not options.json or not (options.data or options.show)):
        parser.error("give --data and --json; --json alone with --show; or --list")
    try:
        for budget in options.budgets.split(","):
            ps.Budget.parse(f"{budget} tokens")
    except BudgetError as error:
        parser.error(str(error))
    return options


if __name__ == "__main__":
    main()
