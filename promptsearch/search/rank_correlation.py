"""Whether predictions rank candidates as measurements do: what decides if a predictor may be trusted.

Invariant: predictions are of candidates that the predictor was not fitted on; its caller sees to that.
"""

from __future__ import annotations

import numpy as np

from promptsearch.lm.base import FloatArray

__all__ = ["FEWEST_CANDIDATES", "TRUSTED", "is_trusted", "rank_correlation"]

FEWEST_CANDIDATES = 30
TRUSTED = 0.3


def rank_correlation(predicted: FloatArray, measured: FloatArray) -> float | None:
    """Spearman's rank correlation; None, which means unknown, below 30 candidates or where either never varies.

    Args:
        predicted: one number for each candidate, shape (candidates,).
        measured: likewise.
    """
    if len(measured) < FEWEST_CANDIDATES:
        return None
    given, wanted = np.round(predicted, 9), np.round(measured, 9)  # rounding errors are no ranks
    if np.ptp(given) == 0 or np.ptp(wanted) == 0:
        return None
    from scipy.stats import spearmanr

    return float(spearmanr(given, wanted).statistic)


def is_trusted(correlation: float | None) -> bool:
    """Whether a predictor with this rank correlation may decide what is tried."""
    return correlation is not None and correlation >= TRUSTED
