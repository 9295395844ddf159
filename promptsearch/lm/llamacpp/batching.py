"""Generates many completions at once by continuous batching.

Each step decodes one token of every running request and, as far as the batch has room, the prompts of waiting
ones; a finished request's place is taken at once. All prompts form one prefix tree over tokens, and requests
are admitted in its order: sorted by their prompts' tokens, equal ones by their numbers. One sequence, the
*stem*, holds the newest prompt. In sorted order no later prompt shares more with any earlier one than with the
newest, so the stem cut back to what the next prompt shares is all of the tree that is ever needed again, and no
token of it is decoded twice.

Invariant: a request samples from its own stream ``(seed, number)``, so its draws do not depend on its
neighbours; rounding does, so a text may differ where two tokens are almost equally likely. The memory never
overflows: a request is admitted when its prompt's own tokens and all that it may write fit beside the others.
Leaves out: what the prompts mean.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import ContextError, UserError
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.grammar import Grammar, GrammarState, grammar_of
from promptsearch.lm.llamacpp.growing_text import GrowingText
from promptsearch.lm.llamacpp.sampling import log_probability, sample
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import Row, common_length

__all__ = ["generate_batched", "most_cells_of_requests"]

_PLACES = 48  # running requests: more gain little, since attention grows with the cells in use
_BATCH = 512  # tokens of a step
_STEM = 0  # the sequence that holds the newest prompt

Tokens = tuple[int, ...]
Logits = NDArray[np.float32]


def generate_batched(
    context: Context,
    vocabulary: Vocabulary,
    paths: Sequence[Tokens],
    params: GenerationParams,
    *,
    held: int = 0,
    cuts_back: bool = True,
) -> list[Completion]:
    """Complete every prompt.

    Args:
        context: a context that holds nothing but the first ``held`` tokens of all prompts, in sequence 0.
        vocabulary: the model's tokenizer.
        paths: tokens of each prompt, none empty.
        params: how to generate.
        held: tokens that sequence 0 holds; each prompt has more.
        cuts_back: whether the model's memory can remove the end of a sequence; where it cannot, prompts share only
            what all of them begin with.

    Returns:
        Completions in the order of ``paths``.

    Raises:
        ContextError: a prompt and its new tokens can never fit the context; nothing has run then.
        UserError: the grammar cannot be used, or allows nothing that the model could write.
        BackendError: the model answered with values that are no numbers.
    """
    for path in paths:
        if len(path) + params.max_tokens - 1 > context.cells:
            raise ContextError(
                f"a prompt of {len(path)} tokens and an answer of {params.max_tokens} do not fit the memory of "
                f"{context.cells} tokens; shorten it"
            )
    grammar = grammar_of(params, vocabulary)
    stem: _Stem = _Stem(context, paths[0][:held] if held else ()) if cuts_back else _FixedStem(context, paths)
    batching = _Batching(context, vocabulary, paths, params, grammar, stem)
    try:
        while batching.unfinished:
            batching.step()
    finally:
        batching.close()
        if grammar is not None:
            grammar.close()
    return [batching.done[number] for number in range(len(paths))]


def most_cells_of_requests(paths: Sequence[Tokens], max_tokens: int, held: int = 0) -> int:
    """Tokens that the memory has to hold for completing ``paths``, at most; ``held`` of each are shared by all."""
    own = sorted((len(path) - held for path in paths), reverse=True)[:_PLACES]
    stem = own[0] if own else 0
    return held + stem + sum(own) + len(own) * max_tokens


class _Request:
    """A completion in progress."""

    def __init__(
        self, number: int, path: Tokens, sequence: int, params: GenerationParams, state: GrammarState | None
    ) -> None:
        self.number = number
        self.path = path
        self.sequence = sequence
        self.tokens: list[int] = []
        self.finish = ""
        self.state = state
        self._params = params
        self._rng = np.random.default_rng([params.seed, number])
        self._text = GrowingText(params.stop)
        self._log_probabilities: list[float] = []
        self._token_texts: list[str] = []

    @property
    def newest(self) -> Row:
        """The newest token, to be decoded."""
        return Row(self.tokens[-1], len(self.path) + len(self.tokens) - 1, (self.sequence,))

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


@dataclass
class _Holding:
    """What one admitted prompt keeps in the memory.

    Attributes:
        length: the prompt's tokens.
        shared: how many of them the holding before it holds too.
        writes: tokens that may follow; 0 once its request is done.
        sequence: the request's.
    """

    length: int
    shared: int
    writes: int
    sequence: int

    @property
    def cells(self) -> int:
        return self.length - self.shared + self.writes


class _Cells:
    """Counts the memory that admitted requests hold or may come to need; what prompts share counts once.

    Holdings stand in the prompts' order, so that each shares with all before it what it shares with the last
    of them. The last one stays when its request is done, because the stem holds its prompt.
    """

    def __init__(self, total: int, held: int) -> None:
        self._total = total
        self._holdings = [_Holding(held, 0, 0, _STEM)]  # what all prompts begin with; never released
        self._last_done = False

    def admit(self, length: int, shared: int, writes: int, sequence: int) -> bool:
        """Take what a prompt needs that has ``shared`` tokens of the newest one; False where it does not fit."""
        before = self._holdings
        if self._last_done:  # the stem will be cut back to what the new prompt shares
            shared = min(shared, before[-1].shared)
            before = before[:-1]
        new = _Holding(length, shared, writes, sequence)
        if sum(holding.cells for holding in before) + new.cells > self._total:
            return False
        self._holdings = [*before, new]
        self._last_done = False
        return True

    def release(self, sequence: int) -> None:
        """Give back what a request held that is done."""
        at = next(at for at, holding in enumerate(self._holdings) if holding.sequence == sequence)
        if at == len(self._holdings) - 1:
            self._holdings[at].writes = 0
            self._last_done = True
            return
        gone, following = self._holdings[at], self._holdings[at + 1]
        following.shared = min(following.shared, gone.shared)
        del self._holdings[at]


class _Stem:
    """The sequence that holds the newest prompt, and the rows that bring it there.

    Attributes:
        path: the newest prompt.
        fed: tokens of it that are in the memory or in the open batch.
        logits: the prediction after it, kept where another request asks for it.
        serves_many: whether one row may serve several requests.
    """

    serves_many = True

    def __init__(self, context: Context, path: Tokens) -> None:
        self._context = context
        self._rows: list[Row] = []  # the open batch
        self._indices: list[int] = []  # rows of the open batch that the stem sees
        self._held = len(path)  # tokens in the memory
        self._readers: tuple[int, ...] = ()
        self.path = path
        self.fed = len(path)
        self.logits: Logits | None = None

    @property
    def complete(self) -> bool:
        return self.fed == len(self.path)

    def open_batch(self, rows: list[Row]) -> None:
        """Go on in an empty batch, the one before having been decoded."""
        self._rows = rows
        self._indices = []
        self._held = self.fed

    def shared_with(self, path: Tokens) -> int:
        """How much of a prompt the stem brings."""
        return common_length(self.path, path)

    def copy_to(self, sequence: int) -> None:
        """Let a sequence continue the newest prompt, which is in the memory."""
        self._context.fork_start(_STEM, [sequence], len(self.path))

    def turn_to(self, path: Tokens, sequences: tuple[int, ...]) -> None:
        """Cut back to what ``path`` shares, and let ``sequences`` share it."""
        shared = self.shared_with(path)
        if shared < self._held:
            self._context.cut(_STEM, shared)
            self._held = shared
        if self._held:
            self._context.fork_start(_STEM, sequences, self._held)
        kept = shared - self._held
        for index in self._indices[:kept]:
            row = self._rows[index]
            self._rows[index] = row._replace(sequences=row.sequences + sequences)
        for index in self._indices[kept:]:
            row = self._rows[index]
            self._rows[index] = row._replace(sequences=tuple(seen for seen in row.sequences if seen != _STEM))
        del self._indices[kept:]
        self.path, self.fed, self._readers, self.logits = path, shared, sequences, None

    def feed(self) -> None:
        """Add the prompt's next tokens to the batch, as far as it has room."""
        end = min(len(self.path), self.fed + _BATCH - len(self._rows))
        seen_by = (_STEM, *self._readers)
        for position in range(self.fed, end):
            self._indices.append(len(self._rows))
            self._rows.append(Row(self.path[position], position, seen_by))
        self.fed = end


