"""The command line: thin commands over the library, which print what it returns.

Invariant: standard output holds the result and nothing else, with ``--json`` exactly one JSON object without
NaN; an error is one line on standard error, and the exit code says whose it is: 2 what was given, 1 all else.
Leaves out: all work. Commands import what they need when they run, so that ``--help`` is instant.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptsearch.errors import UserError
from promptsearch.files import index_beside, prefix_beside, would_replace
from promptsearch.version import __version__

if TYPE_CHECKING:
    from promptsearch.evaluated_rows import Confusion
    from promptsearch.inventory import KnownModel
    from promptsearch.lm.llamacpp.weights import WeightTable, WeightType
    from promptsearch.prediction import Prediction
    from promptsearch.prompt import Prompt
    from promptsearch.result import Result
    from promptsearch.search.space import Space
    from promptsearch.task import Task

__all__ = ["app", "main"]

_USAGE_ERROR = typer.BadParameter.__mro__[1]  # the base of everything that parsing refuses
_INTERRUPTED = 130
_SHOWN_CONFUSIONS = 5
_SEPARATOR = f"\n{'-' * 40}\n"  # between the prompts of an ensemble

app = typer.Typer(
    name="promptsearch",
    help="Finds the best prompt for a model by searching demonstrations; offline, on this machine.",
    epilog="Start with: promptsearch demo",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object, and nothing else.")]
ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="A name, a GGUF file, hf:owner/repo:quant or a server's URL. Without it the packaged model "
        "(predict, evaluate, show: the prompt's own).",
    ),
]
WeightsOption = Annotated[
    str,
    typer.Option(
        "--weights",
        help="Weight type of a GGUF model: auto (the fastest here that answers as the file's own), as-is, BF16, F16 "
        "or Q8_0.",
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option("--encoder", help="A sentence-transformers name. Without it the packaged one."),
]
BudgetOption = Annotated[
    str, typer.Option("--budget", "-b", help="A time (90s, 2m), '500k tokens' or '4000 evaluations'.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same result.")]
RunOption = Annotated[
    Path | None,
    typer.Option("--run", help="Folder to record in; the same call goes on from there."),
]
SaveOption = Annotated[Path | None, typer.Option("--save", help="Write the prompt found (JSON).")]
PrefixStateOption = Annotated[
    bool,
    typer.Option("--prefix-state", help="With --save: keep what the model computed for the demonstrations, too."),
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write a page that shows the result (HTML).")]
QuietOption = Annotated[bool, typer.Option("--quiet", "-q", help="No progress display.")]
PromptArgument = Annotated[Path, typer.Argument(metavar="PROMPT", help="A saved prompt.")]


# -- running and failing ------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program.

    Args:
        arguments: what follows the program's name; None for those of this process.

    Returns:
        The exit code: 0 done, 2 what was given is wrong, 1 anything else, 130 for Ctrl-C.
    """
    given, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    given = given or ["--help"]
    try:
        code = typer.main.get_command(app)(given, prog_name="promptsearch", standalone_mode=False)
        sys.stdout.flush()
    except Exception as error:
        if debug and not isinstance(error, _USAGE_ERROR):
            import traceback

            traceback.print_exc()
        return _failed(error, as_json="--json" in given)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    if code == _INTERRUPTED:
        recorded = any(argument.split("=")[0] == "--run" for argument in given)
        print(f"promptsearch: stopped{'; the same command goes on from there' * recorded}", file=sys.stderr)
    return code if isinstance(code, int) else 0


