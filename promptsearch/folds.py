"""Rows dealt label by label: into folds that are held out in turn, and into parts with each label's share.

Invariant: no randomness; the order of rows with the same label decides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["FOLDS", "spread_rows", "stratified_folds"]

FOLDS = 5


def stratified_folds(golds: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each row's fold, below :data:`FOLDS`: the rows of a label are dealt one by one, a share for each fold.

    Args:
        golds: the rows' label indices, shape (rows,).
    """
    folds = np.empty(len(golds), dtype=np.int64)
    folds[_by_label(golds)] = np.arange(len(golds)) % FOLDS
    return folds


def spread_rows(golds: NDArray[np.int64], most: int) -> NDArray[np.intp]:
    """Places of at most so many rows, evenly spread over each label, ascending; all where they are few enough.

    Args:
        golds: the rows' label indices, shape (rows,).
        most: at least 1.
    """
    if len(golds) <= most:
        return np.arange(len(golds))
    chosen = np.linspace(0, len(golds) - 1, most).round().astype(np.intp)
    return np.sort(_by_label(golds)[chosen])


def _by_label(golds: NDArray[np.int64]) -> NDArray[np.intp]:
    """Places of the rows, label by label."""
    return np.argsort(golds, kind="stable")
