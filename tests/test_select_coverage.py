"""Set-BSR against its definition in loops, with made-up tokens and with those of the packaged encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_data import TokenTable, cosine, dyadic_examples, dyadic_queries, number, rng

from promptsearch.embed.base import token_encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import TransformerEncoder
from promptsearch.errors import BackendError, UserError
from promptsearch.select.base import Examples, Queries
from promptsearch.select.coverage import CONSIDERED, Coverage
from promptsearch.select.nearest import Nearest


def covering(examples: Examples, queries: Queries, candidates: Sequence[int], count: int) -> list[set[int]]:
    """For each position the examples that may stand there; several only where their scores are the same."""
    texts = dict(zip(examples.ids.tolist(), examples.texts, strict=True))
    table = TokenTable()
    speaking = [query.split() for query in queries.texts if query.split()]

    def weight(token: str, query: list[str]) -> float:
        rarity = {
            each: math.log((len(texts) + 1) / (sum(each in text.split() for text in texts.values()) + 1))
            for each in query
        }
        total = sum(rarity[each] for each in query)
        return rarity[token] / total if total else 1 / len(query)

    def covered(token: str, members: list[int]) -> float:
        (vector,) = table.token_vectors([token])[0]
        others = [other for member in members for other in table.token_vectors([texts[member]])[0]]
        return max((cosine(vector, other) for other in others), default=-1.0)

    def coverage(members: list[int]) -> float:
        return sum(
            weight(token, query) * covered(token, members) / len(speaking) for query in speaking for token in query
        )

    allowed: list[set[int]] = []
    chosen: list[int] = []
    since: list[int] = []
    found = Coverage(examples).select(queries, count, rng())
    for pick in found:
        left = [each for each in candidates if each not in chosen]
        scores = {each: coverage([*since, each]) for each in left}
        if since and max(scores.values()) <= coverage(since) + 1e-8:
            since = []
            scores = {each: coverage([each]) for each in left}
        allowed.append({each for each in left if scores[each] >= max(scores.values()) - 1e-8})
        # Of equal ones the lowest id.
        assert pick == min(allowed[-1])
        chosen.append(pick)
        since.append(pick)
    return allowed


@given(dyadic_examples(1), dyadic_queries(1), st.integers(0, 10))
def test_set_bsr(examples: Examples, queries: Queries, count: int) -> None:
    chosen = Coverage(examples).select(queries, count, rng())
    if any(text.split() for text in queries.texts):
        allowed = covering(examples, queries, examples.ids.tolist(), count)
        assert len(allowed) == len(chosen) == min(count, len(examples))
    else:
        assert chosen == Nearest(examples).select(queries, count, rng())


def test_covering_begins_anew_where_nothing_is_gained() -> None:
    examples = made("red", "red", "blue", "red blue")
    # The last covers all; of the others the rarer word comes first, and the second "red" adds nothing.
    assert Coverage(examples).select(asked("red blue"), 4, rng()) == (3, 2, 0, 1)


def test_a_set_covers_what_no_single_example_does() -> None:
    examples = made("red cat", "red cat too", "blue dog", "grey fish")
    assert set(Coverage(examples).select(asked("red cat blue dog"), 2, rng())) == {0, 2}


def test_without_queries_the_examples_stand_in() -> None:
    examples = made("red cat", "red cat", "blue dog", "")
    every = Coverage(examples).select(Queries(examples.vectors, examples.texts), 4, rng())
    assert Coverage(examples).select(Queries.none(), 4, rng()) == every


def test_only_the_nearest_are_considered() -> None:
    n = CONSIDERED + 5
    angles = np.linspace(0, 1, n)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    texts = ("other",) * CONSIDERED + ("red",) * 5
    examples = Examples(np.arange(n), vectors, np.zeros(n, dtype=np.int64), texts, Spied())
    queries = Queries(np.array([[1, 0]], dtype=np.float32), ("red",))
    assert Coverage(examples).select(queries, 1, rng()) == (0,)
    nearer = Queries(np.array([[0, 1]], dtype=np.float32), ("red",))
    assert Coverage(examples).select(nearer, 1, rng()) == (CONSIDERED,)


class Spied(TokenTable):
    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def token_vectors(self, texts: Sequence[str], /) -> list[Any]:
        self.asked.append(list(texts))
        return super().token_vectors(texts)


def made(*texts: str, tokens: Any = None) -> Examples:
    n = len(texts)
    vectors = np.zeros((n, 2), dtype=np.float32)
    return Examples(np.arange(n), vectors, np.zeros(n, dtype=np.int64), texts, tokens or TokenTable())


def asked(*texts: str) -> Queries:
    return Queries(np.zeros((len(texts), 2), dtype=np.float32), texts)


def test_token_vectors_of_an_example_are_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spied = Spied()
    selector = Coverage(made("red", "blue dog", tokens=spied))
    for _ in range(3):
        selector.select(asked("red"), 1, rng())
    assert sorted(spied.asked) == sorted([["red"]] * 3 + [["red"], ["blue dog"]])
    # Where not even one text fits, nothing is kept, and nothing else changes.
    monkeypatch.setattr("promptsearch.select.coverage._NUMBERS_KEPT", 1)
    forgetful = Spied()
    starved = Coverage(made("red", "blue dog", tokens=forgetful))
    for _ in range(2):
        assert starved.select(asked("red"), 1, rng()) == (0,)
    assert len(forgetful.asked) == 6


def test_no_tokens_no_coverage() -> None:
    bare = Examples(np.arange(1), np.zeros((1, 2), dtype=np.float32), np.zeros(1, dtype=np.int64), ("",))
    with pytest.raises(UserError, match="encoder has none") as caught:
        Coverage(bare)
    assert "\n" not in str(caught.value)


class Wrong(TokenTable):
    def __init__(self, ids: Any, vectors: Any) -> None:
        self.ids, self.vectors = ids, vectors

    def token_ids(self, texts: Sequence[str], /) -> Any:
        return self.ids

    def token_vectors(self, texts: Sequence[str], /) -> Any:
        if isinstance(self.vectors, Exception):
            raise self.vectors
        return self.vectors


@pytest.mark.parametrize(
    ("ids", "vectors", "message"),
    [
        ([[1, 2]], [[[1.0, 0.0]]], "1 token vectors for 2 token ids"),
        ([[1], [2]], [[[1.0, 0.0]]], "tokens of 2 texts for 1"),
        ([[1.5]], [[[1.0, 0.0]]], "integers"),
        ([[[1]]], [[[1.0, 0.0]]], "integers"),
        ([[1]], [[[np.nan, 0.0]]], "NaN"),
        ([[1]], [[1.0, 0.0]], "shape"),
        ([[1]], None, "failed on the tokens"),
        ([[1]], ValueError("two\nlines"), "failed on the tokens"),
    ],
)
def test_tokens_are_not_trusted(ids: Any, vectors: Any, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        Coverage(made("a", tokens=Wrong(ids, vectors))).select(asked("b"), 1, rng())
    assert "\n" not in str(caught.value)


def test_with_the_packaged_encoder(encoder: TransformerEncoder, tmp_path: Path) -> None:
    cached = CachedEncoder(encoder, tmp_path / "v")
    texts = (
        "how do I cancel my flight",
        "cancel the flight I booked",
        "I want to cancel a flight",
        "order a vegetarian meal",
        "the weather in Oslo tomorrow",
    )
    examples = Examples(np.arange(5), cached.encode(texts), np.zeros(5, dtype=np.int64), texts, token_encoder(cached))
    query = "cancel my flight and order a vegetarian meal"
    queries = Queries(cached.encode([query]), (query,))
    chosen = Coverage(examples).select(queries, 2, rng())
    assert 3 in chosen
    assert set(chosen) & {0, 1, 2}
    assert len(Coverage(examples).select(queries, 9, rng())) == 5


def test_made_up_tokens_are_told_apart() -> None:
    """The checks above mean nothing if all words got the same vector."""
    words = ["red", "blue", "cat", "dog", "grey", "fish", "other", "too"]
    assert len({number(word) % 24 for word in words}) == len(words)
