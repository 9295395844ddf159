"""Reads any tabular input into a list of row dicts, and writes such a list as a file.

Invariant: values are read as they were written; a text such as "NA" or "null" in a CSV file stays text.
It leaves out what the columns mean: `promptsearch.task` picks and checks them.
pandas and pyarrow are imported only when a file needs them.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from promptsearch.data.text import as_text, encodable, is_missing, json_value, listed, quoted
from promptsearch.errors import DataError
from promptsearch.files import write_whole
from promptsearch.optional import require

__all__ = [
    "SUFFIXES",
    "WRITTEN_SUFFIXES",
    "Row",
    "declared_labels",
    "decoded",
    "read_rows",
    "require_written_type",
    "text_in",
    "write_rows",
]

Row = dict[str, Any]


def read_rows(data: object, *, name: str = "data") -> list[Row]:
    """Read rows from a path, a DataFrame, a ``datasets.Dataset`` or any iterable of dicts.

    Args:
        data: path (``str`` or ``Path``) to one of `SUFFIXES`, or an object that holds rows.
        name: what messages call it, such as ``"validation"``.

    Raises:
        DataError: it cannot be read, a row is no dict, or there is no row.
    """
    if isinstance(data, (str, os.PathLike)):
        path = _existing_file(os.fspath(data), name)
        rows, origin = _READERS[path.suffix.lower()](path, name), f"{name} {_quoted_path(path)}"
    else:
        rows, origin = _rows_of_object(data, name), name
    if not rows:
        raise DataError(f"{origin} holds no rows; at least one is needed")
    return rows


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a file that :func:`read_rows` reads, whole or not at all.

    Args:
        path: its suffix, one of `WRITTEN_SUFFIXES`, says how.
        rows: their columns are all that any row has, in the order in which they appear; what a row lacks is blank in
            a table. Tables hold texts: lists and dicts are written as JSON.

    Raises:
        DataError: files of this type are not written.
    """
    require_written_type(path)
    write_whole(path, _WRITERS[path.suffix.lower()](rows))


def require_written_type(path: Path) -> None:
    """Refuse a file of a type that :func:`write_rows` does not write.

    Raises:
        DataError: its suffix is none of `WRITTEN_SUFFIXES`.
    """
    if path.suffix.lower() not in _WRITERS:
        raise DataError(
            f"{_quoted_path(path)}: files of type {quoted(path.suffix)} are not written; "
            f"let its name end in one of {', '.join(WRITTEN_SUFFIXES)}"
        )


def _as_json(rows: Sequence[Mapping[str, Any]]) -> str:
    return json.dumps([json_value(row) for row in rows], ensure_ascii=False, indent=1) + "\n"


def _as_json_lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(json_value(row), ensure_ascii=False) + "\n" for row in rows)


def _as_table(delimiter: str) -> Callable[[Sequence[Mapping[str, Any]]], str]:
    def written(rows: Sequence[Mapping[str, Any]]) -> str:
        columns = list(dict.fromkeys(column for row in rows for column in row))
        lines = [columns, *([_cell(row.get(column)) for column in columns] for row in rows)]
        has_returns = any("\r" in cell for line in lines for cell in line)  # not quoted by csv before Python 3.13
        quoting: Literal[0, 1] = csv.QUOTE_ALL if has_returns else csv.QUOTE_MINIMAL
        text = io.StringIO(newline="")
        csv.writer(text, delimiter=delimiter, lineterminator="\n", quoting=quoting).writerows(lines)
        return text.getvalue()

    return written


def _cell(value: Any) -> str:
    """A value as a table shows it: text as it is, but for what no file can hold; lists and dicts as JSON."""
    if isinstance(value, str):
        return encodable(value)
    plain = None if is_missing(value) else json_value(value)
    if isinstance(plain, (dict, list)):
        return json.dumps(plain, ensure_ascii=False)
    return "" if plain is None else as_text(plain)


