"""Trust in predictors: Spearman by its definition, and when nothing is known."""

from __future__ import annotations

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


def test_few_candidates_tell_nothing() -> None:
    assert rank_correlation(np.arange(29.0), np.arange(29.0)) is None
    assert rank_correlation(np.arange(30.0), np.arange(30.0)) == pytest.approx(1.0)


def test_rounding_errors_are_no_ranks() -> None:
    noise = 0.1 + 1e-16 * np.arange(40)
    assert rank_correlation(noise, np.arange(40.0)) is None


@pytest.mark.parametrize(("correlation", "trusted"), [(None, False), (0.29, False), (0.3, True), (-0.9, False)])
def test_trust(correlation: float | None, trusted: bool) -> None:
    assert is_trusted(correlation) is trusted
