"""Nearest, MMR and DPP against their formulas, written out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from selection_data import (
    DYADIC,
    assert_each_is_best,
    cosine,
    dyadic_examples,
    dyadic_queries,
    mean_similarity,
    random_examples,
    random_queries,
    rng,
    vector_of,
)

from promptsearch.select.base import Examples, Queries, relevance, similarities
from promptsearch.select.nearest import CONSIDERED, DPP, MMR, Nearest, greedy_map

seeds = st.integers(0, 10_000)


def alike(examples: Examples) -> dict[int, bytes]:
    return {example: (vector + np.float32(0)).tobytes() for example, vector in vector_of(examples).items()}


def check_nearest(examples: Examples, queries: Queries, count: int) -> None:
    similar = mean_similarity(examples, queries)
    chosen = Nearest(examples).select(queries, count, rng())
    assert_each_is_best(
        chosen, list(similar), lambda taken, each: similar[each], alike(examples).__getitem__, tolerance=1e-7
    )


def check_mmr(examples: Examples, queries: Queries, count: int, weight: float, considered: Sequence[int]) -> None:
    similar, vectors = mean_similarity(examples, queries), vector_of(examples)

    def score(taken: list[int], each: int) -> float:
        redundant = max((cosine(vectors[each], vectors[other]) for other in taken), default=0.0)
        return weight * similar[each] - (1 - weight) * redundant

    chosen = MMR(examples, weight).select(queries, count, rng())
    assert len(chosen) == min(count, len(examples))
    assert_each_is_best(chosen, considered, score, alike(examples).__getitem__, tolerance=2e-7)


def kernel(examples: Examples, queries: Queries, scale: float) -> dict[tuple[int, int], float]:
    vectors = vector_of(examples)
    values = {each: (similar + 1) / 2 for each, similar in mean_similarity(examples, queries).items()}
    quality = {each: np.exp((value - max(values.values())) / (2 * scale)) for each, value in values.items()}
    return {
        (i, j): float(quality[i] * quality[j] * (cosine(vectors[i], vectors[j]) + 1) / 2)
        for i in vectors
        for j in vectors
    }


def check_dpp(examples: Examples, queries: Queries, count: int, considered: Sequence[int]) -> int:
    """Checks picks by determinants of every extension, the rest by relevance; says how many were picks."""
    entries = kernel(examples, queries, 0.1)
    similar = mean_similarity(examples, queries)

    def determinant(members: list[int]) -> float:
        return float(np.linalg.det([[entries[i, j] for j in members] for i in members])) if members else 1.0

    def gain(taken: list[int], each: int) -> float:
        return determinant([*taken, each]) / determinant(taken)

    chosen = DPP(examples).select(queries, count, rng())
    assert len(chosen) == min(count, len(examples))
    picked = 0
    while picked < len(chosen):
        taken = list(chosen[:picked])
        gains = {each: gain(taken, each) for each in considered if each not in taken}
        if max(gains.values()) < 1e-9:
            break
        assert gains[chosen[picked]] >= max(gains.values()) - 1e-6
        picked += 1
    names = alike(examples)
    assert_each_is_best(chosen[:picked], considered, lambda *_: 0.0, lambda each: names[each], tolerance=0.0)
    rest = [each for each in considered if each not in chosen[:picked]]
    assert_each_is_best(
        chosen[picked:], rest, lambda taken, each: similar[each], lambda each: names[each], tolerance=1e-7
    )
    return picked


@given(dyadic_examples(1), dyadic_queries(), st.integers(0, 10))
def test_nearest_with_ties(examples: Examples, queries: Queries, count: int) -> None:
    check_nearest(examples, queries, count)


@given(seeds, st.integers(1, 30), st.integers(0, 5), st.integers(0, 12))
def test_nearest_in_general_position(seed: int, n: int, m: int, count: int) -> None:
    check_nearest(random_examples(seed, n), random_queries(seed, m) if m else Queries.none(), count)


@given(dyadic_examples(1), dyadic_queries(), st.integers(0, 10), st.sampled_from([0.0, 0.5, 0.6, 0.7, 1.0]))
def test_mmr_with_ties(examples: Examples, queries: Queries, count: int, weight: float) -> None:
    check_mmr(examples, queries, count, weight, examples.ids.tolist())


@given(seeds, st.integers(1, 15), st.integers(0, 3), st.integers(0, 8))
def test_mmr_in_general_position(seed: int, n: int, m: int, count: int) -> None:
    examples = random_examples(seed, n)
    check_mmr(examples, random_queries(seed, m) if m else Queries.none(), count, 0.6, examples.ids.tolist())


def test_mmr_without_difference_is_nearest() -> None:
    examples, queries = random_examples(1, 40), random_queries(1, 3)
    assert MMR(examples, 1.0).select(queries, 10, rng()) == Nearest(examples).select(queries, 10, rng())


@given(dyadic_examples(1), dyadic_queries(), st.integers(0, 10))
def test_dpp_with_ties_and_exhausted_space(examples: Examples, queries: Queries, count: int) -> None:
    check_dpp(examples, queries, count, examples.ids.tolist())


@given(seeds, st.integers(1, 12), st.integers(0, 3), st.integers(0, 12))
def test_dpp_in_general_position(seed: int, n: int, m: int, count: int) -> None:
    examples = random_examples(seed, n)
    units = examples.vectors / np.linalg.norm(examples.vectors, axis=1, keepdims=True)
    assume(np.linalg.eigvalsh((1 + units @ units.T) / 2)[-min(n, 7)] > 1e-6)  # some seeds lie in fewer dimensions
    # Cosines in 6 dimensions and the constant 1 span 7: an eighth pick adds nothing.
    picked = check_dpp(examples, random_queries(seed, m) if m else Queries.none(), count, examples.ids.tolist())
    assert picked == min(count, n, 7)


@pytest.mark.parametrize("seed", range(3))
def test_only_the_nearest_are_considered(seed: int) -> None:
    examples, queries = random_examples(seed, CONSIDERED + 40), random_queries(seed, 2)
    similar = mean_similarity(examples, queries)
    near = sorted(similar, key=lambda each: -similar[each])
    check_mmr(examples, queries, 5, 0.1, near[:CONSIDERED])
    check_dpp(examples, queries, 4, near[:CONSIDERED])
    assert set(MMR(examples, 0.0).select(queries, 70, rng())) <= set(near[:140])
    everything = examples.ids.tolist()
    check_mmr(examples, Queries.none(), 4, 0.1, everything)


def test_dpp_takes_nothing_twice_where_all_are_the_same() -> None:
    examples = Examples(np.arange(5), DYADIC[[3] * 5], np.zeros(5, dtype=np.int64), ("",) * 5)
    assert DPP(examples).select(Queries(DYADIC[[3]], ("",)), 4, rng()) == (0, 1, 2, 3)
    assert greedy_map(examples.vectors, np.ones(5), 4) == [0]


def test_dpp_takes_what_adds_almost_nothing_but_never_what_it_has() -> None:
    """The gain of the second is so small that it ties with that of the first, which is zero by now."""
    vectors = np.array([[1, 0], [1, 3.2e-5]], dtype=np.float32)
    assert greedy_map(vectors, np.ones(2), 2) == [0, 1]


def test_equal_rows_get_equal_similarities_wherever_they_stand() -> None:
    generator = np.random.default_rng(0)
    one, query = generator.standard_normal((2, 384)).astype(np.float32) / 20
    for n in (1, 2, 3, 7, 64, 1001):
        assert len(set(similarities(np.tile(one, (n, 1)), query).tolist())) == 1


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, queries = random_examples(2, 50), random_queries(2, 3)
    whole = relevance(examples, queries)
    monkeypatch.setattr("promptsearch.select.base._NUMBERS_A_BLOCK", 42)
    assert np.array_equal(relevance(examples, queries), whole)
