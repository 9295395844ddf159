"""What a language model is to this package: two batch-first methods, and the values they exchange.

Invariant: a prompt is a string. A prompt made by a template also carries its segments, which say which parts
the template wrote (control tokens act there) and which parts are data (they never do).
Leaves out: how any model works.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import UserError

__all__ = [
    "LM",
    "Completion",
    "Engine",
    "FloatArray",
    "FollowUp",
    "GenerationParams",
    "Rendered",
    "ScoresEach",
    "Segment",
    "TellsNext",
    "WritesOn",
    "score_each",
    "segments_of",
    "write_on",
]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Segment:
    """A piece of a prompt.

    Attributes:
        text: the piece.
        control: True where the chat template wrote it, so that control tokens in it act; False for data.
    """

    text: str
    control: bool = False


class Rendered(str):
    """A prompt as one string that remembers its segments.

    Attributes:
        segments: the pieces.
        shared: leading characters that the prompts of other items begin with as well; a model may keep what it
            computed for them. 0 where each item has its own demonstrations.
        continued: leading characters that were a prompt themselves, which this one goes on from; 0 for none.

    A model may go by both in how it reads a prompt, and so in how its numbers are rounded.
    """

    segments: tuple[Segment, ...]
    shared: int
    continued: int

    def __new__(cls, segments: Iterable[Segment], shared: int = 0, continued: int = 0) -> Rendered:
        """Join ``segments`` into one string."""
        kept = tuple(segments)
        rendered = super().__new__(cls, "".join(segment.text for segment in kept))
        rendered.segments = kept
        rendered.shared = shared
        rendered.continued = continued
        return rendered

    def __reduce__(self) -> tuple[type[Rendered], tuple[tuple[Segment, ...], int, int]]:
        """Copies and pickles keep the segments."""
        return Rendered, (self.segments, self.shared, self.continued)

    @property
    def shared_segments(self) -> tuple[Segment, ...]:
        """The segments of the first ``shared`` characters."""
        return self._first(self.shared)

    @property
    def continued_segments(self) -> tuple[Segment, ...]:
        """The segments of the first ``continued`` characters."""
        return self._first(self.continued)

    def _first(self, left: int) -> tuple[Segment, ...]:
        kept = []
        for segment in self.segments:
            if left <= 0:
                break
            kept.append(Segment(segment.text[:left], segment.control))
            left -= len(segment.text)
        return tuple(kept)


def segments_of(prompt: str) -> tuple[Segment, ...]:
    """The segments of a prompt; a plain string is one segment of data."""
    return prompt.segments if isinstance(prompt, Rendered) else (Segment(prompt),)


@dataclass(frozen=True)
class GenerationParams:
    """How to generate.

    Not every model can follow every one of these; one that cannot follow ``grammar``, ``json_schema`` or
    ``log_probabilities`` refuses with a ``UserError``.

    Attributes:
        max_tokens: new tokens at most, at least 1.
        temperature: 0 takes the likeliest token; above 0 samples.
        top_k: sample among this many likeliest tokens; 0 for all.
        top_p: sample among the likeliest tokens that hold this probability, in (0, 1].
        min_p: sample among tokens at least this share as likely as the likeliest, in [0, 1).
        stop: strings that end the text; they are not part of it.
        seed: request number i of a call samples from ``(seed, i)``; at least 0.
        seeds: one number for each request of the call, at least 0, that it samples from instead, so that what it
            writes depends on no other request; empty for ``seed``.
        grammar: rules that the text follows, in llama.cpp's GBNF, starting at the rule ``root``. ``top_k``,
            ``top_p`` and ``min_p`` choose among the tokens that the grammar allows.
        json_schema: a JSON Schema that the text follows, instead of a grammar.
        log_probabilities: whether completions tell their tokens and the tokens' log-probabilities.
        until: called with the text so far after each new token; True ends that request, the text included.

    A text cut by ``max_tokens``, a stop string or ``until`` is only the beginning of one that follows the
    grammar.

    Raises:
        UserError: a value outside its range, or both a grammar and a schema.
    """

    max_tokens: int = 32
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    seed: int = 0
    seeds: tuple[int, ...] = ()
    grammar: str | None = None
    json_schema: Mapping[str, Any] | None = None
    log_probabilities: bool = False
    until: Callable[[str], bool] | None = None

    def __post_init__(self) -> None:
        for name, value, holds, rule in (
            ("max_tokens", self.max_tokens, self.max_tokens >= 1, "1 or more"),
            (
                "temperature",
                self.temperature,
                math.isfinite(self.temperature) and self.temperature >= 0,
                "0 or a number above it",
            ),
            ("top_k", self.top_k, self.top_k >= 0, "0 (all tokens) or more"),
            ("top_p", self.top_p, 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", self.min_p, 0 <= self.min_p < 1, "at least 0 and below 1"),
            ("seed", self.seed, self.seed >= 0, "0 or more"),
            ("seeds", self.seeds, all(seed >= 0 for seed in self.seeds), "a tuple of numbers from 0"),
        ):
            if not holds:
                raise UserError(f"{name}={value!r} cannot be used; it must be {rule}")
        if isinstance(self.stop, str) or any(not isinstance(text, str) or not text for text in self.stop):
            raise UserError(f"stop={self.stop!r} cannot be used; it must be a tuple of texts, none of them empty")
        if self.grammar is not None and self.json_schema is not None:
            raise UserError("grammar and json_schema were both given, and a text follows one; give one of them")

    def seed_of(self, number: int) -> tuple[int, int]:
        """What request ``number`` of a call samples from."""
        return (self.seeds[number], 0) if self.seeds else (self.seed, number)

    def require_seeds(self, requests: int) -> None:
        """Refuse seeds for another number of requests.

        Raises:
            UserError: there are ``seeds``, but not one for each request.
        """
        if self.seeds and len(self.seeds) != requests:
            raise UserError(f"{len(self.seeds)} seeds were given for {requests} prompts; give one for each, or none")


@dataclass(frozen=True)
class Completion:
    """What a model wrote.

    Attributes:
        text: the text, without its stop string.
        tokens: number of tokens generated; one that ends the text is not counted.
        finish: ``"stop"`` (stop string, end of turn, or a grammar that allows nothing more), ``"until"`` (as
            the function asked said) or ``"length"``.
        log_probabilities: natural log-probability of each token generated, under the model's own distribution
            at temperature 1, before grammar and truncation; empty unless asked for.
        token_texts: what each token added to the text, "" for one that ends inside a character. Together they
            are the text as it was before a stop string was cut off; empty unless log-probabilities were asked
            for.
    """

    text: str
    tokens: int
    finish: str
    log_probabilities: tuple[float, ...] = ()
    token_texts: tuple[str, ...] = ()


@runtime_checkable
class LM(Protocol):
    """Any language model: scores given answers, or writes its own."""

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Natural log-probability of each continuation after each prompt.

        Returns:
            Array of shape (number of prompts, number of continuations): sums over the continuation's tokens.
        """
        ...

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order."""
        ...


@runtime_checkable
class ScoresEach(Protocol):
    """A model that scores different continuations after different prompts in one call."""

    def score_each(self, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[FloatArray]:
        """Natural log-probability of each prompt's own continuations, one array for each prompt."""
        ...


