"""The language model protocol on llama.cpp, planned so that shared tokens are decoded once.

Invariant: a call's numbers depend on its arguments, the weights and the machine, never on earlier calls.
One engine belongs to one process; calls from several threads run one after another.
Leaves out: chat templates (text arrives rendered) and everything about tasks.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import BackendError, ContextError, DataError
from promptsearch.lm.base import Completion, FloatArray, GenerationParams, segments_of
from promptsearch.lm.llamacpp.batching import generate_batched
from promptsearch.lm.llamacpp.busy import BusyMeter
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import PROCESSOR, check_file, open_model, open_on_device
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.llamacpp.sequences import affordable_sequences
from promptsearch.lm.llamacpp.traits import read_traits
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import Decode, Fork, Limits, Operation, Tail, label_tail, plan
from promptsearch.lm.plan_singly import plan_singly

__all__ = ["LlamaEngine", "check_file", "open_model", "usable_cores"]

_logger = logging.getLogger("promptsearch.llamacpp")

_CELLS = 8192  # enough for a prompt of many demonstrations and a batch beside it
_BATCH = 512  # the fastest on processors: larger batches attend to more foreign cells
_LARGEST_BATCH = 2048
_SEQUENCES = 256  # llama.cpp's own limit


class LlamaEngine:
    """A GGUF model in this process.

    Args:
        path: the file whose weights run.
        name: what a person calls the model.
        fingerprint: identity of model and weights.
        threads: processor threads; None for one each core that this process may use.
    """

    def __init__(self, path: Path, *, name: str, fingerprint: str, threads: int | None = None) -> None:
        self._model, self._device = open_on_device(path)
        self._name = name
        self._fingerprint = fingerprint
        self._lock = threading.RLock()
        self.vocabulary = Vocabulary(self._model)
        self.traits = read_traits(self._model)
        _logger.info("%s is %s", name, self.traits.description)
        trained = int(llama().llama_model_n_ctx_train(self._model))
        threads = threads or usable_cores()
        self._meter = BusyMeter(threads)
        self._context = Context(
            self._model,
            cells=min(trained, _CELLS) + _BATCH,
            batch=_LARGEST_BATCH,
            sequences=affordable_sequences(self._model, self.traits, most=_SEQUENCES),
            threads=threads,
            meter=self._meter if self._device == PROCESSOR else None,
        )
        self._context_tokens = min(trained, _CELLS)
        self._release = weakref.finalize(self, _free, self._context, self._model)

    def __deepcopy__(self, memo: dict[int, object]) -> LlamaEngine:
        return self

    def __enter__(self) -> LlamaEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def closed(self) -> bool:
        """Whether :meth:`close` was called."""
        return self._model is None

    @property
    def name(self) -> str:
        """What a person calls the model."""
        return self._name

    @property
    def fingerprint(self) -> str:
        """Identity of model file, weight type and llama.cpp binding."""
        return self._fingerprint

    @property
    def device(self) -> str:
        """What runs the model: ``"cpu"``, or the name of an accelerator."""
        return self._device

    @property
    def processor_share(self) -> float:
        """Share of its threads' time that the model got lately, in [0, 1]; 1.0 before there was enough to tell."""
        return self._meter.share

    @property
    def context_tokens(self) -> int:
        """Tokens that a prompt and its answer may take together."""
        return self._context_tokens

    @property
    def chat_template(self) -> str | None:
        """The chat template in the file's metadata."""
        with self._lock:
            self._require_open()
            raw: bytes | None = llama().llama_model_chat_template(self._model, None)
        return None if raw is None else raw.decode("utf-8", errors="replace")

    @property
    def text_marks(self) -> tuple[str, str]:
        """The beginning-of-text and end-of-text tokens, as the chat template writes them."""
        return self.vocabulary.bos_text, self.vocabulary.eos_text

    @property
    def tokens_decoded(self) -> int:
        """Tokens run through the model since it was opened."""
        return self._context.tokens_decoded

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Number of tokens of each prompt."""
        with self._lock:
            self._require_open()
            return [len(self.vocabulary.tokenize(segments_of(prompt))) for prompt in prompts]

    def check_continuations(self, continuations: Sequence[str]) -> None:
        """Refuse answers that cannot be told apart.

        Raises:
            DataError: an answer of no tokens, or two with the same tokens.
        """
        self._labels(continuations)

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Natural log-probability of each continuation after each prompt, shape (prompts, continuations)."""
        with self._lock:
            self._require_open()
            labels = self._labels(continuations)
            paths = self._paths(prompts, room=max(map(len, labels), default=0))
            scores = np.zeros((len(prompts), len(labels)))
            longest = max(map(len, paths), default=0)
            for group in _label_groups(labels, min(_LARGEST_BATCH - 1, self._context.cells - longest)):
                scores[:, group] = self._score_labels(paths, [labels[index] for index in group])
            return scores

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order; many run at once."""
        with self._lock:
            self._require_open()
            paths = self._paths(prompts, room=params.max_tokens)
            self._context.clear()
            return generate_batched(self._context, self.vocabulary, paths, params)

    def close(self) -> None:
        """Free context and weights; closing twice is harmless."""
        with self._lock:
            self._release()
            self._model = None

    def _require_open(self) -> None:
        if self._model is None:
            raise BackendError(f"the model {self._name!r} has been closed; open it again")

    def _labels(self, continuations: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokens of each answer, none empty and no two equal."""
        seen: dict[tuple[int, ...], str] = {}
        with self._lock:
            self._require_open()
            for text in continuations:
                tokens = self.vocabulary.tokenize_continuation(text)
                if not tokens:
                    raise DataError(f"the label {text.strip()!r} has no tokens for this model; give it a word")
                if tokens in seen:
                    raise DataError(
                        f"the labels {seen[tokens].strip()!r} and {text.strip()!r} are the same tokens for "
                        "this model; give them different words with labels={value: word}"
                    )
                seen[tokens] = text
        return list(seen)

    def _paths(self, prompts: Sequence[str], room: int) -> list[tuple[int, ...]]:
        """Tokens of each prompt, all of which fit together with ``room`` tokens of answer."""
        paths = [self.vocabulary.tokenize(segments_of(prompt)) for prompt in prompts]
        for prompt, path in zip(prompts, paths, strict=True):
            if not path:
                raise DataError("an empty prompt cannot be continued; give it at least one character")
            if len(path) + room > self._context_tokens:
                raise ContextError(
                    f"a prompt of {len(path)} tokens and an answer of {room} do not fit the model's "
                    f"{self._context_tokens} tokens; shorten it (it begins {str(prompt)[:40]!r})"
                )
        return paths

    def _score_labels(self, paths: Sequence[tuple[int, ...]], labels: Sequence[tuple[int, ...]]) -> FloatArray:
        tail, label_paths = label_tail(labels)
        wanted = _wanted_by_node(labels, label_paths)
        scores = np.zeros((len(paths), len(labels)))
        self._context.clear()
        for operation in self._plan(paths, tail):
            if isinstance(operation, Fork):
                self._context.fork(operation.source, operation.targets)
            elif isinstance(operation, Decode):
                reads = operation.reads
                logits = self._context.decode(operation.rows, [read.row for read in reads])
                normalizers = log_normalizers(logits)
                for index, read in enumerate(reads):
                    columns, tokens = wanted[read.node]
                    scores[read.prompt, columns] += logits[index, tokens] - normalizers[index]
            else:
                self._context.drop(operation.sequences)
        return _spread_duplicates(scores, paths)

    def _plan(self, paths: Sequence[tuple[int, ...]], tail: Tail) -> Iterator[Operation]:
        """Schedule prompts in the way that the model's memory allows."""
        batch = max(_BATCH, len(tail.tokens) + 1)
        limits = Limits(batch=batch, sequences=self._context.sequences, cells=self._context.cells)
        return plan(paths, tail, limits) if self.traits.shares_tokens else plan_singly(paths, tail, limits)


