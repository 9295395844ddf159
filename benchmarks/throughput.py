"""Speed of the engine against the other ways to ask the same model, in one run and turn by turn.

    python -m benchmarks.throughput --data DIR --json FILE

``DIR`` holds a folder for each dataset, as ``benchmarks.accuracy`` reads them (here: sst2, trec, banking77, agnews).
The cases (``--cases``) are

    a      8 fixed demonstrations, 200 SST-2 reviews, two labels; also what one sequence gets out of the hardware at
           the same depth, and a profile of where our time goes
    b      24 orders of the same 8 demonstrations, each with 50 reviews: 1,200 prompts in one call
    c      100 TREC questions, each with its own 8 nearest demonstrations (embedding is not timed)
    d      8 fixed demonstrations, 50 BANKING77 messages, 77 labels of full length
    e      64 tokens generated, greedily and without stop strings, for each of 64 AG News beginnings
    first  a fresh process that loads a saved prompt and predicts one item

and the contenders: ours with the file's own weights and with those the library chose (``--weights``; the last one
named is what targets are about), ``Llama.create_completion`` with both, ``llama_cpp.server`` over HTTP and DSPy's
``Predict`` (case a), and scoring labels one after another (case d). Slow contenders, and ours with other weights
than the main ones, answer a part of the prompts (``throughput_cases``), and the table says how many. Their time is
extrapolated to the whole: a rival's from the first prompts of a group, which pay for what the group shares, and the
others apart; ours by tokens.

Every contender runs in a process of its own and waits while another is measured. A round measures each once, in an
order that moves on by one every round; ratios are taken within a round. Figures are medians over ``--repeats``
rounds, with the least and the greatest. Nothing else should run: threads that wait for each other at a barrier
lose ten times their speed to one busy neighbour.

How the rivals' threads wait there (``--rivals-wait``) is their users' choice, so both ways are tried at first and the
faster one is taken; ours wait as the library has them wait. Where the environment says how threads wait
(``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``), that holds for all.

Every measured call begins with nothing kept of an earlier one, ours too. Below a ratio that has a target stands the
most that raw prefill allows: what an engine would reach that runs every token of the prefix tree, and none twice, at
the rate of one sequence's full batches.

Interrupted, the same command goes on with the cases that lack; ``--again`` measures the cases named anew.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.metadata
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.common import Results, machine, require_same_settings
from benchmarks.throughput_cases import CASES, FULL, QUICK, Case, make_case
from benchmarks.throughput_cells import make_cell
from benchmarks.throughput_figures import spread, summary, table, verdicts
from benchmarks.throughput_first import first_answers
from benchmarks.throughput_processes import DEFAULT, POLICIES, USERS_OWN, ContenderError, Worker
from benchmarks.throughput_rounds import Setting, run_rounds, worker_spec
from promptsearch.errors import PromptsearchError
from promptsearch.lm.llamacpp.opening import check_file
from promptsearch.lm.llamacpp.weights import AS_IS, choose_weights
from promptsearch.lm.resolve import PACKAGED, packaged_model

_THREADS = "how rivals' threads wait"
_PROBE = Case("probe", (("Tell a long story about the sea, the wind and an old boat. " * 12,),), max_tokens=48)
_PROBES = 3


def main() -> None:
    """Measure every case that is not there yet, then print the table."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that processes are ended
    parser = _parser()
    options = parser.parse_args()
    our_policy = None if USERS_OWN else DEFAULT
    keys = options.cases.split(",")
    if unknown := [key for key in keys if key not in CASES]:
        parser.error(f"there is no case {unknown[0]!r}; give some of {','.join(CASES)}")
    if options.repeats is not None and options.repeats < 1:
        parser.error("--repeats must be 1 or more")
    if USERS_OWN and options.rivals_wait in POLICIES:
        named = ", ".join(USERS_OWN)
        parser.error(
            f"--rivals-wait {options.rivals_wait} contradicts the environment; unset {named} or leave it out"
        )
    try:
        setting = _setting(options, our_policy)
        results = _results(Path(options.json), setting, options.quick)
        setting = _with_policy(setting, options.rivals_wait, results)
    except PromptsearchError as error:
        parser.error(str(error))
    for key in keys:
        if key not in results or options.again:
            try:
                results.add(key, _measured(key, setting))
            except (PromptsearchError, ContenderError, OSError) as error:
                print(f"\n{key}  cannot be measured: {error}", flush=True)
                continue
        print(table(key, results.cells[key]), flush=True)
    print("\nall cases" + ", quickly: everything works, and no number means anything" * options.quick)
    print(summary({key: results.cells[key] for key in CASES if key in results}))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of datasets")
    parser.add_argument("--json", required=True, help="file of results")
    parser.add_argument("--model", default=None, help="path of a GGUF file; without it the packaged model")
    parser.add_argument("--cases", default=",".join(CASES), help="some of them, separated by commas")
    parser.add_argument("--weights", default="as-is,auto", help="weight types that ours runs with")
    parser.add_argument("--repeats", type=int, default=None, help="rounds (5; quick: 1)")
    parser.add_argument("--rivals-wait", choices=("faster", *POLICIES), default="faster", help="see above")
    parser.add_argument("--again", action="store_true", help="measure cases anew that FILE holds already")
    parser.add_argument("--quick", action="store_true", help="few prompts and one round, to see that all works")
    return parser


