"""Text that grows token by token, and notices its stop strings.

Invariant: only what a new token adds, and the few characters before it that a stop string may begin in, are
looked at; characters whose bytes lie in several tokens appear when they are whole.
Leaves out: every other reason to end.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence

__all__ = ["GrowingText"]


class GrowingText:
    """The text of one request.

    Bytes that are no UTF-8 are left out.

    Args:
        stop: strings that end the text, none empty.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = tuple(stop)
        self._reach = max(map(len, self._stop), default=1) - 1  # characters of a stop string before its last one
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="ignore")
        self._text = ""
        self._end: int | None = None

    @property
    def text(self) -> str:
        """The text so far, without the stop string that ended it and what follows."""
        return self._text if self._end is None else self._text[: self._end]

    @property
    def stopped(self) -> bool:
        """Whether a stop string has appeared."""
        return self._end is not None

    def append(self, data: bytes) -> str:
        """Add a token's bytes and return the characters that they complete.

        The text ends at the first stop string in it; where one token completes several, at the one that begins
        first.
        """
        added = self._decoder.decode(data)
        start = max(0, len(self._text) - self._reach)
        self._text += added
        if added and self._stop and self._end is None:
            ends = [end for text in self._stop if (end := self._text.find(text, start)) >= 0]
            self._end = min(ends, default=None)
        return added