def score_each(lm: LM, prompts: Sequence[str], continuations: Sequence[Sequence[str]]) -> list[FloatArray]:
    """Natural log-probability of each prompt's own continuations: in one call where the model can, else one by one.

    Args:
        lm: the model.
        prompts: texts to continue.
        continuations: those of each prompt; equal ones score alike.
    """
    if isinstance(lm, ScoresEach):
        return lm.score_each(prompts, continuations)
    found = []
    for prompt, texts in zip(prompts, continuations, strict=True):
        different = list(dict.fromkeys(texts))
        scores = lm.score([prompt], different)[0]
        found.append(scores[[different.index(text) for text in texts]])
    return found


@dataclass(frozen=True)
class FollowUp:
    """What is asked once a prompt is answered.

    Attributes:
        prompt: from the number of a first prompt and what was written after it to the second prompt, which usually
            begins with both. It cannot ask the model.
        params: how second prompts are answered.
        between: tokens that a second prompt has more than the first and its answer, about.
    """

    prompt: Callable[[int, Completion], str]
    params: GenerationParams
    between: int


@runtime_checkable
class WritesOn(Protocol):
    """A model that asks a second prompt as soon as the first one is answered."""

    @property
    def reads_once(self) -> bool:
        """Whether what the second prompt shares with the first and its answer is not read again."""
        ...

    def write_on(
        self, prompts: Sequence[str], params: GenerationParams, then: FollowUp
    ) -> list[tuple[Completion, Completion]]:
        """What two calls of :meth:`LM.generate` would give."""
        ...


