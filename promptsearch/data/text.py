"""Turns single values into text, and text into the forms that comparison and messages need.

Invariant: what leaves here can be encoded as UTF-8, and what is quoted for a message is one line.
It leaves out all knowledge of rows, columns and labels.
"""

from __future__ import annotations

import base64
import json
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from promptsearch.errors import DataError

__all__ = [
    "MEANINGFUL_PUNCTUATION",
    "as_text",
    "clean_text",
    "encodable",
    "is_missing",
    "json_value",
    "listed",
    "normalised",
    "quoted",
]

LISTED_VALUES = 4

MEANINGFUL_PUNCTUATION = frozenset("#%&*/@\\")
"""Punctuation to Unicode, but it changes the meaning: "C#" is not "C", "x*y" is not "x/y"."""

_REMOVABLE_ASCII = re.compile(r"""[!"'(),\-.:;?\[\]_{}](?![0-9])""")


def clean_text(text: str) -> str:
    """Strip surrounding whitespace and replace lone surrogates, see :func:`encodable`."""
    return encodable(text).strip()


def encodable(text: str) -> str:
    """A text with lone surrogates replaced by U+FFFD, since no tokenizer or file can encode them."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def as_text(value: object) -> str:
    """Text of one value of a row.

    A float without a fraction is written as an integer: pandas turns a column of integers into floats as
    soon as one value is missing, and a label ``1`` must not become ``1.0`` for that.

    Raises:
        DataError: the value is bytes, which no rule can turn into text.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, (bytes, bytearray)):
        raise DataError(f"a value is bytes ({quoted(bytes(value))}), not text; decode it first")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, (Mapping, list, tuple, np.ndarray)):
        return clean_text(json.dumps(_plain(value), ensure_ascii=False, default=str))
    return clean_text(str(value))


def _plain(value: Any) -> Any:
    """Containers that ``json`` knows."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def json_value(value: object) -> Any:
    """A value as JSON has it, also within lists and dicts.

    What says nothing and what is not finite is null, bytes are base 64, and what JSON has no form for is its text.
    """
    if hasattr(value, "tolist"):
        value = value.tolist()  # numpy arrays and scalars
    if isinstance(value, Mapping):
        return {encodable(str(name)): json_value(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [json_value(each) for each in value]
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return encodable(value)
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    return None if is_missing(value) else as_text(value)


def is_missing(value: object) -> bool:
    """Whether a value says nothing: None, NaN, pandas' NA and NaT, blank text, or a list of such."""
    if value is None:
        return True
    if isinstance(value, str):
        return not clean_text(value)
    if isinstance(value, (list, tuple, np.ndarray)):
        return all(is_missing(item) for item in value)
    if isinstance(value, (float, np.floating)):
        return math.isnan(value)
    # By name, because a test by identity would import pandas.
    return type(value).__name__ in ("NAType", "NaTType")


def normalised(text: str) -> str:
    """The form in which two texts are the same text: no case, spaces, sentence punctuation or width.

    Punctuation stays where it changes the meaning: before a digit ("-5", "1.5", "2*3") and in signs such
    as "#" and "%". A text made only of what would go keeps itself. Applying it twice changes nothing.
    """
    previous = None
    while text != previous:  # removing a character can bring together two that compose
        previous, text = text, _normalised_once(text)
    return text


def _normalised_once(text: str) -> str:
    if text.isascii():  # a third of the time, and there can be a hundred thousand of them
        folded = "".join(text.lower().split())
        return _REMOVABLE_ASCII.sub("", folded) or folded
    return _normalised_anything(text)


def _normalised_anything(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    folded = "".join(folded.split())
    followers = folded[1:] + " "
    kept = "".join(
        character
        for character, follower in zip(folded, followers, strict=False)
        if not _is_removable(character, follower)
    )
    return kept or folded


def _is_removable(character: str, follower: str) -> bool:
    if character.isalnum() or character in MEANINGFUL_PUNCTUATION:
        return False
    category = unicodedata.category(character)
    return category == "Cf" or (category[0] == "P" and not follower.isdigit())


def quoted(value: object, limit: int = 60) -> str:
    """``repr`` cut to a length that fits into a one-line message."""
    written = repr(value)
    if not isinstance(value, str):
        written = " ".join(written.split())
    return written if len(written) <= limit else f"{written[:limit]}…"


def listed(values: Iterable[object]) -> str:
    """The first few values, quoted, and how many more there are."""
    everything = list(values)
    shown = ", ".join(quoted(value) for value in everything[:LISTED_VALUES])
    more = len(everything) - LISTED_VALUES
    return f"{shown} and {more} more" if more > 0 else shown
