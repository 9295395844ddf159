"""What reasoning gains, on real tasks and on symbolic ones that make themselves, and how fast it is written.

    python -m benchmarks.reasoning --data DIR --seeds 3 --json FILE

Without ``--data`` only the symbolic tasks run; ``--tasks`` narrows them. Every method answers the same test rows:
``direct``: eight random demonstrations; ``zero-shot`` and ``step by step``: none, without and with reasoning;
``gold``: demonstrations with written reasoning; ``self``: with reasoning that the model wrote itself and that led to
the right answer; ``vote``: the better of these two by the search rows, five samples; ``optimize``: the search, which
is free to reason or not (``--budget``). ``--methods`` takes some of them. Beside accuracy stand tokens and seconds of
answering the test rows, and the paired differences to ``direct`` and to ``zero-shot``. ``--bootstrap`` measures
instead how fast reasoning for 100 examples is written: all at once, one by one by the same engine, and one by one by
``create_completion``, which has the same weights in a process of its own. Interrupted, the same command goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import promptsearch as ps
from benchmarks.common import Results, model_setting, read_dataset, require_same_settings, weights_file
from benchmarks.outside import item_scores
from benchmarks.symbolic import TASKS, make_rows
from benchmarks.throughput_processes import ContenderError, Spec, Worker
from promptsearch.budget import Meter
from promptsearch.candidate import CUES, Candidate
from promptsearch.errors import PromptsearchError
from promptsearch.evaluation import Asker, Evaluator, answer_grammar
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.measurement import measure, paired_difference
from promptsearch.prompting import PromptBuilder, answer_room
from promptsearch.rationales import Rationalizer
from promptsearch.reasoning import ends_of, in_the_prompt, one_line
from promptsearch.run.workbench import demonstrations_of
from promptsearch.store import RunStore
from promptsearch.task import Example

REAL = ("gsm8k", "svamp", "commonsense_qa", "webquestions")
METHODS = ("zero-shot", "direct", "step by step", "gold", "self", "vote", "optimize")
SHOTS = 8
SAMPLES = 5
WRITTEN_FOR = 48  # examples
_THINKING_TOKENS = 96
_BOOTSTRAPPED = 100
_GAINS = {"gain": "direct", "gain_over_zero_shot": "zero-shot"}  # parts of a cell, and what they compare with


class NoMatches:
    """Nothing is retrieved or routed here."""

    def matches(self, reading: Candidate, items: Sequence[int]) -> Sequence[Sequence[int]]:
        """Nothing."""
        return [()] * len(items)

    def clusters(self, reading: Candidate, items: Sequence[int]) -> Any:
        """One route for all."""
        return np.zeros(len(items), dtype=np.int64)


def main() -> None:
    """Measure every cell that is not there yet, then print the table."""
    options = _options()
    settings = {
        "rows": options.rows,
        "test_rows": options.test_rows,
        "budget": options.budget,
        "methods": list(options.methods),
        **model_setting(options.model),
    }
    try:
        require_same_settings(Path(options.json), settings)
        opened = open_engine(options.model)
        if options.bootstrap:
            weights_file(opened)  # a model that the rival cannot open is refused before anything is measured
    except PromptsearchError as error:
        raise SystemExit(str(error)) from error
    results = Results(Path(options.json), settings, opened.description)
    names = options.tasks.split(",") if options.tasks else [*TASKS, *(REAL if options.data else ())]
    for seed in range(options.seeds):
        for name in names:
            key = f"{name}|{seed}"
            if options.bootstrap:
                key = f"bootstrap {key}"
            if key not in results:
                task = task_of(name, options, seed)
                try:
                    if options.bootstrap:
                        cell = bootstrapped(task, opened)
                    else:
                        cell = compared(task, opened, options.budget, seed, options.methods)
                except ContenderError as error:
                    print(f"{key}  cannot be measured: {error}", flush=True)
                    continue
                results.add(key, cell)
                print(key, _line(cell), flush=True)
    print(table(results.cells))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="folder of datasets")
    parser.add_argument("--tasks", default=None, help="names, separated by commas")
    parser.add_argument("--rows", type=int, default=300, help="labelled rows")
    parser.add_argument("--test-rows", type=int, default=200)
    parser.add_argument("--budget", default="150k tokens", help="of optimize")
    parser.add_argument("--methods", type=_methods, default=METHODS, help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--model", default=None)
    parser.add_argument("--bootstrap", action="store_true", help="measure how fast reasoning is written")
    parser.add_argument("--json", required=True, help="file of results")
    return parser.parse_args()


def _methods(text: str) -> tuple[str, ...]:
    names = text.split(",")
    unknown = [name for name in names if name not in METHODS]
    if unknown:
        raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(METHODS)}")
    return tuple(name for name in METHODS if name in names)


def task_of(name: str, options: argparse.Namespace, seed: int) -> ps.Task:
    """A task with so many labelled and so many test rows.

    Raises:
        KeyError: no such symbolic task, and no folder of datasets.
    """
    columns: dict[str, Any] = {"inputs": "input", "output": "output"}
    if name in TASKS:
        made = make_rows(name, options.rows + options.test_rows, seed)
        rows, test = made[: options.rows], made[options.rows :]
        return ps.Task(rows, **columns, labels=False, rationale="rationale", test=test)
    return read_dataset(Path(options.data), name).task(options.rows, options.test_rows, seed)


# -- methods ----------------------------------------------------------------------------------------------------


def compared(
    task: ps.Task, opened: OpenedModel, budget: str, seed: int, methods: Sequence[str] = METHODS
) -> dict[str, Any]:
    """Some methods on one task."""
    splits = task.split(seed)
    test = [task.examples[number] for number in task.parts.test]
    rng = np.random.default_rng([seed, 16])
    pool = [task.examples[splits.pool[place]] for place in rng.permutation(len(splits.pool))]
    common: dict[str, Any] = {"model": opened, "calibration": "none" if task.labels is None else "batch"}
    prompts = {
        "zero-shot": ps.Prompt(task, (), **common),
        "direct": ps.Prompt(task, pool[:SHOTS], **common),
        "step by step": ps.Prompt(task, (), **common, reasoning="cue", thinking_tokens=_THINKING_TOKENS),
    }
    cell: dict[str, Any] = {}
    if {"gold", "self", "vote"} & set(methods):
        judged = [task.examples[number] for number in (*splits.search, *splits.confirm)]
        reasoned, cell["written"] = _with_reasoning(task, opened, pool, judged, common)
        prompts.update(reasoned)
    if "optimize" in methods:
        prompts["optimize"], cell["search"] = _searched(task, opened, budget, seed)
    scores, measured = {}, {}
    for name in [method for method in methods if method in prompts]:
        begun, start = opened.engine.tokens_decoded, time.perf_counter()
        labelled = task.labels is not None
        scores[name] = item_scores(prompts[name], test) if labelled else text_scores(task, prompts[name], test)
        spent = time.perf_counter() - start, opened.engine.tokens_decoded - begun
        measured[name] = {**measure(scores[name]).to_dict(), "seconds": spent[0], "tokens": spent[1]}
    cell["measured"] = measured
    for part, baseline in _GAINS.items():
        if baseline in scores:
            others = {name: values for name, values in scores.items() if name != baseline}
            cell[part] = {
                name: paired_difference(values, scores[baseline]).to_dict() for name, values in others.items()
            }
    return cell


def _with_reasoning(
    task: ps.Task,
    opened: OpenedModel,
    pool: Sequence[Example],
    judged: Sequence[Example],
    common: Mapping[str, Any],
) -> tuple[dict[str, ps.Prompt], dict[str, Any]]:
    """Prompts whose demonstrations carry reasoning, and what became of the reasoning that the model wrote."""
    shown: dict[str, list[Example]] = {}
    if task.rationale is not None:
        shown["gold"] = [each for each in pool if each.rationale][:SHOTS]
    begun = opened.engine.tokens_decoded
    written = write_rationales(task, opened, pool[:WRITTEN_FOR])
    details = {"fates": written.fates, "tokens": opened.engine.tokens_decoded - begun}
    own = written.kept
    if len(own) >= 2:
        shown["self"] = [replace(task.examples[number], rationale=text) for number, text in own.items()][:SHOTS]
    arguments = {**common, "reasoning": "gold", "thinking_tokens": _THINKING_TOKENS}
    prompts = {kind: ps.Prompt(task, examples, **arguments) for kind, examples in shown.items()}
    if shown:
        best = max(shown, key=lambda kind: prompts[kind].evaluate(judged).value)
        prompts["vote"] = ps.Prompt(task, shown[best], **arguments, samples=SAMPLES)
    return prompts, details


def _searched(task: ps.Task, opened: OpenedModel, budget: str, seed: int) -> tuple[ps.Prompt, dict[str, Any]]:
    """What ``optimize`` finds, and how."""
    result = ps.optimize(task, opened, budget, seed=seed, progress=False)
    effect = result.insights.reasoning
    return result.prompt, {
        "reasoning": result.prompt.candidate.reasoning,
        "mode": result.prompt.mode,
        "shots": result.prompt.candidate.shots,
        "test": result.test.to_dict(),
        "in_the_race": None if effect is None else str(effect),
        "against": {name: gain.to_dict() for name, gain in result.against.items()},
        "tokens": result.cost.tokens,
        "seconds": result.cost.total_seconds,
        "rationales": dict(result.facts.get("rationales", {})),
    }


def text_scores(task: ps.Task, prompt: ps.Prompt, rows: Sequence[Example]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """What each answer is worth by the task's metric, shape (rows,)."""
    metric = task.require_metric()
    said = prompt.predict(rows)
    return np.array([metric(row, str(each.output or "")) for row, each in zip(rows, said, strict=True)])


