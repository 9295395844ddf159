"""Opens the llama.cpp library and keeps what it says out of the terminal.

Invariant: the library is initialised once a process; its messages go to the logger ``promptsearch.llamacpp``,
and the latest error messages are kept, since a failed load tells its reason only there. One thread at a time
collects what is printed.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_void_p
from functools import lru_cache
from typing import Any

from promptsearch.optional import require

__all__ = ["accelerator", "last_errors", "llama", "printed_errors", "version"]

_logger = logging.getLogger("promptsearch.llamacpp")
_errors: deque[str] = deque(maxlen=8)
_initialising = threading.RLock()
_redirecting = threading.RLock()  # a process has one standard error stream
_ACCELERATORS = (1, 2)  # ggml_backend_dev_type: a GPU with memory of its own, one that shares the processor's
_ERROR_LEVEL = 4  # ggml_log_level: 1 debug, 2 info, 3 warning, 4 error


def llama() -> Any:
    """The ``llama_cpp`` module, initialised and quiet."""
    with _initialising:  # a cache alone lets two threads in, and keeps one's callback where the other's is called
        return _initialised()


@lru_cache(maxsize=1)
def _initialised() -> Any:
    module = _import_with_short_spins()
    callback = module.llama_log_callback(_on_message)
    module.llama_log_set(callback, c_void_p(0))
    module._promptsearch_log_callback = callback  # ctypes frees a callback that nothing refers to
    module.llama_backend_init()
    return module


def _import_with_short_spins() -> Any:
    """Import the binding so that its threads spin at barriers for microseconds only, then sleep.

    Threads that go on spinning starve each other as soon as anything else is busy: with one foreign process on two
    cores a batch ran ten times slower. Threads that sleep at once lose time waking up at each of a batch's hundreds
    of barriers: half of the speed where batches are small. GNU's OpenMP reads its settings while it starts; a user's
    own stand.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    return require("llama_cpp", install="llama-cpp-python")


def version() -> str:
    """Version of the installed llama.cpp binding."""
    return str(llama().__version__)


def accelerator() -> str | None:
    """What the driver calls the accelerator that llama.cpp uses; the first of several, None where there is none."""
    if not llama().llama_supports_gpu_offload():
        return None
    try:
        ggml = require("llama_cpp._ggml", install="llama-cpp-python").libggml
        by_type, describe = ggml.ggml_backend_dev_by_type, ggml.ggml_backend_dev_description
    except (ImportError, AttributeError):  # no part of the binding's public surface
        return "accelerator"
    by_type.restype, by_type.argtypes = c_void_p, [c_int]
    describe.restype, describe.argtypes = c_char_p, [c_void_p]
    found = [device for device in map(by_type, _ACCELERATORS) if device]
    return describe(found[0]).decode("utf-8", errors="replace") if found else "accelerator"


def last_errors() -> str:
    """The latest error messages on one line, and forget them."""
    text = "; ".join(_errors)
    _errors.clear()
    return text


@contextmanager
def printed_errors() -> Iterator[list[str]]:
    """Collect what the library writes to the standard error stream itself, past its log.

    The stream is the whole process's: other threads wait here until the block has ended.

    Yields:
        A list that holds the text once the block has ended.
    """
    with _redirecting:
        yield from _collected()


def _collected() -> Iterator[list[str]]:
    collected: list[str] = []
    try:
        kept = os.dup(2)
    except OSError:  # a process without that stream has nothing to collect
        yield collected
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield collected
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            collected.append(file.read().decode("utf-8", errors="replace"))


def _on_message(level: int, text: bytes, _user_data: Any) -> None:
    message = text.decode("utf-8", errors="replace").strip()
    if level == _ERROR_LEVEL and message:
        _errors.append(message)
    _logger.debug("%s", message)
