"""Drafts of what a text goes on with: what followed where it read the same before.

Prompt lookup decoding (Saxena 2023): answers repeat the words, the names and the format of their prompts, and several
guessed tokens are read almost as fast as one. A draft is the longer the longer the text before it has read the same,
as in suffix decoding (Oliaro et al. 2024, section 4.1).
Invariant: a draft costs time and nothing else; the model decides each token.
Leaves out: checking drafts, and how many tokens are worth drafting.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

__all__ = ["Drafter"]

Tokens = tuple[int, ...]

_SHORTEST_MATCH = 2
_LONGEST_MATCH = 8
_A_MATCHED = 2  # drafted tokens for each that matches
_MOST_PLACES = 64  # the newest, which are compared


class Drafter:
    """A text as tokens, and where each pair of them stands.

    Args:
        tokens: the text so far.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens: list[int] = []
        self._places: defaultdict[Tokens, list[int]] = defaultdict(list)  # after each pair, ascending
        for token in tokens:
            self.append(token)

    def append(self, token: int) -> None:
        """The text goes on with a token."""
        self._tokens.append(token)
        self._places[self._pair].append(len(self._tokens))

    def draft(self, most: int) -> Tokens:
        """Up to ``most`` tokens that may come next; none where the newest pair is new."""
        earlier = self._places[self._pair][-_MOST_PLACES - 1 : -1]
        if not earlier:
            return ()
        matched, place = max((self._matched(place), place) for place in earlier)
        return tuple(self._tokens[place : place + min(most, _A_MATCHED * matched)])

    @property
    def _pair(self) -> Tokens:
        return tuple(self._tokens[-_SHORTEST_MATCH:])

    def _matched(self, place: int) -> int:
        """How many tokens before a place are equal to the newest ones."""
        matched, longest = _SHORTEST_MATCH, min(_LONGEST_MATCH, place)
        while matched < longest and self._tokens[place - 1 - matched] == self._tokens[-1 - matched]:
            matched += 1
        return matched
