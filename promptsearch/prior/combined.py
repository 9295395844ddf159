"""The prior: what labelled examples say about a query without the model, in three ways that are weighed together.

``log p(y) = a * log vote(y) + b * log linear(y) + c * log ngrams(y) + constant``: the neighbours' vote, a linear
classifier on vectors and one on the texts' characters, with weights at least 0 that make pool rows likeliest. Each
row is judged by the others: the vote leaves it out, the classifiers were fitted without its fold. So none flatters
itself, and where the pool has no near duplicates the prior's probabilities are honest ones: its natural weight in a
prompt is 1.
Leaves out: the language model, and the weight of the prior in a prompt (:mod:`promptsearch.calibration`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.linear import LinearClassifier, fit_linear
from promptsearch.lm.base import FloatArray
from promptsearch.prior.ngrams import NgramClassifier, fit_ngram_classifier
from promptsearch.prior.vote import NeighbourLabels, NeighbourVote, fit_neighbour_vote
from promptsearch.probabilities import normalized, one_thread

__all__ = ["LabelPrior", "Labelled", "fit_label_prior"]

_LARGEST_WEIGHT = 4.0
_PULL = 1.0  # of a Gaussian around weights that add up to 1: a standard deviation of 1
_NO_WEIGHT = 1e-3  # below this a part is left out
_NO_GAIN = 1e-3  # of log-probability a row, in nats: so little is not worth a part
_TRACE = 0.01  # of the vote where nothing has weight: it still tells which label is likelier
_VOTE, _LINEAR, _NGRAMS = range(3)


@dataclass(frozen=True)
class LabelPrior:
    """Log-probabilities of labels from labelled examples alone.

    Attributes:
        vote: the neighbours' vote.
        vote_weight: factor on its log-probabilities, at least 0.
        linear: the classifier of vectors; None where there is none, as with a pool of one label.
        linear_weight: factor on its log-probabilities, at least 0; 0 without one.
        ngrams: the classifier of n-grams of characters; None where there is none.
        ngrams_weight: factor on its log-probabilities, at least 0; 0 without one.
    """

    vote: NeighbourVote
    _: KW_ONLY
    vote_weight: float = 1.0
    linear: LinearClassifier | None = None
    linear_weight: float = 0.0
    ngrams: NgramClassifier | None = None
    ngrams_weight: float = 0.0

    @property
    def neighbours(self) -> int:
        """Neighbours that a query needs; 0 where the vote has no weight."""
        return self.vote.count if self.vote_weight > 0 else 0

    @property
    def needs_vectors(self) -> bool:
        """Whether a query's vector counts."""
        return self.vote_weight > 0 or (self.linear is not None and self.linear_weight > 0)

    @property
    def description(self) -> str:
        """What it consists of, for people."""
        parts = []
        if self.vote_weight > 0:
            parts.append(f"{self.vote_weight:.2g} x vote of {self.vote.count} neighbours")
        if self.linear is not None and self.linear_weight > 0:
            parts.append(f"{self.linear_weight:.2g} x linear classifier of embeddings")
        if self.ngrams is not None and self.ngrams_weight > 0:
            parts.append(f"{self.ngrams_weight:.2g} x linear classifier of characters")
        return " + ".join(parts)

    def log_probabilities(
        self,
        texts: Sequence[str],
        vectors: NDArray[np.float32] | None,
        neighbours: NeighbourLabels | None,
        label_count: int,
    ) -> FloatArray:
        """Log-probability of each label, shape (items, labels).

        Args:
            texts: of the items.
            vectors: of the items, shape (items, dimensions); None where none is needed.
            neighbours: of the items, at least :attr:`neighbours` of them where the pool has as many; None where it
                needs none.
            label_count: number of labels.

        Raises:
            DataError: vectors of another dimension than the classifier's.
            ValueError: there are no neighbours or no vectors, and it needs some.
        """
        scores = np.zeros((len(texts), label_count))
        if self.vote_weight > 0:
            if neighbours is None:
                raise ValueError("the vote has weight and needs neighbours")
            scores += self.vote_weight * self.vote.log_probabilities(neighbours, label_count)
        if self.linear is not None and self.linear_weight > 0:
            if vectors is None:
                raise ValueError("the classifier of vectors has weight and needs some")
            scores += self.linear_weight * self.linear.log_probabilities(vectors, label_count)
        if self.ngrams is not None and self.ngrams_weight > 0:
            scores += self.ngrams_weight * self.ngrams.log_probabilities(texts, label_count)
        return normalized(scores)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a part without weight is left out."""
        return {
            "vote": self.vote.to_dict(),
            "vote_weight": self.vote_weight,
            "linear": self.linear.to_dict() if self.linear is not None and self.linear_weight > 0 else None,
            "linear_weight": self.linear_weight,
            "ngrams": self.ngrams.to_dict() if self.ngrams is not None and self.ngrams_weight > 0 else None,
            "ngrams_weight": self.ngrams_weight,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> LabelPrior:
        """The reverse of :meth:`to_dict`.

        Args:
            values: plain values; those of the n-grams may be missing.
            label_count: number of labels of the task.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        vote_weight, linear_weight = float(values["vote_weight"]), float(values["linear_weight"])
        ngrams_weight = float(values.get("ngrams_weight", 0.0))
        if not all(0 <= weight <= _LARGEST_WEIGHT for weight in (vote_weight, linear_weight, ngrams_weight)):
            raise ValueError("no such weights of a prior")
        linear, ngrams = values["linear"], values.get("ngrams")
        if (linear_weight > 0 and linear is None) or (ngrams_weight > 0 and ngrams is None):
            raise ValueError("a linear classifier has weight and is missing")
        return cls(
            NeighbourVote.from_dict(values["vote"]),
            vote_weight=vote_weight,
            linear=None if linear is None else LinearClassifier.from_dict(linear, label_count),
            linear_weight=linear_weight,
            ngrams=None if ngrams is None else NgramClassifier.from_dict(ngrams, label_count),
            ngrams_weight=ngrams_weight,
        )


