"""What the engine schedules: tokens of prompts and of answers, what prompts share, and how they are to be read.

A path is the tokens of one prompt. What prompts are known to begin with (their opening) is told from their tokens
alone, so that it does not depend on which prompts come together.
Invariant: a path fits the model together with the answer that it leaves room for; no answer is empty, and of answers
that stand for choices no two are equal.
Leaves out: memory, and the order in which paths are decoded.
"""

from __future__ import annotations

from collections.abc import Sequence

from cachetools import LRUCache

from promptsearch.errors import ContextError, DataError
from promptsearch.lm.base import Rendered, Segment, segments_of
from promptsearch.lm.llamacpp.reading_order import in_tiles
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import common_length

__all__ = ["TokenPaths", "Tokens"]

Tokens = tuple[int, ...]

_SHORTEST_OPENING = 48  # tokens; decoding fewer costs less than a batch of their own
_OPENING_STEP = 32  # tokens; where nobody says what other calls share, chance would make each call's beginning differ
_KEPT_OPENINGS = 16


class TokenPaths:
    """Makes paths for one model.

    Args:
        vocabulary: the model's.
        context_tokens: how many tokens a prompt and its answer may have together.
    """

    def __init__(self, vocabulary: Vocabulary, context_tokens: int) -> None:
        self._vocabulary = vocabulary
        self._context_tokens = context_tokens
        self._openings: LRUCache[tuple[Segment, ...], Tokens] = LRUCache(_KEPT_OPENINGS)

    def lengths(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens of each prompt, whether it fits or not."""
        return [len(self._vocabulary.tokenize(segments_of(prompt))) for prompt in prompts]

    def of_prompts(self, prompts: Sequence[str], rooms: Sequence[int]) -> list[Tokens]:
        """The path of each prompt.

        Args:
            prompts: the prompts.
            rooms: tokens of answer that each has to fit together with.

        Raises:
            DataError: a prompt is empty.
            ContextError: a prompt and its answer do not fit.
        """
        paths = [self._vocabulary.tokenize(segments_of(prompt)) for prompt in prompts]
        for prompt, path, room in zip(prompts, paths, rooms, strict=True):
            if not path:
                raise DataError("an empty prompt cannot be continued; give it at least one character")
            if len(path) + room > self._context_tokens:
                raise ContextError(
                    f"a prompt of {len(path)} tokens and an answer of {room} do not fit the model's "
                    f"{self._context_tokens} tokens; shorten it (it begins {str(prompt)[:40]!r})"
                )
        return paths

    def begins_run(self, prompt: str) -> bool:
        """Whether answers to a prompt have the tokens of a run of their own, as after some chat templates."""
        return self._vocabulary.begins_run(segments_of(prompt))

    def of_answer(self, text: str, begins_run: bool = False) -> Tokens:
        """Tokens of an answer, which follows text or begins a run.

        Raises:
            DataError: it has none.
        """
        tokens = self._vocabulary.tokenize_continuation(text, begins_run)
        if not tokens:
            raise DataError(f"the label {text.strip()!r} has no tokens for this model; give it a word")
        return tokens

    def of_choices(self, texts: Sequence[str], begins_run: bool = False) -> list[Tokens]:
        """Tokens of each of some answers that have to be told apart, see :meth:`of_answer`.

        Raises:
            DataError: one has no tokens, or two have the same.
        """
        seen: dict[Tokens, str] = {}
        for text in texts:
            tokens = self.of_answer(text, begins_run)
            if tokens in seen:
                raise DataError(
                    f"the labels {seen[tokens].strip()!r} and {text.strip()!r} are the same tokens for "
                    "this model; give them different words with labels={value: word}"
                )
            seen[tokens] = text
        return list(seen)

    def shared(self, prompts: Sequence[str], paths: Sequence[Tokens]) -> Tokens:
        """What all prompts begin with, where it is worth keeping; each prompt has more."""
        if not paths:
            return ()
        low, high = min(paths), max(paths)  # these two share no more than any two do
        first = _first_of_one_opening(prompts)
        if first is not None:
            tokens = self._opening(first.shared_segments)
            depth = min(common_length(tokens, low), common_length(tokens, high))
        elif low != high:
            depth = common_length(low, high) // _OPENING_STEP * _OPENING_STEP
        else:
            return ()
        depth = min(depth, min(map(len, paths)) - 1)
        return low[:depth] if depth >= _SHORTEST_OPENING else ()

    def marked(self, prompts: Sequence[str], paths: Sequence[Tokens]) -> list[Tokens]:
        """Paths for generation, with marks for what is read in tiles."""
        return [self._with_marks(prompt, path) for prompt, path in zip(prompts, paths, strict=True)]

    def _with_marks(self, prompt: str, path: Tokens) -> Tokens:
        if not isinstance(prompt, Rendered):
            return in_tiles(path, 0)
        continued = len(self._vocabulary.tokenize(prompt.continued_segments)) if prompt.continued else 0
        return in_tiles(path, common_length(self._opening(prompt.shared_segments), path), continued)

    def _opening(self, segments: tuple[Segment, ...]) -> Tokens:
        """Tokens of what prompts begin with, but for the last, which may join what follows."""
        if segments not in self._openings:
            self._openings[segments] = self._vocabulary.tokenize(segments)[:-1]
        return self._openings[segments]


def _first_of_one_opening(prompts: Sequence[str]) -> Rendered | None:
    """The first prompt, where all say that they begin with the same characters."""
    first = prompts[0]
    if not isinstance(first, Rendered) or not first.shared:
        return None
    opening = first[: first.shared]
    alike = (isinstance(other, Rendered) and other[: other.shared] == opening for other in prompts[1:])
    return first if all(alike) else None
