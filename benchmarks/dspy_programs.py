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
calls of 8 and of 32 threads, on the same engine one call at a time, and on an HTTP server of ``llama_cpp.Llama``,
which is how DSPy reaches a local model otherwise. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Literal

import bm25s
import dspy
import numpy as np
from dspy.teleprompt import GEPA, BootstrapFewShotWithRandomSearch, KNNFewShot, LabeledFewShot, MIPROv2

import promptsearch as ps
from benchmarks.common import INSTRUCTIONS, Results, read_dataset, require_same_settings
from benchmarks.dspy_engine import open_llama
from promptsearch.dspy.running import Ran, Runner
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import UserError
from promptsearch.lm.llamacpp.weights import choose_weights
from promptsearch.lm.resolve import OpenedModel, open_engine, packaged_model
from promptsearch.measurement import measure, paired_difference

_NO_LIMIT = 10_000  # unreadable answers: DSPy would end an optimizer after ten
_THREADS = 8
_SERVER_CONTEXT = 8192
_GEPA_CALLS = 600
WAYS = {"concurrent": _THREADS, "concurrent 32": 32, "one by one": 1, "server": _THREADS}
"""How the engine's own gain is measured, with the number of DSPy's threads; all but the last on the engine."""

_NAMES = (
    "Anna",
    "Ben",
    "Carla",
    "David",
    "Emma",
    "Frank",
    "Grace",
    "Henry",
    "Ida",
    "Jack",
    "Kate",
    "Liam",
    "Mia",
    "Noah",
)
_JOBS = ("baker", "nurse", "teacher", "pilot", "painter", "farmer", "cook", "driver", "singer", "judge")
_CITIES = ("Rome", "Paris", "London", "Berlin", "Madrid", "Vienna", "Oslo", "Lisbon", "Dublin", "Prague")
_COLOURS = ("red", "blue", "green", "black", "white", "yellow", "brown", "pink")
_THINGS = ("bicycle", "hat", "boat", "lamp", "bag", "car", "coat", "door")


@dataclass(frozen=True)
class Work:
    """A program with its rows.

    Attributes:
        make: a fresh program.
        train: rows for demonstrations.
        validation: rows for choosing.
        test: rows that measure.
        metric: of DSPy's form.
        threads: that optimizers and measurements run it in.
    """

    make: Callable[[], Any]
    train: list[Any]
    validation: list[Any]
    test: list[Any]
    metric: Callable[..., Any]
    threads: int = _THREADS


# -- programs -----------------------------------------------------------------------------------------------------


def classify(data: Path, seed: int, rows: int, test_rows: int, *, name: str = "sst2") -> Work:
    """One predictor."""
    choice: Any = Literal
    dataset = read_dataset(data, name)
    fields = {"text": (str, dspy.InputField()), "label": (choice[tuple(dataset.labels)], dspy.OutputField())}
    signature = dspy.Signature(fields, INSTRUCTIONS[name])
    return _labelled(dataset, lambda: dspy.Predict(signature), "text", seed, rows, test_rows)


def reason(data: Path, seed: int, rows: int, test_rows: int) -> Work:
    """Reasoning, then a label."""
    choice: Any = Literal
    dataset = read_dataset(data, "trec")
    fields = {"question": (str, dspy.InputField()), "label": (choice[tuple(dataset.labels)], dspy.OutputField())}
    signature = dspy.Signature(fields, INSTRUCTIONS["trec"])
    return _labelled(dataset, lambda: dspy.ChainOfThought(signature), "question", seed, rows, test_rows)


def _labelled(dataset: Any, make: Callable[[], Any], name: str, seed: int, rows: int, test_rows: int) -> Work:
    drawn = np.random.default_rng([seed, 20]).permutation(len(dataset.train))[: 2 * rows]
    examples = [
        dspy.Example(**{name: row["input"], "label": row["output"]}).with_inputs(name)
        for row in [*(dataset.train[at] for at in drawn), *dataset.test[:test_rows]]
    ]

    def metric(example: Any, prediction: Any, trace: object = None, *_of_gepa: object) -> bool:
        return bool(example.label == prediction.label)

    return Work(make, examples[:rows], examples[rows : 2 * rows], examples[2 * rows :], metric)


