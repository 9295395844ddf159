"""Runs scheduled batches on a llama.cpp context.

Invariant: what the memory holds is decided by the schedule alone; :meth:`Context.clear` makes the next
schedule start from nothing, so that the same call gives the same numbers whatever ran before.
Leaves out: text, labels, and which batch to run.
"""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, c_int8, c_int32, cast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import BackendError, ModelError
from promptsearch.lm.llamacpp.library import last_errors, llama
from promptsearch.lm.plan import Row

__all__ = ["Context"]


class Context:
    """A context with room for ``cells`` tokens of up to ``sequences`` sequences.

    Args:
        model: handle of the loaded model.
        cells: tokens that the memory holds.
        batch: tokens of the largest batch.
        sequences: sequence ids, 256 at most.
        threads: processor threads.
    """

    def __init__(self, model: Any, *, cells: int, batch: int, sequences: int, threads: int) -> None:
        library = llama()
        params = library.llama_context_default_params()
        params.n_ctx = cells
        params.n_batch = batch
        params.n_ubatch = min(batch, 512)
        params.n_seq_max = sequences
        params.n_outputs_max_per_seq = 0
        params.n_threads = threads
        params.n_threads_batch = threads
        params.kv_unified = True  # forks share cells instead of copying them
        self._handle = library.llama_init_from_model(model, params)
        if not self._handle:
            raise ModelError(f"no context of {cells} tokens can be made for this model: {last_errors()}")
        self._memory = library.llama_get_memory(self._handle)
        self._vocabulary_size = int(library.llama_vocab_n_tokens(library.llama_model_get_vocab(model)))
        self.cells = int(library.llama_n_ctx(self._handle))
        self.tokens_decoded = 0
        self._make_buffers(batch, sequences)

    def _make_buffers(self, batch: int, sequences: int) -> None:
        """Arrays that the batch points into, filled through numpy."""
        self._tokens = np.zeros(batch, dtype=np.int32)
        self._positions = np.zeros(batch, dtype=np.int32)
        self._counts = np.zeros(batch, dtype=np.int32)
        self._sequences = np.zeros((batch, sequences), dtype=np.int32)
        self._outputs = np.zeros(batch, dtype=np.int8)
        self._rows = (POINTER(c_int32) * batch)()
        for index in range(batch):
            self._rows[index] = cast(self._sequences[index].ctypes.data, POINTER(c_int32))
        self._batch = llama().llama_batch()
        self._batch.token = cast(self._tokens.ctypes.data, POINTER(c_int32))
        self._batch.pos = cast(self._positions.ctypes.data, POINTER(c_int32))
        self._batch.n_seq_id = cast(self._counts.ctypes.data, POINTER(c_int32))
        self._batch.seq_id = cast(self._rows, POINTER(POINTER(c_int32)))
        self._batch.logits = cast(self._outputs.ctypes.data, POINTER(c_int8))

    def clear(self) -> None:
        """Forget all sequences."""
        llama().llama_memory_clear(self._memory, False)

    def fork(self, source: int, targets: Sequence[int]) -> None:
        """Make each target sequence continue what ``source`` holds."""
        for target in targets:
            llama().llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def fork_start(self, source: int, targets: Sequence[int], length: int) -> None:
        """Make each target sequence, empty so far, hold the first ``length`` tokens of ``source``."""
        for target in targets:
            llama().llama_memory_seq_cp(self._memory, source, target, 0, length)

    def cut(self, sequence: int, length: int) -> None:
        """Make a sequence forget what follows its first ``length`` tokens."""
        if not llama().llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise BackendError("this kind of model cannot forget the end of a text, which batches need")

    def drop(self, sequences: Sequence[int]) -> None:
        """Forget some sequences."""
        for sequence in sequences:
            llama().llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def decode(self, rows: Sequence[Row], outputs: Sequence[int]) -> NDArray[np.float32]:
        """Run a batch.

        Args:
            rows: the tokens, with position and sequences.
            outputs: ascending row numbers whose predictions are wanted.

        Returns:
            Logits of shape (number of outputs, vocabulary), valid until the next call.
        """
        count = len(rows)
        self._batch.n_tokens = count
        self._tokens[:count] = [row.token for row in rows]
        self._positions[:count] = [row.position for row in rows]
        self._counts[:count] = [len(row.sequences) for row in rows]
        for index, row in enumerate(rows):
            self._sequences[index, : len(row.sequences)] = row.sequences
        self._outputs[:count] = 0
        self._outputs[list(outputs)] = 1
        self._run()
        self.tokens_decoded += count
        return self._logits(len(outputs))

    def _run(self) -> None:
        status = llama().llama_decode(self._handle, self._batch)
        if status == 1:
            raise BackendError(f"the model's memory of {self.cells} tokens is full; use a smaller batch")
        if status != 0:
            raise BackendError(f"llama.cpp failed to run a batch (code {status}): {last_errors()}")

    def _logits(self, count: int) -> NDArray[np.float32]:
        if count == 0:
            return np.empty((0, self._vocabulary_size), dtype=np.float32)
        pointer = llama().llama_get_logits(self._handle)
        logits = np.ctypeslib.as_array(pointer, shape=(count, self._vocabulary_size))
        if not np.isfinite(logits[:, 0]).all():
            raise BackendError("the model answered with values that are no numbers; its file may be damaged")
        return logits

    def close(self) -> None:
        """Free the context."""
        if self._handle:
            llama().llama_free(self._handle)
            self._handle = None
