"""Trust in predictors: Spearman by its definition, and when nothing is known."""

from __future__ import annotations

import random
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.search.rank_correlation import FEWEST_CANDIDATES, is_trusted, rank_correlation

numbers = st.lists(
    st.tuples(st.integers(0, 8).map(float), st.integers(0, 8).map(float)), min_size=FEWEST_CANDIDATES, max_size=45
)


def slow_ranks(values: list[float]) -> list[float]:
    """Mean place of each value among all, equals sharing theirs."""
    return [
        sum(other < value for other in values) + (sum(other == value for other in values) - 1) / 2 for value in values
    ]


@given(numbers)
def test_it_is_its_slow_twin(pairs: list[tuple[float, float]]) -> None:
    predicted, measured = (list(column) for column in zip(*pairs, strict=True))
    found = rank_correlation(np.array(predicted), np.array(measured))
    if len(set(predicted)) == 1 or len(set(measured)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(slow_ranks(predicted), slow_ranks(measured))[0, 1])


@given(numbers, st.randoms())
def test_groups_are_compared_within(pairs: list[tuple[float, float]], chance: random.Random) -> None:
    """Each rank less the mean rank of its group, by loops."""
    predicted, measured = (list(column) for column in zip(*pairs, strict=True))
    groups = [chance.choice([1, 4, 8]) for _ in pairs]

    def centred(values: list[float]) -> list[float]:
        ranks = slow_ranks(values)
        means = {
            group: statistics.fmean(rank for rank, other in zip(ranks, groups, strict=True) if other == group)
            for group in groups
        }
        return [rank - means[group] for rank, group in zip(ranks, groups, strict=True)]

    found = rank_correlation(np.array(predicted), np.array(measured), groups)
    given, wanted = centred(predicted), centred(measured)
    product = sum(a * b for a, b in zip(given, wanted, strict=True))
    size = (sum(a * a for a in given) * sum(b * b for b in wanted)) ** 0.5
    assert found == (None if size < 1e-6 else pytest.approx(product / size, abs=1e-9))


def test_what_groups_explain_counts_for_nothing() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([1, 2, 4, 8], 50)
    predicted, measured = groups + 0.1 * rng.random(200), groups + 0.1 * rng.random(200)
    overall, within = rank_correlation(predicted, measured), rank_correlation(predicted, measured, groups)
    assert overall is not None
    assert within is not None
    assert overall > 0.9
    assert abs(within) < 0.2


def test_few_candidates_tell_nothing() -> None:
    assert rank_correlation(np.arange(29.0), np.arange(29.0)) is None
    assert rank_correlation(np.arange(30.0), np.arange(30.0)) == pytest.approx(1.0)


def test_rounding_errors_are_no_ranks() -> None:
    noise = 0.1 + 1e-16 * np.arange(40)
    assert rank_correlation(noise, np.arange(40.0)) is None


@pytest.mark.parametrize(("correlation", "trusted"), [(None, False), (0.29, False), (0.3, True), (-0.9, False)])
def test_trust(correlation: float | None, trusted: bool) -> None:
    assert is_trusted(correlation) is trusted
