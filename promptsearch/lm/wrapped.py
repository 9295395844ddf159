"""Makes an engine of a model that knows less than one: two methods only, or only how to generate.

Invariant: what such a model returns is checked before anyone counts with it; a wrong shape or a value that
is no number is an error that shows what came back, never a score.
Leaves out: exact token counts, which only a tokenizer knows; they are estimated from bytes here.
"""

from __future__ import annotations

import contextvars
import math
import re
import threading
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import TypeVar, cast

import numpy as np

from promptsearch.errors import BackendError, DataError, UserError
from promptsearch.lm.base import LM, Completion, Engine, FloatArray, GenerationParams

__all__ = [
    "DEFAULT_CONTEXT",
    "EstimatingEngine",
    "GeneratedChoice",
    "WrappedLM",
    "check_words",
    "estimate_tokens",
    "map_in_threads",
    "match_label",
    "refuse",
    "wrap",
]

DEFAULT_CONTEXT = 4096
_BYTES_PER_TOKEN = 4
_SHORTEST_ANSWER = 16  # tokens: room for "The answer is: ..." before the label
_QUOTING = " \t\r\n\"'`“”‘’«»„*_.,:;!?()[]{}<>#"
_ENGINE_NAMES = tuple(name for name in dir(Engine) if not name.startswith("_"))

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


def estimate_tokens(text: str) -> int:
    """Tokens of a text, estimated as a quarter of its UTF-8 bytes, rounded up."""
    return math.ceil(len(text.encode("utf-8", errors="surrogatepass")) / _BYTES_PER_TOKEN)


def check_words(continuations: Sequence[str]) -> None:
    """Refuse labels that no answer could tell apart.

    Raises:
        DataError: a label of no characters, or two that differ in surrounding space only.
    """
    seen: dict[str, str] = {}
    for text in continuations:
        label = text.strip()
        if not label:
            raise DataError(f"the label {text!r} is empty; give it a word")
        if label in seen:
            raise DataError(
                f"the labels {seen[label]!r} and {text!r} are the same word; "
                "give them different words with labels={value: word}"
            )
        seen[label] = text


def refuse(params: GenerationParams, name: str, *fields: str) -> None:
    """Refuse what a model cannot follow.

    Args:
        params: how to generate.
        name: what the model is called.
        fields: names of the parameters that it cannot follow.

    Raises:
        UserError: one of them was given.
    """
    for field in fields:
        if getattr(params, field):
            raise UserError(f"the model {name!r} cannot follow {field}; leave it out, or use a GGUF file, which can")


def map_in_threads(
    function: Callable[[_Item], _Answer], items: Iterable[_Item], threads: int, stop: threading.Event | None = None
) -> list[_Answer]:
    """Apply ``function`` to every item, up to ``threads`` at once, and keep the order.

    Each call sees the caller's context variables. The first error is raised once the calls in progress have
    ended; those that wait are dropped.

    Args:
        function: what is called.
        items: what it is called with.
        threads: most calls at once.
        stop: for calls that wait for others, such as a server: it is set once no answer is wanted any longer, and
            Ctrl-C then leaves the calls in progress behind, which do not keep the interpreter from ending either.
    """
    if threads <= 1:
        return [function(item) for item in items]
    calls: list[tuple[Future[_Answer], contextvars.Context, _Item]] = [
        (Future(), contextvars.copy_context(), item) for item in items
    ]
    waiting: SimpleQueue[tuple[Future[_Answer], contextvars.Context, _Item]] = SimpleQueue()
    for call in calls:
        waiting.put(call)

    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                future, context, item = waiting.get_nowait()
            except Empty:
                return
            try:
                future.set_result(context.run(function, item))
            except BaseException as error:  # it is raised where the answer is taken
                over.set()
                future.set_exception(error)

    # Threads of a pool would be waited for when the interpreter ends, whatever they wait for themselves.
    workers = [threading.Thread(target=work, daemon=stop is not None) for _ in calls[:threads]]
    try:
        for worker in workers:
            worker.start()
        return [future.result() for future, _, _ in calls]
    except BaseException as error:
        over.set()
        if stop is not None:
            stop.set()
        if stop is None or isinstance(error, Exception):
            for worker in workers:
                if worker.ident is not None:
                    worker.join()
        raise


