"""The similarity surrogate: its formula, what it may decide, and that it does not flatter itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.candidate import Candidate
from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray
from promptsearch.search.attention import LinearAttention
from promptsearch.search.base import Scores
from promptsearch.search.surrogate import fit_surrogate

POOL = list(range(100, 160))


def made(seed: int, queries: int = 80, labels: int = 3) -> LinearAttention:
    """Queries and examples around one direction for each label, loosely."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(labels, 16))

    def vectors(count: int) -> tuple[FloatArray, list[int]]:
        own = rng.integers(labels, size=count)
        found = centres[own] + 1.2 * rng.normal(size=(count, 16))
        return found / np.linalg.norm(found, axis=1, keepdims=True), own.tolist()

    asked, golds = vectors(queries)
    shown, own = vectors(len(POOL))
    return LinearAttention(asked @ shown.T, POOL, own, golds)


def draw(seed: int, count: int, shots: tuple[int, ...] = (3, 6)) -> list[Candidate]:
    rng = np.random.default_rng(seed)
    sizes = rng.choice(shots, size=count)
    return [Candidate(demonstrations=tuple(rng.choice(POOL, size, replace=False).tolist())) for size in sizes]


def scored(candidates: list[Candidate], truth: FloatArray, seed: int = 0, items: int = 80) -> dict[Candidate, Scores]:
    tosses = (np.random.default_rng(seed).random((len(candidates), items)) < truth[:, None]) * 1.0
    return {each: Scores(row, row) for each, row in zip(candidates, tosses, strict=True)}


def slow_quality(
    similarities: list[list[float]],
    labels: dict[int, int],
    golds: list[int],
    shown: tuple[int, ...],
    temperature: float,
    fading: float,
) -> float:
    """By the formula, one query and one demonstration at a time."""
    count = 1 + max(*labels.values(), *golds)
    columns = {number: column for column, number in enumerate(labels)}
    logs = []
    for row in similarities:
        says = [0.0] * count
        for place, number in enumerate(shown):
            away = len(shown) - 1 - place
            says[labels[number]] += math.exp(row[columns[number]] / temperature) * fading**away
        logs.append([math.log(each / sum(says) + 1e-3) for each in says])
    means = [sum(row[label] for row in logs) / len(logs) for label in range(count)]
    total = 0.0
    for row, gold in zip(logs, golds, strict=True):
        odds = [math.exp(log - mean) for log, mean in zip(row, means, strict=True)]
        total += odds[gold] / sum(odds)
    return total / len(golds)


@given(
    st.integers(0, 2**20),
    st.integers(1, 6),
    st.integers(1, 4),
    st.sampled_from([0.05, 0.2, 0.5]),
    st.sampled_from([1.0, 0.7]),
)
def test_quality_is_its_slow_twin(seed: int, queries: int, labels: int, temperature: float, fading: float) -> None:
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(-1, 1, (queries, 5))
    label_of = dict(zip((7, 3, 9, 1, 4), rng.integers(labels, size=5).tolist(), strict=True))
    golds = rng.integers(labels, size=queries).tolist()
    attention = LinearAttention(similarities, list(label_of), list(label_of.values()), golds)
    shown = tuple(rng.permutation(list(label_of))[: rng.integers(1, 6)].tolist())
    found = attention.quality([Candidate(demonstrations=shown)], temperature, fading)
    expected = slow_quality(similarities.tolist(), label_of, golds, shown, temperature, fading)
    assert found == pytest.approx([expected], abs=1e-9)


def test_candidates_that_it_cannot_judge() -> None:
    attention = made(0)
    unknown = [Candidate(), Candidate(mode="retrieved", count=3), Candidate(demonstrations=(5,))]
    assert not any(attention.knows(each) for each in unknown)
    assert np.isnan(attention.quality(unknown, 0.1, 1.0)).all()


def test_it_finds_the_setting_that_made_the_scores() -> None:
    attention = made(1)
    candidates = draw(1, 150)
    quality = attention.quality(candidates, 0.05, 0.7)
    truth = np.clip(0.6 + 6 * (quality - quality.mean()), 0.02, 0.98)
    surrogate = fit_surrogate(scored(candidates, truth), attention)
    assert surrogate.temperature == 0.05
    assert surrogate.fading < 1
    assert surrogate.rank_correlation is not None
    assert surrogate.rank_correlation > 0.5
    assert surrogate.is_trusted
    assert "on, rank correlation +0." in str(surrogate)
    assert surrogate.predict(candidates) == pytest.approx(attention.quality(candidates, 0.05, surrogate.fading))


def test_it_does_not_flatter_itself() -> None:
    """Scores that have nothing to do with similarity but rise with the number of demonstrations."""
    within, overall = [], []
    for seed in range(30):
        candidates = draw(seed, 60)
        more = np.array([each.shots == 6 for each in candidates])
        truth = np.random.default_rng(seed).uniform(0.4, 0.6, 60) + 0.2 * more
        surrogate = fit_surrogate(scored(candidates, truth, seed), made(seed))
        within.append(surrogate.rank_correlation)
        overall.append(surrogate.overall_correlation)
    assert abs(np.mean(within)) < 0.06
    assert sum(each >= 0.3 for each in within) <= 2
    assert np.mean(overall) > 0.2, "a predictor that only counts would have been trusted"


def test_few_candidates_leave_it_unknown_and_off() -> None:
    candidates = draw(0, 29)
    surrogate = fit_surrogate(scored(candidates, np.full(29, 0.6)), made(0))
    assert surrogate.rank_correlation is None
    assert not surrogate.is_trusted
    assert "off, nothing to judge it by in 29 candidates" in str(surrogate)
    assert fit_surrogate({}, made(0)).candidates == 0


@pytest.mark.parametrize(
    ("similarities", "pool", "labels", "golds"),
    [
        (np.zeros((2, 3)), [1, 2], [0, 1], [0, 1]),
        (np.zeros((2, 2)), [1, 2], [0], [0, 1]),
        (np.zeros((1, 2)), [1, 2], [0, 1], [0, 1]),
        (np.zeros((0, 2)), [1, 2], [0, 1], []),
        (np.zeros((2, 0)), [], [], [0, 1]),
    ],
)
def test_shapes_that_do_not_belong_together(
    similarities: FloatArray, pool: list[int], labels: list[int], golds: list[int]
) -> None:
    with pytest.raises(DataError, match="do not belong together"):
        LinearAttention(similarities, pool, labels, golds)
