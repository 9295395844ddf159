"""Finds rows that say the same, so that no query meets itself among the demonstrations.

Invariant: nothing is removed without being counted in a `DuplicateReport`; rows are united only by `united_answers`.
It leaves out which split wins; `promptsearch.data.splits` decides that.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.data.text import encodable

__all__ = [
    "NEAR_DUPLICATE_SIMILARITY",
    "DuplicateReport",
    "near_duplicates",
    "near_texts",
    "unique_rows",
    "united_answers",
    "without_texts",
]

NEAR_DUPLICATE_SIMILARITY = 0.95
"""Cosine similarity of MiniLM embeddings from which two texts count as the same one reworded."""

_NEAR_TEXT_SIMILARITY = 0.8  # of the counts of five characters: a word in ten or so is another one
_RUN = 5  # characters
# Of the counts of three characters: of what MiniLM finds near, one pair in twenty shares fewer; of other texts hardly
# any shares more.
_COMMON_SIMILARITY = 0.5
_COMMON_RUN = 3
_BUCKETS = 2**20
_BLOCK_ROWS = 1024
_ROUNDING = 1e-6


@dataclass(frozen=True)
class DuplicateReport:
    """How many rows were removed, and why.

    Attributes:
        repeated: the same text and output as a row that stayed.
        conflicting: the same text with different outputs; all of these rows go.
        across: the same text in a split that has precedence (test, then confirm, then search).
        near: an embedding too similar to one in a split that has precedence.
    """

    repeated: int = 0
    conflicting: int = 0
    across: int = 0
    near: int = 0

    @property
    def total(self) -> int:
        """All rows removed."""
        return self.repeated + self.conflicting + self.across + self.near

    def __add__(self, other: DuplicateReport) -> DuplicateReport:
        return DuplicateReport(
            self.repeated + other.repeated,
            self.conflicting + other.conflicting,
            self.across + other.across,
            self.near + other.near,
        )


def unique_rows(
    ids: Sequence[int], texts: Sequence[str], outputs: Sequence[str]
) -> tuple[tuple[int, ...], DuplicateReport]:
    """Keep the first row of each text; drop all rows of a text that has several outputs.

    Args:
        ids: rows to look at, as indices into ``texts`` and ``outputs``.
        texts: normalised input texts of all rows.
        outputs: outputs of all rows.
    """
    groups: dict[str, list[int]] = defaultdict(list)
    for row in ids:
        groups[texts[row]].append(row)
    kept, repeated, conflicting = [], 0, 0
    for rows in groups.values():
        if len({outputs[row] for row in rows}) > 1:
            conflicting += len(rows)
        else:
            kept.append(rows[0])
            repeated += len(rows) - 1
    return tuple(kept), DuplicateReport(repeated=repeated, conflicting=conflicting)


def united_answers(texts: Sequence[Hashable], answers: Sequence[tuple[str, ...]]) -> dict[int, tuple[str, ...]]:
    """Unite rows of one text that have other answers: the first of them takes all, the others go.

    Rows that repeat a text with the same answers stay.

    Args:
        texts: inputs of all rows.
        answers: accepted outputs of each.

    Returns:
        The answers of each row that stays, by its place, ascending.
    """
    groups: dict[Hashable, list[int]] = defaultdict(list)
    for place, text in enumerate(texts):
        groups[text].append(place)
    kept = {}
    for places in groups.values():
        given = list(dict.fromkeys(answers[place] for place in places))
        if len(given) > 1:
            kept[places[0]] = tuple(dict.fromkeys(itertools.chain.from_iterable(given)))
        else:
            kept.update(dict.fromkeys(places, given[0]))
    return dict(sorted(kept.items()))


def without_texts(
    ids: Sequence[int], texts: Sequence[str], taken: Collection[int]
) -> tuple[tuple[int, ...], DuplicateReport]:
    """Remove rows whose normalised text is also that of a row in ``taken``."""
    forbidden = {texts[row] for row in taken}
    kept = tuple(row for row in ids if texts[row] not in forbidden)
    return kept, DuplicateReport(across=len(ids) - len(kept))


def near_duplicates(
    vectors: NDArray[np.float32],
    references: NDArray[np.float32],
    threshold: float,
    texts: tuple[list[str], list[str]] | None = None,
) -> NDArray[np.bool_]:
    """Say of each vector whether its cosine similarity to any reference reaches the threshold.

    Lengths need not be one; a vector of zeros is similar to nothing.

    Args:
        vectors: of what is asked about.
        references: of what it may resemble.
        threshold: cosine similarity.
        texts: what both were made from. Then a pair must also have many characters in common: an encoder that does
            not know a language, or reads no further than so many words, gives other texts the same vector.
    """
    found = np.zeros(len(vectors), dtype=np.bool_)
    if not len(references):
        return found
    directions, reference_directions = _directions(vectors), _directions(references)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        for reference_start in range(0, len(references), _BLOCK_ROWS):
            reference_block = slice(reference_start, reference_start + _BLOCK_ROWS)
            near = directions[block] @ reference_directions[reference_block].T >= threshold - _ROUNDING
            if texts is not None:
                near = _with_common_characters(near, texts[0][block], texts[1][reference_block])
            found[block] |= near.any(axis=1)
    return found


def _with_common_characters(
    near: NDArray[np.bool_], texts: Sequence[str], references: Sequence[str]
) -> NDArray[np.bool_]:
    """The pairs among those marked that share many runs of three characters, shape (texts, references)."""
    rows, columns = np.flatnonzero(near.any(axis=1)).tolist(), np.flatnonzero(near.any(axis=0)).tolist()
    common = np.zeros_like(near)
    if len(rows):
        runs = _runs_of(_COMMON_RUN)
        own = runs.transform([encodable(texts[row]) for row in rows])
        others = runs.transform([encodable(references[column]) for column in columns])
        common[np.ix_(rows, columns)] = (own @ others.T).toarray() >= _COMMON_SIMILARITY
    return near & common


def near_texts(texts: Sequence[str], references: Sequence[str]) -> NDArray[np.bool_]:
    """Say of each text whether it shares most runs of five characters with any reference.

    This needs no vectors, and sees what was copied and changed a little, not what was said in other words. Texts of
    fewer characters are similar to nothing.
    """
    found = np.zeros(len(texts), dtype=np.bool_)
    if not len(texts) or not len(references):
        return found
    runs = _runs_of(_RUN)
    others = runs.transform([encodable(text) for text in references]).T.tocsr()
    for start in range(0, len(texts), _BLOCK_ROWS):
        block = runs.transform([encodable(text) for text in texts[start : start + _BLOCK_ROWS]])
        best = np.asarray((block @ others).max(axis=1).todense())[:, 0]
        found[start : start + _BLOCK_ROWS] = best >= _NEAR_TEXT_SIMILARITY
    return found


def _runs_of(length: int) -> Any:
    """What counts runs of so many characters, in vectors of length one."""
    from sklearn.feature_extraction.text import HashingVectorizer

    return HashingVectorizer(
        analyzer="char", ngram_range=(length, length), n_features=_BUCKETS, alternate_sign=False, dtype=np.float32
    )


def _directions(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    single = np.asarray(vectors, dtype=np.float32)
    lengths: NDArray[np.float32] = np.linalg.norm(single, axis=1, keepdims=True)
    return np.divide(single, lengths, out=np.zeros_like(single), where=lengths > 0)
