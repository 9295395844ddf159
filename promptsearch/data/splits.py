"""Divides the rows of a task into pool, search, confirm and test, once, by seed.

Invariant: the four parts are disjoint, no normalised text stands in two of them, and whatever was removed
for that is counted. Precedence is test, confirm, search, pool: the later part gives way.
It leaves out embeddings: `remove_near_duplicates` takes vectors that somebody else has made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from promptsearch.data.duplicates import (
    NEAR_DUPLICATE_SIMILARITY,
    DuplicateReport,
    near_duplicates,
    near_texts,
    unique_rows,
    without_texts,
)
from promptsearch.data.text import normalised, quoted
from promptsearch.errors import DataError
from promptsearch.optional import require

__all__ = [
    "FEWEST_ROWS",
    "Parts",
    "Splits",
    "carve",
    "in_turns",
    "make_splits",
    "remove_near_duplicates",
    "without_near_texts",
]

FEWEST_ROWS = 20
MOST_SEARCH_AND_CONFIRM = 500
FEWEST_TEST, MOST_TEST = 40, 1000
CONFIRM_SHARE = 0.4
MOST_TEST_ROWS_SEEN = 0.5


@dataclass(frozen=True)
class Parts:
    """What the user gave, as row numbers: the data, and the explicit splits (empty where not given)."""

    train: tuple[int, ...]
    validation: tuple[int, ...] = ()
    test: tuple[int, ...] = ()


@dataclass(frozen=True)
class Splits:
    """Row numbers of the four parts.

    What is drawn stands in random order, so that any first part of it is a fair sample.

    Attributes:
        pool: where demonstrations come from.
        search: what candidates are compared on.
        confirm: what finalists are compared on.
        test: read once, at the end.
        report: what was removed because it stood in two places.
        further: rows like those of the pool that get no vectors and are never shown; what counts characters alone
            learns from them.
    """

    pool: tuple[int, ...]
    search: tuple[int, ...]
    confirm: tuple[int, ...]
    test: tuple[int, ...]
    report: DuplicateReport = field(default_factory=DuplicateReport)
    further: tuple[int, ...] = ()

    @property
    def sizes(self) -> dict[str, int]:
        """Number of rows in each of the four parts, by name."""
        return {name: len(getattr(self, name)) for name in _PRECEDENCE[::-1]}

    @property
    def searched(self) -> tuple[int, ...]:
        """All rows that a search may read: those of every part but the test."""
        return (*self.pool, *self.search, *self.confirm, *self.further)


_PRECEDENCE = ("test", "confirm", "search", "pool")


def make_splits(
    texts: Sequence[str], outputs: Sequence[str], parts: Parts, *, seed: int, stratified: bool, united: int = 0
) -> Splits:
    """Split rows by seed, keeping explicit splits whole and carving from the data what is missing.

    Args:
        texts: input text of each row.
        outputs: output of each row; the strata if ``stratified``.
        parts: which rows are data, validation and test.
        seed: same seed, same splits.
        stratified: whether outputs are labels.
        united: rows that are none of these, since they count with another one; for messages.

    Raises:
        DataError: too few rows, a part left empty, or a test split that is training data.
    """
    _require_rows(
        len(parts.train) + len(parts.validation) + len(parts.test), "the task has {} row(s)", _united(united)
    )
    keys = [normalised(text) for text in texts]
    _refuse_seen_test(parts, keys)
    separate, moved = without_texts(parts.train, keys, {*parts.test, *parts.validation})
    train, repeated = unique_rows(separate, keys, outputs)
    validation, overlapping = without_texts(parts.validation, keys, parts.test)
    if not (parts.validation and parts.test):
        after = "after duplicates (of each other, of validation or test rows) are removed"
        contradicted = _contradicted(separate, keys, texts, outputs) if repeated.conflicting else _united(united)
        _require_rows(len(train), after + " the data has {} row(s) left to split", contradicted)
    strata = outputs if stratified else None
    carved = _carve_missing(replace(parts, train=train, validation=validation), strata, seed)
    search, doubled = without_texts(carved.search, keys, carved.confirm)
    report = moved + repeated + overlapping + doubled
    return _require_no_empty_part(replace(carved, search=search, report=report))


def remove_near_duplicates(
    splits: Splits,
    vectors: NDArray[np.float32],
    threshold: float = NEAR_DUPLICATE_SIMILARITY,
    outputs: Sequence[str] | None = None,
    texts: Sequence[str] | None = None,
) -> Splits:
    """Remove rows that are too similar to a row of a part with precedence.

    Args:
        splits: what `make_splits` returned.
        vectors: embeddings of all rows of the task, by row number.
        threshold: cosine similarity from which two texts count as one.
        outputs: output of each row, where texts that are alike but have other outputs are no duplicates, as of
            problems that differ in a number; None where the texts alone decide.
        texts: input text of each row, where near vectors alone make no duplicates, see
            :func:`promptsearch.data.duplicates.near_duplicates`.

    Raises:
        DataError: a part is left empty.
    """
    kept: dict[str, tuple[int, ...]] = {"test": splits.test}
    stronger = list(splits.test)
    for name in _PRECEDENCE[1:]:
        rows: tuple[int, ...] = getattr(splits, name)
        similar = _similar(rows, stronger, vectors, threshold, outputs, texts)
        kept[name] = tuple(row for row, is_similar in zip(rows, similar, strict=True) if not is_similar)
        stronger.extend(kept[name])
    removed = sum(splits.sizes.values()) - len(stronger)
    report = splits.report + DuplicateReport(near=removed)
    return _require_no_empty_part(Splits(**kept, further=splits.further, report=report))


def without_near_texts(splits: Splits, texts: Sequence[str]) -> Splits:
    """Remove further rows whose text is nearly that of a row that is asked about.

    Args:
        splits: the splits.
        texts: of all rows of the task, by number.
    """
    if not splits.further:
        return splits
    asked = [texts[row] for row in (*splits.search, *splits.confirm, *splits.test)]
    similar = near_texts([texts[row] for row in splits.further], asked)
    kept = tuple(row for row, is_similar in zip(splits.further, similar, strict=True) if not is_similar)
    report = splits.report + DuplicateReport(near=len(splits.further) - len(kept))
    return replace(splits, further=kept, report=report)


def _similar(
    rows: Sequence[int],
    references: Sequence[int],
    vectors: NDArray[np.float32],
    threshold: float,
    outputs: Sequence[str] | None,
    texts: Sequence[str] | None,
) -> NDArray[np.bool_]:
    """Which rows are near duplicates of a reference."""

    def near(ours: Sequence[int], theirs: Sequence[int]) -> NDArray[np.bool_]:
        read = None if texts is None else ([texts[row] for row in ours], [texts[row] for row in theirs])
        return near_duplicates(vectors[list(ours)], vectors[list(theirs)], threshold, read)

    if outputs is None:
        return near(rows, references)
    found = np.zeros(len(rows), dtype=np.bool_)
    by_output: dict[str, list[int]] = {}
    for row in references:
        by_output.setdefault(outputs[row], []).append(row)
    places: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        places.setdefault(outputs[row], []).append(place)
    for output, own in places.items():
        found[own] = near([rows[place] for place in own], by_output.get(output, []))
    return found


def in_turns(rows: Sequence[int], labels: Sequence[str]) -> tuple[int, ...]:
    """Rows reordered so that labels take turns while they have any: a first part holds them as evenly as can be.

    Args:
        rows: row numbers; the order within a label stays.
        labels: label of each row number.
    """
    seen: Counter[str] = Counter()
    turns = []
    for row in rows:
        turns.append(seen[labels[row]])
        seen[labels[row]] += 1
    return tuple(rows[place] for place in np.argsort(turns, kind="stable"))


def _carve_missing(parts: Parts, strata: Sequence[str] | None, seed: int) -> Splits:
    """Take test, search and confirm from the data where the user gave none."""
    rare, common = _set_rare_labels_aside(parts.train, strata)
    test_size, evaluation_size = _sizes(len(parts.train), parts)
    if len(common) <= test_size + evaluation_size:
        rare, common = (), parts.train
    test, evaluation = parts.test, parts.validation
    if test:  # a short budget measures a first part of it, which must be a fair sample of a sorted file too
        test = tuple(test[place] for place in np.random.default_rng([seed % 2**32, 4]).permutation(len(test)))
    else:
        test, common = carve(common, test_size, strata, seed)
    if not evaluation:
        evaluation, common = carve(common, evaluation_size, strata, seed)
    confirm, search = carve(evaluation, round(CONFIRM_SHARE * len(evaluation)), strata, seed)
    return Splits(pool=tuple(sorted((*common, *rare))), search=search, confirm=confirm, test=test)


def _sizes(rows: int, parts: Parts) -> tuple[int, int]:
    """Rows to carve for test, and for search and confirm together."""
    test = 0
    if not parts.test:
        # Forty test items are the least that say anything, but a small data set cannot give so many.
        test = min(MOST_TEST, max(round(0.25 * rows), min(FEWEST_TEST, round(0.35 * rows))))
    evaluation = 0
    if not parts.validation:
        share = 0.5 if parts.test else 0.4
        evaluation = min(MOST_SEARCH_AND_CONFIRM, round(share * rows))
    return test, evaluation


def _set_rare_labels_aside(
    rows: tuple[int, ...], strata: Sequence[str] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Rows of labels seen once or twice, which teach more as demonstrations than they measure; the others."""
    if strata is None:
        return (), rows
    counts = Counter(strata[row] for row in rows)
    rare = tuple(row for row in rows if counts[strata[row]] <= 2)
    return rare, tuple(row for row in rows if counts[strata[row]] > 2)