def declared_labels(data: object, column: str) -> dict[int, str] | None:
    """Words that a ``datasets.Dataset`` declares for an integer column (``ClassLabel``), if it does."""
    features = getattr(data, "features", None)
    if not isinstance(features, Mapping):
        return None
    words = getattr(features.get(column), "names", None)
    if not words:
        return None
    return dict(enumerate(map(str, words)))


def _existing_file(given: str | bytes, name: str) -> Path:
    path = Path(os.fsdecode(given))
    try:
        is_file, is_directory = path.is_file(), path.is_dir()
    except (OSError, ValueError):  # a name that no file system takes, such as the content of a file
        is_file = is_directory = False
    if is_directory:
        raise DataError(f"{name} {_quoted_path(path)} is a directory; give the path of one file")
    if not is_file:
        raise DataError(f"{name} {_quoted_path(path)}: no such file; give the path of one that exists")
    if path.suffix.lower() not in SUFFIXES:
        raise DataError(
            f"{name} {_quoted_path(path)}: files of type {quoted(path.suffix)} cannot be read; "
            f"convert it to one of {', '.join(SUFFIXES)}"
        )
    return path


def _rows_of_object(data: object, name: str) -> list[Row]:
    pandas = sys.modules.get("pandas")  # whoever holds a DataFrame has imported it
    if pandas is not None and isinstance(data, pandas.DataFrame):
        return _rows_of_frame(data, name)
    if isinstance(data, Mapping):
        raise DataError(
            f"{name} is a {type(data).__name__} with the keys {listed(data)}, not rows; "
            "give a list of dicts, or one split of it"
        )
    if not isinstance(data, Iterable):
        raise DataError(f"{name} is {quoted(data)}, which holds no rows; give a list of dicts or a file path")
    return [_checked_row(row, f"row {number} of {name}") for number, row in enumerate(data, start=1)]


def _checked_row(row: object, where: str) -> Row:
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is {quoted(row)}, not a dict; every row must map column names to values")
    return {str(column): value for column, value in row.items()}


def _rows_of_frame(frame: Any, name: str) -> list[Row]:
    if not frame.columns.is_unique:
        raise _several_columns(name, [str(column) for column in frame.columns])
    return [_checked_row(row, name) for row in frame.to_dict("records")]


def _quoted_path(path: Path) -> str:
    # Long enough for any path that a person reads, and short where somebody gave the content of a file.
    return quoted(str(path), limit=200)


def decoded(path: Path, name: str) -> str:
    """The text of a UTF-8 file, without its byte order mark.

    Raises:
        DataError: it cannot be read as such.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{name} {_quoted_path(path)} cannot be read ({error.strerror}); check its permissions"
        ) from error
    return text_in(content, f"{name} {_quoted_path(path)}")


def text_in(content: bytes, name: str) -> str:
    """A text from its bytes in UTF-8, without its byte order mark.

    Raises:
        DataError: they are no such text.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} is not UTF-8 (at byte {error.start}); save it as UTF-8") from error


def _read_json_lines(path: Path, name: str) -> list[Row]:
    return _rows_of_lines(decoded(path, name), path, name)


def _rows_of_lines(text: str, path: Path, name: str) -> list[Row]:
    rows = []
    # Not str.splitlines(): that also splits at U+2028 and its kind, which may stand inside a JSON string.
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {name} {_quoted_path(path)}"
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{where} is broken JSON ({_reason(error)}); write an object") from error
        rows.append(_checked_row(value, where))
    return rows


def _read_json(path: Path, name: str) -> list[Row]:
    text = decoded(path, name)
    if not text.strip():
        return []
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        # Much of what is called .json holds one object per line.
        if text.lstrip().startswith("{"):
            return _rows_of_lines(text, path, name)
        raise DataError(
            f"{name} {_quoted_path(path)} is broken JSON ({_reason(error)}); write a list of objects"
        ) from error
    if not isinstance(value, list):
        raise DataError(
            f"{name} {_quoted_path(path)} holds one {type(value).__name__}, not rows; write a list of objects"
        )
    return [_checked_row(row, f"row {number} of {name}") for number, row in enumerate(value, start=1)]