def write_on(
    lm: LM, prompts: Sequence[str], params: GenerationParams, then: FollowUp
) -> list[tuple[Completion, Completion]]:
    """Completions of prompts, and of those that follow from them: in one call where the model can, else in two."""
    if isinstance(lm, WritesOn):
        return lm.write_on(prompts, params, then)
    first = lm.generate(prompts, params)
    second = lm.generate([then.prompt(number, said) for number, said in enumerate(first)], then.params)
    return list(zip(first, second, strict=True))


@runtime_checkable
class TellsNext(Protocol):
    """A model that tells how likely every token of its vocabulary comes next."""

    def likely_next(self, prompts: Sequence[str], count: int) -> list[list[tuple[int, float]]]:
        """The likeliest next tokens of each prompt with their natural log-probabilities, the likeliest first."""
        ...

    def score_and_next(
        self, prompts: Sequence[str], continuations: Sequence[str], tokens: Sequence[int]
    ) -> tuple[FloatArray, FloatArray]:
        """What :meth:`LM.score` gives, and from the same run the log-probabilities of next tokens.

        Args:
            prompts: the prompts.
            continuations: the continuations.
            tokens: numbers of tokens of the vocabulary.

        Returns:
            Shapes (prompts, continuations) and (prompts, tokens).
        """
        ...


class Engine(LM, Protocol):
    """A language model with what a search needs besides: identity, lengths, prices."""

    @property
    def name(self) -> str:
        """What a person calls the model."""
        ...

    @property
    def follows_grammars(self) -> bool:
        """Whether generated texts can be made to follow a grammar."""
        ...

    @property
    def fingerprint(self) -> str:
        """Changes whenever results may: file hash, weight type, backend version."""
        ...

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may take together."""
        ...

    @property
    def chat_template(self) -> str | None:
        """The model's own chat template (Jinja source), if it has one."""
        ...

    @property
    def text_marks(self) -> tuple[str, str]:
        """What begins and what ends a text, as the chat template writes it; empty where there is none."""
        ...

    @property
    def tokens_decoded(self) -> int:
        """Tokens run through the model since it was opened, whatever an engine tried in vain beside them.

        Budgets in tokens count these: they follow from what was asked, not from how it was run.
        """
        ...

    @property
    def tokens_restored(self) -> int:
        """Tokens that were not run, since an earlier call's results for them were kept."""
        ...

    @property
    def shares_beginnings(self) -> bool:
        """Whether what many prompts begin with is read once, rather than again with each."""
        ...

    @property
    def parameters(self) -> int | None:
        """Number of the model's weights; None where it is not known."""
        ...

    @property
    def prefix_tokens(self) -> int:
        """Tokens of the beginnings that each call's prompts share, run or restored; 0 where none are kept."""
        ...

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Exact number of tokens of each prompt as :meth:`score` would feed it."""
        ...

    def check_continuations(self, continuations: Sequence[str]) -> None:
        """Refuse answers that this model cannot tell apart, with a ``DataError``."""
        ...

    def close(self) -> None:
        """Free the model; further calls are errors."""
        ...