def carve(
    rows: tuple[int, ...], size: int, strata: Sequence[str] | None, seed: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Draw ``size`` rows, in proportion to the labels where their number allows it; and the rest.

    Args:
        rows: row numbers.
        size: how many of them; all where there are no more.
        strata: label of each row number; None for no labels.
        seed: of the draw.
    """
    if size <= 0 or size >= len(rows):
        return (rows, ()) if size > 0 else ((), rows)
    model_selection = require("sklearn.model_selection", install="scikit-learn")
    rest, drawn = model_selection.train_test_split(
        list(rows),
        test_size=size,
        stratify=_usable_strata([strata[row] for row in rows], size) if strata is not None else None,
        random_state=seed % 2**32,
    )
    return tuple(drawn), tuple(rest)


def _usable_strata(labels: list[str], size: int) -> list[int] | None:
    """Strata by number, single rows together in one, a lone one in the largest; None where they are too many."""
    counts = Counter(labels)
    numbers = {label: number for number, label in enumerate(sorted(counts), start=1)}
    lone = sum(count == 1 for count in counts.values()) == 1
    of_singles = numbers[max(numbers, key=counts.__getitem__)] if lone else 0
    strata = [numbers[label] if counts[label] > 1 else of_singles for label in labels]
    stratum_counts = Counter(strata)
    if min(stratum_counts.values()) < 2 or len(stratum_counts) > min(size, len(labels) - size):
        return None
    return strata


def _require_rows(rows: int, statement: str, contradicted: str = "") -> None:
    if rows < FEWEST_ROWS:
        raise DataError(
            f"{statement.format(rows)}; at least {FEWEST_ROWS} are needed for all splits: give more rows"
            f"{contradicted}"
        )


def _united(rows: int) -> str:
    """That rows have become one with others, where any have."""
    if not rows:
        return ""
    return f", or other columns as inputs: {rows:,} more rows have inputs that another has, and count as one with it"


def _contradicted(rows: Sequence[int], keys: Sequence[str], texts: Sequence[str], outputs: Sequence[str]) -> str:
    """How many rows go because their text has several outputs, and one such text."""
    by_text: dict[str, dict[str, int]] = {}
    for row in rows:
        by_text.setdefault(keys[row], {}).setdefault(outputs[row], row)
    several = {key: found for key, found in by_text.items() if len(found) > 1}
    count = sum(keys[row] in several for row in rows)
    (_, first), (_, second), *_ = next(iter(several.values())).items()
    return (
        f", or one output for each text: {count} rows are left out because their text also stands there with another "
        f"one, such as {quoted(texts[first])} with {quoted(outputs[first])} and {quoted(outputs[second])}"
    )


def _refuse_seen_test(parts: Parts, keys: Sequence[str]) -> None:
    known = {keys[row] for row in parts.train}
    seen = sum(1 for row in parts.test if keys[row] in known)
    if seen > MOST_TEST_ROWS_SEEN * len(parts.test):
        raise DataError(
            f"{seen} of {len(parts.test)} test rows are also in the data; "
            "a test split must be unseen: give other rows as test=, or none to split the data"
        )


def _require_no_empty_part(splits: Splits) -> Splits:
    empty = [name for name, size in splits.sizes.items() if size == 0]
    if empty:
        raise DataError(
            f"no rows are left for {' and '.join(empty)} ({splits.report.total} duplicates were removed, "
            f"{splits.report.near} of them texts that only resemble a row of another part, "
            f"{splits.report.conflicting} rows of texts that have several outputs); every part needs a row: "
            "give more rows that differ"
        )
    return splits
