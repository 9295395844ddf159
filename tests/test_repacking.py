"""Repacked weights: tried in a child process where the processor has matrix tiles, and left out where that dies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from promptsearch.lm.llamacpp import repacking
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.repacking import repacked_weights_run
from tests.tiny_models import write_model

DIES = "import os, signal; os.kill(os.getpid(), signal.SIGILL)"
LIVES = "print('done')"


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Tiles are there, the cache is empty, and every try is listed."""
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(repacking, "_has_tiles", lambda: True)
    run, found = repacking.subprocess.run, []

    def listed(command: list[str], **options: Any) -> Any:
        found.append(command[2])
        return run(command, **options)

    monkeypatch.setattr(repacking.subprocess, "run", listed)
    return found


@pytest.mark.parametrize(("trial", "allowed"), [(DIES, False), (LIVES, True)])
def test_a_try_decides_and_is_kept(
    trial: str, allowed: bool, tries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_model(tmp_path, "llama")
    monkeypatch.setattr(repacking, "_TRIAL", trial)
    library, given = llama(), []
    load = library.llama_model_load_from_file

    def watched(name: bytes, params: Any) -> Any:
        given.append(bool(params.use_extra_bufts))
        return load(name, params)

    monkeypatch.setattr(library, "llama_model_load_from_file", watched)
    for _ in range(2):
        library.llama_model_free(open_model(path))
    assert given == [allowed, allowed]
    assert tries == [trial]
    os.utime(path, ns=(1, 1))  # another file
    assert repacked_weights_run(path) is allowed
    assert len(tries) == 2


@pytest.mark.parametrize("trial", ["import time; time.sleep(60)", DIES.replace("SIGILL", "SIGKILL")])
def test_a_try_that_hangs_or_lacks_memory_is_made_again(
    trial: str, tries: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = write_model(tmp_path, "llama")
    monkeypatch.setattr(repacking, "_TRIAL", trial)
    monkeypatch.setattr(repacking, "_SECONDS", 0.5)
    assert not repacked_weights_run(path)
    assert not repacked_weights_run(path)
    assert len(tries) == 2


def test_the_real_try_reads_a_model(tries: list[str], tmp_path: Path) -> None:
    """A model whose weights are never repacked: the child ends by itself on every processor."""
    assert repacked_weights_run(write_model(tmp_path, "llama"))
    assert "llama_decode" in tries[0]


def test_a_file_that_is_no_model_is_for_the_opening_to_refuse(tries: list[str], tmp_path: Path) -> None:
    path = tmp_path / "broken.gguf"
    path.write_bytes(b"GGUF" + bytes(100))
    assert repacked_weights_run(path)


def test_nothing_is_tried_without_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repacking, "_has_tiles", lambda: False)
    monkeypatch.setattr(repacking.subprocess, "run", lambda *_, **__: pytest.fail("a child was started"))
    assert repacked_weights_run(Path("any"))
