"""Whether predictions rank candidates as measurements do: what decides if a predictor may be trusted.

Sets of more demonstrations often score better, and nearly any predictor says so. What it is asked for is which
examples to show, so it is judged among sets of equally many.
Invariant: predictions are of candidates that the predictor was not fitted on; its caller sees to that.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptsearch.lm.base import FloatArray

__all__ = ["FEWEST_CANDIDATES", "TRUSTED", "centred_ranks", "is_trusted", "rank_correlation"]

FEWEST_CANDIDATES = 30
TRUSTED = 0.3


def rank_correlation(predicted: FloatArray, measured: FloatArray, groups: ArrayLike | None = None) -> float | None:
    """Spearman's rank correlation, within groups if there are some.

    Args:
        predicted: one number for each candidate, shape (candidates,).
        measured: likewise.
        groups: what group each candidate is in, same shape; ranks are compared with the mean rank of their group,
            so that differences between groups count for nothing. None for one group.

    Returns:
        -1 to 1; None, which means unknown, below 30 candidates or where either never varies within a group.
    """
    if len(measured) < FEWEST_CANDIDATES:
        return None
    places = np.zeros(len(measured), dtype=np.int64) if groups is None else np.unique(groups, return_inverse=True)[1]
    given, wanted = centred_ranks(predicted, places), centred_ranks(measured, places)
    size = float(np.sqrt((given @ given) * (wanted @ wanted)))
    return float(given @ wanted) / size if size > 1e-6 else None


def centred_ranks(values: FloatArray, places: NDArray[np.int64]) -> FloatArray:
    """Ranks among all, less the mean rank of their group; equals share theirs.

    Args:
        values: shape (candidates,).
        places: number of each candidate's group, from 0, same shape.
    """
    from scipy.stats import rankdata

    ranks = rankdata(np.round(values, 9))  # rounding errors are no ranks
    means = np.bincount(places, ranks) / np.maximum(np.bincount(places), 1)
    return np.asarray(ranks - means[places])


def is_trusted(correlation: float | None) -> bool:
    """Whether a predictor with this rank correlation may decide what is tried."""
    return correlation is not None and correlation >= TRUSTED
