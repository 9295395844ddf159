"""Every kind of memory that llama.cpp has: batches answer what one prompt in a fresh context answers."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import GENERATORS, WINDOW, write_model

from promptsearch.errors import BackendError
from promptsearch.lm.base import Completion, FloatArray, FollowUp, GenerationParams, Segment
from promptsearch.lm.llamacpp import engine as engine_module
from promptsearch.lm.llamacpp import sequences as sequences_module
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.engine import LlamaEngine, log_normalizers
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.sequences import cells_within
from promptsearch.lm.llamacpp.stem import FIRST_PLACE
from promptsearch.lm.llamacpp.vocabulary import Vocabulary
from promptsearch.lm.plan import Row

SHOWN = "".join(
    f"Review: item {number} was {word}.\nMood: {mood}\n\n"
    for number, (word, mood) in enumerate([("fine", "good"), ("dull", "bad"), ("odd", "bad"), ("grand", "good")])
)
SUBJECTS = ("film", "plot", "sequel that nobody asked for")
QUERIES = [
    f"{SHOWN}Review: the {subject} {verdict}.\nMood:"
    for subject in SUBJECTS
    for verdict in ("is fun", "falls flat", "moved us all to tears")
]
PROMPTS = [*QUERIES, SHOWN, SHOWN + "Review", "Hello", QUERIES[0], SHOWN * 3 + "x"]
ONE_TOKEN = ["a", "b", "\n"]
MANY_TOKENS = [" good", " bad", " badly made", " great", " goodness", "a"]
TOLERANCE = 2e-4  # 32-bit arithmetic in another order; logits of different prompts differ by whole numbers
NEW_TOKENS = 40  # more than the window


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module", autouse=True)
def exact_attention() -> Iterator[None]:
    """Attention and its memory in 32 bits."""
    library = llama()
    defaults = library.llama_context_default_params

    def plain() -> Any:
        params = defaults()
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = library.GGML_TYPE_F32
        return params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "llama_context_default_params", plain)
        yield


class Reference:
    """One fresh context of one sequence for each question."""

    def __init__(self, path: Path) -> None:
        self.model = open_model(path)
        self.vocabulary = Vocabulary(self.model)
        self.scores = lru_cache(None)(self._scores)
        self.greedy = lru_cache(None)(self._greedy)

    def _context(self) -> Context:
        return Context(self.model, cells=1024, batch=1024, sequences=1, threads=1)

    def _scores(self, prompt: str, labels: tuple[str, ...]) -> FloatArray:
        return np.array([self._score(prompt, label) for label in labels])

    def _score(self, prompt: str, label: str) -> float:
        context = self._context()
        before = self.vocabulary.tokenize((Segment(prompt),))
        after = self.vocabulary.tokenize_continuation(label)
        rows = [Row(token, at, (0,)) for at, token in enumerate([*before, *after])]
        logits = context.decode(rows, range(len(before) - 1, len(rows) - 1))
        score = float((logits[range(len(after)), after] - log_normalizers(logits)).sum())
        context.close()
        return score

    def _greedy(self, prompt: str) -> str:
        context = self._context()
        rows = [Row(token, at, (0,)) for at, token in enumerate(self.vocabulary.tokenize((Segment(prompt),)))]
        at, data = len(rows), b""
        for _ in range(NEW_TOKENS):
            token = int(context.decode(rows, [len(rows) - 1])[0].argmax())
            if self.vocabulary.ends_text(token):
                break
            data += self.vocabulary.piece(token)
            rows, at = [Row(token, at, (0,))], at + 1
        context.close()
        return data.decode("utf-8", errors="ignore")


@pytest.fixture(scope="module", params=sorted(GENERATORS))
def path(request: pytest.FixtureRequest, folder: Path) -> Path:
    return write_model(folder, request.param)


@pytest.fixture(scope="module")
def references() -> Iterator[dict[Path, Reference]]:
    made: dict[Path, Reference] = {}
    yield made
    for reference in made.values():
        llama().llama_model_free(reference.model)


@pytest.fixture
def reference(path: Path, references: dict[Path, Reference]) -> Reference:
    """Made once for each model, since it is slow."""
    if path not in references:
        references[path] = Reference(path)
    return references[path]


@pytest.fixture(scope="module", params=["roomy", "tight"])
def engine(path: Path, request: pytest.FixtureRequest) -> Iterator[LlamaEngine]:
    """With plenty of memory, and with so little that cells and sequences are used again and again."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tight":
            patch.setattr(engine_module, "_CELLS", 768)
            patch.setattr(sequences_module, "_STATES", 0)
        opened = LlamaEngine(path, name=path.stem, fingerprint=path.stem, threads=1)
    with opened:
        yield opened


def expected(reference: Reference, prompts: Sequence[str], labels: Sequence[str]) -> FloatArray:
    return np.stack([reference.scores(prompt, tuple(labels)) for prompt in prompts])


@pytest.mark.parametrize("labels", [ONE_TOKEN, MANY_TOKENS], ids=["one token", "many tokens"])
def test_scores_are_those_of_a_fresh_context(engine: LlamaEngine, reference: Reference, labels: list[str]) -> None:
    right = expected(reference, PROMPTS, labels)
    assert np.ptp(right, axis=0).min() > 2, "the prompts must be told apart"
    assert np.abs(engine.score(PROMPTS, labels) - right).max() < TOLERANCE
    alone = np.concatenate([engine.score([prompt], labels) for prompt in PROMPTS])
    assert np.abs(alone - right).max() < TOLERANCE