class _FixedStem(_Stem):
    """What all prompts begin with, for a memory that cannot cut a sequence back.

    Each request continues a fork of it with its prompt's own tokens, in its sequence alone.
    """

    serves_many = False

    def __init__(self, context: Context, paths: Sequence[Tokens]) -> None:
        low, high = min(paths), max(paths)
        start = low[: min(common_length(low, high), min(map(len, paths)) - 1)]
        for first in range(0, len(start), _BATCH):
            part = enumerate(start[first : first + _BATCH], first)
            context.decode([Row(token, position, (_STEM,)) for position, token in part], [])
        super().__init__(context, start)
        self._start = start

    def shared_with(self, path: Tokens) -> int:
        return len(self._start)

    def turn_to(self, path: Tokens, sequences: tuple[int, ...]) -> None:
        if self._start:
            self._context.fork(_STEM, sequences)
        self.path, self.fed, self._readers = path, len(self._start), sequences

    def feed(self) -> None:
        end = min(len(self.path), self.fed + _BATCH - len(self._rows))
        self._rows += [Row(self.path[position], position, self._readers) for position in range(self.fed, end)]
        self.fed = end


class _Batching:
    """The requests of one call: waiting, running and done."""

    def __init__(
        self,
        context: Context,
        vocabulary: Vocabulary,
        paths: Sequence[Tokens],
        params: GenerationParams,
        grammar: Grammar | None,
        stem: _Stem,
    ) -> None:
        self._context = context
        self._vocabulary = vocabulary
        self._params = params
        self._grammar = grammar
        self._waiting = deque(sorted((path, number) for number, path in enumerate(paths)))
        self._admitted: dict[int, _Request] = {}  # by sequence
        self._entering: list[_Request] = []  # the stem's prompt is being decoded for them
        self._running: list[_Request] = []
        self._places = list(range(min(_PLACES, context.sequences - 1), _STEM, -1))
        self._cells = _Cells(context.cells, len(stem.path))
        self._stem = stem
        self.done: dict[int, Completion] = {}

    @property
    def unfinished(self) -> bool:
        return bool(self._waiting or self._entering or self._running)

    def step(self) -> None:
        """Decode one batch and choose a token of every request that it brings forward."""
        self._copy_prompts()
        readers: list[tuple[list[_Request], int]] = [([request], at) for at, request in enumerate(self._running)]
        rows = [request.newest for request in self._running]
        self._stem.open_batch(rows)
        self._add_prompts(rows, readers)
        if not rows:
            return
        logits = self._context.decode(rows, [row for _, row in readers])
        self._running += [request for requests, _ in readers[len(self._running) :] for request in requests]
        self._keep_prediction(logits)
        for (requests, _), predicted in zip(readers, logits, strict=True):
            for request in requests:
                self._advance(request, predicted)

    def close(self) -> None:
        """Free what the requests hold that are not done."""
        for request in self._admitted.values():
            request.close()
        self._admitted = {}

    def _advance(self, request: _Request, logits: Logits) -> None:
        request.advance(logits, self._vocabulary)
        if request.finish:
            self._running.remove(request)
            self._context.drop([request.sequence])
            self._cells.release(request.sequence)
            self._places.append(request.sequence)
            self.done[request.number] = request.completion()
            self._admitted.pop(request.sequence).close()

    def _keep_prediction(self, logits: Logits) -> None:
        """Keep the prediction after the newest prompt where the next request has the same prompt."""
        stem = self._stem
        repeated = stem.serves_many and self._waiting and self._waiting[0][0] == stem.path
        if stem.complete and stem.logits is None and repeated:
            stem.logits = logits[-1].copy()  # prompts come last in a batch, and the newest one last of them

    def _copy_prompts(self) -> None:
        """Admit requests for the prompt that the stem holds; they need nothing decoded."""
        while self._stem.logits is not None and self._waiting and self._waiting[0][0] == self._stem.path:
            request = self._admit(len(self._stem.path))
            if request is None:
                return
            self._stem.copy_to(request.sequence)
            self._running.append(request)
            self._advance(request, self._stem.logits)

    def _add_prompts(self, rows: list[Row], readers: list[tuple[list[_Request], int]]) -> None:
        """Fill the batch with prompts; the last one may go on in the next batch."""
        stem = self._stem
        while len(rows) < _BATCH:
            if not self._entering and not self._turn_to_next_prompt():
                return
            stem.feed()
            if stem.complete:
                readers.append((self._entering, len(rows) - 1))
                self._entering = []

    def _turn_to_next_prompt(self) -> bool:
        """Admit the next prompt with all requests for it that have a place; False where none can enter."""
        stem = self._stem
        if not self._waiting or (stem.serves_many and self._waiting[0][0] == stem.path):
            return False
        path = self._waiting[0][0]
        shared = stem.shared_with(path)
        while self._waiting and self._waiting[0][0] == path:
            request = self._admit(shared)
            if request is None:
                break
            self._entering.append(request)
            if not stem.serves_many:
                break
            shared = len(path)  # the next one finds this one's prompt
        if not self._entering:
            return False
        stem.turn_to(path, tuple(request.sequence for request in self._entering))
        return True

    def _admit(self, shared: int) -> _Request | None:
        """The next waiting request, if there is a place and memory for it."""
        path, number = self._waiting[0]
        # the last token written is never decoded
        if not self._places or not self._cells.admit(
            len(path), shared, self._params.max_tokens - 1, self._places[-1]
        ):
            return None
        self._waiting.popleft()
        state = None if self._grammar is None else self._grammar.start()
        request = _Request(number, path, self._places.pop(), self._params, state)
        self._admitted[request.sequence] = request
        return request
