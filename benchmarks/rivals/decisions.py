"""What two recipes decide by, from log-probabilities alone.

*Minimum description length* (Wu et al. 2023, arXiv 2212.10375): of several demonstration sets for a query, the one
under which the model's choice of a label has the least entropy. *kNN prompting* (Xu et al. 2023, arXiv 2303.13824):
a query gets the labels of the anchors whose next-token distributions are nearest to its own, by the divergence
KL(anchor, query).
Invariant: pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import softmax

__all__ = ["anchor_votes", "best_count", "divergences", "least_entropy", "with_rest"]

_LEAST = 1e-12


def least_entropy(logs: FloatArray) -> NDArray[np.int64]:
    """For each item the set with the least entropy over the labels, the first of equal ones.

    Args:
        logs: log-probabilities of the labels, shape (items, sets, labels); a set that does not fit is all -inf, and
            is taken only where no other is left.
    """
    items, sets, labels = logs.shape
    shares = softmax(logs.reshape(items * sets, labels)).reshape(logs.shape)
    entropies = -(shares * np.log(np.maximum(shares, _LEAST))).sum(axis=2)
    entropies[~np.isfinite(logs).any(axis=2)] = np.inf
    return np.asarray(entropies.argmin(axis=1))


def with_rest(logs: FloatArray) -> FloatArray:
    """A distribution over some tokens, with one more column for all others, shape (items, tokens + 1)."""
    rest = np.maximum(1.0 - np.exp(logs).sum(axis=1, keepdims=True), _LEAST)
    return np.hstack([logs, np.log(rest)])


def divergences(queries: FloatArray, anchors: FloatArray) -> FloatArray:
    """KL(anchor, query) = sum over tokens of p_anchor * log(p_anchor / p_query), shape (queries, anchors).

    Args:
        queries: log-probabilities, shape (queries, tokens).
        anchors: log-probabilities, shape (anchors, tokens).
    """
    weights = np.exp(anchors)
    own = (weights * anchors).sum(axis=1)
    return np.asarray(own[None, :] - queries @ weights.T)


def anchor_votes(distances: FloatArray, labels: NDArray[np.int64], count: int, label_count: int) -> NDArray[np.int64]:
    """Votes of each query's nearest anchors by label, shape (queries, labels).

    The nearest anchor's label has the edge in a tie: its vote counts twice where that decides nothing else, so votes
    are doubled and one is added for it.
    """
    nearest = np.argsort(distances, axis=1, kind="stable")[:, :count]
    votes = np.zeros((len(distances), label_count), dtype=np.int64)
    for place in range(nearest.shape[1]):
        votes[np.arange(len(distances)), labels[nearest[:, place]]] += 2
    votes[np.arange(len(distances)), labels[nearest[:, 0]]] += 1
    return votes


def best_count(
    anchors: FloatArray, labels: NDArray[np.int64], counts: Sequence[int], label_count: int
) -> tuple[int, float]:
    """The number of neighbours by which most anchors get their own label from the others; and their share."""
    distances = divergences(anchors, anchors)
    np.fill_diagonal(distances, np.inf)
    shares: dict[int, float] = {}
    for count in counts:
        if count < len(anchors) or not shares:
            votes = anchor_votes(distances, labels, count, label_count)
            shares[count] = float((votes.argmax(axis=1) == labels).mean())
    best = max(shares, key=lambda count: (shares[count], -count))
    return best, shares[best]