# -- what holds for the whole run ---------------------------------------------------------------------------


def _setting(options: argparse.Namespace, our_policy: str | None) -> Setting:
    source = _model_file(options.model)
    chosen = [choose_weights(source, weights) for weights in options.weights.split(",")]
    files = {AS_IS: source, **{each.kind: each.path for each in chosen}}
    kinds = tuple(dict.fromkeys(each.kind for each in chosen))
    repeats = options.repeats or (1 if options.quick else 5)
    sizes = QUICK if options.quick else FULL
    return Setting(options.model, files, kinds, sizes, repeats, Path(options.data), our_policy)


def _model_file(model: str | None) -> Path:
    if model is None or model.lower() == PACKAGED:
        return packaged_model()
    path = Path(model).expanduser()
    check_file(path)
    return path


def _results(path: Path, setting: Setting, quick: bool) -> Results:
    """The results so far; those of another setting, another machine or other code are never mixed with these.

    Raises:
        UserError: the file holds such.
    """
    settings = {
        "model": _model_file(setting.model).name,
        "weights": list(setting.kinds),
        "repeats": setting.repeats,
        "quick": quick,
        "versions": {name: _version(name) for name in ("dspy-ai", "fastapi", "uvicorn")},
        "machine": machine(),
        "revision": _revision(),
        "environment": USERS_OWN,
    }
    require_same_settings(path, settings)
    return Results(path, settings)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _revision() -> str | None:
    """The commit that this code was checked out from; None where there is no git or no repository."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _with_policy(setting: Setting, asked: str, results: Results) -> Setting:
    """Decide how the rivals' threads wait: as the environment says, as asked, or the way that is faster here."""
    if asked != "faster":
        policy: str | None = asked
    elif setting.our_policy is None:
        policy = None
    else:
        if _THREADS not in results:
            results.add(_THREADS, _compared_policies(setting))
        policy = results.cells[_THREADS]["faster"]
    return replace(setting, their_policy=policy)


def _compared_policies(setting: Setting) -> dict[str, Any]:
    """Seconds of a prompt and its answer by one rival, either way in turn."""
    spec = worker_spec("completion", setting, AS_IS, 1024)
    with contextlib.ExitStack() as stack:
        workers = {policy: stack.enter_context(Worker(spec, policy)) for policy in POLICIES}
        seconds: dict[str, list[float]] = {policy: [] for policy in POLICIES}
        for _ in range(_PROBES):
            for policy, worker in workers.items():
                seconds[policy].append(worker.call("measure", _PROBE)["items"][0][0])
    medians = {policy: spread(values).median for policy, values in seconds.items()}
    return {"seconds": seconds, "faster": min(POLICIES, key=lambda policy: medians[policy])}


# -- measuring a case ---------------------------------------------------------------------------------------


def _measured(key: str, setting: Setting) -> dict[str, Any]:
    """The cell of a case."""
    start = time.perf_counter()
    if key == "first":
        cell = first_answers(setting)
    else:
        cell = make_cell(run_rounds(make_case(key, setting.data, setting.sizes), setting), setting.main)
    cell["verdicts"] = verdicts(key, cell["figures"], setting.main, cell.get("bounds", {}))
    cell["wall_seconds"] = time.perf_counter() - start
    return cell


if __name__ == "__main__":
    main()
