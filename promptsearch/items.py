"""The items that ``promptsearch predict`` is given, and the file of what was predicted.

An item is a row of a table, a line of text, or an argument. For prompts of several columns a line is a JSON object.
Invariant: each row and line has its place in what comes out, also one without text.
Leaves out: what columns hold, which predicting checks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.data.records import SUFFIXES, read_rows, write_rows
from promptsearch.data.text import is_missing
from promptsearch.errors import DataError, UserError

if TYPE_CHECKING:
    from promptsearch.answering import Prediction

__all__ = ["Item", "item_of", "items_of", "write_predictions"]


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    Attributes:
        row: what stands there, by column.
        asked: what :meth:`promptsearch.prompt.Prompt.predict` is given; None where there is no text.
    """

    row: Mapping[str, Any]
    asked: str | Mapping[str, Any] | None


def items_of(columns: Sequence[str], text: str | None, file: Path | None) -> list[Item]:
    """The items of an argument, a file or standard input.

    Args:
        columns: the prompt's input columns.
        text: the argument; None for none.
        file: a table, or one item a line; None or "-" for standard input.

    Raises:
        DataError: they cannot be read, there are none, or a line is not what the columns need.
        UserError: the argument names a file.
    """
    if text is not None:
        if Path(text).suffix.lower() in SUFFIXES and not any(letter.isspace() for letter in text):
            raise UserError(
                f"TEXT is {text!r}, which names a file; give it with --file to predict its rows, or the name "
                "itself on standard input"
            )
        return [_item(columns, item_of(columns, text, "TEXT"))]
    if file is not None and str(file) != "-":
        if file.suffix.lower() in SUFFIXES:
            return _rows(columns, read_rows(file, name="--file"))
        return _lines(columns, _read(file), str(file))
    return _lines(columns, sys.stdin.read(), "standard input")


def item_of(columns: Sequence[str], text: str, where: str) -> str | dict[str, Any]:
    """An item as people write it: the text itself, or for several columns a JSON object.

    A JSON object that names a single column is one too.

    Args:
        columns: the prompt's input columns.
        text: what was written.
        where: what messages call it.

    Raises:
        DataError: there are several columns, and the text is no JSON object.
    """
    if len(columns) == 1:
        return _named(text, columns[0])
    way_out = f"write a JSON object such as {json.dumps(dict.fromkeys(columns, '...'))}"
    try:
        item = json.loads(text)
    except ValueError as error:
        raise DataError(f"{where} is no JSON ({error}), for {len(columns)} columns; {way_out}") from error
    if not isinstance(item, dict):
        raise DataError(f"{where} is {text[:40]!r}, for {len(columns)} columns; {way_out}")
    return item


def write_predictions(path: Path, output: str, items: Iterable[Item], predictions: Iterable[Prediction]) -> None:
    """Write items with what was predicted beside them.

    Args:
        path: see :func:`promptsearch.data.records.write_rows`.
        output: the prompt's output column. ``predicted_`` and its name is the column of predictions; "probability"
            is that of the predicted label; "failure" says why there is no prediction. Columns of these names that
            the items have are replaced.
        items: the items.
        predictions: one for each.

    Raises:
        DataError: files of this type are not written.
    """
    pairs = list(zip(items, predictions, strict=True))
    scored = any(prediction.probabilities for _, prediction in pairs)
    failed = any(prediction.failure for _, prediction in pairs)
    rows = []
    for item, said in pairs:
        row = {**item.row, f"predicted_{output}": said.output}
        if scored:
            known = said.probabilities.get(said.output)
            row["probability"] = None if known is None else round(known, 6)
        if failed:
            row["failure"] = said.failure
        rows.append(row)
    write_rows(path, rows)


def _item(columns: Sequence[str], asked: str | dict[str, Any]) -> Item:
    return Item({columns[0]: asked} if isinstance(asked, str) else asked, asked)


def _rows(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> list[Item]:
    """Rows; those without a text in one of the columns are not asked about."""
    present = {column for row in rows for column in row}
    # a column that no row has is a mistake, which predicting tells
    needed = columns if set(columns) <= present else ()
    return [Item(row, None if any(is_missing(row.get(column)) for column in needed) else row) for row in rows]


def _lines(columns: Sequence[str], text: str, name: str) -> list[Item]:
    """One item a line. Blank lines end the text; between others they are not asked about."""
    lines = text.rstrip().split("\n") if text.strip() else []
    if not lines:
        raise DataError(f"{name} holds no items; give some, one a line")
    return [
        _item(columns, item_of(columns, line, f"line {number} of {name}"))
        if line.strip()
        else Item(dict.fromkeys(columns, ""), None)
        for number, line in enumerate(lines, start=1)
    ]


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"there is no file {str(file)!r}; give an existing one") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{str(file)!r} cannot be read as UTF-8 text ({error}); save it as such") from error


def _named(text: str, column: str) -> str | dict[str, Any]:
    """The text itself, or the JSON object that it is where that names the column."""
    try:
        item = json.loads(text)
    except ValueError:
        return text
    return item if isinstance(item, dict) and column in item else text