class EstimatingEngine:
    """The part of an engine that is the same for all models without a tokenizer of ours.

    Args:
        name: what a person calls the model.
        fingerprint: changes whenever results may.
        context_tokens: tokens that prompt and answer may take together, at least 1.
    """

    def __init__(self, *, name: str, fingerprint: str, context_tokens: int = DEFAULT_CONTEXT) -> None:
        self._name = name
        self._fingerprint = fingerprint
        self._context_tokens = context_tokens
        self._tokens_decoded = 0
        self._closed = False
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: dict[int, object]) -> EstimatingEngine:
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @property
    def name(self) -> str:
        """What a person calls the model."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Changes whenever results may."""
        return self._fingerprint

    @property
    def follows_grammars(self) -> bool:
        """False: what the model writes cannot be constrained."""
        return False

    @property
    def context_tokens(self) -> int:
        """Tokens that prompt and answer may take together."""
        return self._context_tokens

    @property
    def chat_template(self) -> str | None:
        """None: prompts are plain text."""
        return None

    @property
    def text_marks(self) -> tuple[str, str]:
        """Nothing: without a chat template there is nothing to mark."""
        return "", ""

    @property
    def tokens_decoded(self) -> int:
        """Tokens run through the model so far, as reported by it or estimated."""
        return self._tokens_decoded

    @property
    def tokens_restored(self) -> int:
        """0: this model keeps nothing from call to call."""
        return 0

    @property
    def shares_beginnings(self) -> bool:
        """False: every prompt is counted whole."""
        return False

    @property
    def parameters(self) -> int | None:
        """None: what runs is not known."""
        return None

    @property
    def prefix_tokens(self) -> int:
        """0: this model keeps nothing from call to call."""
        return 0

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` has been called."""
        return self._closed

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Estimated number of tokens of each prompt."""
        return [estimate_tokens(prompt) for prompt in prompts]

    def check_continuations(self, continuations: Sequence[str]) -> None:
        """Refuse labels that are no words, or equal.

        Raises:
            DataError: a label of no characters, or two that differ in surrounding space only.
        """
        check_words(continuations)

    def close(self) -> None:
        """Refuse further calls; closing twice is harmless."""
        self._closed = True

    def _require_open(self) -> None:
        if self._closed:
            raise BackendError(f"the model {self._name!r} has been closed; open it again")

    def _count_decoded(self, tokens: int) -> None:
        with self._lock:
            self._tokens_decoded += tokens


class GeneratedChoice:
    """Scores labels for a model that can only generate: by the label that its answer names.

    A mixin beside a ``generate`` method.
    """

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order."""
        raise NotImplementedError

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Which continuation the model writes after each prompt.

        Returns:
            Shape (prompts, continuations): 0.0 at the continuation named by the answer and -inf elsewhere; a
            row of -inf where the answer names none, or several.
        """
        check_words(continuations)
        scores = np.full((len(prompts), len(continuations)), -np.inf)
        if not len(prompts) or not len(continuations):
            return scores
        longest = max(len(text.encode("utf-8", errors="replace")) for text in continuations)
        params = GenerationParams(max_tokens=max(_SHORTEST_ANSWER, longest))
        for row, completion in enumerate(self.generate(prompts, params)):
            column = match_label(completion.text, continuations)
            if column is not None:
                scores[row, column] = 0.0
        return scores


def match_label(answer: str, labels: Sequence[str]) -> int | None:
    """Number of the label that an answer names.

    The first line that is not blank decides: it is a label; or, without regard to case and quoting, it starts
    with one (the longest counts); or exactly one label occurs in it. Whole words only, in scripts that have
    spaces.

    Returns:
        None where no label, or more than one, is named.
    """
    lines = [line.strip() for line in answer.splitlines() if line.strip()]
    if not lines:
        return None
    exact = [number for number, label in enumerate(labels) if label.strip() == lines[0]]
    if exact:
        return exact[0]
    folded: dict[str, list[int]] = {}
    for number, label in enumerate(labels):
        folded.setdefault(_fold(label), []).append(number)
    found = _named(_fold(lines[0]), folded)
    numbers = folded[found] if found is not None else []
    return numbers[0] if len(numbers) == 1 else None


def _fold(text: str) -> str:
    """Lower case, single spaces, no quoting around; a text that is all quoting is kept."""
    plain = " ".join(text.casefold().split())
    return plain.strip(_QUOTING) or plain


def _named(line: str, labels: Iterable[str]) -> str | None:
    """The label that a line starts with, or the only one that it holds."""
    longest_first = sorted(labels, key=len, reverse=True)
    pattern = re.compile("|".join(_as_word(label) for label in longest_first))
    start = pattern.match(line)
    if start:
        return start.group()
    held = {match.group() for match in pattern.finditer(line)}
    return held.pop() if len(held) == 1 else None


def _as_word(label: str) -> str:
    """Pattern of a label between word boundaries, where its script has them."""
    before = r"(?<!\w)" if _ends_words(label[0]) else ""
    after = r"(?!\w)" if _ends_words(label[-1]) else ""
    return before + re.escape(label) + after


def _ends_words(character: str) -> bool:
    """Whether a word of this character's script ends visibly; Chinese, Japanese or Thai words do not."""
    return character.isalnum() and unicodedata.category(character) != "Lo"


class WrappedLM(EstimatingEngine):
    """An object with ``score`` and ``generate``, checked and counted.

    Args:
        lm: the object; its own errors pass through unchanged. It is given a grammar or a JSON Schema only if
            it has an attribute ``follows_grammars`` that is true, since others would pass over them.
        context_tokens: tokens that prompt and answer may take together.
    """

    def __init__(self, lm: LM, *, context_tokens: int = DEFAULT_CONTEXT) -> None:
        kind = type(lm).__qualname__
        given = getattr(lm, "name", None)
        name = given if isinstance(given, str) and given else kind
        super().__init__(name=name, fingerprint=f"{kind}:{name}", context_tokens=context_tokens)
        self._lm = lm

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Natural log-probability of each continuation after each prompt, shape (prompts, continuations).

        Raises:
            BackendError: the object returned another shape, or something that is no log-probability.
        """
        self._require_open()
        shape = (len(prompts), len(continuations))
        scores = _checked_scores(self._lm.score(prompts, continuations), shape, self.name)
        self._count_decoded(sum(self.count_tokens(prompts)) + len(prompts) * sum(self.count_tokens(continuations)))
        return scores

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order.

        Raises:
            BackendError: the object returned another number of completions, or something else than them, or no
                log-probabilities where they were asked for.
            UserError: a grammar or a JSON Schema, which the object does not say that it follows.
        """
        self._require_open()
        if not self.follows_grammars:
            refuse(params, self.name, "grammar", "json_schema")
        params.require_seeds(len(prompts))
        completions = _checked_completions(self._lm.generate(prompts, params), len(prompts), self.name)
        if params.log_probabilities:
            _check_log_probabilities(completions, self.name)
        written = sum(completion.tokens for completion in completions)
        self._count_decoded(sum(self.count_tokens(prompts)) + written)
        return completions

    @property
    def follows_grammars(self) -> bool:
        """Whether the object says so."""
        return bool(getattr(self._lm, "follows_grammars", False))

    def close(self) -> None:
        """Close the object too, if it can be closed."""
        if not self._closed:
            super().close()
            close = getattr(self._lm, "close", None)
            if callable(close):
                close()


def wrap(lm: LM, *, context_tokens: int = DEFAULT_CONTEXT) -> Engine:
    """An engine of any language model; one that is an engine already is returned as it is.

    Args:
        lm: an object with ``score`` and ``generate``.
        context_tokens: for an object that is no engine: tokens that prompt and answer may take together.
    """
    if all(hasattr(lm, name) for name in _ENGINE_NAMES):
        return cast("Engine", lm)
    return WrappedLM(lm, context_tokens=context_tokens)


def _checked_scores(returned: object, shape: tuple[int, int], name: str) -> FloatArray:
    try:
        scores = np.asarray(returned, dtype=np.float64)
    except (TypeError, ValueError):
        raise BackendError(
            f"score of {name!r} returned {_shown(returned)}; it must return numbers in an array of shape {shape}"
        ) from None
    if scores.shape != shape:
        raise BackendError(
            f"score of {name!r} returned shape {scores.shape}; it must be (prompts, continuations) = {shape}"
        )
    wrong = np.isnan(scores) | np.isposinf(scores)
    if wrong.any():
        row, column = (int(index) for index in np.argwhere(wrong)[0])
        raise BackendError(
            f"score of {name!r} returned {scores[row, column]} for prompt {row} and continuation {column}; "
            "it must return natural log-probabilities"
        )
    return scores


def _checked_completions(returned: object, count: int, name: str) -> list[Completion]:
    if not isinstance(returned, (list, tuple)):
        raise BackendError(
            f"generate of {name!r} returned {_shown(returned)}; it must return a list of {count} Completion"
        )
    if len(returned) != count:
        raise BackendError(
            f"generate of {name!r} returned {len(returned)} completions for {count} prompts; "
            "it must return one for each"
        )
    for item in returned:
        if not isinstance(item, Completion) or not isinstance(item.text, str):
            raise BackendError(
                f"generate of {name!r} returned {_shown(item)} in its list; "
                "each item must be a Completion(text, tokens, finish)"
            )
    return list(returned)


def _check_log_probabilities(completions: Sequence[Completion], name: str) -> None:
    for completion in completions:
        counts = (len(completion.log_probabilities), len(completion.token_texts))
        if counts != (completion.tokens, completion.tokens):
            raise BackendError(
                f"generate of {name!r} returned {counts[0]} log-probabilities and {counts[1]} token texts for "
                f"{completion.tokens} tokens; it must return one of each for each token"
            )


def _shown(value: object) -> str:
    """A value on one short line."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else text[:77] + "..."
