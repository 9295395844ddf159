"""A linear classifier on vectors: multinomial logistic regression, fitted on the labelled examples.

It sees what a vote of few neighbours cannot: directions in which labels differ although topics do not. Vectors are
dense, as an encoder makes them, or sparse, as counts are.
Invariant: predictions that judge it are cross-fitted, each made without the row itself; the classifier is plain
numbers, and its answer to a query does not depend on which others are asked with it.
Leaves out: what the vectors are of, and what its answer counts beside others.
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import DataError
from promptsearch.folds import spread_rows, stratified_folds
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized, one_thread

__all__ = ["LinearClassifier", "LinearFit", "Vectors", "fit_linear"]

Vectors = Any  # a float32 array of shape (items, dimensions), or a SciPy CSR matrix of that shape

_ROWS_FOR_PENALTY = 500  # held-out rows that settle which penalty is best
_TOLERANCE, _TOLERANCE_OF_LABELS = 1e-3, 0.5  # the latter over labels squared: the more labels, the flatter the loss
_LARGEST = 1e6  # of any number in a saved classifier
_NUMBER_TYPES = ("<f4", "<f2")  # of saved weights


@dataclass(frozen=True)
class _Effort:
    """How hard a fit tries.

    Attributes:
        penalties: scikit-learn's C to choose among: the higher, the freer.
        most_work: rows * labels * numbers of a row that one fit takes: a second or so on one core.
        fewest_rows: of a subsample, however much work they are.
        most_steps: of the solver.
    """

    penalties: tuple[float, ...]
    most_work: int
    fewest_rows: int
    most_steps: int


_DENSE = _Effort((1.0, 3.0, 10.0, 30.0, 100.0), 400_000_000, 2_000, 100)
_SPARSE = _Effort((10.0,), 35_000_000, 500, 25)  # 3 and 30 tell labels as well, and so do 100 steps


@dataclass(frozen=True, eq=False)
class LinearClassifier:
    """``p(y) = (rows * softmax(weights v + intercepts)_y + 1 / labels) / (rows + 1)``.

    Mixing in one uniform row bounds how sure it can be, and gives labels that it has never seen a share.

    Attributes:
        labels: indices of the labels that it knows, ascending, at least two.
        weights: one row for each of them, shape (known labels, dimensions), float32.
        intercepts: shape (known labels,), float64.
        rows: examples that it was fitted on, at least 1.
    """

    labels: tuple[int, ...]
    weights: NDArray[np.float32]
    intercepts: FloatArray
    rows: int

    def log_probabilities(self, vectors: Vectors, label_count: int) -> FloatArray:
        """Log-probability of each label, shape (items, labels).

        Args:
            vectors: of the items, shape (items, dimensions), dense or sparse.
            label_count: number of labels.

        Raises:
            DataError: vectors of another dimension.
        """
        if vectors.ndim != 2 or vectors.shape[1] != self.weights.shape[1]:
            raise DataError(
                f"vectors have shape {vectors.shape} and the linear classifier takes (items, "
                f"{self.weights.shape[1]}); give those of the encoder that it was fitted with"
            )
        if _is_sparse(vectors):  # SciPy sums row by row
            used = np.unique(vectors.indices)
            weights = np.ascontiguousarray(self.weights[:, used].T, dtype=np.float64)
            products = np.asarray(vectors[:, used].astype(np.float64) @ weights)
        else:  # not a matrix product, rows in one order: else sums round by the number of items and the layout
            rows, weights = (np.ascontiguousarray(array, dtype=np.float64) for array in (vectors, self.weights))
            products = np.einsum("id,ld->il", rows, weights)
        logits = products + self.intercepts
        shares = np.zeros((vectors.shape[0], label_count))
        shares[:, self.labels] = np.exp(normalized(logits))
        return np.asarray(np.log((self.rows * shares + 1.0 / label_count) / (self.rows + 1)))

    def to_dict(self) -> dict[str, Any]:
        """Plain values; a label's weights are the base64 text of little-endian numbers, the shortest that do."""
        usual, short = _NUMBER_TYPES
        with np.errstate(over="ignore"):
            numbers = short if np.array_equal(self.weights.astype(short), self.weights) else usual
        return {
            "labels": list(self.labels),
            "numbers": numbers,
            "weights": [base64.b64encode(row.astype(numbers).tobytes()).decode("ascii") for row in self.weights],
            "intercepts": self.intercepts.tolist(),
            "rows": self.rows,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> LinearClassifier:
        """The reverse of :meth:`to_dict`.

        Args:
            values: plain values.
            label_count: number of labels of the task.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        labels, rows = [int(label) for label in values["labels"]], int(values["rows"])
        numbers = values.get("numbers", _NUMBER_TYPES[0])
        if numbers not in _NUMBER_TYPES:
            raise ValueError("no such numbers of a classifier")
        encoded = [base64.b64decode(row, validate=True) for row in values["weights"]]
        if len({len(row) for row in encoded}) != 1 or not encoded[0]:
            raise ValueError("a classifier's rows of weights are of one length")
        weights = np.stack([np.frombuffer(row, dtype=numbers) for row in encoded]).astype(np.float32)
        intercepts = np.array([float(value) for value in values["intercepts"]])
        known = labels == sorted(set(labels)) and len(labels) >= 2 and labels[0] >= 0 and labels[-1] < label_count
        if not known or not len(labels) == len(weights) == len(intercepts) or not 1 <= rows < 2**53:
            raise ValueError("no such classifier")
        if not (np.abs(weights) <= _LARGEST).all() or not (np.abs(intercepts) <= _LARGEST).all():
            raise ValueError("no such weights of a classifier")
        return cls(tuple(labels), weights, intercepts, rows)


@dataclass(frozen=True)
class LinearFit:
    """A classifier, and what its like says about rows that it was not fitted on.

    Attributes:
        classifier: fitted on all ``rows``.
        rows: places of the rows used, ascending; all, but for a subsample of a large pool.
        held_out: log-probabilities of labels of each, from a classifier that was fitted without its fold, shape
            (rows used, labels).
    """

    classifier: LinearClassifier
    rows: NDArray[np.intp]
    held_out: FloatArray


def fit_linear(vectors: Vectors, golds: Sequence[int] | NDArray[np.int64], label_count: int) -> LinearFit | None:
    """Fit a classifier, the penalty of one of dense vectors chosen by the likelihood of held-out rows.

    Rows are dealt to five folds label by label, so that no randomness is needed and each fold has its share of every
    label. A label that is in one fold only is unknown to the classifier that judges it there.

    Args:
        vectors: of the labelled rows, shape (rows, dimensions), dense or sparse.
        golds: their label indices, shape (rows,).
        label_count: number of labels.

    Returns:
        None where a fold leaves fewer than two labels to fit on.
    """
    right = np.asarray(golds, dtype=np.int64)
    effort = _SPARSE if _is_sparse(vectors) else _DENSE
    numbers = vectors.nnz // max(1, len(right)) if _is_sparse(vectors) else vectors.shape[1]  # of a row
    rows = spread_rows(right, max(effort.fewest_rows, effort.most_work // max(1, label_count * numbers)))
    vectors, right = vectors[rows], right[rows]
    folds = stratified_folds(right)
    count = int(folds.max(initial=0)) + 1
    if any(len(np.unique(right[folds != fold])) < 2 for fold in range(count)):
        return None
    with one_thread():
        penalty = _best_penalty(vectors, right, folds, label_count, effort)
        held_out = np.empty((len(rows), label_count))
        for fold in range(count):
            held_out[folds == fold] = _predicted(vectors, right, folds, fold, penalty, label_count, effort)
        return LinearFit(_fitted(vectors, right, penalty, effort), rows, held_out)


def _is_sparse(vectors: Vectors) -> bool:
    from scipy.sparse import issparse

    return bool(issparse(vectors))


def _best_penalty(
    vectors: Vectors, golds: NDArray[np.int64], folds: NDArray[np.int64], label_count: int, effort: _Effort
) -> float:
    """The penalty under which held-out rows are likeliest, by as many folds as there must be to tell."""
    if len(effort.penalties) == 1:
        return effort.penalties[0]
    enough = np.cumsum(np.bincount(folds)) >= _ROWS_FOR_PENALTY
    judging = int(np.argmax(enough)) + 1 if enough.any() else len(enough)

    def likelihood(penalty: float) -> float:
        total = 0.0
        for fold in range(judging):
            logs = _predicted(vectors, golds, folds, fold, penalty, label_count, effort)
            total += float(logs[np.arange(len(logs)), golds[folds == fold]].sum())
        return total

    return max(effort.penalties, key=likelihood)


def _predicted(
    vectors: Vectors,
    golds: NDArray[np.int64],
    folds: NDArray[np.int64],
    fold: int,
    penalty: float,
    label_count: int,
    effort: _Effort,
) -> FloatArray:
    """Log-probabilities of one fold's rows from a classifier that was fitted on the others."""
    inside = folds != fold
    return _fitted(vectors[inside], golds[inside], penalty, effort).log_probabilities(vectors[~inside], label_count)


def _fitted(vectors: Vectors, golds: NDArray[np.int64], penalty: float, effort: _Effort) -> LinearClassifier:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    tolerance = min(_TOLERANCE, _TOLERANCE_OF_LABELS / len(np.unique(golds)) ** 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # stopping early is a penalty too, the same in every fold
        warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
        model = LogisticRegression(C=penalty, tol=tolerance, max_iter=effort.most_steps).fit(vectors, golds)
    weights, intercepts = np.asarray(model.coef_), np.asarray(model.intercept_, dtype=np.float64)
    if len(weights) == 1:  # of two labels scikit-learn keeps the difference
        weights, intercepts = np.concatenate([-weights, weights]) / 2, np.array([-0.5, 0.5]) * intercepts
    labels = tuple(int(label) for label in model.classes_)
    return LinearClassifier(labels, np.asarray(weights, dtype=np.float32), intercepts, len(golds))
