"""Decides whether the outputs are labels, and which words the model sees for each.

Invariant: a `LabelSpace` has at least two labels, and words and values correspond one to one.
It leaves out how a model tokenizes the words.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from promptsearch.data.text import as_text, is_missing, listed, quoted
from promptsearch.errors import DataError

__all__ = ["LabelSpace", "LabelSpec", "resolve_labels"]

LabelSpec = Sequence[Any] | AbstractSet[Any] | Mapping[Any, str] | bool | None

MOST_INFERRED_LABELS = 200
FEWEST_ROWS_PER_LABEL = 3
LONGEST_MEAN_LABEL = 60
MOST_UNORDERED_NUMBERS = 5
MOSTLY_NUMBERS = 0.8

_WHOLE = re.compile(r"(-?\d+)\.0+")


@dataclass(frozen=True)
class LabelSpace:
    """The labels of a task, in a fixed order.

    Attributes:
        words: what the model sees.
        values: what stands in the data for each, in the same order.
    """

    words: tuple[str, ...]
    values: tuple[Any, ...]
    _words_by_key: dict[str, str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        keys = map(as_text, self.values)
        object.__setattr__(self, "_words_by_key", dict(zip(keys, self.words, strict=True)))

    def words_for(self, value: object) -> str | None:
        """Words for a value of the data, matched by its text: ``0`` and ``"0"`` are the same.

        So is ``"0.0"``, as pandas writes integers once a value is missing, unless that is a label of its own.
        """
        return self._words_by_key.get(_key(as_text(value), self._words_by_key))


def _key(text: str, keys: Container[str]) -> str:
    """The key that a text stands for: itself, or its integer where that is one and the text is none."""
    whole = _WHOLE.fullmatch(text)
    return whole[1] if whole and text not in keys and whole[1] in keys else text


def resolve_labels(spec: LabelSpec, values: Sequence[object]) -> LabelSpace | None:
    """Make the label space of a task, or None where the output is free text.

    Args:
        spec: what the user gave as ``labels``: None infers, False says free text, a list fixes the space,
            a dict maps values to words.
        values: outputs of all rows; a list among them holds several accepted answers.

    Raises:
        DataError: the specification is unusable, a row has an output outside it, or there is one label only.
    """
    if spec is False:
        return None
    if spec is None:
        return _inferred(values)
    space = _declared(spec)
    _require_known(space, values)
    return space


def _inferred(values: Sequence[object]) -> LabelSpace | None:
    single = [value for value in values if not isinstance(value, (list, tuple))]
    originals: dict[str, object] = {}
    for value in single:
        originals.setdefault(as_text(value), value)
    for text in [text for text in originals if (whole := _WHOLE.fullmatch(text)) and whole[1] in originals]:
        del originals[text]  # one file has "1", another "1.0"
    counts = Counter(_key(as_text(value), originals) for value in single)
    if len(counts) == 1 and counts.total() == len(values):
        raise DataError(
            f"all {len(values)} rows have the output {quoted(next(iter(counts)))}; "
            "at least two labels are needed, or labels=False for free text"
        )
    if counts.total() < len(values) or not _look_like_labels(counts):
        return None
    words = tuple(sorted(originals))
    return LabelSpace(words, tuple(originals[word] for word in words))


def _look_like_labels(counts: Counter[str]) -> bool:
    """Few, short, repeated; and numbers only where they look like codes or grades, not like results."""
    distinct, rows = len(counts), counts.total()
    few = distinct <= max(2, min(MOST_INFERRED_LABELS, rows // FEWEST_ROWS_PER_LABEL))
    short = sum(map(len, counts)) / max(1, distinct) <= LONGEST_MEAN_LABEL
    repeated = rows >= FEWEST_ROWS_PER_LABEL * distinct
    seen_once = sum(1 for count in counts.values() if count == 1)
    return few and short and repeated and 2 * seen_once <= distinct and _may_be_codes(list(counts))


def _may_be_codes(texts: list[str]) -> bool:
    """Whether numbers can be labels: very few of them, or integers in an unbroken row from about zero."""
    numbers = sorted(number for number in map(_number, texts) if number is not None)
    if len(numbers) < MOSTLY_NUMBERS * len(texts):
        return True
    if len(numbers) <= MOST_UNORDERED_NUMBERS:
        return True
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    return steps == {1.0} and -1 <= numbers[0] <= 1


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "").strip("$€£%"))
    except ValueError:
        return None


def _declared(spec: object) -> LabelSpace:
    """Label space that the user wrote down."""
    if isinstance(spec, Mapping):
        values, words = list(spec), [_checked_words(word) for word in spec.values()]
    elif isinstance(spec, (str, bytes, bool)) or not isinstance(spec, Iterable):
        raise DataError(f"labels={quoted(spec)} is no label space; give a list, a dict {{value: words}} or False")
    else:
        # A set has no order of its own, and that of its hashes changes between processes.
        values = sorted(spec, key=as_text) if isinstance(spec, AbstractSet) else list(spec)
        words = [_checked_words(value) for value in values]
    _require_distinct([as_text(value) for value in values], "values")
    _require_distinct(words, "words")
    if len(words) < 2:
        raise DataError(f"labels={quoted(spec)} has fewer than two labels; add labels, or give labels=False")
    return LabelSpace(tuple(words), tuple(values))


def _checked_words(value: object) -> str:
    if is_missing(value):
        raise DataError(f"labels holds {quoted(value)}; every label needs words that the model can see")
    return as_text(value)


def _require_distinct(texts: list[str], kind: str) -> None:
    twice = [text for text, count in Counter(texts).items() if count > 1]
    if twice:
        raise DataError(f"labels has the same {kind} {listed(twice)} twice; every label must differ")


def _require_known(space: LabelSpace, values: Sequence[object]) -> None:
    every = [item for value in values for item in (value if isinstance(value, (list, tuple)) else [value])]
    unknown = Counter(as_text(value) for value in every if space.words_for(value) is None)
    if unknown:
        raise DataError(
            f"{unknown.total()} row(s) have an output outside labels: {listed(sorted(unknown))}; "
            f"the labels are {listed(space.values)}: add the missing ones or remove the rows"
        )
    seen = {space.words_for(value) for value in every}
    if len(seen) == 1:
        raise DataError(
            f"all {len(values)} rows have the label {quoted(seen.pop())}; at least two labels are needed: "
            "add rows of another label"
        )
