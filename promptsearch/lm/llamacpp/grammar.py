"""Grammars as constraints on tokens, by llama.cpp's own grammar sampler.

Invariant: a token is accepted only after it was allowed, since llama.cpp ends the process otherwise; the end of
the text is allowed only where the grammar is complete. Control tokens are never allowed: llama.cpp reads them
as their names, which do not appear in the text.
Leaves out: which of the allowed tokens is chosen.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from ctypes import byref, cast
from functools import cached_property
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import UserError
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.llamacpp.json_schema import MOST_REPEATED, schema_to_gbnf
from promptsearch.lm.llamacpp.library import last_errors, llama, printed_errors
from promptsearch.lm.llamacpp.vocabulary import Vocabulary

__all__ = ["Grammar", "GrammarState", "grammar_of"]

_ROOT = b"root"
_MASKS = 256  # masks of the whole vocabulary kept, at a bit for each token
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
_REPETITION = re.compile(r"\{\s*(\d+)\s*(?:,\s*(\d*)\s*)?\}")


def grammar_of(params: GenerationParams, vocabulary: Vocabulary) -> Grammar | None:
    """The grammar that ``params`` ask for, read; None where they ask for none.

    Raises:
        UserError: the grammar or the schema cannot be used; says what llama.cpp said.
    """
    if params.json_schema is not None:
        return Grammar(schema_to_gbnf(params.json_schema), vocabulary)
    return None if params.grammar is None else Grammar(params.grammar, vocabulary)


class Grammar:
    """A grammar that was read once, from which texts start.

    A context manager; closing it frees llama.cpp's copy.

    Args:
        source: GBNF, with a rule ``root``.
        vocabulary: the model's tokenizer.

    Raises:
        UserError: the source cannot be used; says what llama.cpp said.
    """

    def __init__(self, source: str, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        unquoted = _QUOTED.sub(" ", source)
        self._names_tokens = "<" in unquoted
        self._prototype = _read(source, unquoted, vocabulary)
        self._masks: OrderedDict[tuple[int, ...], NDArray[np.uint8]] = OrderedDict()

    def __enter__(self) -> Grammar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> GrammarState:
        """The state before a text, to be closed after use."""
        return GrammarState(self, llama().llama_sampler_clone(self._prototype))

    def close(self) -> None:
        """Free the grammar; closing twice is harmless."""
        if self._prototype:
            llama().llama_sampler_free(self._prototype)
            self._prototype = None

    def mask(self, tokens: tuple[int, ...], make: Callable[[], NDArray[np.bool_]]) -> NDArray[np.bool_]:
        """The mask after ``tokens``, made once for all texts that begin with them."""
        packed = self._masks.get(tokens)
        if packed is None:
            packed = self._masks[tokens] = np.packbits(make())
            if len(self._masks) > _MASKS:
                self._masks.popitem(last=False)
        return np.unpackbits(packed, count=self.vocabulary.size).astype(np.bool_)

    @cached_property
    def first_tokens(self) -> NDArray[np.intp] | None:
        """Tokens of which one is allowed wherever any but the end is; None where no such set is known."""
        return None if self._names_tokens else self.vocabulary.byte_tokens


class GrammarState:
    """Where one text stands in its grammar.

    Args:
        grammar: what the text follows.
        handle: llama.cpp's sampler, freed by :meth:`close`.
    """

    def __init__(self, grammar: Grammar, handle: Any) -> None:
        self._grammar = grammar
        self._vocabulary = grammar.vocabulary
        self._handle = handle
        self._tokens: list[int] = []

    def allows(self, tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether each of some tokens may come next."""
        library = llama()
        candidates = np.zeros(len(tokens), dtype=_CANDIDATE)
        candidates["id"] = tokens
        array = library.llama_token_data_array(
            data=cast(candidates.ctypes.data, library.llama_token_data_p), size=len(tokens), selected=-1, sorted=False
        )
        library.llama_sampler_apply(self._handle, byref(array))
        refused = (candidates["logit"] < 0) | self._vocabulary.silent[tokens]
        return np.asarray(~refused)

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each token of the vocabulary may come next, shape (vocabulary,)."""
        return self._grammar.mask(tuple(self._tokens), lambda: self.allows(np.arange(self._vocabulary.size)))

    def accept(self, token: int) -> None:
        """Go on by a token that is allowed and ends nothing."""
        llama().llama_sampler_accept(self._handle, token)
        self._tokens.append(token)

    @property
    def finished(self) -> bool:
        """Whether only the end may follow; False where that is not known."""
        first = self._grammar.first_tokens
        if first is None or not self.allows(self._vocabulary.ends[:1]).any():
            return False
        return not self.allows(first).any()

    def close(self) -> None:
        """Free llama.cpp's sampler; closing twice is harmless."""
        if self._handle:
            llama().llama_sampler_free(self._handle)
            self._handle = None


def _read(source: str, unquoted: str, vocabulary: Vocabulary) -> Any:
    """llama.cpp's sampler for a grammar."""
    if not source.strip():
        raise UserError("the grammar is empty, which would allow every text; write a rule root, or leave it out")
    _check_repetitions(unquoted)
    try:
        data = source.encode("utf-8")
    except UnicodeEncodeError as error:
        raise UserError(f"the grammar holds a lone surrogate at character {error.start}; remove it") from error
    if b"\0" in data:
        raise UserError(f"the grammar holds a null character at byte {data.index(0)}; write it as \\x00")
    last_errors()
    with printed_errors() as printed:
        sampler = llama().llama_sampler_init_grammar(vocabulary.handle, data, _ROOT)
    if not sampler:
        raise UserError(f"the grammar cannot be used, llama.cpp says: {_said(printed, source)}; correct it")
    return sampler


def _check_repetitions(unquoted: str) -> None:
    """Refuse what llama.cpp reads without end, or as no bound."""
    for found in _REPETITION.finditer(unquoted):
        low, high = int(found[1]), int(found[2] or found[1])
        if high < low or high > MOST_REPEATED:
            raise UserError(
                f"the grammar repeats {found[0]}; the second number must be at least the first and at most "
                f"{MOST_REPEATED}"
            )


def _said(printed: list[str], source: str) -> str:
    """What llama.cpp said, on one line."""
    logged = last_errors()
    reason = "".join(printed).partition("error parsing grammar:")[2].removesuffix(f"\n\n{source}\n")
    line = " ".join((reason or logged).split())
    return line if len(line) <= 160 else line[:157] + "..."
