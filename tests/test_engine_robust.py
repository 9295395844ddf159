"""What goes wrong below the engine is recovered or becomes an error of ours; nothing leaks."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptsearch.errors import BackendError, ModelError
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import llama

PROMPTS = [f"Message {number}: the parcel came {'late' if number % 2 else 'early'}.\nIs it" for number in range(12)]
LABELS = [" good", " bad", " very bad"]

Decode = Callable[[Any, Any], int]


@pytest.fixture
def decode_as(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Decode, Any, Any], int]], None]:
    """Replace ``llama_decode`` by a function that gets the real one and its arguments."""
    real = llama().llama_decode

    def replace(function: Callable[[Decode, Any, Any], int]) -> None:
        monkeypatch.setattr(llama(), "llama_decode", lambda context, batch: function(real, context, batch))

    return replace


def test_a_memory_without_room_for_a_batch_takes_it_in_parts(
    exact_engine: LlamaEngine, decode_as: Callable[..., None]
) -> None:
    expected = exact_engine.score(PROMPTS, LABELS)
    sizes: list[int] = []

    def narrow(real: Decode, context: Any, batch: Any) -> int:
        sizes.append(batch.n_tokens)
        return 1 if batch.n_tokens > 20 else real(context, batch)

    decode_as(narrow)
    assert exact_engine.score(PROMPTS, LABELS) == pytest.approx(expected, abs=0.02)
    assert max(sizes) > 20


@pytest.mark.parametrize("status", [1, 2, -1, -3])
def test_a_failed_batch_is_an_error_and_the_next_call_is_right(
    engine: LlamaEngine, decode_as: Callable[..., None], status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = engine.score(PROMPTS, LABELS)
    engine._states.clear()
    decode_as(lambda real, context, batch: status)
    with pytest.raises(BackendError, match=r"memory of|failed to run"):
        engine.score(PROMPTS, LABELS)
    with pytest.raises(BackendError, match=r"memory of|failed to run"):
        engine.generate(PROMPTS, GenerationParams(max_tokens=2))
    monkeypatch.undo()
    assert np.array_equal(engine.score(PROMPTS, LABELS), expected)


def test_a_batch_that_fails_midway_leaves_no_half_of_it_behind(
    engine: LlamaEngine, decode_as: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    long = [f"{prompt} {'and so on ' * 24}" for prompt in PROMPTS]
    expected = engine.score(long, LABELS)
    calls = 0

    def second_fails(real: Decode, context: Any, batch: Any) -> int:
        nonlocal calls
        calls += 1
        return -3 if calls == 2 else real(context, batch)

    decode_as(second_fails)
    with pytest.raises(BackendError):
        engine.score(long, LABELS)
    monkeypatch.undo()
    assert np.array_equal(engine.score(long, LABELS), expected)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_is_an_error_wherever_it_stands(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    real = llama().llama_get_logits
    size = engine.vocabulary.size

    def damaged(context: Any) -> Any:
        pointer = real(context)
        pointer[size - 7] = value
        return pointer

    monkeypatch.setattr(llama(), "llama_get_logits", damaged)
    with pytest.raises(BackendError, match="no numbers"):
        engine.score(PROMPTS[:1], LABELS)


def test_a_state_that_llama_cannot_write_is_an_error(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine._states.clear()
    monkeypatch.setattr(llama(), "llama_state_seq_get_data", lambda *arguments: 0)
    shared = "It is a long beginning that all of them share. " * 12
    with pytest.raises(BackendError, match="wrote 0 of"):
        engine.score([shared + prompt for prompt in PROMPTS], LABELS)


LEAK = """
import sys
from pathlib import Path
import psutil
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.llamacpp.engine import LlamaEngine

def use():
    with LlamaEngine(Path(sys.argv[1]), name="x", fingerprint="x") as engine:
        prompts = ["It is a long beginning that all of them share. " * 6 + end for end in ("one", "two")]
        engine.score(prompts, [" good", " very bad"])
        engine.score(prompts, [" good", " very bad"])
        engine.generate(prompts, GenerationParams(max_tokens=2))

for _ in range(4):
    use()
before = psutil.Process().memory_info().rss
for _ in range(20):
    use()
print(psutil.Process().memory_info().rss - before)
"""


def test_twenty_engines_leave_no_memory_behind(model_file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEAK, str(model_file)], capture_output=True, text=True, check=True, timeout=300
    )
    assert int(done.stdout) < 20 * 2**20  # one forgotten context or model would be more each time


def test_an_engine_that_nobody_holds_is_freed(model_file: Path) -> None:
    engine = LlamaEngine(model_file, name="x", fingerprint="x")
    engine.score(PROMPTS[:1], LABELS)
    release = engine._release
    del engine
    gc.collect()
    assert not release.alive


def test_until_cannot_use_the_engine_that_it_ends(engine: LlamaEngine) -> None:
    for call in (
        lambda: engine.generate(PROMPTS[:1], GenerationParams(max_tokens=1)),
        lambda: engine.score(PROMPTS[:1], LABELS),
        engine.close,
    ):

        def until(text: str, call: Callable[[], object] = call) -> bool:
            call()
            return True

        with pytest.raises(BackendError, match="is generating"):
            engine.generate(PROMPTS, GenerationParams(until=until))
    assert len(engine.generate(PROMPTS, GenerationParams(max_tokens=2))) == len(PROMPTS)


def test_a_memory_that_cannot_be_had_leaves_fewer_places_or_an_error(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = GenerationParams(max_tokens=3)
    expected = engine.generate(PROMPTS, params)
    real = llama().llama_init_from_model
    refused: list[int] = []

    def small_only(model: Any, context_params: Any) -> Any:
        if context_params.n_ctx > 2048:
            refused.append(context_params.n_ctx)
            return None
        return real(model, context_params)

    engine._drop_stem()
    monkeypatch.setattr(llama(), "llama_init_from_model", small_only)
    assert engine.generate(PROMPTS, params) == expected
    assert refused
    with pytest.raises(ModelError, match="no context of"):
        engine.generate(PROMPTS, GenerationParams(max_tokens=4000))
    assert engine.generate(PROMPTS, params) == expected
    monkeypatch.undo()
    assert engine.generate(PROMPTS, params) == expected


def test_forgetting_changes_no_number(engine: LlamaEngine) -> None:
    shared = "It is a long beginning that all of them share. " * 12
    prompts = [shared + prompt for prompt in PROMPTS]
    scores = engine.score(prompts, LABELS)
    texts = engine.generate(prompts, GenerationParams(max_tokens=2))
    engine.forget()
    before = engine.tokens_restored
    assert np.array_equal(engine.score(prompts, LABELS), scores)
    assert engine.generate(prompts, GenerationParams(max_tokens=2)) == texts
    assert engine.tokens_restored == before