@dataclass(frozen=True)
class Labelled:
    """Labelled texts.

    Attributes:
        texts: the texts.
        golds: their label indices, shape (texts,).
    """

    texts: Sequence[str] = ()
    golds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


def fit_label_prior(
    texts: Sequence[str],
    vectors: NDArray[np.float32],
    golds: Sequence[int] | NDArray[np.int64],
    neighbours: NeighbourLabels,
    label_count: int,
    further: Labelled = Labelled(),
) -> LabelPrior:
    """Fit vote, classifiers and their weights on the pool.

    Args:
        texts: of the pool rows.
        vectors: of the pool rows, shape (rows, dimensions).
        golds: their label indices, shape (rows,).
        neighbours: of each pool row in the pool, itself left out.
        label_count: number of labels.
        further: rows without vectors, which the classifier of characters is fitted on too.
    """
    right = np.asarray(golds, dtype=np.int64)
    vote = fit_neighbour_vote(neighbours, right, label_count)
    linear = fit_linear(vectors, right, label_count)
    rows = np.arange(len(right)) if linear is None else linear.rows
    counted, golds_counted = [*(texts[row] for row in rows), *further.texts], np.append(right[rows], further.golds)
    ngrams = fit_ngram_classifier(counted, golds_counted, label_count)
    told = np.arange(len(rows)) if ngrams is None else ngrams.rows
    among = told[told < len(rows)]  # what judges are rows that all parts know
    judging = rows[among]
    judged = NeighbourLabels(neighbours.similarities[judging], neighbours.labels[judging])
    held_out = {_VOTE: vote.log_probabilities(judged, label_count)}
    if linear is not None:
        held_out[_LINEAR] = linear.held_out[among]
    if ngrams is not None:
        held_out[_NGRAMS] = ngrams.held_out[: len(among)]
    if len(held_out) == 1:
        return LabelPrior(vote)
    chosen = _chosen_weights(np.stack(list(held_out.values())), right[judging])
    weights = dict(zip(held_out, chosen, strict=True))
    linear_weight, ngrams_weight = weights.get(_LINEAR, 0.0), weights.get(_NGRAMS, 0.0)
    return LabelPrior(
        vote,
        vote_weight=weights[_VOTE],
        linear=linear.classifier if linear is not None and linear_weight > 0 else None,
        linear_weight=linear_weight,
        ngrams=ngrams.classifier if ngrams is not None and ngrams_weight > 0 else None,
        ngrams_weight=ngrams_weight,
    )


def _chosen_weights(parts: FloatArray, golds: NDArray[np.int64]) -> list[float]:
    """A weight for each part.

    A part is left out where it gains next to nothing, or no more than one standard error, over the others, the vote
    first: without it a prompt needs no index and keeps no example in its files that it does not show, without vectors
    no encoder.

    Args:
        parts: log-probabilities of each about rows that it has not seen, the vote's first, shape (parts, rows,
            labels).
        golds: the rows' labels.
    """
    kept = list(range(len(parts)))
    weights = _fit_weights(parts, golds)
    for part in range(len(parts)):
        others = [each for each in kept if each != part]
        less = np.zeros(len(parts))
        if others:
            less[others] = _fit_weights(parts[others], golds)
        if not less.any():
            continue
        gains = _likelihoods(weights, parts, golds) - _likelihoods(less, parts, golds)
        if gains.mean() <= max(_NO_GAIN, float(gains.std()) / np.sqrt(len(gains))):
            kept, weights = others, less
    if not weights.any():
        weights[0] = _TRACE
    return [float(weight) for weight in weights]


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
