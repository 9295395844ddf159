"""Fits how a predictor's label log-probabilities are weighed, from the answers of its own runs.

Invariant: without right answers only batch calibration is fitted, which needs none; with them the calibration is the
one under which right answers that it did not see are likeliest.
Leaves out: the calibrations themselves, see :mod:`promptsearch.calibration`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptsearch.calibration import Weighing, batch_offsets, fit_weighing
from promptsearch.folds import FOLDS, stratified_folds
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized, softmax

__all__ = ["batch_weighing", "best_weighing"]

_FEWEST_ROWS = 8  # under which a mean over answers says more about those answers than about the prompt
_ROWS_A_LABEL = 4
_MOST_MIXED = 12
_LEARNING = ("batch", "fitted", "matrix")


def batch_weighing(logs: FloatArray) -> Weighing:
    """Batch calibration; none where there are too few answers for it.

    Args:
        logs: log-probabilities of the choices, shape (answers, choices).
    """
    choices = logs.shape[1]
    if len(logs) < _FEWEST_ROWS:
        return Weighing("none", (0.0,) * choices)
    return Weighing("batch", tuple(batch_offsets(normalized(logs)).tolist()))


def best_weighing(logs: FloatArray, golds: NDArray[np.int64] | None) -> Weighing:
    """The calibration that tells right answers best.

    Args:
        logs: log-probabilities of the choices, shape (answers, choices).
        golds: index of each answer's right choice, shape (answers,); None where it is not known.
    """
    if golds is None or len(logs) < _FEWEST_ROWS:
        return batch_weighing(logs)
    usable = [name for name in ("none", *_LEARNING) if name != "matrix" or _can_mix(logs)]
    best = max(usable, key=lambda name: _held_out_likelihood(name, logs, golds))
    return _fit(best, logs, golds)


def _can_mix(logs: FloatArray) -> bool:
    rows, choices = logs.shape
    return bool(2 < choices <= _MOST_MIXED and rows >= _ROWS_A_LABEL * choices)


def _fit(calibration: str, logs: FloatArray, golds: NDArray[np.int64]) -> Weighing:
    offsets = batch_offsets(normalized(logs)) if calibration in _LEARNING else np.zeros(logs.shape[1])
    return fit_weighing(calibration, offsets, logs, None, golds)


def _held_out_likelihood(calibration: str, logs: FloatArray, golds: NDArray[np.int64]) -> float:
    """Mean log-likelihood of right choices by fits on the other folds."""
    folds = stratified_folds(golds)
    likelihoods = np.zeros(len(logs))
    for fold in range(FOLDS):
        inside, outside = folds != fold, folds == fold
        weighing = _fit(calibration, logs[inside], golds[inside])
        shares = softmax(weighing.scores(logs[outside]))
        likelihoods[outside] = np.log(np.maximum(shares[np.arange(outside.sum()), golds[outside]], 1e-9))
    return float(likelihoods.mean())
