"""Optimizers of DSPy programs against each other, on one engine; and that engine against a server.

    python -m benchmarks.dspy_programs --data DIR --seeds 3 --json FILE

Three programs: ``classify`` (one predictor, SST-2; the same on TREC and AG News as ``classify trec`` and
``classify agnews``), ``look up`` (two predictors: what to search for in notes, then the answer; made by itself) and
``reason`` (reasoning, then one of six labels, TREC). Each is optimized with DSPy's default adapter (``chat``) and
with ``PlainAdapter`` (``plain``) by every optimizer, with its own defaults, on the same 100 training and 100
validation rows, and answers the same test rows. All of them run on ``ps.dspy.lm``, ``--threads`` threads or what the
optimizer takes by itself; errors of form count as wrong and are told apart. MIPROv2 and GEPA propose with the same
model. ``--only`` narrows the cells ("classify|demo search|plain"; "classify|" leaves out the others of that name).

``--engine`` measures instead how long a small run of DSPy's own random search takes on the engine with concurrent
calls of 8 and of 32 threads, on the same engine one call at a time, and on an HTTP server of ``llama_cpp.Llama`` with
the same weights, in a process of its own, which is how DSPy reaches a local model otherwise
(``benchmarks.dspy_serving``).
Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import dspy
import numpy as np
from dspy.teleprompt import GEPA, BootstrapFewShotWithRandomSearch, KNNFewShot, LabeledFewShot, MIPROv2

import promptsearch as ps
from benchmarks.common import Results, model_setting, require_same_settings, weights_file
from benchmarks.dspy_serving import WAYS, serving_cell
from benchmarks.dspy_tasks import PROGRAMS, THREADS, Work, classify
from benchmarks.throughput_processes import ContenderError
from promptsearch.dspy.running import Ran, Runner
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import PromptsearchError
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.measurement import measure, paired_difference

_NO_LIMIT = 10_000  # unreadable answers: DSPy would end an optimizer after ten
_GEPA_CALLS = 600

# -- optimizers ---------------------------------------------------------------------------------------------------


def _random_search(work: Work, adapter: str, seed: int) -> Any:
    optimizer = BootstrapFewShotWithRandomSearch(work.metric, num_threads=work.threads, max_errors=_NO_LIMIT)
    return optimizer.compile(work.make(), trainset=_turned(work.train, seed), valset=work.validation)


def _labeled(work: Work, adapter: str, seed: int) -> Any:
    return LabeledFewShot(k=8).compile(work.make(), trainset=_turned(work.train, seed))


def _nearest(work: Work, adapter: str, seed: int) -> Any:
    encoder = resolve_encoder(None)
    vectorizer = dspy.Embedder(lambda texts: np.asarray(encoder.encode(texts)), caching=False)
    return KNNFewShot(3, work.train, vectorizer, metric=work.metric, max_errors=_NO_LIMIT).compile(work.make())


def _mipro(work: Work, adapter: str, seed: int) -> Any:
    lm = dspy.settings.lm
    optimizer = MIPROv2(
        work.metric,
        prompt_model=lm,
        task_model=lm,
        auto="light",
        num_threads=work.threads,
        max_errors=_NO_LIMIT,
        seed=seed + 9,
    )
    return optimizer.compile(work.make(), trainset=work.train, valset=work.validation)


def _gepa(work: Work, adapter: str, seed: int) -> Any:
    optimizer = GEPA(
        work.metric, max_metric_calls=_GEPA_CALLS, reflection_lm=dspy.settings.lm, num_threads=work.threads, seed=seed
    )
    return optimizer.compile(work.make(), trainset=work.train, valset=work.validation)


def _demo_search(work: Work, adapter: str, seed: int) -> Any:
    kind = "plain" if adapter == "plain" else "configured"
    optimizer = ps.dspy.DemoSearch(work.metric, adapter=kind, seed=seed, progress=False, max_errors=_NO_LIMIT)
    return optimizer.compile(work.make(), trainset=work.train, valset=work.validation)


OPTIMIZERS: dict[str, Callable[[Work, str, int], Any]] = {
    "none": lambda work, adapter, seed: work.make(),
    "labeled": _labeled,
    "demo search": _demo_search,
    "random search": _random_search,
    "nearest": _nearest,
    "mipro": _mipro,
    "gepa": _gepa,
}
ADAPTERS: dict[str, Callable[[], Any]] = {"plain": ps.dspy.PlainAdapter, "chat": dspy.ChatAdapter}


def _turned(rows: list[Any], seed: int) -> list[Any]:
    """Rows in another order for each seed: DSPy's own seeds are fixed."""
    return [rows[at] for at in np.random.default_rng([seed, 22]).permutation(len(rows))]


# -- cells --------------------------------------------------------------------------------------------------------