def _read_delimited(delimiter: str) -> Callable[[Path, str], list[Row]]:
    def read(path: Path, name: str) -> list[Row]:
        text = decoded(path, name)
        if not text.strip():
            return []
        pandas = require("pandas", install="pandas")
        _require_distinct_columns(text, delimiter, f"{name} {_quoted_path(path)}")
        with warnings.catch_warnings():
            # pandas only warns when a row has more fields than the header, and cuts the row.
            warnings.simplefilter("error", pandas.errors.ParserWarning)
            try:
                frame = pandas.read_csv(
                    io.StringIO(text.strip("\r\n") + "\n"),
                    sep=delimiter,
                    dtype=str,
                    keep_default_na=False,
                    index_col=False,
                    skip_blank_lines=delimiter in _header(text),  # of one column a blank line is a row
                )
            except (ValueError, pandas.errors.ParserWarning) as error:
                raise DataError(
                    f"{name} {_quoted_path(path)} is a broken table ({_reason(error)}); "
                    "every row needs as many fields as the header, and quotes around delimiters"
                    f"{_other_delimiter(text, delimiter)}"
                ) from error
        return _rows_of_frame(frame, name)

    return read


def _require_distinct_columns(text: str, delimiter: str, name: str) -> None:
    """Refuse a header that names a column twice, of which pandas would rename one."""
    try:
        header = next(csv.reader(io.StringIO(text.strip("\r\n"), newline=""), delimiter=delimiter))
    except csv.Error:
        return  # pandas says what is wrong with it
    named = [column for column in header if column]
    if len(set(named)) < len(named):
        raise _several_columns(name, named)


def _several_columns(name: str, columns: Sequence[str]) -> DataError:
    twice = sorted({column for column in columns if columns.count(column) > 1})
    return DataError(f"{name} has several columns named {listed(twice)}; rename or drop all but one")


def _header(text: str) -> str:
    """The first line that says something."""
    return text.lstrip("\r\n").partition("\n")[0]


def _other_delimiter(text: str, delimiter: str) -> str:
    """A hint where the header's fields are apart by another delimiter."""
    header = _header(text)
    found = next((other for other in (";", "\t", "|", ",") if other != delimiter and other in header), None)
    if delimiter in header or found is None:
        return ""
    names = {",": ".csv", "\t": ".tsv"}
    way_out = f"name it {names[found]}" if found in names else f"save it with {delimiter!r} instead"
    return f". Its header {quoted(header)} is divided by {found!r}: {way_out}"


def _read_parquet(path: Path, name: str) -> list[Row]:
    parquet = require("pyarrow.parquet", install="pyarrow")
    try:
        rows: list[Row] = parquet.read_table(path).to_pylist()
    except (ValueError, OSError, NotImplementedError) as error:  # pyarrow's own errors derive from these
        raise DataError(
            f"{name} {_quoted_path(path)} cannot be read as Parquet ({_reason(error)}); write it again"
        ) from error
    return rows


def _reason(error: BaseException) -> str:
    """The message of another library, in one line."""
    written = " ".join(str(error).split())
    return f"{written[:120]}…" if len(written) > 120 else written


_READERS: dict[str, Callable[[Path, str], list[Row]]] = {
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".json": _read_json,
    ".csv": _read_delimited(","),
    ".tsv": _read_delimited("\t"),
    ".parquet": _read_parquet,
}

SUFFIXES = tuple(_READERS)

_WRITERS: dict[str, Callable[[Sequence[Mapping[str, Any]]], str]] = {
    ".csv": _as_table(","),
    ".tsv": _as_table("\t"),
    ".jsonl": _as_json_lines,
    ".ndjson": _as_json_lines,
    ".json": _as_json,
}

WRITTEN_SUFFIXES = tuple(_WRITERS)
