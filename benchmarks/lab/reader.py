"""Asks one model, and says what that took.

Invariant: labels' log-probabilities are those of the engine, unchanged.
Leaves out: what is asked.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import UserError
from promptsearch.lm.base import Rendered
from promptsearch.lm.llamacpp.conversion import convert, read_source
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.hashes import file_hash
from promptsearch.lm.llamacpp.opening import check_file
from promptsearch.lm.resolve import PACKAGED, OpenedModel, open_engine, packaged_model

__all__ = ["Models", "Reader", "quantized"]

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
        scores = self._long(prompts, [f" {text}" for text in texts])
        return np.asarray(scores.T)

    def passages(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each text at the beginning of a document, shape (texts,)."""
        return np.asarray(self._long(["\n"], texts)[0])

    def _long(self, prompts: Sequence[str], continuations: Sequence[str]) -> NDArray[np.float64]:
        """Log-probability of each long continuation after each prompt, shape (prompts, continuations)."""
        starts = range(0, len(continuations), _TEXTS_A_CALL)
        parts = [self.engine.score(prompts, continuations[start : start + _TEXTS_A_CALL]) for start in starts]
        return np.concatenate(parts, axis=1)


class Models:
    """The models by the names that results are kept under; one of them is open besides the first.

    A name with ``@`` is the first model with its weights quantized to another type, such as ``smollm2-135m@Q4_0``.
    What is left of the weights is then expanded to F16, so that quantizations differ by nothing else; the models
    themselves run with the weights that suit the processor.

    Args:
        main: path of the first model's GGUF file; None for the packaged one.
        others: paths of further ones.

    Raises:
        UserError: two of them are called alike or are the same file, or a name that results cannot be kept under.
        ModelError: one of them is no GGUF file.
    """

    def __init__(self, main: str | None, others: Sequence[str]) -> None:
        self._paths: dict[str, Path] = {}
        self._specs: dict[str, Path | None] = {}
        hashes: dict[str, str] = {}
        for spec in (main, *others):
            name, path = _named(spec)
            if name in self._paths or set("@|") & set(name):
                raise UserError(f"a model is called {name!r}; give files of different names, without @ and |")
            check_file(path)
            digest = file_hash(path)
            if digest in hashes:
                raise UserError(f"{name} and {hashes[digest]} are the same file; give each model once")
            self._paths[name], hashes[digest] = path, name
            self._specs[name] = None if spec is None or spec.lower() == PACKAGED else path
        self.main = next(iter(self._paths))
        self._first: Reader | None = None
        self._other: tuple[str, Reader] | None = None
        self._folder = tempfile.TemporaryDirectory(prefix="laboratory-")

    @property
    def names(self) -> tuple[str, ...]:
        """The models given, the first one first."""
        return tuple(self._paths)

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

    def facts(self, name: str) -> dict[str, Any]:
        """What is known of one of the files without asking it."""
        path = self._paths[name]
        return {"sha256": file_hash(path), "parameters": read_source(path).parameters}

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

    def _source(self, name: str) -> tuple[str, str]:
        """What to open, and with which weights."""
        base, _, kind = name.partition("@")
        if not kind:
            return os.fspath(self._paths[name]), "auto"
        folder = Path(self._folder.name)
        small, target = folder / f"{kind}.small.gguf", folder / f"{kind}.gguf"
        convert(self._paths[base], small, kind)
        convert(small, target, _RUN_AS)
        small.unlink()
        return os.fspath(target), "as-is"


def quantized(model: str, kind: str) -> str:
    """The name of a model with its weights quantized to a type."""
    return f"{model}@{kind}"


def _named(spec: str | None) -> tuple[str, Path]:
    """Name and file of a model as it is given."""
    if spec is None or spec.lower() == PACKAGED:
        return PACKAGED, packaged_model()
    path = Path(spec).expanduser()
    return path.stem, path