def write_rationales(task: ps.Task, opened: OpenedModel, examples: Sequence[Example]) -> Rationalizer:
    """Have the model write reasoning for examples, as the search does."""
    made = _rationalizer(task, opened)
    made.run([example.id for example in examples], lambda: True)
    return made


def _rationalizer(task: ps.Task, opened: OpenedModel) -> Rationalizer:
    evaluator = Evaluator(_asker(task, opened), task.examples, NoMatches(), RunStore(None, {}), Meter())
    return Rationalizer(evaluator, task.examples, task.require_metric(), _base(task), _THINKING_TOKENS)


def _base(task: ps.Task) -> Candidate:
    """The candidate that shows a task's first instruction and nothing else."""
    return Candidate(instruction=task.instructions[0] if task.instructions else "")


def _asker(task: ps.Task, opened: OpenedModel) -> Asker:
    """What makes a task's prompts and asks them."""
    engine, metric = opened.engine, task.require_metric()
    shown = demonstrations_of(task.examples, range(len(task.examples)))
    room = answer_room(engine, task.labels, task.answer_form)
    builder = PromptBuilder(engine, task.inputs, task.output, shown, room)
    return Asker(engine, builder, task.labels, task.answer_form, answer_grammar(metric, task.answer_form))


# -- speed ------------------------------------------------------------------------------------------------------


