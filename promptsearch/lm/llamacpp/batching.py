"""Generates many completions at once by continuous batching.

Each step decodes the newest token of every running request; places of finished requests are taken by the next
prompts. Where few requests run, decoding is speculative: a step also reads a draft of what each may go on with
(:mod:`promptsearch.lm.llamacpp.drafting`), and gives as many tokens as the model then chooses like it, and one more.
Prompts are decoded in the order of their tokens, each going on from what it shares with the one before
(:mod:`promptsearch.lm.llamacpp.stem`). Every request has a memory of its own, so that no one attends to another's
tokens.

A request may go on to a second prompt once it has ended, which usually begins with the first and what was written
after it: its memory is cut back to what they share, and the rest is decoded.

Invariant: a request's text is the one that it would have alone, bit by bit: it samples from its own stream
``(seed, number)``, draws for each token once, and no batch is so small or so large that rows are computed in
another way. Tokens that were drafted in vain leave no trace, in the memory or in a count.
Leaves out: what the prompts mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import UserError
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.llamacpp.drafting import Drafter
from promptsearch.lm.llamacpp.grammar import Grammar, GrammarState, grammar_of
from promptsearch.lm.llamacpp.growing_text import GrowingText
from promptsearch.lm.llamacpp.reading_order import token_of
from promptsearch.lm.llamacpp.sampling import log_probability, sample
from promptsearch.lm.llamacpp.stem import FIRST_PLACE, SCRATCH, Stem
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import Row

__all__ = ["Sequel", "generate_batched"]

_FREE_SHARE = 0.125  # of the places, that waiting prompts wait for: a free one costs nothing
_SPECULATIVE_ROWS = 16  # of a step with drafts; more take a processor longer than drafts are likely to save
_FILLER = 0  # a draft like any other, where there is none

Tokens = tuple[int, ...]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Sequel:
    """What requests go on to.

    Attributes:
        path: from a request's number and its completion to the tokens of its second prompt, marked like those of the
            first, not empty; None for one that does not go on.
        params: how to generate then.
    """

    path: Callable[[int, Completion], Tokens | None]
    params: GenerationParams


def generate_batched(
    stem: Stem,
    vocabulary: Vocabulary,
    paths: Sequence[Tokens],
    params: GenerationParams,
    sequel: Sequel | None = None,
    draws: Sequence[tuple[int, int]] = (),
    *,
    speculates: bool = False,
) -> tuple[list[list[Completion]], int]:
    """Complete every prompt.

    Args:
        stem: decodes the prompts; its context has three sequences at least, each with room for any prompt and its
            new tokens.
        vocabulary: the model's tokenizer.
        paths: tokens of each prompt, none empty, those that are read in tiles marked
            (:func:`promptsearch.lm.llamacpp.reading_order.in_tiles`).
        params: how to generate.
        sequel: what each request goes on to; None where it is done then.
        draws: what each request samples from, first; what ``params`` says where there are none.
        speculates: whether to read drafts, which needs a memory that can be cut back. On processors no text depends
            on that; on accelerators numbers may depend on how many rows run together.

    Returns:
        Completions in the order of ``paths``, of each the first and, where it went on, the second one; and how many
        tokens of the prompts an earlier call had decoded.

    Raises:
        UserError: the grammar cannot be used, or allows nothing that the model could write.
        BackendError: the model answered with values that are no numbers, or llama.cpp failed.
    """
    numbers = range(len(paths))
    with ExitStack() as opened:
        stages = []
        for asked in [params] if sequel is None else [params, sequel.params]:
            grammar = grammar_of(asked, vocabulary)
            if grammar is not None:
                opened.callback(grammar.close)
            stages.append(_Stage(asked, grammar, [asked.seed_of(number) for number in numbers]))
        if draws:
            stages[0] = replace(stages[0], draws=draws)
        batching = _Batching(stem, vocabulary, paths, stages, sequel, speculates)
        opened.callback(batching.close)
        try:
            restored = batching.begin()
            while batching.unfinished:
                batching.step()
        except BaseException:
            stem.forget()
            raise
    return [batching.done[number] for number in range(len(paths))], restored


@dataclass(frozen=True)
class _Stage:
    """How the first or the second prompts of requests are answered, and what each request samples from."""

    params: GenerationParams
    grammar: Grammar | None
    draws: Sequence[tuple[int, int]]


class _Request:
    """A completion in progress."""

    def __init__(self, number: int, path: Tokens, sequence: int, stage: _Stage) -> None:
        self.number = number
        self.path = path
        self.sequence = sequence
        self.tokens: list[int] = []
        self.finish = ""
        self.state: GrammarState | None = None if stage.grammar is None else stage.grammar.start()
        self._params = stage.params
        self._rng = np.random.default_rng(stage.draws[number])
        self._text = GrowingText(stage.params.stop)
        self._log_probabilities: list[float] = []
        self._token_texts: list[str] = []
        self._drafter: Drafter | None = None  # made when it is first asked
        self._trusted = _SPECULATIVE_ROWS  # tokens of a draft that are worth verifying

    @property
    def decoded(self) -> Tokens:
        """What its memory holds for certain: all but the newest token, which is decoded by the next step."""
        return (*self.path, *self.tokens[:-1])

    @property
    def draftable(self) -> int:
        """How many tokens may be drafted: all that it may still write but the last, which is never read."""
        return self._params.max_tokens - len(self.tokens) - 1

    def draft(self, limit: int) -> Tokens:
        """Up to ``limit`` tokens that may follow, and no more than drafts are trusted."""
        if self._drafter is None:
            self._drafter = Drafter([*map(token_of, self.path), *self.tokens])
        return self._drafter.draft(min(limit, self._trusted))

    def learn(self, drafted: int, accepted: int) -> None:
        """Trust drafts as far as the newest one was right, and further where all of it was."""
        if accepted < drafted:
            self._trusted = max(1, accepted)
        else:
            self._trusted = max(self._trusted, min(2 * drafted, _SPECULATIVE_ROWS))

    def rows(self, draft: Tokens) -> list[Row]:
        """The newest token and what may follow it, to be decoded."""
        ahead, start = (self.tokens[-1], *draft), len(self.path) + len(self.tokens) - 1
        return [Row(token, position, (self.sequence,)) for position, token in enumerate(ahead, start)]

    def advance(self, logits: Logits, vocabulary: Vocabulary) -> None:
        """Choose the next token and notice whether the text has ended."""
        token = sample(logits, self._params, self._rng, self.state)
        if token is None:
            raise UserError(
                f"the grammar allows no token of this model after {self._text.text[-40:]!r}; correct the grammar"
            )
        if vocabulary.ends_text(token):
            self.finish = "stop"
            return
        if self.state is not None:
            self.state.accept(token)
        self.tokens.append(token)
        if self._drafter is not None:
            self._drafter.append(token)
        added = self._text.append(vocabulary.piece(token))
        if self._params.log_probabilities:
            self._log_probabilities.append(log_probability(logits, token))
            self._token_texts.append(added)
        self.finish = self._reason_to_end()

    def _reason_to_end(self) -> str:
        if self._text.stopped or (self.state is not None and self.state.finished):
            return "stop"
        if self._params.until is not None and self._params.until(self._text.text):
            return "until"
        return "length" if len(self.tokens) >= self._params.max_tokens else ""

    def completion(self) -> Completion:
        return Completion(
            text=self._text.text,
            tokens=len(self.tokens),
            finish=self.finish,
            log_probabilities=tuple(self._log_probabilities),
            token_texts=tuple(self._token_texts),
        )

    def close(self) -> None:
        if self.state is not None:
            self.state.close()


class _Batching:
    """The requests of one call: waiting, running and done."""

    def __init__(
        self,
        stem: Stem,
        vocabulary: Vocabulary,
        paths: Sequence[Tokens],
        stages: Sequence[_Stage],
        sequel: Sequel | None,
        speculates: bool,
    ) -> None:
        self._stem = stem
        self._context = stem.context
        self._vocabulary = vocabulary
        self._stages = stages
        self._sequel = sequel
        self._speculates = speculates
        self._waiting = deque(sorted((path, number) for number, path in enumerate(paths)))
        self._running: list[_Request] = []  # in the order of their sequences
        self.done: dict[int, list[Completion]] = {number: [] for number in range(len(paths))}

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._running)

    def begin(self) -> int:
        """Get the stem ready; how many tokens of the first prompt it holds from an earlier call."""
        return self._stem.begin([path for path, _ in self._waiting])

    def step(self) -> None:
        """Give free places to waiting requests, then choose at least one token of every request that runs."""
        self._fill_places()
        if not self._running:
            return
        self._close_gaps()
        drafts, width = self._drafts()
        filled = [(*draft, *[_FILLER] * (width - len(draft))) for draft in drafts]
        rows = [row for request, draft in zip(self._running, filled, strict=True) for row in request.rows(draft)]
        logits = self._context.decode_in_company(rows, range(len(rows)), SCRATCH)
        self._context.tokens_decoded -= width * len(self._running)  # those that are accepted count again
        for number, (request, draft) in enumerate(zip(self._running, filled, strict=True)):
            accepted = self._verify(request, draft, logits[number * (width + 1) : (number + 1) * (width + 1)])
            request.learn(len(drafts[number]), accepted)
        self._settle()

    def _drafts(self) -> tuple[list[Tokens], int]:
        """What each request may go on with, and how many tokens of each are read: as many as half of them have.

        llama.cpp runs equally many tokens of each sequence together.
        """
        limit = min(_SPECULATIVE_ROWS // len(self._running) - 1, *(each.draftable for each in self._running))
        if limit < 1 or not self._speculates:
            return [()] * len(self._running), 0
        drafts = [request.draft(limit) for request in self._running]
        width = sorted(map(len, drafts))[len(drafts) // 2]
        return [draft[:width] for draft in drafts], width

    def _verify(self, request: _Request, draft: Tokens, logits: Logits) -> int:
        """Choose tokens as long as the draft had them right, and forget the rest of it; how many it had right."""
        held, accepted = len(request.path) + len(request.tokens), 0
        for guess, predicted in zip([*draft, None], logits, strict=True):
            request.advance(predicted, self._vocabulary)
            if request.finish or request.tokens[-1] != guess:
                break
            accepted += 1
        self._context.tokens_decoded += accepted
        if accepted < len(draft):
            self._context.cut(request.sequence, held + accepted)
        return accepted

    def close(self) -> None:
        """Free what the requests hold that are not done."""
        for request in self._running:
            request.close()
        self._running = []

    def _fill_places(self) -> None:
        """Read waiting prompts into the places that are free, once there are enough to read several together."""
        places = self._context.sequences - FIRST_PLACE
        enough = min(max(1, places * _FREE_SHARE), len(self._waiting))
        while self._waiting and (not self._running or places - len(self._running) >= enough):
            self._close_gaps()
            free = range(FIRST_PLACE + len(self._running), self._context.sequences)
            taken = [self._waiting.popleft() for _ in range(min(len(free), len(self._waiting)))]
            brought = self._stem.bring([path for path, _ in taken], free[: len(taken)])
            for (path, number), (sequence, predicted) in zip(taken, brought, strict=True):
                request = _Request(number, path, sequence, self._stages[0])
                self._running.append(request)
                request.advance(predicted, self._vocabulary)
            self._running.sort(key=lambda request: request.sequence)
            self._settle()

    def _close_gaps(self) -> None:
        """Move the last requests to free places below: llama.cpp runs only neighbouring sequences together."""
        for place in range(FIRST_PLACE, FIRST_PLACE + len(self._running)):
            if self._running[place - FIRST_PLACE].sequence == place:
                continue
            moved = self._running.pop()
            self._context.fork(moved.sequence, [place])
            self._context.drop([moved.sequence])
            moved.sequence = place
            self._running.insert(place - FIRST_PLACE, moved)

    def _settle(self) -> None:
        """Let requests that have ended go on to their second prompt, or give their places free."""
        for request in [each for each in self._running if each.finish]:
            place = self._running.index(request)
            current = request
            while current.finish and (after := self._after(current)) is not None:
                current = self._running[place] = after
            if current.finish:
                del self._running[place]
                self._context.drop([current.sequence])

    def _after(self, ended: _Request) -> _Request | None:
        """Put a completion away; the request that takes its place and memory, None where there is none."""
        completions = self.done[ended.number]
        completions.append(ended.completion())
        ended.close()
        if self._sequel is None or len(completions) == len(self._stages):
            return None
        path = self._sequel.path(ended.number, completions[-1])
        if path is None:
            return None
        request = _Request(ended.number, path, ended.sequence, self._stages[1])
        try:
            request.advance(self._stem.go_on(ended.sequence, ended.decoded, path), self._vocabulary)
        except BaseException:
            request.close()
            raise
        return request
