"""``promptsearch predict``, ``evaluate`` and ``show``: what a saved prompt says, is worth, and has the model read."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptsearch.cli.options import (
    EncoderOption,
    JsonOption,
    ModelOption,
    PromptArgument,
    SavedWeightsOption,
    check_targets,
)
from promptsearch.cli.printing import confusion_lines, prediction_line, prediction_values, print_json
from promptsearch.errors import UserError
from promptsearch.files import indexes_beside

if TYPE_CHECKING:
    from collections.abc import Sequence

    from promptsearch.cli.items import Item
    from promptsearch.prediction import Prediction

__all__ = ["evaluate", "predict", "show"]

_SEPARATOR = f"\n{'-' * 40}\n"  # between the prompts of an ensemble


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
    weights: SavedWeightsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Predict one item, a file of them, or the lines of standard input.

    A TEXT without a prediction ends with 2 where it is blank or too long, with 1 where the model's answer is not
    understood. Of several items, such ones keep their places.
    """
    if text is not None and file is not None:
        raise UserError("TEXT and --file are both given; give one of them")
    check_targets({"--save": save}, prompt, *indexes_beside(prompt), file, model)
    from promptsearch.cli.items import items_of, reads_standard_input, write_predictions
    from promptsearch.data.records import require_written_type
    from promptsearch.data.text import is_missing, listed
    from promptsearch.loading import load

    if save is not None:
        require_written_type(save)
    loaded = load(prompt, model, encoder=encoder, weights=weights)
    if reads_standard_input(text, file) and sys.stdin.isatty():
        print("reading items, one a line, until Ctrl-D", file=sys.stderr)
    items = items_of(loaded.task.inputs, text, file)
    if text is not None and items[0].is_blank:
        blank = [column for column in loaded.task.inputs if is_missing(items[0].row.get(column))]
        raise UserError(f"TEXT holds nothing for {listed(blank)}; give a text to predict")
    found = iter(loaded.predict([item.row for item in items if not item.is_blank]))
    predictions = [_nothing_to_predict() if item.is_blank else next(found) for item in items]
    if text is not None and predictions[0].failure == "too long":
        raise UserError("TEXT is too long for the model's context after the prompt's demonstrations; shorten it")
    if save is not None:
        write_predictions(save, loaded.task.output, items, predictions)
    _print(predictions, items, save, as_json=as_json)
    if text is not None and predictions[0].failure is not None:
        raise typer.Exit(1)


def _print(predictions: Sequence[Prediction], items: Sequence[Item], save: Path | None, *, as_json: bool) -> None:
    """What was predicted, or where it was written."""
    if as_json:
        saved = {} if save is None else {"saved": str(save)}
        print_json({"predictions": [prediction_values(each) for each in predictions], **saved})
        return
    if save is not None:
        failed = sum(each.failure is not None for each in predictions)
        without = f", {failed:,} without a prediction" if failed else ""
        print(f"saved        {save} ({len(items):,} item{'s' * (len(items) > 1)}{without})")
        return
    for each in predictions:
        print(prediction_line(each))


def evaluate(
    prompt: PromptArgument,
    file: Annotated[str, typer.Argument(metavar="FILE", help="Labelled rows.")],
    model: ModelOption = None,
    encoder: EncoderOption = None,
    weights: SavedWeightsOption = None,
    save: Annotated[
        Path | None,
        typer.Option("--save", help="Write the rows with predictions and scores: csv, tsv, jsonl or json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a saved prompt on labelled rows."""
    check_targets({"--save": save}, prompt, *indexes_beside(prompt), file, model)
    from promptsearch.cli.items import Item, write_predictions
    from promptsearch.data.records import require_written_type
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
        print_json({**shown, "confusions": confusions, **saved})
        return
    print(f"{metric} {measured} ({measured.interval})")
    for reason, count in measured.failures:
        print(f"  {reason}: {count:,} row{'s' * (count != 1)}, counted as wrong")
    for line in confusion_lines(found.confusions):
        print(f"  {line}")
    if save is not None:
        print(f"saved        {save} ({len(found.rows):,} row{'s' * (len(found.rows) > 1)})")


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
    from promptsearch.cli.items import item_of
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
    print_json(
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


def _nothing_to_predict() -> Prediction:
    from promptsearch.prediction import Prediction

    return Prediction(None, {}, failure="no text")
