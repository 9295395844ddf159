"""How many sequences, and how much memory for them, a context can afford.

Where a model keeps a state for each sequence, memory for all of them is taken at once, however short they are: some
kilobytes for a small model, tens of megabytes for a large one.

Invariant: nothing of the trial stays.
"""

from __future__ import annotations

from typing import Any

from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.traits import Traits, metadata
from promptsearch.lm.plan import Row

__all__ = ["affordable_sequences", "cells_within", "generation_cells"]

_STATES = 512 * 2**20  # bytes for all states together
_FLOAT_BYTES = 2  # of the type that keys and values have
_CELLS_BYTES = 2**30
_FEWEST_CELLS, _MOST_CELLS = 16384, 65536  # with fewer, small models run long prompts one by one
_SHARE, _FEWEST_SHARE = 16, 4  # cells take one part in so many of the machine's memory, and the fewest cells this
_FEWEST = 4  # something shared, a prompt, its branch, and one to spare


def affordable_sequences(model: Any, traits: Traits, *, most: int) -> int:
    """Sequences that a context of this model should have, 4 to ``most``.

    Raises:
        ModelError: no context can be made for the model.
    """
    if not traits.has_state:
        return most
    return max(_FEWEST, min(most, _STATES // max(1, _state_bytes(model))))


def generation_cells(model: Any, memory: int) -> int:
    """Tokens that all requests which generate at once should hold together, so that small models run many.

    Where that is room for no request, one runs all the same.

    Args:
        model: the model's handle.
        memory: bytes that the machine has.
    """
    library = llama()
    usual = int(library.llama_model_n_embd(model)) // max(1, int(library.llama_model_n_head(model)))
    architecture = metadata(model, "general.architecture")
    named = (metadata(model, f"{architecture}.attention.{part}_length") for part in ("key", "value"))
    width = sum(int(length) if length.isdecimal() else usual for length in named)
    cell = _FLOAT_BYTES * width * int(library.llama_model_n_head_kv(model)) * int(library.llama_model_n_layer(model))
    return cells_within(cell, memory)


def cells_within(cell: int, memory: int) -> int:
    """Cells of so many bytes that a machine with so much memory can afford: a sixteenth of it, 1 GiB at most.

    Small models, whose fewest cells fit into 1 GiB and into a quarter of the memory, have at least these.
    """
    cell = max(1, cell)
    affordable = min(_MOST_CELLS, min(_CELLS_BYTES, memory // _SHARE) // cell)
    fits = _FEWEST_CELLS * cell <= min(_CELLS_BYTES, memory // _FEWEST_SHARE)
    return max(_FEWEST_CELLS, affordable) if fits else affordable


def _state_bytes(model: Any) -> int:
    """Size of a state, as it is after one token."""
    context = Context(model, cells=256, batch=8, sequences=1, threads=1)
    try:
        context.decode([Row(0, 0, (0,))], [])
        return context.state_bytes(0)
    finally:
        context.close()
