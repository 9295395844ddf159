"""Rows to ask about and rows to show, of each dataset.

Invariant: items come from the test rows and demonstrations from the training rows; which ones depends on names and
numbers alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import INSTRUCTIONS, read_dataset
from promptsearch.embed.base import Encoder

__all__ = ["Material", "Row", "digest", "plain_text", "read_material"]

_POOL = 1000  # training rows that demonstrations are drawn from
_PIECE = 400  # characters of a piece of plain text


@dataclass(frozen=True)
class Row:
    """A text and its label; either may lack in what a prompt shows."""

    text: str | None
    label: str | None


class Material:
    """One dataset as the laboratory uses it.

    Args:
        name: of the dataset.
        labels: its labels.
        pool: rows that demonstrations are drawn from.
        items: rows that are asked about.
        encoder: makes vectors of texts.
    """

    def __init__(
        self, name: str, labels: Sequence[str], pool: Sequence[Row], items: Sequence[Row], encoder: Encoder
    ) -> None:
        self.name = name
        self.labels = tuple(labels)
        self.pool = tuple(pool)
        self.items = tuple(items)
        self.encoder = encoder

    @property
    def description(self) -> str:
        """The task in a sentence."""
        return INSTRUCTIONS.get(self.name, f"Give the label of the input, one of: {', '.join(self.labels)}.")

    @property
    def texts(self) -> list[str]:
        """The items' texts."""
        return [item.text or "" for item in self.items]

    @property
    def golds(self) -> NDArray[np.int64]:
        """Number of each item's label, shape (items,)."""
        return np.array([self.labels.index(item.label or "") for item in self.items])

    @property
    def digest(self) -> str:
        """Changes whenever the rows do."""
        return digest([f"{row.text}|{row.label}" for row in (*self.pool, *self.items)])

    @cached_property
    def pool_vectors(self) -> NDArray[np.float32]:
        """Vectors of the pool, shape (pool, dimension)."""
        return np.asarray(self.encoder.encode([row.text or "" for row in self.pool]))

    @cached_property
    def item_vectors(self) -> NDArray[np.float32]:
        """Vectors of the items, shape (items, dimension)."""
        return np.asarray(self.encoder.encode(self.texts))


def digest(texts: Sequence[str]) -> str:
    """A short hash of texts in their order."""
    joined = "\x1f".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).hexdigest()[:16]


def read_material(folder: Path, name: str, items: int, encoder: Encoder) -> Material:
    """A dataset with labels: so many items, the first ones of a fixed order."""
    dataset = read_dataset(folder, name)
    rng = np.random.default_rng([60, *name.encode()])
    chosen = rng.permutation(len(dataset.test))[:items]
    shown = rng.permutation(len(dataset.train))[:_POOL]
    return Material(
        name,
        dataset.labels,
        [Row(dataset.train[place]["input"], dataset.train[place]["output"]) for place in shown.tolist()],
        [Row(dataset.test[place]["input"], dataset.test[place]["output"]) for place in chosen.tolist()],
        encoder,
    )


def plain_text(materials: Sequence[Material], file: Path | None, pieces: int) -> list[str]:
    """Pieces of plain text of 400 characters or less: of a file, or of inputs that no experiment asks about."""
    if file is not None:
        text = " ".join(file.read_text("utf-8").split())
    else:
        text = " ".join(row.text or "" for material in materials for row in material.pool[-4 * pieces :])
    size = min(_PIECE, max(1, len(text) // pieces))
    found = [text[start : start + size] for start in range(0, len(text) - size + 1, size)]
    places = np.random.default_rng(61).permutation(len(found))[:pieces]
    return [found[place] for place in sorted(places.tolist())]