def test_greedy_text_is_that_of_a_fresh_context(engine: LlamaEngine, reference: Reference) -> None:
    params = GenerationParams(max_tokens=NEW_TOKENS)
    right = [reference.greedy(prompt) for prompt in PROMPTS]
    assert len(set(right)) > len(right) // 2, "the prompts must be told apart"
    assert [completion.text for completion in engine.generate(PROMPTS, params)] == right
    assert [engine.generate([prompt], params)[0].text for prompt in PROMPTS] == right


def test_writing_on_is_two_calls(engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=NEW_TOKENS)

    def following(number: int, said: Completion) -> str:
        return f"{PROMPTS[number]}{said.text} so"

    first = engine.generate(PROMPTS, params)
    second = engine.generate([following(number, said) for number, said in enumerate(first)], params)
    assert engine.write_on(PROMPTS, params, FollowUp(following, params, 8)) == list(zip(first, second, strict=True))


def test_a_shared_beginning_runs_once(engine: LlamaEngine) -> None:
    before = engine.tokens_decoded
    engine.score(QUERIES, ONE_TOKEN)
    assert engine.tokens_decoded - before < 0.4 * sum(engine.count_tokens(QUERIES))


def test_a_label_tree_wider_than_the_sequences(engine: LlamaEngine, reference: Reference) -> None:
    labels = [f" {first}{second}" for first in "abcdef" for second in "xyz"]
    right = expected(reference, QUERIES[:2], labels)
    assert np.abs(engine.score(QUERIES[:2], labels) - right).max() < TOLERANCE


def test_a_token_of_two_sequences_is_what_a_recurrent_model_refuses(folder: Path) -> None:
    """Why the plan for such models is another one; where this passes, they may take the common one."""
    with LlamaEngine(write_model(folder, "mamba", seed=1), name="x", fingerprint="x", threads=1) as opened:
        assert not opened.traits.shares_tokens
        opened._context.clear()
        with pytest.raises(BackendError):
            opened._context.decode([Row(5, 0, (0, 1))], [0])


@pytest.mark.parametrize(
    ("name", "has_state", "window"),
    [("llama", False, 0), ("olmo2", False, WINDOW), ("mamba", True, 0), ("lfm2", True, 0)],
)
def test_traits(folder: Path, caplog: pytest.LogCaptureFixture, name: str, has_state: bool, window: int) -> None:
    with (
        caplog.at_level(logging.INFO, logger="promptsearch.llamacpp"),
        LlamaEngine(write_model(folder, name, seed=1), name=name, fingerprint="x", threads=1) as opened,
    ):
        traits = opened.traits
        assert (traits.has_state, traits.window) == (has_state, window)
        assert traits.shares_tokens is not has_state
        assert traits.cuts_back is (name == "llama")
        assert opened.device == "cpu"
    said = [record.message for record in caplog.records if record.levelno == logging.INFO]
    assert said == [f"{name} is {traits.description}"]


@pytest.mark.parametrize(("states", "sequences"), [(0, 4), (2**19, None), (2**40, 256)])
def test_sequences_are_as_many_as_their_states_can_be_afforded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, states: int, sequences: int | None
) -> None:
    monkeypatch.setattr(sequences_module, "_STATES", states)
    with LlamaEngine(write_model(folder, "mamba", seed=1), name="x", fingerprint="x", threads=1) as opened:
        found = opened._context.sequences
    assert 4 < found < 256 if sequences is None else found == sequences


PACKAGED, LARGE = 30 * 3 * 64 * 2 * 2, 32 * 32 * 96 * 2 * 2
"""Bytes of a cell of SmolLM2-135M, and of Phi-3-mini, where every head has its own keys and values."""
GIB = 2**30


@pytest.mark.parametrize(
    ("cell", "memory", "cells"),
    [
        (PACKAGED, 2 * GIB, 16384),
        (PACKAGED, 4 * GIB, 16384),
        (PACKAGED, 8 * GIB, 23301),
        (PACKAGED, 64 * GIB, 46603),
        (1024, 64 * GIB, 65536),
        (2**16, 64 * GIB, 16384),
        (2**16, 4 * GIB, 16384),
        (2**16, 2 * GIB, 2048),
        (2**16 + 4, 8 * GIB, 8191),
        (LARGE, 8 * GIB, 1365),
        (LARGE, 64 * GIB, 2730),
        (2**30, 8 * GIB, 0),
    ],
)
def test_small_models_generate_much_at_once_and_large_ones_keep_to_their_memory(
    cell: int, memory: int, cells: int
) -> None:
    assert cells_within(cell, memory) == cells


@given(cell=st.integers(0, 2**22), memory=st.integers(0, 2**42))
def test_generation_takes_no_more_than_a_quarter_of_the_memory_and_a_gibibyte(cell: int, memory: int) -> None:
    taken = cells_within(cell, memory) * cell
    assert taken <= min(GIB, memory // 4)
    if taken < 16384 * cell:
        assert taken <= memory // 16


def test_one_request_runs_where_memory_is_for_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = GenerationParams(max_tokens=4)
    path = write_model(folder, "llama", seed=1)
    with LlamaEngine(path, name="x", fingerprint="x", threads=1) as opened:
        right = opened.generate(QUERIES, params)
        assert opened._stem is not None
        assert opened._stem.context.sequences > FIRST_PLACE + 1
    monkeypatch.setattr(sequences_module, "_CELLS_BYTES", 0)
    with LlamaEngine(path, name="x", fingerprint="x", threads=1) as opened:
        assert opened.generate(QUERIES, params) == right
        assert opened._stem is not None
        assert opened._stem.context.sequences == FIRST_PLACE + 1


def test_the_same_seed_writes_the_same_model(tmp_path: Path, folder: Path) -> None:
    assert write_model(tmp_path, "rwkv7", seed=3).read_bytes() == write_model(folder, "rwkv7", seed=3).read_bytes()
