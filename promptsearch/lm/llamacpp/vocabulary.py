"""Text to tokens and back, with control tokens only where the template wrote them.

Invariant: a control token's string inside data becomes ordinary tokens, never the control token; neighbouring
pieces of ordinary text are tokenized as one run, so that no seam shows where a template meets data. A text that
follows a prompt has the tokens that it has inside that prompt, wherever none of these reaches over the border.
"""

from __future__ import annotations

import re
from ctypes import c_int32, create_string_buffer
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import DataError
from promptsearch.lm.base import Segment
from promptsearch.lm.llamacpp.library import llama

__all__ = ["Vocabulary"]

_BEFORE = ("\n", ".", "a")  # a text is tokenized behind the first of these that none of its tokens reaches into


class Vocabulary:
    """The tokenizer inside a model file.

    Attributes:
        handle: the library's own pointer.
        size: number of tokens.
    """

    def __init__(self, model: Any) -> None:
        library = llama()
        self.handle = library.llama_model_get_vocab(model)
        self.size = int(library.llama_vocab_n_tokens(self.handle))
        self._bos = int(library.llama_vocab_bos(self.handle))
        self._adds_bos = bool(library.llama_vocab_get_add_bos(self.handle))

    def tokenize(self, segments: tuple[Segment, ...]) -> tuple[int, ...]:
        """Tokens of a prompt, with the model's beginning-of-text token where it wants one."""
        tokens: list[int] = []
        run = ""
        for segment in segments:
            if not segment.control:
                run += segment.text
                continue
            for part in self._split_at_controls(segment.text):
                control = self._controls.get(part)
                if control is None:
                    run += part
                else:
                    tokens += [*self._tokenize_run(run), control]
                    run = ""
        tokens += self._tokenize_run(run)
        if self._adds_bos and tokens[:1] != [self._bos]:
            tokens.insert(0, self._bos)
        return tuple(tokens)

    def tokenize_continuation(self, text: str, begins_run: bool = False) -> tuple[int, ...]:
        """Tokens of a text that follows a prompt directly.

        Args:
            text: the text.
            begins_run: what :meth:`begins_run` says of the prompt.
        """
        if begins_run or not self._adds_space:
            return tuple(self._tokenize_run(text))
        for before in _BEFORE:
            first, both = self._tokenize_run(before), self._tokenize_run(before + text)
            if both[: len(first)] == first:
                return tuple(both[len(first) :])
        return tuple(self._tokenize_run(text))

    def begins_run(self, segments: tuple[Segment, ...]) -> bool:
        """Whether a space is put before what follows a prompt: the prompt ends with a control token."""
        if not self._adds_space:
            return False
        last = next((segment for segment in reversed(segments) if segment.text), Segment(""))
        return last.control and not self._split_at_controls(last.text)[-1]

    def piece(self, token: int) -> bytes:
        """The bytes that a token stands for; nothing for control tokens."""
        buffer = create_string_buffer(64)
        length = llama().llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, False)
        if length < 0:
            buffer = create_string_buffer(-length)
            length = llama().llama_token_to_piece(self.handle, token, buffer, len(buffer), 0, False)
        return buffer.raw[:length]

    def ends_text(self, token: int) -> bool:
        """Whether the model says with this token that it is done."""
        return bool(llama().llama_vocab_is_eog(self.handle, token))

    @cached_property
    def _adds_space(self) -> bool:
        """Whether a space is put before every run of text, as sentencepiece does unless a model forbids it."""
        return b"".join(self.piece(token) for token in self._tokenize_run("a")).startswith(b" ")

    @cached_property
    def ends(self) -> NDArray[np.intp]:
        """The tokens that end a text."""
        return np.flatnonzero([self.ends_text(token) for token in range(self.size)])

    @cached_property
    def silent(self) -> NDArray[np.bool_]:
        """Whether each token stands for no bytes and yet ends no text, shape (size,)."""
        silent = np.array([not piece for piece in self._pieces])
        silent[self.ends] = False
        return silent

    @cached_property
    def byte_tokens(self) -> NDArray[np.intp] | None:
        """A token for each byte that a token begins with; None where the vocabulary lacks one."""
        tokens = {piece: token for token, piece in enumerate(self._pieces) if len(piece) == 1}
        starts = {piece[:1] for piece in self._pieces if piece}
        return np.array([tokens[byte] for byte in sorted(starts)]) if starts <= tokens.keys() else None

    @cached_property
    def _pieces(self) -> list[bytes]:
        return [self.piece(token) for token in range(self.size)]

    @property
    def bos_text(self) -> str:
        """The beginning-of-text token as templates write it."""
        return self._text(self._bos)

    @property
    def eos_text(self) -> str:
        """The end-of-text token as templates write it."""
        return self._text(int(llama().llama_vocab_eos(self.handle)))

    def _text(self, token: int) -> str:
        if token < 0:
            return ""
        raw: bytes | None = llama().llama_vocab_get_text(self.handle, token)
        return "" if raw is None else raw.decode("utf-8", errors="replace")

    @cached_property
    def _controls(self) -> dict[str, int]:
        """Text of each control token."""
        library = llama()
        found = {}
        for token in range(self.size):
            if library.llama_vocab_is_control(self.handle, token):
                found[self._text(token)] = token
        found.pop("", None)
        return found

    @cached_property
    def _control_pattern(self) -> re.Pattern[str] | None:
        longest_first = sorted(self._controls, key=len, reverse=True)
        return re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None

    def _split_at_controls(self, text: str) -> list[str]:
        return [text] if self._control_pattern is None else self._control_pattern.split(text)

    def _tokenize_run(self, text: str) -> list[int]:
        if not text:
            return []
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"the text {text[error.start : error.start + 20]!r} holds a lone surrogate, which is no "
                "character; clean the text before it is used"
            ) from error
        room = len(data) + 16
        buffer = (c_int32 * room)()
        count = llama().llama_tokenize(self.handle, data, len(data), buffer, room, False, False)
        if count < 0:
            buffer = (c_int32 * -count)()
            count = llama().llama_tokenize(self.handle, data, len(data), buffer, -count, False, False)
        return list(buffer[:count])
