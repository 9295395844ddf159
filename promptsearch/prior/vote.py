"""A label vote of the nearest labelled examples.

Invariant: a vote is fitted on examples that are judged by the others, and depends on one query's neighbours alone.
Leaves out: who the neighbours are, which :mod:`promptsearch.pool` finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.lm.base import FloatArray

__all__ = ["NeighbourLabels", "NeighbourVote", "fit_neighbour_vote"]

_COUNTS = (1, 2, 4, 8, 16, 32)
_TEMPERATURES = (0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class NeighbourLabels:
    """The nearest pool examples of items, as numbers.

    Attributes:
        similarities: cosine similarities, nearest first, shape (items, neighbours).
        labels: label indices, same shape.
    """

    similarities: FloatArray
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class NeighbourVote:
    """A label vote of the nearest labelled examples.

    ``p(y) = (smoothing / labels + sum over neighbours with label y of w_i) / (smoothing + sum of w_i)`` with
    ``w_i = exp((similarity_i - similarity_1) / temperature)``.

    Attributes:
        count: neighbours that vote, at least 1.
        temperature: how fast a vote fades with cosine similarity, above 0.
        smoothing: weight of a uniform vote; it bounds how sure the neighbours can be.
    """

    count: int = 8
    temperature: float = 0.1
    smoothing: float = 0.1

    def log_probabilities(self, neighbours: NeighbourLabels, label_count: int) -> FloatArray:
        """Log-probability of each label, shape (items, labels).

        Args:
            neighbours: of each item; those after the first ``count`` have no vote.
            label_count: number of labels.
        """
        near = neighbours.similarities[:, : self.count]
        weights = np.exp((near - near[:, :1]) / self.temperature)
        votes = np.full((len(near), label_count), self.smoothing / label_count)
        for place in range(near.shape[1]):
            votes[np.arange(len(near)), neighbours.labels[:, place]] += weights[:, place]
        return np.asarray(np.log(votes / votes.sum(axis=1, keepdims=True)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NeighbourVote:
        """The reverse of :meth:`to_dict`.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError: a value is none that a fit could have found.
        """
        count, temperature, smoothing = (float(values[name]) for name in ("count", "temperature", "smoothing"))
        if not (1 <= count < np.inf and 0 < temperature < np.inf and 0 < smoothing < np.inf):
            raise ValueError("no such vote")
        return cls(int(count), temperature, smoothing)


def fit_neighbour_vote(
    neighbours: NeighbourLabels, golds: Sequence[int] | NDArray[np.int64], label_count: int
) -> NeighbourVote:
    """The vote with the best likelihood of pool items, each judged by the others.

    Args:
        neighbours: of each pool item in the pool, itself left out.
        golds: the items' own labels, shape (items,).
        label_count: number of labels.
    """
    right = np.asarray(golds)
    best, best_likelihood = NeighbourVote(count=1), -np.inf
    for count in _COUNTS:
        if count > neighbours.labels.shape[1]:
            break
        for temperature in _TEMPERATURES:
            vote = NeighbourVote(count, temperature)
            logs = vote.log_probabilities(neighbours, label_count)
            likelihood = float(logs[np.arange(len(right)), right].mean())
            if likelihood > best_likelihood:
                best, best_likelihood = vote, likelihood
    return best
