"""Runs scheduled batches on a llama.cpp context.

Invariant: what the memory holds is decided by the schedule alone, cell by cell: a batch takes the lowest free cells,
whatever the context's size. :meth:`Context.clear` makes the next schedule start from nothing, so that the same call
gives the same numbers whatever ran before.
Leaves out: text, labels, and which batch to run.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from ctypes import POINTER, c_int8, c_int32, c_uint8, cast
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import BackendError, ModelError
from promptsearch.lm.llamacpp.busy import BusyMeter
from promptsearch.lm.llamacpp.library import last_errors, llama
from promptsearch.lm.plan import Row

__all__ = ["Context"]

_logger = logging.getLogger("promptsearch.llamacpp")
_AT_ONCE = 512
_FEWEST_CELLS = 1024
_CELL_STEP = 256  # llama.cpp's own
_NO_ROOM = 1  # llama_decode: no cells for this batch, and nothing has changed


class Context:
    """A context with room for up to ``cells`` tokens of up to ``sequences`` sequences.

    Memory is taken by the first call, as much as :meth:`clear` asks for, and grows by need.

    Args:
        model: handle of the loaded model.
        cells: tokens that the memory may ever hold.
        batch: tokens of the largest batch.
        sequences: sequence ids, 256 at most.
        threads: processor threads.
        unified: whether sequences share one memory, so that a fork marks cells and one row can belong to several;
            otherwise each has a memory of its own, and a fork copies it.
        meter: told how long each batch ran; None where a processor does not run the model.

    Attributes:
        at_once: tokens that llama.cpp runs at once; it cuts larger batches.
    """

    def __init__(
        self,
        model: Any,
        *,
        cells: int,
        batch: int,
        sequences: int,
        threads: int,
        unified: bool = True,
        meter: BusyMeter | None = None,
    ) -> None:
        self._model = model
        self._params = llama().llama_context_default_params()
        self._params.n_batch = batch
        self.at_once = self._params.n_ubatch = min(batch, _AT_ONCE)
        self._params.n_seq_max = sequences
        self._params.n_outputs_max_per_seq = 0
        self._params.n_threads = threads
        self._params.n_threads_batch = threads
        self._params.kv_unified = unified
        self._handle: Any = None
        self._memory: Any = None
        self._vocabulary_size = int(llama().llama_vocab_n_tokens(llama().llama_model_get_vocab(model)))
        self._meter = meter
        self.batch = batch
        self.cells = -(-cells // _CELL_STEP) * _CELL_STEP
        self.sequences = sequences
        self.reserved = 0
        self.tokens_decoded = 0
        self._make_buffers(batch, sequences)

    @property
    def room(self) -> int:
        """Tokens that a sequence with a memory of its own can hold."""
        return self.cells // self.sequences

    def clear(self, room: int | None = None) -> None:
        """Forget all sequences, and have memory for ``room`` tokens (None: as many as there may be)."""
        wanted = self.cells if room is None else min(room, self.cells)
        if wanted > self.reserved:
            self._grow(wanted)
        else:
            llama().llama_memory_clear(self._memory, False)

    def _grow(self, wanted: int) -> None:
        size = _FEWEST_CELLS
        while size < wanted:
            size *= 2
        self.close()
        self._params.n_ctx = min(size, self.cells)
        self._handle = llama().llama_init_from_model(self._model, self._params)
        if not self._handle:
            raise ModelError(f"no context of {self._params.n_ctx} tokens can be made for this model: {last_errors()}")
        self._memory = llama().llama_get_memory(self._handle)
        if not self._memory:
            self.close()
            raise ModelError("this model keeps no memory of its text, as encoders do; give a decoder model")
        self.reserved = int(llama().llama_n_ctx(self._handle))

    def _make_buffers(self, batch: int, sequences: int) -> None:
        """Arrays that the batch points into, filled through numpy."""
        self._tokens = np.zeros(batch, dtype=np.int32)
        self._positions = np.zeros(batch, dtype=np.int32)
        self._counts = np.zeros(batch, dtype=np.int32)
        self._sequences = np.zeros((batch, sequences), dtype=np.int32)
        self._outputs = np.zeros(batch, dtype=np.int8)
        start, step = self._sequences.ctypes.data, self._sequences.strides[0]
        self._rows = np.arange(batch, dtype=np.uintp) * np.uintp(step) + np.uintp(start)  # address of each row
        self._batch = llama().llama_batch()
        self._batch.token = cast(self._tokens.ctypes.data, POINTER(c_int32))
        self._batch.pos = cast(self._positions.ctypes.data, POINTER(c_int32))
        self._batch.n_seq_id = cast(self._counts.ctypes.data, POINTER(c_int32))
        self._batch.seq_id = cast(self._rows.ctypes.data, POINTER(POINTER(c_int32)))
        self._batch.logits = cast(self._outputs.ctypes.data, POINTER(c_int8))

    def fork(self, source: int, targets: Sequence[int]) -> None:
        """Make each target sequence continue what ``source`` holds."""
        for target in targets:
            llama().llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def cut(self, sequence: int, length: int) -> None:
        """Make a sequence forget what follows its first ``length`` tokens."""
        if not llama().llama_memory_seq_rm(self._memory, sequence, length, -1):
            raise BackendError("this kind of model cannot forget the end of a text, which batches need")

    def drop(self, sequences: Sequence[int]) -> None:
        """Forget some sequences."""
        for sequence in sequences:
            llama().llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def state_bytes(self, sequence: int) -> int:
        """Bytes that what a sequence holds takes."""
        return int(llama().llama_state_seq_get_size(self._handle, sequence))

    def state(self, sequence: int) -> bytes:
        """What the memory holds of a sequence, as llama.cpp writes it."""
        size = self.state_bytes(sequence)
        buffer = (c_uint8 * size)()
        written = int(llama().llama_state_seq_get_data(self._handle, buffer, size, sequence))
        if written != size:
            raise BackendError(f"llama.cpp wrote {written} of {size} bytes of a sequence: {last_errors()}")
        return bytes(buffer)

    def restore(self, sequence: int, state: bytes) -> None:
        """Put back what :meth:`state` gave; the sequence must be empty.

        Raises:
            BackendError: llama.cpp refuses it.
        """
        buffer = (c_uint8 * len(state)).from_buffer_copy(state)
        read = int(llama().llama_state_seq_set_data(self._handle, buffer, len(state), sequence))
        if read != len(state):
            raise BackendError(f"llama.cpp refused the kept state of a sequence: {last_errors()}")

    def decode(self, rows: Sequence[Row], outputs: Sequence[int]) -> NDArray[np.float32]:
        """Run a batch.

        Args:
            rows: the tokens, with position and sequences.
            outputs: ascending row numbers whose predictions are wanted.

        Returns:
            Logits of shape (number of outputs, vocabulary), valid until the next call.

        Raises:
            BackendError: the memory is full, or llama.cpp failed; the next :meth:`clear` recovers from either.
        """
        if not self.reserved:
            self.clear()
        self._fill(rows, outputs)
        status = self._run()
        if status == _NO_ROOM and len(rows) > 1 and self._params.kv_unified:  # others' pieces must not be cut
            return self._decode_halves(rows, outputs)
        if status == _NO_ROOM:
            raise BackendError(f"the model's memory of {self.reserved} tokens is full; use a smaller batch")
        if status != 0:
            raise BackendError(f"llama.cpp failed to run a batch (code {status}): {last_errors()}")
        self.tokens_decoded += len(rows)
        return self._logits(len(outputs))

    def decode_in_company(self, rows: Sequence[Row], outputs: Sequence[int], scratch: int) -> NDArray[np.float32]:
        """Run a batch of two rows at least, and of two predictions at least or none.

        On processors a row alone runs another kernel, which rounds in another way; and so does a prediction. A single
        row is joined by one of the empty sequence ``scratch``. Otherwise as :meth:`decode`.
        """
        if len(rows) > 1:
            if len(outputs) != 1:
                return self.decode(rows, outputs)
            later = max(1, outputs[0])
            both = self.decode(rows, [later - 1, later])
            return both[1:] if later == outputs[0] else both[:1]
        row, company = rows[0], Row(rows[0].token, 0, (scratch,))
        first = row.sequences[0] < scratch  # llama.cpp runs neighbouring sequences together in ascending order only
        logits = self.decode([row, company] if first else [company, row], [0, 1])
        self.drop([scratch])
        self.tokens_decoded -= 1
        return (logits[:1] if first else logits[1:]) if outputs else logits[:0]

    def _fill(self, rows: Sequence[Row], outputs: Sequence[int]) -> None:
        """Write a batch into the arrays that llama.cpp reads."""
        count = len(rows)
        self._batch.n_tokens = count
        self._tokens[:count] = [row.token for row in rows]
        self._positions[:count] = [row.position for row in rows]
        self._counts[:count] = [len(row.sequences) for row in rows]
        for index, row in enumerate(rows):
            self._sequences[index, : len(row.sequences)] = row.sequences
        self._outputs[:count] = 0
        self._outputs[list(outputs)] = 1

    def _run(self) -> int:
        """Run the batch that was filled in; llama.cpp's status."""
        wall, processor = time.perf_counter(), time.process_time()
        status = int(llama().llama_decode(self._handle, self._batch))
        if self._meter is not None:
            complaint = self._meter.add(time.perf_counter() - wall, time.process_time() - processor)
            if complaint is not None:
                _logger.warning("%s", complaint)
        return status

    def _decode_halves(self, rows: Sequence[Row], outputs: Sequence[int]) -> NDArray[np.float32]:
        """Run a batch in two parts, where the memory found no room for it as a whole."""
        middle = len(rows) // 2
        first = [row for row in outputs if row < middle]
        second = [row - middle for row in outputs if row >= middle]
        before = self.decode(rows[:middle], first).copy()
        return np.concatenate([before, self.decode(rows[middle:], second)])

    def _logits(self, count: int) -> NDArray[np.float32]:
        if count == 0:
            return np.empty((0, self._vocabulary_size), dtype=np.float32)
        pointer = llama().llama_get_logits(self._handle)
        return np.ctypeslib.as_array(pointer, shape=(count, self._vocabulary_size))

    def close(self) -> None:
        """Free the memory; :meth:`clear` takes it again."""
        if self._handle:
            llama().llama_free(self._handle)
            self._handle = self._memory = None
            self.reserved = 0
