"""``promptsearch optimize`` and ``promptsearch demo``: a search, what it found, and what to do next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptsearch.cli.options import (
    BudgetOption,
    EncoderOption,
    JsonOption,
    ModelOption,
    PrefixStateOption,
    QuietOption,
    ReportOption,
    RunOption,
    SaveOption,
    SeedOption,
    WeightsOption,
    check_targets,
)
from promptsearch.cli.printing import print_json
from promptsearch.errors import UserError
from promptsearch.files import index_beside, prefix_beside

if TYPE_CHECKING:
    from promptsearch.prompt import Prompt
    from promptsearch.result import Result
    from promptsearch.search.space import Space
    from promptsearch.task import Task

__all__ = ["demo", "optimize"]


def optimize(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled rows: csv, tsv, jsonl, json or parquet.")],
    inputs: Annotated[list[str], typer.Option("--input", "-i", help="Input column; once for each.")],
    output: Annotated[str, typer.Option("--output", help="Column of the expected output.")],
    instruction: Annotated[
        list[str] | None,
        typer.Option("--instruction", help="Instruction; several are searched."),
    ] = None,
    labels: Annotated[str | None, typer.Option("--labels", help="The labels: a,b,c. Without it inferred.")] = None,
    free_text: Annotated[bool, typer.Option("--free-text", help="The output is text, not one of labels.")] = False,
    metric: Annotated[
        str | None,
        typer.Option("--metric", help="accuracy, macro_f1, exact_match, f1 or numeric."),
    ] = None,
    answer: Annotated[
        str | None,
        typer.Option("--answer", help="Regular expression that finds the answer in outputs of free text."),
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="Rows to search on.")] = None,
    test: Annotated[str | None, typer.Option("--test", help="Rows to measure the result on.")] = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    weights: WeightsOption = "auto",
    budget: BudgetOption = "2m",
    strategy: Annotated[
        str, typer.Option("--strategy", help="How to search: auto (halving), greedy, tpe or random.")
    ] = "auto",
    prefer: Annotated[
        str, typer.Option("--prefer", help="accuracy, or cheap: the shortest prompt that is not measurably worse.")
    ] = "accuracy",
    modes: Annotated[
        str | None,
        typer.Option("--modes", help="Some of static,retrieved,routed: where demonstrations come from."),
    ] = None,
    prior: Annotated[
        bool, typer.Option("--prior/--no-prior", help="Whether similar examples' labels may be added.")
    ] = True,
    rationale: Annotated[str | None, typer.Option("--rationale", help="Column of written reasoning.")] = None,
    reasoning: Annotated[
        str | None,
        typer.Option("--reasoning", help="Some of none,cue,gold,self: whether the model reasons before it answers."),
    ] = None,
    seed: SeedOption = 0,
    run: RunOption = None,
    save: SaveOption = None,
    prefix_state: PrefixStateOption = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find the best prompt for the rows of a file."""
    check_targets({"--save": save, "--report": report}, file, validation, test, model)
    _check_prefix_state(prefix_state, save)
    from promptsearch import Task
    from promptsearch import optimize as search

    task = Task(
        file,
        inputs=inputs,
        output=output,
        instruction=instruction or None,
        labels=_label_list(labels, free_text),
        rationale=rationale,
        metric=metric,
        answer=answer,
        validation=validation,
        test=test,
    )
    result = search(
        task,
        model,
        budget,
        encoder=encoder,
        weights=weights,
        space=_space(modes, prior, reasoning),
        strategy=strategy,
        prefer=prefer,
        seed=seed,
        run=run,
        progress=not quiet,
    )
    if not as_json:
        print(f"{task.describe()}\n")
    _finish(result, run, save, prefix_state, report, as_json)


def demo(
    model: ModelOption = None,
    weights: WeightsOption = "auto",
    budget: BudgetOption = "2m",
    seed: SeedOption = 0,
    run: RunOption = None,
    save: SaveOption = None,
    prefix_state: PrefixStateOption = False,
    report: ReportOption = None,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Do the main job on packaged data: route messages of a shop's customers to its teams."""
    check_targets({"--save": save, "--report": report}, model)
    _check_prefix_state(prefix_state, save)
    from promptsearch import example_task
    from promptsearch import optimize as search

    task = example_task()
    result = search(task, model, budget, weights=weights, seed=seed, run=run, progress=not quiet)
    if not as_json:
        print(_demo_headline(task, result))
    _finish(result, run, save, prefix_state, report, as_json)


def _space(modes: str | None, prior: bool, reasoning: str | None) -> Space:
    """The space that the options leave."""
    from promptsearch import Space

    given = {"modes": modes, "reasoning": reasoning}
    named = {name: tuple(_listed(text)) for name, text in given.items() if text is not None}
    return Space(prior=prior, **named)  # type: ignore[arg-type]  # both are tuples of names


def _listed(text: str) -> list[str]:
    """The names in a text of names separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def _label_list(labels: str | None, free_text: bool) -> list[str] | bool | None:
    if free_text and labels is not None:
        raise UserError("--labels and --free-text are both given; free text has no labels, give one of them")
    if free_text:
        return False
    return None if labels is None else [label.strip() for label in labels.split(",")]


def _check_prefix_state(wanted: bool, save: Path | None) -> None:
    if wanted and save is None:
        raise UserError("--prefix-state writes beside the saved prompt; give --save prompt.json with it")


def _finish(
    result: Result, run: Path | None, save: Path | None, prefix_state: bool, report: Path | None, as_json: bool
) -> None:
    """Write what was asked for, and print the result."""
    saved = None if save is None else result.prompt.save(save, prefix_state=prefix_state)
    page = None if report is None else result.report(report)
    if as_json:
        print_json({**result.to_dict(), "prompt": None if saved is None else str(saved)})
        return
    print(result)
    print()
    if page is not None:
        print(f"report       {page}")
    if saved is not None:
        print(f"saved        {saved}")
        if result.prompt.parts.needs_pool and index_beside(saved).is_dir():
            print(f"             {index_beside(saved)}, which has to stay beside it")
        if prefix_state:
            state = prefix_beside(saved)
            without = "without a prefix state: queries share no beginning that could be kept"
            print(f"             {state if state.exists() else without}")
    if result.stopped_by == "interrupt" and run is not None:
        print("next         the same command goes on from there")
        return
    print(f"next         {_next_step(result.prompt, saved)}")


def _next_step(prompt: Prompt, saved: Path | None) -> str:
    if saved is None:
        return "add --save prompt.json to keep the prompt, and --report report.html to see all of it"
    columns = prompt.task.inputs
    fields = json.dumps(dict.fromkeys(columns, "…"), ensure_ascii=False)
    item = '"some text"' if len(columns) == 1 else f"'{fields}'"
    return f"promptsearch predict {saved} {item}"


def _demo_headline(task: Task, result: Result) -> str:
    """Zero-shot against optimized, in two lines."""
    zero, found = result.baselines["zero_shot"], result.test
    wide = max(len(f"{zero}"), len(f"{found}"))
    return f"{task.describe()}\n\n  zero-shot   {f'{zero}':>{wide}}\n  optimized   {f'{found}':>{wide}}\n"