def bootstrapped(task: ps.Task, opened: OpenedModel) -> dict[str, Any]:
    """Seconds of writing reasoning for 100 examples and answering by it: at once, one by one, and sequentially.

    Raises:
        UserError: the rival cannot open the model, since it is no GGUF file.
        ContenderError: the rival failed.
    """
    numbers = [example.id for example in task.examples[:_BOOTSTRAPPED]]
    found: dict[str, Any] = {"examples": len(numbers)}
    opened.engine.generate(["Warm up."], GenerationParams(max_tokens=4))
    start = time.perf_counter()
    made = _rationalizer(task, opened)
    made.run(numbers, lambda: False)  # the first round: every example once
    found["at_once"] = time.perf_counter() - start
    start = time.perf_counter()
    singly = [_alone(task, opened, number) for number in numbers]
    found["one_by_one"] = time.perf_counter() - start
    found["same_text"] = sum(one == together.text for one, together in zip(singly, made.attempts, strict=True))
    found["create_completion"], texts = _sequential(task, opened, numbers)
    found["create_completion_same_text"] = sum(
        text == together.text for text, together in zip(texts, made.attempts, strict=True)
    )
    return found


def _alone(task: ps.Task, opened: OpenedModel, number: int) -> str:
    made = _rationalizer(task, opened)
    made.run([number], lambda: False)
    return made.attempts[0].text


