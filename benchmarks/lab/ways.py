"""The ways of scoring labels, and answers as they are kept.

``"direct"``: as the model answers. ``"calibrated"``: the mean of the items' log-probabilities is subtracted for each
label (batch calibration, Zhou et al. 2023, arXiv 2309.17249), for which no right label is needed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptsearch.calibration import batch_offsets

__all__ = ["WAYS", "bits", "right_in_ways", "scores_of"]

WAYS = ("direct", "calibrated")


def right_in_ways(scores: NDArray[np.float64], golds: NDArray[np.int64]) -> dict[str, NDArray[np.bool_]]:
    """Which items are answered rightly in each way.

    Args:
        scores: of each label, such as its log-probability, shape (items, labels).
        golds: number of each item's label, shape (items,).
    """
    ways = zip(WAYS, (scores, scores - batch_offsets(scores)), strict=True)
    return {way: each.argmax(axis=1) == golds for way, each in ways}


def bits(right: NDArray[np.bool_]) -> str:
    """One character an item."""
    return "".join("1" if each else "0" for each in right.tolist())


def scores_of(text: str) -> NDArray[np.float64]:
    """The reverse of :func:`bits`, shape (items,)."""
    return np.array([float(each) for each in text])
