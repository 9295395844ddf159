"""Asks one model, and says what that took.

Invariant: labels' log-probabilities are those of the engine, unchanged.
Leaves out: what is asked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.base import Rendered
from promptsearch.lm.llamacpp.conversion import convert, read_source
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.hashes import file_hash
from promptsearch.lm.resolve import PACKAGED, OpenedModel, open_engine, packaged_model

__all__ = ["Models", "Reader", "rounded"]

_TEXTS_A_CALL = 16  # of long continuations: all their logits are in memory together
_RUN_AS = "F16"  # holds what a smaller type says, and runs fast everywhere


class Reader:
    """One open model.

    Args:
        opened: the model.
    """

    def __init__(self, opened: OpenedModel) -> None:
        self.opened = opened
        self.engine = opened.engine

    @property
    def tokens(self) -> int:
        """Tokens run so far."""
        return self.engine.tokens_decoded

    def forget(self) -> None:
        """Drop what earlier questions left in memory, where the model keeps any."""
        if isinstance(self.engine, LlamaEngine):
            self.engine.forget()

    def labels(self, prompts: Sequence[Rendered], labels: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each label after each prompt, shape (prompts, labels)."""
        return self.engine.score(prompts, [f" {label}" for label in labels])

    def channel(self, prompts: Sequence[Rendered], texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each text after the prompt of each label, shape (texts, labels)."""
        parts = [
            self.engine.score(prompts, [f" {text}" for text in texts[start : start + _TEXTS_A_CALL]])
            for start in range(0, len(texts), _TEXTS_A_CALL)
        ]
        return np.concatenate(parts, axis=1).T

    def passages(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each text at the beginning of a document, shape (texts,)."""
        parts = [
            self.engine.score(["\n"], texts[start : start + _TEXTS_A_CALL])[0]
            for start in range(0, len(texts), _TEXTS_A_CALL)
        ]
        return np.concatenate(parts)


class Models:
    """The models by the names that results are kept under; one of them is open besides the first.

    A name with ``@`` is the first model with its weights rounded to another type, such as ``smollm2-135m@Q4_0``. What
    is left of the weights is then expanded, so that only the rounding differs and not the kernels that run it.

    Args:
        main: the first model, as ``promptsearch.open_engine`` takes it; a GGUF file.
        others: paths of further GGUF files.
    """

    def __init__(self, main: str | None, others: Sequence[str]) -> None:
        self.main = PACKAGED if main is None else _name(main)
        self._specs: dict[str, str | None] = {self.main: main, **{_name(each): each for each in others}}
        self._first: Reader | None = None
        self._other: tuple[str, Reader] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="laboratory-")

    @property
    def names(self) -> tuple[str, ...]:
        """The models given, the first one first."""
        return tuple(self._specs)

    def reader(self, name: str) -> Reader:
        """A model, opened where it is not open."""
        if name == self.main:
            if self._first is None:
                self._first = Reader(open_engine(self._specs[name]))
            return self._first
        if self._other is None or self._other[0] != name:
            self._close_other()
            self._other = name, Reader(open_engine(*self._source(name)))
        return self._other[1]

    def facts(self, name: str) -> dict[str, object]:
        """What is known of a file without asking it: hash, size, number of weights."""
        path = self._path(name.partition("@")[0])
        facts: dict[str, object] = {"sha256": file_hash(path), "parameters": read_source(path).parameters}
        return {**facts, "rounded_to": name.partition("@")[2]} if "@" in name else facts

    def close(self) -> None:
        """Delete what was made."""
        self._close_other()
        self._folder.cleanup()

    def _close_other(self) -> None:
        if self._other is not None:
            self._other[1].engine.close()
            self._other = None
            for path in Path(self._folder.name).iterdir():
                path.unlink()

    def _path(self, name: str) -> Path:
        spec = self._specs[name]
        return packaged_model() if spec is None or spec.lower() == PACKAGED else Path(spec).expanduser()

    def _source(self, name: str) -> tuple[str, str]:
        """What to open, and with which weights."""
        base, _, kind = name.partition("@")
        if not kind:
            return os.fspath(self._path(name)), "auto"
        folder = Path(self._folder.name)
        small, target = folder / f"{kind}.small.gguf", folder / f"{kind}.gguf"
        convert(self._path(base), small, kind)
        convert(small, target, _RUN_AS)
        small.unlink()
        return os.fspath(target), "as-is"


def rounded(model: str, kind: str) -> str:
    """The name of a model with its weights rounded to a type."""
    return f"{model}@{kind}"


def _name(spec: str) -> str:
    return PACKAGED if spec.lower() == PACKAGED else Path(spec).stem