def measured(name: str, optimizer: str, adapter: str, seed: int, opened: OpenedModel, options: Any) -> dict[str, Any]:
    """One cell: compile, then answer the test rows."""
    work = replace(PROGRAMS[name](Path(options.data), seed, options.rows, options.test_rows), threads=options.threads)
    lm = ps.dspy.lm(opened, cache=False, max_tokens=options.max_tokens)
    engine = opened.engine
    with dspy.context(lm=lm, adapter=ADAPTERS[adapter]()):
        begun, tokens = time.perf_counter(), engine.tokens_decoded
        try:
            program = OPTIMIZERS[optimizer](work, adapter, seed)
        except Exception as error:  # an optimizer that a small model ends: the line says how
            return {
                "failed": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}",
                "seconds": time.perf_counter() - begun,
            }
        seconds, spent = time.perf_counter() - begun, engine.tokens_decoded - tokens
        ran, answering = _answered(program, work)
    scores = np.array([each.score for each in ran])
    return {
        "test": measure(scores).to_dict(),
        "failures": dict(Counter(each.failure for each in ran if each.failure)),
        "validation": getattr(program, "score", None),
        "seconds": seconds,
        "answering_seconds": answering,
        "tokens": spent,
        "demonstrations": [len(each.demos) for each in program.predictors()],
        "scores": scores.tolist(),
    }


def _answered(program: Any, work: Work) -> tuple[list[Ran], float]:
    begun = time.perf_counter()
    ran = Runner(work.metric, work.threads, _NO_LIMIT).run(program, work.test)
    return ran, time.perf_counter() - begun


# -- the whole ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    settings = {"rows": options.rows, "test_rows": options.test_rows, "max_tokens": options.max_tokens}
    settings |= model_setting(options.model)
    if options.threads != THREADS and not options.engine:
        settings["threads"] = options.threads
    try:
        require_same_settings(Path(options.json), settings)
        opened = open_engine(options.model)
        if options.engine:
            weights_file(opened)  # a model that a server cannot open is refused before anything is measured
    except PromptsearchError as error:
        raise SystemExit(str(error)) from error
    results = Results(Path(options.json), settings, opened.description)
    if options.engine:
        for way in WAYS:
            key = f"engine|{way}"
            if key not in results:
                work = classify(Path(options.data), 0, options.rows, 1)
                try:
                    results.add(key, serving_cell(way, work, opened, options.max_tokens))
                except ContenderError as error:
                    print(f"{key}  cannot be measured: {error}", flush=True)
                    continue
                print(key, results.cells[key], flush=True)
        return
    for seed in range(options.seeds):
        for optimizer in OPTIMIZERS:
            for adapter in ADAPTERS:
                for name in PROGRAMS:
                    key = f"{name}|{optimizer}|{adapter}|{seed}"
                    if key not in results and fnmatch(key, f"{options.only}*"):
                        results.add(key, measured(name, optimizer, adapter, seed, opened, options))
                        print(key, _line(results.cells[key]), gain(results.cells, key), flush=True)
    print(table(results.cells))


def _line(cell: Mapping[str, Any]) -> str:
    if "failed" in cell:
        return f"failed after {cell['seconds']:.0f} s: {cell['failed']}"
    test, unreadable = cell["test"], sum(cell["failures"].values())
    return (
        f"{100 * test['value']:.1f} [{100 * test['low']:.1f}, {100 * test['high']:.1f}], "
        f"{unreadable} unreadable, {cell['seconds']:.0f} s, {cell['tokens']:,} tokens"
    )


def gain(cells: Mapping[str, Any], key: str) -> str:
    """The paired difference of a cell to the same program unoptimized, where both were measured."""
    name, optimizer, adapter, seed = key.split("|")
    before = cells.get(f"{name}|none|{adapter}|{seed}")
    if optimizer == "none" or before is None or "scores" not in cells[key]:
        return ""
    return f"over unoptimized {paired_difference(np.array(cells[key]['scores']), np.array(before['scores']))}"


def table(cells: Mapping[str, Any]) -> str:
    """Mean accuracy and seconds of each program, optimizer and adapter."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        if not key.startswith("engine|"):
            groups.setdefault(tuple(key.split("|")[:3]), []).append(cell)
    lines = [f"{'program':17}{'optimizer':16}{'adapter':9}{'test':>7}{'unreadable':>12}{'seconds':>9}{'seeds':>7}"]
    for (name, optimizer, adapter), found in sorted(groups.items()):
        done = [cell for cell in found if "test" in cell]
        if not done:
            lines.append(f"{name:17}{optimizer:16}{adapter:9}{'-':>7}{'':12}{'':9}{0:>7}  {found[0]['failed'][:60]}")
            continue
        accuracy = 100 * float(np.mean([cell["test"]["value"] for cell in done]))
        unreadable = float(np.mean([sum(cell["failures"].values()) for cell in done]))
        seconds = float(np.mean([cell["seconds"] for cell in done]))
        lines.append(
            f"{name:17}{optimizer:16}{adapter:9}{accuracy:7.1f}{unreadable:12.1f}{seconds:9.0f}{len(done):7}"
        )
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--rows", type=int, default=100, help="training rows, and as many validation rows")
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--max-tokens", type=int, default=64, help="new tokens of one answer")
    parser.add_argument("--threads", type=int, default=THREADS, help="of optimizers and measurements")
    parser.add_argument("--only", default="", help="beginning or pattern of the cells to measure")
    parser.add_argument("--engine", action="store_true", help="measure the engine's own gain instead")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
