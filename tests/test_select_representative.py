"""Vote-k against votes counted anew for each pick; k-means on clusters that anyone can see."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from selection_data import cosine, dyadic_examples, random_examples, rng, vector_of

from promptsearch.select.base import Examples, Queries
from promptsearch.select.representative import RELATIVE_TIE, KMeans, VoteK, neighbour_rows


def elected(examples: Examples, neighbours: int, count: int) -> list[int]:
    vectors = vector_of(examples)
    ids = sorted(vectors)
    votes_of = {
        voter: sorted(
            (each for each in ids if each != voter),
            key=lambda each, voter=voter: (-round(cosine(vectors[voter], vectors[each]), 6), each),
        )[:neighbours]
        for voter in ids
    }
    chosen: list[int] = []
    while len(chosen) < min(count, len(ids)):
        scores = {
            each: sum(
                (
                    Fraction(1, 10 ** sum(taken in votes_of[voter] for taken in chosen))
                    for voter in ids
                    if each in votes_of[voter] and voter not in chosen
                ),
                Fraction(0),
            )
            for each in ids
            if each not in chosen
        }
        enough = max(scores.values()) * (1 - Fraction(RELATIVE_TIE))
        chosen.append(min(each for each in scores if scores[each] >= enough))
    return chosen


@given(dyadic_examples(), st.integers(0, 6), st.integers(0, 10))
def test_vote_k_with_ties(examples: Examples, neighbours: int, count: int) -> None:
    chosen = VoteK(examples, neighbours).select(Queries.none(), count, rng())
    assert list(chosen) == elected(examples, min(neighbours, max(0, len(examples) - 1)), count)


@given(st.integers(0, 10_000), st.integers(1, 25), st.integers(1, 25))
def test_vote_k_in_general_position(seed: int, n: int, neighbours: int) -> None:
    examples = random_examples(seed, n, d=3)
    chosen = VoteK(examples, neighbours).select(Queries.none(), n, rng())
    assert list(chosen) == elected(examples, min(neighbours, n - 1), n)


def test_vote_k_hears_a_crowd_once() -> None:
    """Most examples are of one kind, and the second pick is of another all the same."""
    generator = np.random.default_rng(0)
    kinds = np.repeat([0, 1], [30, 10])
    vectors = np.eye(2, 5, dtype=np.float32)[kinds] + generator.normal(0, 0.05, (40, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    examples = Examples(np.arange(40), vectors, kinds, ("",) * 40)
    first, second = VoteK(examples, 9).select(Queries.none(), 2, rng())
    assert {kinds[first], kinds[second]} == {0, 1}


@pytest.mark.parametrize("block", [1, 37, 10_000])
def test_neighbours_block_by_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptsearch.select.representative._NUMBERS_A_BLOCK", block)
    vectors = np.concatenate([random_examples(4, 20).vectors] * 2)
    similar = (vectors.astype(np.float64) @ vectors.T.astype(np.float64)).astype(np.float32)
    for row, found in enumerate(neighbour_rows(vectors, 7)):
        others = [each for each in range(40) if each != row]
        assert found.tolist() == sorted(sorted(others, key=lambda each: (-similar[row, each], each))[:7])


@given(st.integers(0, 10_000), st.permutations([2, 5, 9]), st.integers(1, 3))
def test_k_means_takes_the_middle_of_each_cluster_the_largest_first(seed: int, sizes: list[int], copies: int) -> None:
    generator = np.random.default_rng(seed)
    kinds = generator.permutation(np.repeat(range(3), np.array(sizes) * copies))
    vectors = np.eye(3, 6)[kinds] + generator.normal(0, 0.01, (len(kinds), 6))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    examples = Examples(generator.permutation(len(kinds)), vectors, kinds, ("",) * len(kinds))
    wanted = []
    for kind in sorted(range(3), key=lambda kind: -sizes[kind]):
        rows = np.flatnonzero(kinds == kind)
        distances = ((vectors[rows] - vectors[rows].mean(axis=0)) ** 2).sum(axis=1).astype(np.float64)
        close = examples.ids[rows[distances <= distances.min() + 1e-7]]
        wanted.append(set(close.tolist()))
    chosen = KMeans(examples).select(Queries.none(), 3, rng())
    assert all(each in allowed for each, allowed in zip(chosen, wanted, strict=True))


def test_k_means_goes_round_again_where_examples_coincide() -> None:
    vectors = np.eye(2, dtype=np.float32)[[0, 1, 0, 0, 1]]
    examples = Examples(np.array([9, 8, 7, 6, 5]), vectors, np.zeros(5, dtype=np.int64), ("",) * 5)
    assert KMeans(examples).select(Queries.none(), 4, rng()) == (6, 5, 7, 8)


def test_k_means_draws_from_the_generator() -> None:
    examples = random_examples(0, 60)
    chosen = {KMeans(examples).select(Queries.none(), 6, np.random.default_rng(seed)) for seed in range(8)}
    assert len(chosen) > 1
