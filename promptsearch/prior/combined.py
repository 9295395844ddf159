"""The prior: what vectors say about a query, by the neighbours' vote and a linear classifier together.

``log p(y) = a * log vote(y) + b * log linear(y) + constant`` with weights at least 0 that make pool rows likeliest,
each row judged by the others: the vote leaves it out, the classifier was fitted without its fold. So neither flatters
itself, and the prior's probabilities are honest ones: its natural weight in a prompt is 1.
Leaves out: the language model, and the weight of the prior in a prompt (:mod:`promptsearch.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.linear import LinearClassifier, fit_linear
from promptsearch.lm.base import FloatArray
from promptsearch.prior.vote import NeighbourLabels, NeighbourVote, fit_neighbour_vote
from promptsearch.probabilities import normalized, one_thread

__all__ = ["EmbeddingPrior", "fit_embedding_prior"]

_LARGEST_WEIGHT = 4.0
_PULL = 1.0  # of a Gaussian around weights that add up to 1: a standard deviation of 1
_NO_WEIGHT = 1e-3  # below this a part is left out
_TRACE = 0.01  # of the vote where nothing has weight: it still tells which label is likelier


@dataclass(frozen=True)
class EmbeddingPrior:
    """Log-probabilities of labels from vectors alone.

    Attributes:
        vote: the neighbours' vote.
        linear: the classifier; None where there is none, as with a pool of one label.
        vote_weight: factor on the vote's log-probabilities, at least 0.
        linear_weight: factor on the classifier's, at least 0; 0 without one.
    """

    vote: NeighbourVote
    linear: LinearClassifier | None = None
    vote_weight: float = 1.0
    linear_weight: float = 0.0

    @property
    def neighbours(self) -> int:
        """Neighbours that a query needs; 0 where the vote has no weight."""
        return self.vote.count if self.vote_weight > 0 else 0

    @property
    def description(self) -> str:
        """What it consists of, for people."""
        parts = []
        if self.vote_weight > 0:
            parts.append(f"{self.vote_weight:.2g} x vote of {self.vote.count} neighbours")
        if self.linear is not None and self.linear_weight > 0:
            parts.append(f"{self.linear_weight:.2g} x linear classifier")
        return " + ".join(parts)

    def log_probabilities(
        self, vectors: NDArray[np.float32], neighbours: NeighbourLabels | None, label_count: int
    ) -> FloatArray:
        """Log-probability of each label, shape (items, labels).

        Args:
            vectors: of the items, shape (items, dimensions).
            neighbours: of the items, at least :attr:`neighbours` of them where the pool has as many; None where it
                needs none.
            label_count: number of labels.

        Raises:
            DataError: vectors of another dimension than the classifier's.
            ValueError: there are no neighbours and it needs some.
        """
        scores = np.zeros((len(vectors), label_count))
        if self.vote_weight > 0:
            if neighbours is None:
                raise ValueError("the vote has weight and needs neighbours")
            scores += self.vote_weight * self.vote.log_probabilities(neighbours, label_count)
        if self.linear is not None and self.linear_weight > 0:
            scores += self.linear_weight * self.linear.log_probabilities(vectors, label_count)
        return normalized(scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a part without weight is left out."""
        return {
            "vote": self.vote.to_dict(),
            "vote_weight": self.vote_weight,
            "linear": self.linear.to_dict() if self.linear is not None and self.linear_weight > 0 else None,
            "linear_weight": self.linear_weight,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> EmbeddingPrior:
        """The reverse of :meth:`to_dict`.

        Args:
            values: plain values.
            label_count: number of labels of the task.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        vote_weight, linear_weight = float(values["vote_weight"]), float(values["linear_weight"])
        if not (0 <= vote_weight <= _LARGEST_WEIGHT and 0 <= linear_weight <= _LARGEST_WEIGHT):
            raise ValueError("no such weights of a prior")
        linear = values["linear"]
        if linear_weight > 0 and linear is None:
            raise ValueError("a linear classifier has weight and is missing")
        return cls(
            NeighbourVote.from_dict(values["vote"]),
            None if linear is None else LinearClassifier.from_dict(linear, label_count),
            vote_weight,
            linear_weight,
        )


def fit_embedding_prior(
    vectors: NDArray[np.float32],
    golds: Sequence[int] | NDArray[np.int64],
    neighbours: NeighbourLabels,
    label_count: int,
) -> EmbeddingPrior:
    """Fit vote, classifier and their weights on the pool.

    Args:
        vectors: of the pool rows, shape (rows, dimensions).
        golds: their label indices, shape (rows,).
        neighbours: of each pool row in the pool, itself left out.
        label_count: number of labels.
    """
    right = np.asarray(golds, dtype=np.int64)
    vote = fit_neighbour_vote(neighbours, right, label_count)
    found = fit_linear(vectors, right, label_count)
    if found is None:
        return EmbeddingPrior(vote)
    rows = found.rows
    judged = NeighbourLabels(neighbours.similarities[rows], neighbours.labels[rows])
    parts = np.stack([vote.log_probabilities(judged, label_count), found.held_out])
    vote_weight, linear_weight = _chosen_weights(parts, right[rows])
    return EmbeddingPrior(vote, found.classifier if linear_weight > 0 else None, vote_weight, linear_weight)


def _chosen_weights(parts: FloatArray, golds: NDArray[np.int64]) -> tuple[float, float]:
    """Weights of vote and classifier.

    The vote is left out where it gains no more than one standard error: a prompt without it needs no index, and keeps
    no example in its files that it does not show.

    Args:
        parts: log-probabilities of both about rows that neither has seen, shape (2, rows, labels).
        golds: the rows' labels.
    """
    both, alone = _fit_weights(parts, golds), np.array([0.0, *_fit_weights(parts[1:], golds)])
    gains = _likelihoods(both, parts, golds) - _likelihoods(alone, parts, golds)
    error = float(gains.std()) / np.sqrt(len(gains))
    vote_weight, linear_weight = (alone if gains.mean() <= error else both).tolist()
    return (vote_weight if linear_weight > 0 else max(vote_weight, _TRACE)), linear_weight


def _likelihoods(weights: FloatArray, parts: FloatArray, golds: NDArray[np.int64]) -> FloatArray:
    """Log-probability of each row's right label, shape (rows,)."""
    return np.asarray(normalized(np.tensordot(weights, parts, axes=1))[np.arange(len(golds)), golds])


def _fit_weights(parts: FloatArray, golds: NDArray[np.int64]) -> FloatArray:
    """Weights of log-probabilities with which the right labels are likeliest; the problem is convex.

    Args:
        parts: log-probabilities, shape (parts, rows, labels).
        golds: the rows' labels.

    Returns:
        Shape (parts,), each from 0 to :data:`_LARGEST_WEIGHT`.
    """
    from scipy.optimize import minimize

    right = np.eye(parts.shape[2])[golds]
    usual = 1.0 / len(parts)  # parts that say the same share what one would have

    def loss(weights: FloatArray) -> tuple[float, FloatArray]:
        scores = normalized(np.tensordot(weights, parts, axes=1))
        apart = weights - usual
        value = -(scores * right).sum() + 0.5 * _PULL * (apart**2).sum()
        return float(value), ((np.exp(scores) - right) * parts).sum(axis=(1, 2)) + _PULL * apart

    limits = [(0.0, _LARGEST_WEIGHT)] * len(parts)
    with one_thread():
        found = minimize(loss, np.full(len(parts), usual), jac=True, method="L-BFGS-B", bounds=limits).x
    return np.where(found > _NO_WEIGHT, found, 0.0)
