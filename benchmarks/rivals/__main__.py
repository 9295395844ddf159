"""Ours against DSPy's optimizers and plain recipes, on the same model file and the same rows.

    python -m benchmarks.rivals --data DIR --datasets sst2,trec --json FILE

``DIR`` holds a folder for each dataset, as ``benchmarks.accuracy`` reads them. Everybody runs the same weights of
the packaged model (``--weights``; by default the type that is fastest here, which the settings in FILE name) and
answers the same test rows. The methods (``--only`` takes some by their names or parts of them):

    ours 2m, ours 2m alone     ``optimize`` with its whole space, and without the prior; for each of
                               ``--budget-minutes``, and of ``--budget-tokens`` (``ours 60k``). The first is also
                               measured with its prior taken away
    recipe plain               zero-shot, eight random, eight nearest demonstrations, each as the model answers and
                               calibrated; the label vote of neighbours
    recipe topk-mdl 2m         recipes that choose by the model, with the tokens that ``ours 2m`` spent on this
                               dataset and seed (or ``--tokens``); for each of ``--recipe-minutes``, and of
                               ``--budget-tokens``, of which they may spend all
    dspy mipro chat            a DSPy optimizer with its own defaults and one of ``--adapters``: DSPy's default
                               (chat), a plain one that small models can follow, JSON held to a schema (json)
    dspy mipro chat 2m         the same asked for as much as fits each of ``--rival-minutes``

Optimizers get ``--training-rows`` and ``--validation-rows``; those to which more rows cost nothing (labeled, knn) get
all. A cell holds wall seconds, requests, tokens of prompts and answers, tokens that ran through the model, and test
accuracy with Wilson's interval; answers that could not be parsed are wrong and counted apart. The test rows are
answered outside the time. Each cell runs in a process of its own, one after another. Nothing else should run.

Interrupted, the same command goes on with the cells that lack, the one that was interrupted from its beginning.
``--table`` measures nothing and prints what FILE holds.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from pathlib import Path
from typing import Any

from benchmarks.common import Results, require_same_settings
from benchmarks.rivals.cells import Setting, measured
from benchmarks.rivals.methods import ADAPTERS, methods, selected
from benchmarks.rivals.table import table
from benchmarks.throughput_processes import ContenderError
from promptsearch.errors import PromptsearchError
from promptsearch.lm.llamacpp.weights import choose_weights
from promptsearch.lm.resolve import packaged_model


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that processes are ended
    parser = _parser()
    options = parser.parse_args()
    path = Path(options.json)
    if options.tokens is not None and options.budget_tokens:
        parser.error("--tokens and --budget-tokens both say what recipes may spend; give one of them")
    if options.table:
        print(table(json.loads(path.read_text("utf-8"))["cells"]))
        return
    try:
        chosen = selected(
            methods(
                options.budget_minutes,
                options.rival_minutes,
                options.recipe_minutes,
                options.adapters,
                options.budget_tokens,
            ),
            options.only,
        )
        weights = choose_weights(packaged_model(), options.weights)
        settings = _settings(options, weights.kind)
        require_same_settings(path, settings)
    except (PromptsearchError, ValueError) as error:
        parser.error(str(error))
    setting = Setting(
        data=options.data,
        weights=weights.kind,
        path=str(weights.path),
        test_rows=options.test_rows,
        training_rows=options.training_rows,
        validation_rows=options.validation_rows,
        pool_rows=options.pool_rows,
        tokens=options.tokens,
    )
    results = Results(path, settings)
    for seed in range(max(options.seeds, options.our_seeds)):
        family_seeds = {"dspy": options.seeds, "ours": options.our_seeds, "recipe": options.our_seeds}
        for dataset in options.datasets.split(","):
            for method in chosen:
                key = f"{dataset}|{method.name}|{seed}"
                if key in results or seed >= family_seeds[method.family]:
                    continue
                try:
                    results.add(key, measured(method, dataset, seed, setting, results.cells))
                except (PromptsearchError, ContenderError) as error:
                    print(f"{key}  cannot be measured: {error}", flush=True)
                    continue
                print(f"{key}  {_line(results.cells[key])}", flush=True)
    print(table(results.cells))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.rivals", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--datasets", default="sst2,trec")
    parser.add_argument("--json", required=True, help="file of results")
    parser.add_argument(
        "--only", "--methods", type=_names, default=[], help="names or parts of them, separated by commas"
    )
    parser.add_argument("--seeds", type=int, default=2, help="of DSPy's optimizers")
    parser.add_argument("--our-seeds", type=int, default=3, help="of ours and of recipes")
    parser.add_argument("--budget-minutes", type=_numbers, default=[0.5, 2, 10], help="budgets of ours")
    parser.add_argument("--budget-tokens", type=_counts, default=[], help="budgets of ours and of recipes, in tokens")
    parser.add_argument("--rival-minutes", type=_numbers, default=[2], help="what bounded optimizers may take")
    parser.add_argument("--recipe-minutes", type=_numbers, default=[2], help="ours whose tokens recipes may spend")
    parser.add_argument("--tokens", type=int, default=None, help="what recipes may spend instead")
    parser.add_argument("--adapters", type=_adapters, default=["chat", "plain"], help=f"some of {','.join(ADAPTERS)}")
    parser.add_argument("--training-rows", type=int, default=100, help="of DSPy's optimizers")
    parser.add_argument("--validation-rows", type=int, default=100, help="of DSPy's optimizers")
    parser.add_argument("--pool-rows", type=int, default=None, help="labelled rows in all; none: all there are")
    parser.add_argument("--test-rows", type=int, default=300, help="the first so many test rows")
    parser.add_argument("--weights", default="auto", help="weight type that everybody runs")
    parser.add_argument("--table", action="store_true", help="print FILE and measure nothing")
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _numbers(text: str) -> list[float]:
    return [float(number) for number in _names(text)]


def _counts(text: str) -> list[int]:
    return [int(number) for number in _names(text)]


def _adapters(text: str) -> list[str]:
    unknown = [name for name in _names(text) if name not in ADAPTERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(ADAPTERS)}")
    return _names(text)


def _settings(options: argparse.Namespace, kind: str) -> dict[str, Any]:
    """What cells of one file have in common."""
    names = ("training_rows", "validation_rows", "pool_rows", "test_rows", "tokens")
    return {"model": packaged_model().name, "weights": kind, **{name: getattr(options, name) for name in names}}


def _line(cell: dict[str, Any]) -> str:
    tests = cell.get("measured") or {"test": cell["test"]}
    shown = "  ".join(f"{name} {100 * test['value']:.1f}" for name, test in tests.items())
    return f"{shown}  | {cell['seconds']:.0f} s, {cell.get('usage', {})}"


if __name__ == "__main__":
    main()
