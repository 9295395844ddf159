"""Fifteen claims about demonstrations, tested on a GGUF file.

    python -m benchmarks.lab --data DIR --quick
    python -m benchmarks.lab --data DIR --model model.gguf --only 4,6,10
    python -m benchmarks.lab --data DIR --models larger.gguf,largest.gguf --only 12,13,14

Without ``--model`` the packaged model runs. ``--quick`` is for two cores and twenty minutes; without it there are
five draws of demonstrations and many more items. Every size of either scale (:class:`benchmarks.lab.scales.Scale`) is
an option of its name. Further models (``--models``) take part where sizes, losses and orders are compared. Results go
to ``--json``; beside them, or in ``--pages``, lie the page in English and Chinese and a figure for each claim.
Interrupted, the same command goes on; run again, with more claims, seeds or models, it measures what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.common import Results
from benchmarks.lab.bench import Bench, Job
from benchmarks.lab.claim import Claim
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.documents import documented, show
from benchmarks.lab.material import digest, plain_text, read_material
from benchmarks.lab.measuring import Stock
from benchmarks.lab.problems import Problems
from benchmarks.lab.reader import Models
from benchmarks.lab.sayings import SAYINGS
from benchmarks.lab.scales import FULL, QUICK, Scale
from benchmarks.lab.settings import continued, setting_of, settings_of
from benchmarks.symbolic import TASKS
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import PromptsearchError, UserError
from promptsearch.files import write_whole


def main() -> None:
    """Measure what is not there yet, then write reports, figures and pages, and print the verdicts."""
    options = _options()
    try:
        _run(options)
    except PromptsearchError as error:
        sys.exit(f"benchmarks.lab: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted; what was measured is kept, the same command goes on")


def _run(options: argparse.Namespace) -> None:
    scale = _scale(options)
    models = Models(options.model, options.models.split(",") if options.models else [])
    path = Path(options.json or _default_path(models.main, options.quick))
    try:
        stock = _stock(options, scale)
        settings = continued(path, _settings(scale, models, stock))
        results = Results(path, settings, models.reader(models.main).opened.description)
        setting = setting_of(settings)
        claims = [make(setting) for make in CLAIMS]
        chosen = [claim for claim in claims if not options.only or claim.number in options.only]
        _measure(Bench(setting, stock, models, results), chosen)
    finally:
        models.close()
    if not path.is_file():
        raise UserError(f"claims {options.only} have nothing to measure on these datasets; give others")
    document = documented(json.loads(path.read_text("utf-8")))
    write_whole(path.with_suffix(".claims.json"), json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    folder = Path(options.pages) if options.pages else path.with_suffix("")
    show(document, folder)
    _print(document, folder)


def _stock(options: argparse.Namespace, scale: Scale) -> Stock:
    """Everything that can be asked about.

    Raises:
        UserError: a dataset is not there, or has no labels where it needs some.
    """
    data, encoder = Path(options.data), CachedEncoder(resolve_encoder(None))
    for name in {*scale.datasets, *scale.switched, *(task for task in scale.tasks if task not in TASKS)}:
        if not (data / name / "meta.json").is_file():
            raise UserError(
                f"{data} holds no dataset {name!r}; give another --data, --datasets, --switched or --tasks"
            )
    materials = {
        name: read_material(data, name, scale.items, encoder)
        for name in dict.fromkeys([*scale.datasets, *scale.switched])
    }
    for name, material in materials.items():
        if not material.labels:
            raise UserError(f"the dataset {name!r} has no labels; give it to --tasks, where answers are written")
    main_ones = {name: materials[name] for name in scale.datasets}
    texts = plain_text(list(main_ones.values()), Path(options.text) if options.text else None, scale.pieces)
    switched = {name: materials[name] for name in scale.switched}
    problems = Problems(data, scale.thinking_items)
    for name in scale.tasks:
        problems.task(name)  # one without written reasoning is refused here, and not cell by cell
    return Stock(main_ones, switched, problems, texts, scale.thinking_tokens)


def _measure(bench: Bench, claims: Sequence[Claim]) -> None:
    jobs = bench.jobs(claims)
    if not jobs:
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed} of {task.total}"))
    console = Console(stderr=True)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console) as progress:
        bar = progress.add_task("measuring", total=len(jobs))
        begun = 0

        def tell(job: Job) -> None:
            nonlocal begun
            needed = job.needed
            progress.update(
                bar,
                completed=begun,
                description=f"{needed.model} {needed.dataset} {needed.condition.name} {job.seed}",
            )
            begun += 1

        bench.run(claims, tell)
        progress.update(bar, completed=len(jobs), description="measured")


def _settings(scale: Scale, models: Models, stock: Stock) -> dict[str, Any]:
    """How cells are measured now."""
    everything = {**stock.switched, **stock.materials}
    labels = {name: len(each.labels) for name, each in everything.items()}
    content = {name: each.digest for name, each in everything.items()} | {"plain text": digest(stock.texts)}
    return settings_of(scale, {name: models.facts(name) for name in models.names}, labels, content)


def _scale(options: argparse.Namespace) -> Scale:
    """The scale that is asked for: quick or full, with what options change."""
    scale = QUICK if options.quick else FULL
    changes: dict[str, Any] = {}
    for each in fields(Scale):
        given = getattr(options, each.name)
        if given is not None:
            changes[each.name] = given
    return replace(scale, **changes)


def _default_path(model: str, quick: bool) -> str:
    return f"benchmarks/results/laboratory-{model}{'-quick' if quick else ''}.json"


def _print(document: dict[str, Any], folder: Path) -> None:
    """One line a claim and model."""
    for each in document["claims"]:
        for section in each["models"]:
            for way, found in section["verdict"].items():
                parts = f"{found['hold']} of {found['parts']} parts hold, {found['contradicted']} contradicted"
                said = SAYINGS["en"][found["verdict"]]
                print(f"{each['number']:>2}  {each['title']['en']:<44} {way:<11} {said:<13} {parts}")
    print(f"\n{document['tokens']:,} tokens, {document['seconds']:,} s; pages and figures: {folder}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--model", default=None, help="a GGUF file; the packaged one, if not given")
    parser.add_argument("--models", default=None, help="further GGUF files, separated by commas")
    parser.add_argument("--only", type=_claims, default=(), help="numbers of claims, separated by commas")
    parser.add_argument("--quick", action="store_true", help="all claims in some twenty minutes")
    for each in fields(Scale):
        kind = {"int": int}.get(str(each.type), _numbers_of if each.name == "counts" else _words)
        parser.add_argument(
            f"--{each.name.replace('_', '-')}", type=kind, default=None, help="instead of the scale's own"
        )
    parser.add_argument("--text", default=None, help="file of plain text for the loss")
    parser.add_argument("--json", default=None, help="file of results")
    parser.add_argument("--pages", default=None, help="folder of pages and figures")
    options = parser.parse_args()
    if options.datasets and len(options.datasets) < 2:
        parser.error("foreign demonstrations come from the next dataset; give two datasets at least")
    return options


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers_of(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} holds something else than numbers and commas") from None


def _claims(text: str) -> tuple[int, ...]:
    numbers = _numbers_of(text)
    if not all(1 <= number <= len(CLAIMS) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names no such claims; give some of 1 to {len(CLAIMS)}")
    return numbers


if __name__ == "__main__":
    main()