def _without_debug(arguments: Sequence[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which is taken wherever it stands before a ``--``."""
    end = list(arguments).index("--") if "--" in arguments else len(arguments)
    kept = [argument for argument in arguments[:end] if argument != "--debug"]
    return [*kept, *arguments[end:]], len(kept) < end


def _failed(error: Exception, *, as_json: bool) -> int:
    """Tell of an error in one line, and as an object where one was asked for."""
    if isinstance(error, BrokenPipeError):
        # Python flushes once more at exit, which would fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if isinstance(error, typer.Abort):
        print("promptsearch: stopped", file=sys.stderr)
        return _INTERRUPTED
    code, text = _diagnosis(error)
    line = " ".join(text.split())
    print(f"promptsearch: {line}", file=sys.stderr)
    if as_json:
        _print_json({"error": line, "exit_code": code})
    return code


def _diagnosis(error: Exception) -> tuple[int, str]:
    """Exit code and message of an error."""
    from promptsearch.errors import PromptsearchError

    if isinstance(error, UserError):
        return 2, str(error)
    if isinstance(error, _USAGE_ERROR):
        context = getattr(error, "ctx", None)
        command = "promptsearch" if context is None else context.command_path
        message = str(getattr(error, "format_message", error.__str__)()).rstrip(".")
        return 2, f"{message}; see {command} --help"
    if isinstance(error, PromptsearchError):
        return 1, str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return 1, f"{str(error.filename)!r} cannot be used ({error.strerror}); check that place and its permissions"
    return 1, f"{type(error).__name__}: {error} (unexpected; run it again with --debug to see where)"


def _print_json(value: object) -> None:
    """One object in ASCII, which every terminal and every reader of JSON takes."""
    from promptsearch.data.text import json_value

    print(json.dumps(json_value(value), indent=2, allow_nan=False))


# -- commands -----------------------------------------------------------------------------------------------


def _version(asked: bool) -> None:
    if asked:
        print(f"promptsearch {__version__}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Options of the program itself."""


@app.command()
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
    _check_targets({"--save": save, "--report": report}, file, validation, test, model)
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


@app.command()
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
    _check_targets({"--save": save, "--report": report}, model)
    _check_prefix_state(prefix_state, save)
    from promptsearch import example_task
    from promptsearch import optimize as search

    task = example_task()
    result = search(task, model, budget, weights=weights, seed=seed, run=run, progress=not quiet)
    if not as_json:
        print(_demo_headline(task, result))
    _finish(result, run, save, prefix_state, report, as_json)


@app.command()
def predict(
    prompt: PromptArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="One item; a JSON object for several columns."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Items: a table, or one a line. Without it standard input."),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the items with their predictions beside them: csv, tsv, jsonl or json."),
    ] = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict one item, a file of them, or the lines of standard input."""
    if text is not None and file is not None:
        raise UserError("TEXT and --file are both given; give one of them")
    _check_targets({"--save": save}, prompt, index_beside(prompt), file, model)
    from promptsearch.data.records import require_written_type
    from promptsearch.items import items_of, reads_standard_input, write_predictions
    from promptsearch.loading import load

    if save is not None:
        require_written_type(save)
    loaded = load(prompt, model, encoder=encoder)
    if reads_standard_input(text, file) and sys.stdin.isatty():
        print("reading items, one a line, until Ctrl-D", file=sys.stderr)
    items = items_of(loaded.task.inputs, text, file)
    found = iter(loaded.predict([item.row for item in items if not item.is_blank]))
    predictions = [_nothing_to_predict() if item.is_blank else next(found) for item in items]
    if save is not None:
        write_predictions(save, loaded.task.output, items, predictions)
    if as_json:
        saved = {} if save is None else {"saved": str(save)}
        _print_json({"predictions": [_prediction(each) for each in predictions], **saved})
        return
    if save is not None:
        failed = sum(each.failure is not None for each in predictions)
        without = f", {failed:,} without a prediction" if failed else ""
        print(f"saved        {save} ({len(items):,} item{'s' * (len(items) > 1)}{without})")
        return
    for each in predictions:
        print(_prediction_line(each))


@app.command()
def evaluate(
    prompt: PromptArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled rows.")],
    model: ModelOption = None,
    encoder: EncoderOption = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights", help="Weight type, as for optimize. Without it the prompt's own, or auto for --model."
        ),
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the rows with predictions and scores: csv, tsv, jsonl or json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a saved prompt on labelled rows."""
    _check_targets({"--save": save}, prompt, index_beside(prompt), file, model)
    from promptsearch.data.records import require_written_type
    from promptsearch.items import Item, write_predictions
    from promptsearch.loading import load

    if save is not None:
        require_written_type(save)
    loaded = load(prompt, model, encoder=encoder, weights=weights)
    found = loaded.evaluate_rows(file)
    measured, metric = found.measurement, loaded.task.metric_name
    if save is not None:
        items, said = [Item(each.row, False) for each in found.rows], [each.prediction for each in found.rows]
        write_predictions(save, loaded.task.output, items, said, [each.score for each in found.rows])
    if as_json:
        shown = {"measurement": measured.to_dict(), "metric": metric, "model": loaded.model}
        confusions = [asdict(each) for each in found.confusions]
        saved = {} if save is None else {"saved": str(save)}
        _print_json({**shown, "confusions": confusions, **saved})
        return
    print(f"{metric} {measured} ({measured.interval})")
    for reason, count in measured.failures:
        print(f"  {reason}: {count:,} rows, counted as wrong")
    for line in _confusion_lines(found.confusions):
        print(f"  {line}")
    if save is not None:
        print(f"saved        {save} ({len(found.rows):,} row{'s' * (len(found.rows) > 1)})")


@app.command()
def show(
    prompt: PromptArgument,
    text: Annotated[
        str | None,
        typer.Argument(metavar="TEXT", help="The item; without it a place for one."),
    ] = None,
    model: ModelOption = None,
    encoder: EncoderOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print the exact prompt that the model reads."""
    from promptsearch.items import item_of
    from promptsearch.loading import load

    loaded = load(prompt, model, encoder=encoder)
    blank = loaded.with_options({column: f"<{column}>" for column in loaded.task.inputs})
    item = blank if text is None else item_of(loaded.task.inputs, text, "TEXT")
    listed = loaded.multiple_choice
    options = None if listed is None else list(listed.require(loaded.task.example_from(item)).options)
    texts = loaded.render_all(item)
    if not as_json:
        print(_SEPARATOR.join(texts))
        if options is not None:
            print(f"scored after it: {' | '.join(options)}", file=sys.stderr)
        return
    weighing = loaded.weighing
    _print_json(
        {
            "prompt": texts[0],
            "prompts": texts,
            "messages": loaded.messages(item),
            "options": options,
            "candidate": {**loaded.candidate.to_dict(), "shots": loaded.candidate.shots},
            "demonstrations": [
                {"inputs": dict(each.inputs), "output": each.output} for each in loaded.demonstrations
            ],
            "weighing": None if weighing is None else weighing.to_dict(),
            "model": loaded.model,
            "measured": dict(loaded.parts.measured),
        }
    )


@app.command()
def models(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help="Only this one.")] = None,
    bench: Annotated[
        bool, typer.Option("--bench", help="Measure and compare all weight types now, and keep what is found.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List what can run on this machine, and how fast."""
    from promptsearch.inventory import known_models, model_named, packaged_encoder

    found = known_models() if model is None else [model_named(model)]
    if bench:
        found = [each if each.path is None and model is None else _benched(each) for each in found]
    if as_json:
        _print_json({"models": [each.to_dict() for each in found], "encoder": packaged_encoder()})
        return
    for each in found:
        print(_model_lines(each))
    if model is None:
        encoder = packaged_encoder()
        print(f"encoder {encoder['name']}: {encoder['install'] or 'installed'}")


# -- what commands share ------------------------------------------------------------------------------------


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


def _check_targets(targets: Mapping[str, Path | None], *sources: str | Path | None) -> None:
    """Refuse files that cannot be written, or that would replace what is read or each other, before the work.

    Args:
        targets: what is to be written, by option.
        sources: what is read; names and addresses among them are no files here.
    """
    taken = [Path(source) for source in sources if source is not None]
    for option, target in targets.items():
        if target is None:
            continue
        if target.is_dir():
            raise UserError(f"{str(target)!r} is a folder; give the path of a file to write")
        folder = next(parent for parent in target.absolute().parents if parent.exists())
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise UserError(f"{str(target)!r} cannot be written in {str(folder)!r}; choose another place")
        if any(would_replace(target, kept) for kept in taken):
            raise UserError(f"{option} {str(target)!r} would replace what is read or written; give another file")
        taken.append(target)


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
        _print_json({**result.to_dict(), "prompt": None if saved is None else str(saved)})
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


def _nothing_to_predict() -> Prediction:
    from promptsearch.prediction import Prediction

    return Prediction(None, {}, failure="no text")


def _prediction(prediction: Prediction) -> dict[str, Any]:
    return {
        "output": prediction.output,
        "probabilities": dict(prediction.probabilities),
        "rationale": prediction.rationale,
        "demonstrations": [
            {"inputs": dict(each.inputs), "output": each.output}
            | ({"rationale": each.rationale} if each.rationale else {})
            for each in prediction.demonstrations
        ],
        "failure": prediction.failure,
        **({} if prediction.text is None else {"text": prediction.text}),
    }


def _prediction_line(prediction: Prediction) -> str:
    """The output in one line, then a tab and its probability, or why there is none."""
    if prediction.failure is not None:
        return f"\t{prediction.failure}"
    output = " ".join(str(prediction.output).split())
    if not prediction.probabilities:
        return output
    return f"{output}\t{prediction.probabilities[prediction.output]:.3f}"


def _confusion_lines(confusions: Sequence[Confusion]) -> list[str]:
    """The most frequent mistakes, and how many others there are."""
    told = [each for each in confusions if each.predicted is not None]
    lines = [str(each) for each in told[:_SHOWN_CONFUSIONS]]
    others = sum(each.count for each in told[_SHOWN_CONFUSIONS:])
    return [*lines, f"other labels taken for others: {others:,} row{'s' * (others > 1)}"] if others else lines


def _benched(model: KnownModel) -> KnownModel:
    """A model with its weight types measured now, and on a terminal a display of how far that is."""
    from promptsearch.events import Progress
    from promptsearch.inventory import bench_model
    from promptsearch.terminal import progress_display

    with progress_display() as listen:
        return bench_model(model, lambda done: listen(Progress("weights", done)))


def _model_lines(model: KnownModel) -> str:
    """Name, size and place of a model, and below it what was measured of its weight types."""
    if model.path is None:
        return f"{model.name}\n  not installed: {model.install}"
    lines = [model.name, f"  file    {model.path} ({model.path.stat().st_size / 1e6:,.0f} MB)"]
    if model.error:
        return "\n".join([*lines, f"  error   {model.error}"])
    if model.table is None:
        return "\n".join([*lines, "  speed   not measured yet; add --bench to measure it"])
    return "\n".join([*lines, f"  runs    {model.table.chosen}", "", *_type_lines(model.table), ""])


def _type_lines(table: WeightTable) -> list[str]:
    """A line for each weight type: size, speeds, agreement, and why it does not run."""
    head = ["weights", "MB", "prefill 32", "128", "512", "generation", "same label", ""]
    rows = [head, *(_type_cells(each, each.kind == table.chosen) for each in table.types)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    lines = []
    for row in rows:
        first, *numbers = (cell.rjust(width) for cell, width in zip(row, widths, strict=False))
        lines.append(f"  {first.strip():<{widths[0]}}  {'  '.join(numbers)}  {row[-1]}".rstrip())
    aside = next((each.agreement for each in table.types if each.agreement is not None), None)
    note = "  prefill and generation in tokens/s"
    if aside is not None:
        own = "the file's weights in F32" if aside.reference == "F32" else "the file as it is"
        note += f"; same label as {own}, {aside.ties} near ties aside"
    return [*lines, note]


def _type_cells(of: WeightType, chosen: bool) -> list[str]:
    prefill = of.speed.prefill if of.speed is not None else {}
    generation = of.speed.generation if of.speed is not None else None
    return [
        of.kind,
        "-" if of.bytes is None else f"{of.bytes / 1e6:,.0f}",
        *(f"{prefill[tokens]:,.0f}" if tokens in prefill else "-" for tokens in (32, 128, 512)),
        "-" if generation is None else f"{generation:,.0f}",
        "-" if of.agreement is None else f"{of.agreement.agreed}/{of.agreement.items}",
        "runs" if chosen else of.reason,
    ]
