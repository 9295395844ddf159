"""Drafts of what a text goes on with: what followed where it read the same before.

Prompt lookup decoding (Saxena 2023): answers repeat the words, the names and the format of their prompts. A draft is
the longer the longer the text before it has read the same, as in suffix decoding (Oliaro et al. 2024,
arXiv:2411.04975).
Invariant: a draft follows from the text alone.
Leaves out: verifying drafts, and how many tokens a step has time for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

__all__ = ["Drafter"]

Tokens = tuple[int, ...]

_SHORTEST_MATCH = 2
_LONGEST_MATCH = 8
_DRAFTED_PER_MATCHED = 2
_MOST_COMPARED = 64  # of the positions after a pair, the newest


class Drafter:
    """A text as tokens, and the positions after each pair of them.

    Args:
        tokens: the text so far.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._positions: defaultdict[Tokens, list[int]] = defaultdict(list)  # after each pair, ascending
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """The text goes on with a token."""
        self._tokens.append(token)
        self._positions[self._pair].append(len(self._tokens))

    def draft(self, limit: int) -> Tokens:
        """Up to ``limit`` tokens that may come next; none where the newest pair is new."""
        earlier = self._positions[self._pair][-_MOST_COMPARED - 1 : -1]
        if not earlier:
            return ()
        matched, start = max((self._matched(position), position) for position in earlier)
        draft: list[int] = []
        for position in range(start, start + min(limit, _DRAFTED_PER_MATCHED * matched)):
            beyond = position - len(self._tokens)  # what repeats itself goes on repeating itself
            draft.append(self._tokens[position] if beyond < 0 else draft[beyond])
        return tuple(draft)

    @property
    def _pair(self) -> Tokens:
        return tuple(self._tokens[-_SHORTEST_MATCH:])

    def _matched(self, position: int) -> int:
        """How many tokens before a position are equal to the newest ones."""
        matched, longest = _SHORTEST_MATCH, min(_LONGEST_MATCH, position)
        while matched < longest and self._tokens[position - 1 - matched] == self._tokens[-1 - matched]:
            matched += 1
        return matched
