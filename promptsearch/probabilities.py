"""Arithmetic of log-probabilities over labels, and of small algebra on busy cores.

Invariant: pure; a row's numbers depend on no other row.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from promptsearch.lm.base import FloatArray

__all__ = ["normalized", "one_thread", "softmax"]


def normalized(log_probabilities: FloatArray) -> FloatArray:
    """Log-probabilities made to sum to one over the labels, shape (items, labels).

    A row without any finite value, an answer that could not be read, stays so.
    """
    with np.errstate(invalid="ignore"):
        peaks = log_probabilities.max(axis=1, keepdims=True)
        peaks = np.where(np.isfinite(peaks), peaks, 0.0)
        with np.errstate(divide="ignore"):
            totals = np.log(np.exp(log_probabilities - peaks).sum(axis=1, keepdims=True))
        return np.asarray(np.where(np.isfinite(totals), log_probabilities - peaks - totals, -np.inf))


def softmax(scores: FloatArray) -> FloatArray:
    """Probabilities from scores, shape (items, labels); uniform for a row without finite values."""
    logs = normalized(scores)
    readable = np.isfinite(logs).any(axis=1, keepdims=True)
    return np.asarray(np.where(readable, np.exp(logs), 1.0 / scores.shape[1]))


def one_thread() -> Any:
    """A context in which linear algebra runs on the calling thread alone."""
    return _thread_pools().limit(limits=1, user_api="blas")


@cache
def _thread_pools() -> Any:
    import scipy.linalg  # noqa: F401  # a controller knows what is loaded by now, and scipy brings its own BLAS
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()
