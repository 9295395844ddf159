"""Generates many completions at once by continuous batching.

Each step decodes one token of every running request and, as far as the batch has room, the prompts of
waiting ones; a finished request's place is taken at once. What all prompts share is decoded once and forked.

Invariant: a request samples from its own stream ``(seed, number)``, so its draws do not depend on its
neighbours.
Leaves out: what the prompts mean, and whether they fit the context.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import Row

__all__ = ["generate_batched", "sample"]

_PLACES = 48  # running requests: more gain little, since attention grows with the cells in use
_BATCH = 512
_SHARED = 0  # the sequence that holds what all prompts share


@dataclass
class _Request:
    """A completion in progress."""

    number: int
    path: tuple[int, ...]
    sequence: int = -1
    tokens: list[int] = field(default_factory=list)
    data: bytes = b""
    finish: str | None = None

    @property
    def position(self) -> int:
        """Where the newest token goes."""
        return len(self.path) + len(self.tokens) - 1


def generate_batched(
    context: Context, vocabulary: Vocabulary, paths: Sequence[tuple[int, ...]], params: GenerationParams
) -> list[Completion]:
    """Complete every prompt.

    Args:
        context: an empty context.
        vocabulary: the model's tokenizer.
        paths: tokens of each prompt, none empty, each fitting the context with its new tokens.
        params: how to generate.

    Returns:
        Completions in the order of ``paths``.
    """
    generators = [np.random.default_rng([params.seed, number]) for number in range(len(paths))]
    shared = _shared_length(paths)
    if shared:
        _prefill(context, paths[0][:shared], 0, _SHARED)
    waiting = deque(_Request(number, path) for number, path in enumerate(paths))
    running: list[_Request] = []
    done: dict[int, Completion] = {}
    places = list(range(min(_PLACES, context.sequences - 1), _SHARED, -1))
    while waiting or running:
        rows = [Row(request.tokens[-1], request.position, (request.sequence,)) for request in running]
        outputs = list(range(len(rows)))
        admitted = _admit(context, waiting, running, places, rows, outputs, shared, params.max_tokens)
        logits = context.decode(rows, outputs)
        running += admitted
        for request, row in zip(running, logits, strict=True):
            token = sample(row, params, generators[request.number])
            _extend(request, token, vocabulary, params)
        for request in [request for request in running if request.finish is not None]:
            running.remove(request)
            context.drop([request.sequence])
            places.append(request.sequence)
            done[request.number] = _completion(request, params)
    return [done[number] for number in range(len(paths))]


def sample(logits: NDArray[np.float32], params: GenerationParams, rng: np.random.Generator) -> int:
    """Draw the next token from one row of logits, shape (vocabulary,).

    Tokens race with exponential times, which draws from the distribution exactly. Each token has a time of its
    own, so that rounding, which differs with the neighbours in a batch, hardly ever changes the winner.
    """
    if params.temperature <= 0:
        return int(logits.argmax())
    times = rng.standard_exponential(len(logits), dtype=np.float32)
    tokens = np.arange(len(logits))
    if 0 < params.top_k < len(logits):
        tokens = np.argpartition(-logits, params.top_k - 1)[: params.top_k]
    scaled = logits[tokens].astype(np.float64) / params.temperature
    weights = np.exp(scaled - scaled.max())
    kept = _kept(weights / weights.sum(), params)
    return int(tokens[kept[np.argmin(times[tokens[kept]] / weights[kept])]])


def _kept(weights: NDArray[np.float64], params: GenerationParams) -> NDArray[np.intp]:
    """Indices of the probabilities that ``min_p`` and ``top_p`` leave."""
    # what is rarer holds less than 1 - top_p together, so the nucleus lies in what remains to be sorted
    rare = max(params.min_p * weights.max(), (1 - params.top_p) / len(weights))
    kept = np.flatnonzero(weights >= rare)
    if params.top_p < 1:
        kept = kept[np.argsort(-weights[kept], kind="stable")]
        before = np.cumsum(weights[kept]) - weights[kept]
        kept = kept[before < params.top_p]
    return np.asarray(kept[weights[kept] > 0])


def _shared_length(paths: Sequence[tuple[int, ...]]) -> int:
    """Tokens that all prompts share, short of a last token for each."""
    if len(paths) < 2:
        return 0
    low, high = min(paths), max(paths)
    length = 0
    for left, right in zip(low, high, strict=False):
        if left != right:
            break
        length += 1
    return min(length, min(map(len, paths)) - 1)


def _prefill(context: Context, tokens: Sequence[int], start: int, sequence: int) -> None:
    for first in range(0, len(tokens), _BATCH):
        part = tokens[first : first + _BATCH]
        context.decode([Row(token, start + first + at, (sequence,)) for at, token in enumerate(part)], [])


def _admit(
    context: Context,
    waiting: deque[_Request],
    running: Sequence[_Request],
    places: list[int],
    rows: list[Row],
    outputs: list[int],
    shared: int,
    max_tokens: int,
) -> list[_Request]:
    """Move waiting requests into the batch while it, the places and the memory have room."""
    admitted: list[_Request] = []
    cells = context.cells - shared - sum(len(r.path) - shared + max_tokens for r in running)
    while waiting and places:
        request = waiting[0]
        own = request.path[shared:]
        need = len(own) + max_tokens
        if need > cells or (rows and len(rows) + len(own) > _BATCH):
            break
        waiting.popleft()
        cells -= need
        request.sequence = places.pop()
        if shared:
            context.fork(_SHARED, [request.sequence])
        room = _BATCH - len(rows)
        if len(own) > room:
            _prefill(context, own[:-1], shared, request.sequence)
            own = own[-1:]
        start = len(request.path) - len(own)
        rows += [Row(token, start + at, (request.sequence,)) for at, token in enumerate(own)]
        outputs.append(len(rows) - 1)
        admitted.append(request)
    return admitted


def _extend(request: _Request, token: int, vocabulary: Vocabulary, params: GenerationParams) -> None:
    """Append a token and notice whether the text has ended."""
    if vocabulary.ends_text(token):
        request.finish = "stop"
        return
    request.tokens.append(token)
    request.data += vocabulary.piece(token)
    if any(stop.encode() in request.data for stop in params.stop):
        request.finish = "stop"
    elif len(request.tokens) >= params.max_tokens:
        request.finish = "length"


def _completion(request: _Request, params: GenerationParams) -> Completion:
    text = request.data.decode("utf-8", errors="ignore")
    ends = [text.find(stop) for stop in params.stop if stop in text]
    if ends:
        text = text[: min(ends)]
    return Completion(text=text, tokens=len(request.tokens), finish=request.finish or "length")
