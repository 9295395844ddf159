"""The rows that a prompt was made by, as hashes: enough to notice a measurement on them, too little to read them.

Invariant: rows that differ in case, spaces or sentence punctuation alone are the same row, as everywhere.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from promptsearch.data.text import normalised

__all__ = ["SeenRows"]

_BYTES = 8


@dataclass(frozen=True)
class SeenRows:
    """A set of texts by their hashes.

    Attributes:
        hashes: 64 bits of each.
    """

    hashes: frozenset[int] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> SeenRows:
        """The rows with these inputs."""
        return cls(frozenset(map(_hash, texts)))

    def __contains__(self, text: str) -> bool:
        return _hash(text) in self.hashes

    def to_text(self) -> str:
        """One text for a file."""
        return base64.b64encode(np.array(sorted(self.hashes), dtype="<u8").tobytes()).decode("ascii")

    @classmethod
    def from_text(cls, text: str) -> SeenRows:
        """Read what :meth:`to_text` wrote.

        Raises:
            ValueError: it is no such text.
        """
        return cls(frozenset(np.frombuffer(base64.b64decode(text, validate=True), dtype="<u8").tolist()))


def _hash(text: str) -> int:
    return int.from_bytes(
        blake2b(normalised(text).encode("utf-8", "surrogatepass"), digest_size=_BYTES).digest(), "little"
    )
