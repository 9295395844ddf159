"""One library for all threads of a process: initialised once, and what it prints kept apart."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from promptsearch.lm.llamacpp import library


def test_threads_that_come_at_once_initialise_once(monkeypatch: pytest.MonkeyPatch) -> None:
    began: list[int] = []

    def slowly() -> SimpleNamespace:
        began.append(threading.get_ident())
        time.sleep(0.1)  # long enough for the others to come in, were they let in
        return SimpleNamespace(
            llama_log_callback=lambda call: call, llama_log_set=lambda *_: None, llama_backend_init=lambda: None
        )

    monkeypatch.setattr(library, "_import_with_short_spins", slowly)
    library._initialised.cache_clear()
    try:
        with ThreadPoolExecutor(4) as threads:
            modules = list(threads.map(lambda _: library.llama(), range(4)))
    finally:
        library._initialised.cache_clear()
    assert len(began) == 1
    assert all(module is modules[0] for module in modules)


def test_each_thread_collects_what_it_printed_itself() -> None:
    both = threading.Barrier(2)

    def prints(text: str) -> str:
        both.wait(timeout=60)
        with library.printed_errors() as printed:
            for _ in range(20):
                os.write(2, text.encode())
                time.sleep(0.001)  # lets the other thread run
        return "".join(printed)

    stream = os.fstat(2)
    with ThreadPoolExecutor(2) as threads:
        assert list(threads.map(prints, "ab")) == ["a" * 20, "b" * 20]
    assert os.path.samestat(os.fstat(2), stream)