def _free(context: Context, model: Any) -> None:
    """Give native memory back, once, when an engine is closed or forgotten."""
    context.close()
    llama().llama_model_free(model)


def log_normalizers(logits: NDArray[np.float32]) -> FloatArray:
    """Logarithm of the sum of exponentials of each row, shape (rows,)."""
    peaks = logits.max(axis=1, keepdims=True)
    return np.asarray(np.log(np.exp(logits - peaks).sum(axis=1)) + peaks[:, 0], dtype=np.float64)


def _wanted_by_node(
    labels: Sequence[tuple[int, ...]], label_paths: Sequence[tuple[int, ...]]
) -> dict[int, tuple[list[int], list[int]]]:
    """For each tail node, the labels that pass it and the token that each continues with."""
    wanted: dict[int, tuple[list[int], list[int]]] = {}
    for column, (label, nodes) in enumerate(zip(labels, label_paths, strict=True)):
        for token, node in zip(label, nodes, strict=True):
            columns, tokens = wanted.setdefault(node, ([], []))
            columns.append(column)
            tokens.append(token)
    return wanted


def _label_groups(labels: Sequence[tuple[int, ...]], room: int) -> list[list[int]]:
    """Split a label set whose tree would exceed ``room`` tokens, or half of the sequences."""
    if any(len(label) > room for label in labels):
        raise DataError(f"a label of over {room} tokens cannot be scored; shorten the label")
    groups: list[list[int]] = []
    nodes = branches = 0
    for index, label in enumerate(labels):
        full = nodes + len(label) - 1 > room or branches + (len(label) > 1) > _SEQUENCES // 2
        if full or not groups:
            groups.append([])
            nodes = branches = 0
        groups[-1].append(index)
        nodes += len(label) - 1
        branches += len(label) > 1
    return groups


def _spread_duplicates(scores: FloatArray, paths: Sequence[tuple[int, ...]]) -> FloatArray:
    """Give prompts with equal tokens the scores of the first of them."""
    first: dict[tuple[int, ...], int] = {}
    owners = [first.setdefault(path, index) for index, path in enumerate(paths)]
    return np.asarray(scores[owners])
