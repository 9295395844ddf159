"""BM25 and its fusion with similarity against their formulas, and what counts as a word."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_data import TEXTS, assert_each_is_best, dyadic_examples, dyadic_queries, mean_similarity, rng

from promptsearch.select.base import Examples, Queries
from promptsearch.select.lexical import BM25, Hybrid, LexicalIndex, words

texts = st.lists(st.sampled_from(TEXTS) | st.text("ab 好电", max_size=8), max_size=6)


def bm25(documents: Sequence[str], query: str) -> list[float]:
    cut = [words(document) for document in documents]
    mean_length = sum(map(len, cut)) / len(cut)
    scores = []
    for document in cut:
        score = 0.0
        for word in words(query):
            holding = sum(word in other for other in cut)
            frequency = document.count(word)
            if frequency:
                rarity = math.log(1 + (len(cut) - holding + 0.5) / (holding + 0.5))
                score += rarity * frequency / (frequency + 1.5 * (1 - 0.75 + 0.75 * len(document) / mean_length))
        scores.append(score)
    return scores


def mean_bm25(examples: Examples, queries: Queries) -> dict[int, float]:
    served = queries.texts if len(queries) else examples.texts
    by_query = np.array([bm25(examples.texts, query) for query in served])
    return dict(zip(examples.ids.tolist(), by_query.mean(axis=0).tolist(), strict=True))


@given(texts.filter(len), texts.filter(len))
def test_scores(documents: list[str], queries: list[str]) -> None:
    wanted = np.mean([bm25(documents, query) for query in queries], axis=0)
    found = LexicalIndex(tuple(documents)).scores(tuple(queries))
    assert found == pytest.approx(wanted, rel=1e-5, abs=1e-7)


@given(dyadic_examples(1), dyadic_queries(), st.integers(0, 10))
def test_bm25(examples: Examples, queries: Queries, count: int) -> None:
    scores = mean_bm25(examples, queries)
    bags = {int(each): tuple(sorted(words(text))) for each, text in zip(examples.ids, examples.texts, strict=True)}
    chosen = BM25(examples).select(queries, count, rng())
    assert_each_is_best(chosen, list(scores), lambda taken, each: scores[each], bags.__getitem__, tolerance=1e-6)


@given(dyadic_examples(1), dyadic_queries(), st.integers(0, 10))
def test_hybrid(examples: Examples, queries: Queries, count: int) -> None:
    lexical = {each: round(score, 7) for each, score in mean_bm25(examples, queries).items()}
    similar = {each: round(score, 7) for each, score in mean_similarity(examples, queries).items()}

    def reciprocal(scores: dict[int, float], each: int) -> float:
        return 1 / (60 + 1 + sum(other > scores[each] for other in scores.values()))

    fused = {
        each: reciprocal(similar, each) + (reciprocal(lexical, each) if lexical[each] else 0) for each in lexical
    }
    wanted = sorted(fused, key=lambda each: (-round(fused[each], 12), each))[:count]
    assert list(Hybrid(examples).select(queries, count, rng())) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", []),
        (" ?!… 🙂", []),
        ("Good, GOOD film!", ["good", "good", "film"]),
        ("don't", ["don", "t"]),
        ("ＦＵＬＬ　ｗｉｄｔｈ", ["full", "width"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("COVID-19 in 2020", ["covid", "19", "in", "2020"]),
        ("snake_case", ["snake", "case"]),
        ("喜欢这", ["喜欢", "欢这"]),
        ("好", ["好"]),
        ("很好。电影", ["很好", "电影"]),
        ("iPhone手机壳x", ["iphone", "手机", "机壳", "x"]),
        ("東京タワー", ["東京", "京タ", "タワ", "ワー"]),
        ("ﾄﾞｱ", ["ドア"]),
        ("한국어", ["한국", "국어"]),
        ("ที่ดี", ["ที", "ี่", "่ด", "ดี"]),
        ("हिन्दी में", ["हिन्दी", "में"]),
        ("naïve", ["naïve"]),
        ("привет мир", ["привет", "мир"]),
        ("\ud83d a", ["a"]),
    ],
)
def test_words(text: str, wanted: list[str]) -> None:
    assert words(text) == wanted


@given(st.text(st.characters(codec=None, categories=None)))
def test_any_text_has_words_that_are_texts(text: str) -> None:
    assert all(word and not any(character.isspace() for character in word) for word in words(text))


def test_chinese_is_found_by_its_parts() -> None:
    texts = ("这家餐厅的菜很好吃", "今天天气很好", "这部电影太长了")
    examples = Examples(np.arange(3), np.zeros((3, 2), dtype=np.float32), np.zeros(3, dtype=np.int64), texts)
    query = Queries(np.zeros((1, 2), dtype=np.float32), ("我看了一部电影",))
    assert BM25(examples).select(query, 1, rng()) == (2,)
