"""The items that ``promptsearch predict`` is given, and the file of what was predicted.

An item is a row of a table, a line of text, or an argument. A line or an argument may be a JSON object, which is a
row; for prompts of several columns it must be one.
Invariant: each row, and each line up to the last that holds something, has its place in what comes out, also one
without text.
Leaves out: what values are texts, which predicting checks.
"""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.data.records import SUFFIXES, decoded, read_rows, text_in, write_rows
from promptsearch.data.text import is_missing, listed, quoted
from promptsearch.errors import DataError, UserError

if TYPE_CHECKING:
    from promptsearch.prediction import Prediction

__all__ = ["Item", "item_of", "items_of", "reads_standard_input", "write_predictions"]

Row = Mapping[str, Any]

_logger = logging.getLogger(__name__)
_STDIN = "standard input"


@dataclass(frozen=True)
class Item:
    """One thing to predict.

    Attributes:
        row: what stands there, by column.
        is_blank: whether it lacks text in a column that the prompt needs.
    """

    row: Row
    is_blank: bool


def items_of(columns: Sequence[str], text: str | None, file: Path | None) -> list[Item]:
    """The items of an argument, a file or standard input.

    Args:
        columns: the prompt's input columns.
        text: the argument; None for none.
        file: a table, or one item a line; None or "-" for standard input.

    Raises:
        DataError: they cannot be read, there are none, a line is not what the columns need, or no item has one of
            the columns.
        UserError: the argument names a file.
    """
    if text is not None:
        if Path(text).suffix.lower() in SUFFIXES and not any(letter.isspace() for letter in text):
            raise UserError(
                f"TEXT is {text!r}, which names a file; give it with --file to predict its rows, or the name "
                "itself on standard input"
            )
        rows = [item_of(columns, text, "TEXT")]
        _warn_of_objects(columns, [text], rows, "TEXT")
        return _checked(columns, rows, "TEXT")
    if reads_standard_input(text, file):
        return _checked(columns, _lines(columns, _standard_input(), _STDIN), _STDIN)
    assert file is not None
    if file.suffix.lower() in SUFFIXES:
        return _checked(columns, read_rows(file, name="--file"), "--file")
    return _checked(columns, _lines(columns, _text_of(file), str(file)), str(file))


def reads_standard_input(text: str | None, file: Path | None) -> bool:
    """Whether :func:`items_of` reads standard input."""
    return text is None and (file is None or str(file) == "-")


def item_of(columns: Sequence[str], text: str, where: str) -> Row:
    """An item as people write it: the text itself, or a JSON object, which several columns need.

    Args:
        columns: the prompt's input columns.
        text: what was written.
        where: what messages call it.

    Returns:
        What stands there, by column.

    Raises:
        DataError: there are several columns, and the text is no JSON object.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        found, problem = None, f"is no JSON ({' '.join(str(error).split())})"
    else:
        problem = f"is {quoted(text)}"
    if len(columns) == 1:
        return found if isinstance(found, dict) and columns[0] in found else {columns[0]: text}
    if not isinstance(found, dict):
        way_out = f"write a JSON object such as {json.dumps(dict.fromkeys(columns, '...'))}"
        raise DataError(f"{where} {problem}, for {len(columns)} columns; {way_out}")
    return found


def write_predictions(
    path: Path,
    output: str,
    items: Iterable[Item],
    predictions: Iterable[Prediction],
    scores: Sequence[float] | None = None,
) -> None:
    """Write items with what was predicted beside them.

    The last columns are ``predicted_`` and the output's name; this and ``_probability``, that of the predicted label,
    where there are labels; this and ``_score``, where items are scored; and this and ``_failure``, why there is no
    prediction, where one lacks. Columns of these names that the items have are left out.

    Args:
        path: see :func:`promptsearch.data.records.write_rows`.
        output: the prompt's output column.
        items: the items.
        predictions: one for each.
        scores: one for each; None for items that have none.

    Raises:
        DataError: files of this type are not written.
    """
    pairs = list(zip(items, predictions, strict=True))
    name = f"predicted_{output}"
    probability, score, failure = (f"{name}_{each}" for each in ("probability", "score", "failure"))
    told = any(said.probabilities for _, said in pairs)
    failed = any(said.failure for _, said in pairs)
    rows = []
    for place, (item, said) in enumerate(pairs):
        ours = (name, probability, score, failure)
        row = {column: value for column, value in item.row.items() if column not in ours}
        row[name] = said.output
        if told:
            known = said.probabilities.get(said.output)
            row[probability] = None if known is None else round(known, 6)
        if scores is not None:
            row[score] = round(scores[place], 6)
        if failed:
            row[failure] = said.failure
        rows.append(row)
    write_rows(path, rows)


def _checked(columns: Sequence[str], rows: Sequence[Row], name: str) -> list[Item]:
    """Rows as items; a column that no row has is a mistake, one that some lack is blank there."""
    present = dict.fromkeys(column for row in rows for column in row)
    missing = [column for column in columns if column not in present]
    if missing:
        raise DataError(f"{name} has no column {listed(missing)}; its columns are {listed(present)}")
    return [Item(row, any(is_missing(row.get(column)) for column in columns)) for row in rows]


def _lines(columns: Sequence[str], text: str, name: str) -> list[Row]:
    """One item a line, however lines end; blank lines end the text, and between others hold no text."""
    lines = io.StringIO(text, newline=None).read().rstrip().split("\n") if text.strip() else []
    if not lines:
        raise DataError(f"{name} holds no items; give some, one a line")
    rows = [
        item_of(columns, line, f"line {number} of {name}") if line.strip() else dict.fromkeys(columns, "")
        for number, line in enumerate(lines, start=1)
    ]
    _warn_of_objects(columns, lines, rows, name)
    return rows


def _warn_of_objects(columns: Sequence[str], lines: Sequence[str], rows: Sequence[Row], name: str) -> None:
    """Tell of texts that look like JSON objects, as where the column's name is misspelt or a quote lacks."""
    for number, (line, row) in enumerate(zip(lines, rows, strict=True), start=1):
        if line.lstrip().startswith('{"') and row == {columns[0]: line}:
            _logger.warning(
                "line %d of %s looks like a JSON object without %r; it is taken for a text, as are others like it",
                number,
                name,
                columns[0],
            )
            return


def _standard_input() -> str:
    """All of standard input, in UTF-8 whatever the terminal's own encoding is."""
    content = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if content is None else text_in(content.read(), _STDIN)


def _text_of(file: Path) -> str:
    if not file.is_file():
        raise DataError(f"there is no file {str(file)!r}; give an existing one")
    return decoded(file, "--file")
