"""An encoder in a process of its own, spoken to over two pipes.

Started as a plain subprocess: multiprocessing's spawn would run the user's script a second time wherever it
lacks a ``__main__`` guard. A message is its length (8 bytes, little endian) and its bytes: JSON, and numbers
as raw float32 or int64. Nothing is unpickled.
Invariant: after any failure in the middle of an exchange the child is ended, so no later answer can be
mistaken for the answer to another question.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from promptsearch import errors
from promptsearch.embed.base import Encoder
from promptsearch.errors import BackendError, PromptsearchError

__all__ = ["ChildEncoder", "serve"]

_START = (
    "import sys; from promptsearch.embed.child import serve; serve(sys.argv[1], trusted=sys.argv[2] == 'trusted')"
)
_LENGTH = struct.Struct("<Q")


_TYPES = {"encode": "<f4", "token_vectors": "<f4", "token_ids": "<i8"}
"""What the child can be asked, and the type of the numbers that it answers with."""


@dataclass(frozen=True)
class _Answer:
    """One row for each text, or for each token of the texts: then ``tokens`` counts those of each text."""

    numbers: NDArray[Any]
    tokens: list[int] | None

    def by_text(self) -> list[NDArray[Any]]:
        assert self.tokens is not None
        ends = np.cumsum(self.tokens, dtype=np.int64)
        return [self.numbers[end - count : end] for end, count in zip(ends, self.tokens, strict=True)]


class ChildEncoder:
    """Encodes in a child process, which is started here and ends with this object.

    Not safe to share between threads.

    Args:
        model: the model's name as the parent checked it.
        trusted: whether a person gave the name.

    Raises:
        PromptsearchError: whatever loading the model raised in the child.
    """

    def __init__(self, model: str, trusted: bool = True) -> None:
        self._arguments = [model, "trusted" if trusted else "untrusted"]
        self._end: weakref.finalize[[subprocess.Popen[bytes], IO[bytes]], ChildEncoder] | None = None
        self._start()
        try:
            self.dimension: int = self._exchange("encode", []).numbers.shape[1]
        except BaseException:
            self.close()
            raise

    def encode(self, texts: Sequence[str], /) -> NDArray[np.float32]:
        """Unit vectors of well-formed ``texts``, shape (len(texts), d), float32.

        Raises:
            PromptsearchError: whatever the encoder raised in the child; BackendError where the child died.
        """
        return self._exchange("encode", texts).numbers

    def token_ids(self, texts: Sequence[str], /) -> list[NDArray[np.int64]]:
        """Vocabulary places of the tokens of well-formed ``texts``, each of shape (t,), int64.

        Raises:
            PromptsearchError: whatever the encoder raised in the child; BackendError where the child died.
        """
        return self._exchange("token_ids", texts).by_text()

    def token_vectors(self, texts: Sequence[str], /) -> list[NDArray[np.float32]]:
        """Unit vectors of the tokens of well-formed ``texts``, each of shape (t, d), float32.

        Raises:
            PromptsearchError: whatever the encoder raised in the child; BackendError where the child died.
        """
        return self._exchange("token_vectors", texts).by_text()

    def close(self) -> None:
        """Ends the child."""
        if self._end is not None:
            self._end()
            self._end = None

    def _start(self) -> None:
        environment = dict(os.environ)
        # The child must find this very package, installed or not.
        here = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [here, environment.get("PYTHONPATH")]))
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  closed by _end_child
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *self._arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
            start_new_session=True,  # the parent alone decides what an interrupt from the keyboard means
        )
        self._end = weakref.finalize(self, _end_child, self._process, self._stderr)

    def _exchange(self, method: str, texts: Sequence[str]) -> _Answer:
        if self._end is None:
            self._start()
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            _write(self._process.stdin, json.dumps({"method": method, "texts": list(texts)}).encode("ascii"))
            header = json.loads(_read(self._process.stdout))
            content = b"" if "error" in header else _read(self._process.stdout)
        except BaseException as error:
            last_words = self._last_words()
            self._process.kill()
            self.close()
            if isinstance(error, (OSError, EOFError, ValueError)):
                raise BackendError(f"the encoder's process ended early: {last_words}") from error
            raise
        if "error" in header:
            raise _same_error(header["error"], header["message"])
        numbers = np.frombuffer(content, dtype=header["type"]).reshape(header["shape"])
        return _Answer(numbers.astype(numbers.dtype.newbyteorder("=")), header["tokens"])

    def _last_words(self) -> str:
        # The child's own position in this file is its end; reading moves it, and nothing is written after.
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it left no message"


def _end_child(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """Closing its standard input is what asks the child to end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stderr.close()


def _same_error(name: str, message: str) -> PromptsearchError:
    kind = getattr(errors, name, BackendError)
    return kind(message) if issubclass(kind, PromptsearchError) else BackendError(message)


def serve(model: str, *, trusted: bool) -> None:
    """The child's whole life: answers until its standard input ends.

    Args:
        model: a model's name as ``TransformerEncoder`` checked it.
        trusted: whether a person gave the name.
    """
    from promptsearch.embed.transformer import TransformerEncoder

    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # a library that prints must not print into the answers
    encoder = TransformerEncoder(model, in_child_process=False, trusted=trusted)
    while True:
        try:
            asked = json.loads(_read(requests))
        except EOFError:
            return
        _answer(answers, encoder, asked["method"], asked["texts"])


def _answer(answers: IO[bytes], encoder: Encoder, method: str, texts: list[str]) -> None:
    kind = _TYPES[method]
    try:
        answer = getattr(encoder, method)(texts)
    except PromptsearchError as error:
        _write(answers, json.dumps({"error": type(error).__name__, "message": str(error)}).encode("ascii"))
        return
    tokens = None if method == "encode" else [len(each) for each in answer]
    numbers = answer if tokens is None else np.concatenate(answer or [np.empty(0)])
    _write(answers, json.dumps({"shape": numbers.shape, "type": kind, "tokens": tokens}).encode("ascii"))
    _write(answers, np.ascontiguousarray(numbers, dtype=kind).tobytes())


def _write(stream: IO[bytes], content: bytes) -> None:
    stream.write(_LENGTH.pack(len(content)))
    stream.write(content)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    (length,) = _LENGTH.unpack(_exactly(stream, _LENGTH.size))
    return _exactly(stream, length)


def _exactly(stream: IO[bytes], count: int) -> bytes:
    content = stream.read(count)
    if len(content) < count:
        raise EOFError("the other process closed its end")
    return content
