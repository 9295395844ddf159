"""How the answers of a task look that a model writes: how long they get, where they end, and what of them counts.

Invariant: one rule reads expected and written answers alike, so that a text which is right as it stands is right.
Leaves out: labels, which are scored and not written, and what an answer is worth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from promptsearch.data.text import quoted
from promptsearch.errors import DataError

__all__ = ["GENERATED_TOKENS", "AnswerForm"]

GENERATED_TOKENS = 64  # that a written answer may always take
_LETTERS_A_TOKEN = 2  # fewer than words in Latin letters have; of everything else a token may be a single byte
_SHARE_OF_CONTEXT = 4  # answers get at most one part of so many
_CUT_SHARE = 0.01  # of the outputs, the longest, that may be cut off: a stray one must not make all answers dear
_LINES_SHARE = 0.02  # of the outputs, from which on those of several lines are no accident


@dataclass(frozen=True)
class AnswerForm:
    """The form of written answers.

    Attributes:
        tokens: that an answer may take.
        lines: whether answers have several lines; else the first line's end is the answer's.
        pattern: regular expression whose last match in a text is the answer, or the first group of that match where
            it has groups; matches and groups of nothing do not count. Empty where the whole text is the answer.
    """

    tokens: int = GENERATED_TOKENS
    lines: bool = False
    pattern: str = ""

    @classmethod
    def of(cls, outputs: Sequence[str], pattern: str | None = None) -> AnswerForm:
        """The form of some expected answers.

        Args:
            outputs: the expected answers.
            pattern: regular expression that finds the answer in each of them; None for the whole text.

        Raises:
            DataError: it is no regular expression, or one of the outputs holds no match of it.
        """
        lengths = sorted(map(_most_tokens, outputs))
        kept = lengths[: len(lengths) - int(_CUT_SHARE * len(lengths))]
        lines = sum("\n" in output for output in outputs) > _LINES_SHARE * len(outputs)
        form = cls(max([GENERATED_TOKENS, *kept[-1:]]), lines, _checked(pattern))
        form.require(outputs)
        return form

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> AnswerForm:
        """What :meth:`to_json` wrote.

        Raises:
            DataError: it is no form of answers.
        """
        tokens = value["tokens"]
        if not isinstance(tokens, int) or tokens < 1:
            raise DataError(f"an answer of {quoted(tokens)} tokens is none; give a positive number")
        return cls(tokens, bool(value["lines"]), _checked(value["pattern"] or None))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def require(self, outputs: Sequence[str]) -> None:
        """Refuse expected answers that hold none.

        Raises:
            DataError: naming one.
        """
        unread = [place for place, output in enumerate(outputs, start=1) if self.find(output) is None]
        if unread:
            first = f"number {unread[0]:,}, {quoted(outputs[unread[0] - 1])}"
            raise DataError(
                f"answer={quoted(self.pattern)} finds no answer in {len(unread):,} of {len(outputs):,} outputs, the "
                f"first of them {first}; it must find some text in every one, as in what the model writes"
            )

    def find(self, text: str) -> str | None:
        """The answer in a text; None where it holds none. Matches of nothing are passed over."""
        if not self.pattern:
            return text
        found = [(match[min(1, self._compiled.groups)] or "").strip() for match in self._compiled.finditer(text)]
        return next((answer for answer in reversed(found) if answer), None)

    def tokens_within(self, context: int) -> int:
        """Tokens that an answer may take of a context."""
        return max(1, min(self.tokens, max(GENERATED_TOKENS, context // _SHARE_OF_CONTEXT)))

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self.pattern)


def _most_tokens(text: str) -> int:
    """Tokens that a text has at most, whatever the tokenizer."""
    letters = sum(character.isascii() and (character.isalpha() or character == " ") for character in text)
    return len(text.encode("utf-8", "surrogatepass")) - letters + -(-letters // _LETTERS_A_TOKEN)


def _checked(pattern: object) -> str:
    if pattern is None:
        return ""
    if not isinstance(pattern, str) or not pattern:
        raise DataError(f"answer={quoted(pattern)} is no regular expression; give a text such as r'####\\s*(.+)'")
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:  # the last two: numbers too large, groups too deep
        raise DataError(f"answer={quoted(pattern)} is no regular expression ({error}); mend it") from error
    return pattern
