"""Writes a GGUF file's weights as another type, where memory and disk have room for them.

Invariant: a written file appears whole or not at all.
Leaves out: whether the type is fast or answers alike, and which files are kept.
"""

from __future__ import annotations

import os
import shutil
from ctypes import byref, create_string_buffer
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from promptsearch.errors import BackendError
from promptsearch.lm.llamacpp.library import last_errors, llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.processors import usable_cores

__all__ = ["EXACT", "KINDS", "Source", "clear_leftovers", "convert", "lack_of_disk", "lack_of_room", "read_source"]

KINDS = ("BF16", "F16", "Q8_0")
EXACT = "F32"  # holds every other type's values as they are
_BYTES_PER_PARAMETER = {"F32": 4.0, "BF16": 2.0, "F16": 2.0, "Q8_0": 1.0625}
_LARGEST_COPY = 4 * 2**30  # a larger copy costs more disk than a laptop's owner would expect
_DISK_RESERVE = 2**30  # left free for everyone else
_CELLS = 8192  # of an engine's longest prompt
_OTHER_CELLS = 512 + 16384  # a batch beside it, and the memories of those who generate
_BYTES_PER_CACHED_VALUE = 2
_PARTIAL = ".partial"  # ends the name of a file that is being written


@dataclass(frozen=True)
class Source:
    """What a file says about its weights.

    Attributes:
        parameters: number of weights.
        context_bytes: memory that keys and values of a full context take, about.
        kind: the type the file has already, if it is one of ours; else empty.
    """

    parameters: int
    context_bytes: int
    kind: str


def read_source(path: Path) -> Source:
    """Open a file and read what decides about its copies.

    Raises:
        ModelError: the file cannot be opened.
    """
    library = llama()
    model = open_model(path)
    try:
        width = int(library.llama_model_n_embd(model)) // max(1, int(library.llama_model_n_head(model)))
        values = 2 * int(library.llama_model_n_layer(model)) * int(library.llama_model_n_head_kv(model)) * width
        cells = min(int(library.llama_model_n_ctx_train(model)), _CELLS) + _OTHER_CELLS
        return Source(
            int(library.llama_model_n_params(model)), values * cells * _BYTES_PER_CACHED_VALUE, _own_kind(model)
        )
    finally:
        library.llama_model_free(model)


def _own_kind(model: Any) -> str:
    """The type that the file's metadata names."""
    library = llama()
    buffer = create_string_buffer(16)
    library.llama_model_meta_val_str(model, b"general.file_type", buffer, len(buffer))
    numbers = {str(_number(kind)): kind for kind in (*KINDS, EXACT)}
    return numbers.get(buffer.value.decode("ascii", "replace"), "")


def _number(kind: str) -> int:
    """What llama.cpp calls a type."""
    return int(getattr(llama(), "LLAMA_FTYPE_ALL_F32" if kind == "F32" else f"LLAMA_FTYPE_MOSTLY_{kind}"))


def lack_of_room(source: Source, kind: str, folder: Path) -> str:
    """Why a copy of this type cannot be made and run now, in a few words; empty where it can.

    Args:
        source: what :func:`read_source` returned.
        kind: one of :data:`KINDS`, or :data:`EXACT`.
        folder: where the copy would lie.
    """
    size = _size(source, kind)
    if size > _LARGEST_COPY:
        return f"a copy takes {_gb(size)}, above the limit of {_gb(_LARGEST_COPY)}"
    needed, available = size + source.context_bytes, int(psutil.virtual_memory().available)
    if needed > available:
        return f"needs {_gb(needed)} of memory, {_gb(available)} are available"
    return lack_of_disk(source, kind, folder)


def lack_of_disk(source: Source, kind: str, folder: Path) -> str:
    """Why the disk has no place for a copy, in a few words; empty where it has. Arguments as above."""
    size, free = _size(source, kind), shutil.disk_usage(folder).free
    if size + _DISK_RESERVE > free:
        return f"a copy takes {_gb(size)} of disk, and {_gb(free)} are free, of which {_gb(_DISK_RESERVE)} stay free"
    return ""


def _size(source: Source, kind: str) -> int:
    return int(source.parameters * _BYTES_PER_PARAMETER[kind])


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"


def clear_leftovers(folder: Path) -> None:
    """Delete what killed processes left half written; nobody may be writing into the folder."""
    for partial in folder.glob(f"*{_PARTIAL}"):
        partial.unlink(missing_ok=True)


def convert(source: Path, target: Path, kind: str) -> None:
    """Write ``source``'s weights as another type, such as those of :data:`KINDS`.

    Raises:
        BackendError: llama.cpp cannot convert this file; nothing is left behind.
    """
    library = llama()
    params = library.llama_model_quantize_default_params()
    params.ftype = _number(kind)
    params.allow_requantize = True
    params.nthread = usable_cores()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}{_PARTIAL}")
    last_errors()
    try:
        status = library.llama_model_quantize(os.fsencode(source), os.fsencode(partial), byref(params))
        if status != 0:
            raise BackendError(f"{source.name!r} cannot be converted to {kind}: {last_errors()}")
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