def _sequential(task: ps.Task, opened: OpenedModel, numbers: Sequence[int]) -> tuple[float, list[str]]:
    """The same two steps by llama-cpp-python's own class in another process: seconds, and the pieces of reasoning."""
    weights = str(weights_file(opened))
    spec = Spec("benchmarks.reasoning_rival:StepByStep", None, opened.kind, weights, opened.engine.context_tokens)
    builder = _asker(task, opened).builder
    reading = replace(_base(task), reasoning="cue", thought=CUES[0], thinking_tokens=_THINKING_TOKENS)
    texts = []
    with Worker(spec, None) as rival:
        rival.call(
            "prepare", reading, ends_of(builder, reading), answer_grammar(task.require_metric(), task.answer_form)
        )
        start = time.perf_counter()
        for number in numbers:
            asked = builder.render(reading, (), task.examples[number].fields)
            written = in_the_prompt(reading, rival.call("reason", str(asked)))
            rival.call("answer", str(builder.concluded(reading, asked, written)))
            texts.append(one_line(written))
        seconds = time.perf_counter() - start
    return seconds, texts


# -- showing ----------------------------------------------------------------------------------------------------


def _line(cell: Mapping[str, Any]) -> str:
    if "measured" not in cell:
        return ", ".join(f"{name} {value}" for name, value in cell.items())
    shown = "  ".join(f"{name} {100 * each['value']:.1f}" for name, each in cell["measured"].items())
    return f"{shown}  | {cell.get('search', {}).get('reasoning', '')}"


def table(cells: Mapping[str, Mapping[str, Any]]) -> str:
    """Each task's methods, means over the seeds that have them, and the first of these seeds' gains and intervals."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for key, cell in cells.items():
        groups.setdefault(key.rpartition("|")[0], []).append(cell)
    lines = []
    for name, group in groups.items():
        lines.append(f"\n{name}, {len(group)} seed(s)")
        if "measured" not in group[0]:
            for part in ("at_once", "one_by_one", "create_completion"):
                seconds = float(np.mean([cell[part] for cell in group]))
                ratio = seconds / float(np.mean([cell["at_once"] for cell in group]))
                lines.append(f"  {part:<18} {seconds:7.1f} s  x {ratio:.1f}")
            continue
        for method in METHODS:
            having = [cell for cell in group if method in cell["measured"]]
            if not having:
                continue
            found = [cell["measured"][method] for cell in having]
            value = 100 * np.mean([each["value"] for each in found])
            tokens, seconds = (np.mean([each[part] / each["n"] for each in found]) for part in ("tokens", "seconds"))
            shown = "  ".join(
                f"{100 * gain['value']:+6.1f} [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}] over {baseline}"
                for part, baseline in _GAINS.items()
                if (gain := having[0].get(part, {}).get(method)) is not None
            )
            fewer = f"  ({len(having)} of {len(group)} seeds)" if len(having) < len(group) else ""
            lines.append(
                f"  {method:<14} {value:5.1f}  {tokens:6.0f} tokens  {1000 * seconds:5.0f} ms a row  {shown}{fewer}"
            )
        kinds = [cell["search"]["reasoning"] for cell in group if "search" in cell]
        if kinds:
            lines.append(f"  optimize reasons: {', '.join(kinds)}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
