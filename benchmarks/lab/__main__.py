"""Fifteen claims about demonstrations, tested on a GGUF file.

    python -m benchmarks.lab --data DIR --quick
    python -m benchmarks.lab --data DIR --model model.gguf --only 4,6,10
    python -m benchmarks.lab --data DIR --models larger.gguf,largest.gguf --only 12,13,14

Without ``--model`` the packaged model runs. ``--quick`` is for two cores and twenty minutes; without it there are
five draws of demonstrations and many more items. ``--items``, ``--seeds``, ``--datasets`` and ``--tasks`` change the
scale of either. Further models (``--models``) take part where sizes, losses and orders are compared. Results go to
``--json``; beside them, or in ``--pages``, lie the page in English and Chinese and a figure for each claim.
Interrupted, the same command goes on; run again, it measures what is missing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.common import Results, require_same_settings
from benchmarks.lab.bench import Bench, Job
from benchmarks.lab.claim import Claim
from benchmarks.lab.claims import CLAIMS
from benchmarks.lab.documents import documented, setting_of, show
from benchmarks.lab.material import plain_text, read_material
from benchmarks.lab.problems import Problems
from benchmarks.lab.reader import Models
from benchmarks.lab.scales import FULL, QUICK, Scale
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import PromptsearchError, UserError
from promptsearch.files import write_whole

SWITCHED = ("sst2", "trec", "agnews", "rte", "chnsenticorp")
"""Tasks that one engine serves in turn."""


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
    setting = setting_of(scale, models.names)
    claims = [make(setting) for make in CLAIMS]
    chosen = [claim for claim in claims if not options.only or claim.number in options.only]
    try:
        results = _results(path, scale, models)
        encoder = CachedEncoder(resolve_encoder(None))
        data = Path(options.data)
        names = dict.fromkeys([*scale.datasets, *(SWITCHED if any(claim.timed for claim in chosen) else ())])
        materials = {name: read_material(data, name, scale.items, encoder) for name in names}
        main_ones = [materials[name] for name in scale.datasets]
        texts = plain_text(main_ones, Path(options.text) if options.text else None, scale.pieces)
        bench = Bench(setting, materials, Problems(data, scale.thinking_items), texts, models, results)
        _measure(bench, chosen)
    finally:
        models.close()
    kept = json.loads(path.read_text("utf-8"))
    document = documented(kept, setting)
    write_whole(path.with_suffix(".claims.json"), json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    folder = Path(options.pages) if options.pages else path.with_suffix("")
    show(document, folder)
    _print(document, folder)


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


def _results(path: Path, scale: Scale, models: Models) -> Results:
    """Where cells are kept; the same scale and the same files as before.

    Raises:
        UserError: what is kept was measured at another scale, or with another file of the same name.
    """
    now: dict[str, Any] = {name: models.facts(name) for name in models.names}
    kept = json.loads(path.read_text("utf-8"))["settings"].get("models", {}) if path.is_file() else {}
    for name in kept.keys() & now.keys():
        if kept[name] != now[name]:
            raise UserError(f"{path} holds results of another file called {name}; give another --json")
    plain = json.loads(json.dumps(asdict(scale)))
    require_same_settings(path, {**plain, "models": kept})
    opened = models.reader(models.main).opened
    return Results(path, {**plain, "models": {**kept, **now}}, opened.description)


def _scale(options: argparse.Namespace) -> Scale:
    scale = QUICK if options.quick else FULL
    changes: dict[str, Any] = {}
    for name in ("datasets", "tasks"):
        if getattr(options, name):
            changes[name] = tuple(getattr(options, name).split(","))
    if options.items:
        changes["items"] = options.items
    if options.thinking_items:
        changes["thinking_items"] = options.thinking_items
    if options.seeds:
        changes |= {"seeds": options.seeds, "thinking_seeds": options.seeds, "order_seeds": options.seeds}
    return replace(scale, **changes)


def _default_path(model: str, quick: bool) -> str:
    return f"benchmarks/results/laboratory-{model}{'-quick' if quick else ''}.json"


def _print(document: dict[str, Any], folder: Path) -> None:
    """One line a claim."""
    for each in document["claims"]:
        for section in each["models"]:
            verdicts = section["verdict"]
            if each["missing"] or not verdicts:
                continue
            said = (
                next(iter(verdicts.values()))
                if len(set(verdicts.values())) == 1
                else ", ".join(f"{verdict} ({way})" for way, verdict in verdicts.items())
            )
            print(f"{each['number']:>2}  {each['title']['en']:<50} {section['model']}: {said}")
    print(f"\n{document['tokens']:,} tokens, {document['seconds']:,} s; pages and figures: {folder}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--model", default=None, help="a GGUF file; the packaged one, if not given")
    parser.add_argument("--models", default=None, help="further GGUF files, separated by commas")
    parser.add_argument("--only", type=_numbers, default=(), help="numbers of claims, separated by commas")
    parser.add_argument("--quick", action="store_true", help="all claims in some twenty minutes")
    parser.add_argument("--datasets", default=None, help="with labels, separated by commas; two or more")
    parser.add_argument("--tasks", default=None, help="with free answers and reasoning, separated by commas")
    parser.add_argument("--items", type=int, default=0, help="rows of each dataset that are asked about")
    parser.add_argument("--thinking-items", type=int, default=0, help="the same of each task with free answers")
    parser.add_argument("--seeds", type=int, default=0, help="draws of demonstrations")
    parser.add_argument("--text", default=None, help="file of plain text for the loss")
    parser.add_argument("--json", default=None, help="file of results")
    parser.add_argument("--pages", default=None, help="folder of pages and figures")
    options = parser.parse_args()
    if options.datasets and len(options.datasets.split(",")) < 2:
        parser.error("foreign demonstrations come from the next dataset; give two datasets at least")
    return options


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} holds no numbers; give some of 1 to {len(CLAIMS)}") from None
    if not all(1 <= number <= len(CLAIMS) for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} names no such claims; give some of 1 to {len(CLAIMS)}")
    return numbers


if __name__ == "__main__":
    main()