class LookUp(dspy.Module):  # type: ignore[misc]  # dspy has no types
    """Says what to search for, searches the notes, answers from the best one."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self.ask = dspy.Predict(dspy.Signature("question -> search_words", "Name the person to search for."))
        self.answer = dspy.Predict(
            dspy.Signature("note, question -> answer", "Answer the question by the note, in one word.")
        )
        self.notes = notes

    def forward(self, question: str) -> Any:
        """Answer a question."""
        words = self.ask(question=question).search_words
        return self.answer(note=self.notes.best(words), question=question)


class Notes:
    """Sentences with a BM25 index; copies share it."""

    def __init__(self, sentences: list[str]) -> None:
        self.sentences = sentences
        self._index = bm25s.BM25()
        self._index.index(bm25s.tokenize(sentences, show_progress=False), show_progress=False)

    def __deepcopy__(self, memo: dict[int, object]) -> Notes:
        return self

    def best(self, words: str) -> str:
        """The sentence that fits some words best."""
        tokens = bm25s.tokenize([words], show_progress=False)
        found, _ = self._index.retrieve(tokens, k=1, show_progress=False)
        return self.sentences[int(found[0, 0])]


def look_up(data: Path, seed: int, rows: int, test_rows: int) -> Work:
    """Two predictors; only the second one's output is in the rows."""
    rng = np.random.default_rng([seed, 21])
    people = {name: [str(rng.choice(words)) for words in (_JOBS, _CITIES, _COLOURS, _THINGS)] for name in _NAMES}
    notes = Notes(
        [
            f"{name} is a {job} from {city} and has a {colour} {thing}."
            for name, (job, city, colour, thing) in people.items()
        ]
    )
    examples = [_question(people, rng) for _ in range(2 * rows + test_rows)]

    def metric(example: Any, prediction: Any, trace: object = None, *_of_gepa: object) -> bool:
        return bool(str(prediction.answer).strip().strip(".").lower() == example.answer.lower())

    return Work(lambda: LookUp(notes), examples[:rows], examples[rows : 2 * rows], examples[2 * rows :], metric)


def _question(people: Mapping[str, list[str]], rng: np.random.Generator) -> Any:
    asking, asked = (str(name) for name in rng.permutation(list(people))[:2])
    job, city, colour, thing = people[asked]
    kind = int(rng.integers(3))
    text = (
        f"what is the job of {asked}?",
        f"which city is {asked} from?",
        f"what colour is the {thing} of {asked}?",
    )[kind]
    return dspy.Example(question=f"{asking} asks: {text}", answer=(job, city, colour)[kind]).with_inputs("question")


PROGRAMS: dict[str, Callable[[Path, int, int, int], Work]] = {
    "classify": classify,
    "classify trec": partial(classify, name="trec"),
    "classify agnews": partial(classify, name="agnews"),
    "look up": look_up,
    "reason": reason,
}


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


# -- the engine's own gain ------------------------------------------------------------------------------------------


def engine_cell(way: str, opened: OpenedModel, options: Any) -> dict[str, Any]:
    """How long a small random search of DSPy takes, with DSPy's default adapter."""
    work = classify(Path(options.data), 0, options.rows, 1)
    serving = _served(options) if way == "server" else _in_process(opened, options)
    with serving as lm, dspy.context(lm=lm, adapter=dspy.ChatAdapter()):
        optimizer = BootstrapFewShotWithRandomSearch(
            work.metric,
            num_candidate_programs=1,
            max_labeled_demos=8,
            num_threads=WAYS[way],
            max_errors=_NO_LIMIT,
        )
        begun = time.perf_counter()
        program = optimizer.compile(work.make(), trainset=work.train, valset=work.validation)
        seconds = time.perf_counter() - begun
        return {
            "seconds": seconds,
            "calls": len(lm.history),
            "scores": [each["score"] for each in program.candidate_programs],
        }


@contextmanager
def _in_process(opened: OpenedModel, options: Any) -> Iterator[Any]:
    yield ps.dspy.lm(opened, cache=False, max_tokens=options.max_tokens)


@contextmanager
def _served(options: Any) -> Iterator[Any]:
    """A server as people run one: one model behind HTTP, one request at a time, beginnings reused."""
    llama = open_llama(str(choose_weights(packaged_model(), "auto").path), _SERVER_CONTEXT)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            most = asked.get("max_completion_tokens") or asked.get("max_tokens")
            with lock:
                made = llama.create_chat_completion(
                    asked["messages"], max_tokens=most, temperature=asked.get("temperature", 0.0)
                )
            body = json.dumps(made).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield dspy.LM(
            "openai/local",
            api_base=f"http://127.0.0.1:{server.server_port}/v1",
            api_key="none",
            cache=False,
            temperature=0.0,
            max_tokens=options.max_tokens,
        )
    finally:
        server.shutdown()


# -- the whole ------------------------------------------------------------------------------------------------------


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    settings = {"rows": options.rows, "test_rows": options.test_rows, "max_tokens": options.max_tokens}
    if options.threads != _THREADS and not options.engine:
        settings["threads"] = options.threads
    try:
        require_same_settings(Path(options.json), settings)
    except UserError as error:
        raise SystemExit(str(error)) from error
    opened = open_engine(options.model)
    results = Results(Path(options.json), settings, opened.description)
    if options.engine:
        for way in WAYS:
            key = f"engine|{way}"
            if key not in results:
                results.add(key, engine_cell(way, opened, options))
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
    parser.add_argument("--threads", type=int, default=_THREADS, help="of optimizers and measurements")
    parser.add_argument("--only", default="", help="beginning or pattern of the cells to measure")
    parser.add_argument("--engine", action="store_true", help="measure the engine's own gain instead")
    parser.add_argument("--model", default=None)
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


if __name__ == "__main__":
    main()
