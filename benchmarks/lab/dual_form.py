"""Demonstrations as implicit gradient steps: the dual form of linear attention, written out.

Take one attention head without softmax (Dai et al. 2023, arXiv 2212.10559, section 3). A query vector ``q`` attends
to the demonstrations' vectors ``X' = [x'_1 .. x'_n]`` and to the query's own context ``X``, with value and key
matrices ``V`` and ``K``::

    F(q) = V [X'; X] (K [X'; X])^T q
         = V X (K X)^T q  +  V X' (K X')^T q
         = W_zero q       +  sum_i (V x'_i) ((K x'_i)^T q)
         = W_zero q       +  sum_i ((V x'_i) outer (K x'_i)) q
         = (W_zero + dW) q

``W_zero = V X (K X)^T`` is what the head computes without demonstrations, and each demonstration adds the rank-one
matrix ``(V x'_i) outer (K x'_i)``. A gradient step has the same form: for ``y = W x`` and a loss ``L`` of ``y``, the
step of rate ``r`` on inputs ``x_i`` changes ``W`` by ``-r sum_i (dL/dy)(x_i) outer x_i`` (Irie et al. 2022, arXiv
2202.05798), so ``V x'_i`` stands where the error signal does, and ``K x'_i`` where the input does. Both identities
are exact, and ``tests/test_lab.py`` checks them on random tensors to 1e-10.

What this does not show: real attention has a softmax, many layers, and errors that nobody computed. Whether language
models do anything like gradient descent in context is contested: models that were never trained score as high on the
paper's similarity measures (Deutch et al. 2024, arXiv 2311.07772), and the order of demonstrations matters to a
model, which to one step of gradient descent it does not (Shen et al. 2024, arXiv 2310.08540).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "attention_without_softmax",
    "gradient_step",
    "largest_gap",
    "surrogate_scores",
    "weights_of_demonstrations",
]

Matrix = NDArray[np.float64]


def attention_without_softmax(value: Matrix, key: Matrix, context: Matrix, query: Matrix) -> Matrix:
    """``V C (K C)^T q``: what a head without softmax reads from a context.

    Args:
        value: shape (out, width).
        key: shape (inner, width).
        context: one column for each position, shape (width, positions).
        query: shape (inner,).

    Returns:
        Shape (out,).
    """
    return np.asarray((value @ context) @ ((key @ context).T @ query))


def weights_of_demonstrations(value: Matrix, key: Matrix, demonstrations: Matrix) -> Matrix:
    """``dW = sum_i (V x_i) outer (K x_i)``: what demonstrations add to the head's weights, shape (out, inner)."""
    added = np.zeros((len(value), len(key)))
    for column in demonstrations.T:
        added += np.outer(value @ column, key @ column)
    return added


def gradient_step(inputs: Matrix, errors: Matrix, rate: float) -> Matrix:
    """Change of ``W`` in ``y = W x`` by one step of gradient descent, shape (out, inner).

    Args:
        inputs: one column for each example, shape (inner, examples).
        errors: gradient of the loss by ``y``, same columns, shape (out, examples).
        rate: step size.
    """
    return np.asarray(-rate * errors @ inputs.T)


def largest_gap(rng: np.random.Generator, width: int = 32, demonstrations: int = 8, positions: int = 16) -> float:
    """How far the two sides of the dual form are apart on random tensors in float64, the largest of all entries."""
    value, key = rng.standard_normal((2, width, width))
    shown, own = rng.standard_normal((width, demonstrations)), rng.standard_normal((width, positions))
    query = rng.standard_normal(width)
    together = attention_without_softmax(value, key, np.concatenate([shown, own], axis=1), query)
    zero = (value @ own) @ (key @ own).T
    apart = (zero + weights_of_demonstrations(value, key, shown)) @ query
    as_step = (zero + gradient_step(key @ shown, -(value @ shown), rate=1.0)) @ query
    return float(max(np.abs(together - apart).max(), np.abs(together - as_step).max()))


def surrogate_scores(
    demonstrations: NDArray[np.floating], labels: NDArray[np.int64], queries: NDArray[np.floating], count: int
) -> Matrix:
    """Label scores ``dW q`` of the dual form on embeddings: a demonstration adds to its label by its similarity.

    Keys are the texts' unit vectors and values the labels' unit vectors.

    Args:
        demonstrations: vectors, shape (demonstrations, dimension).
        labels: label number of each.
        queries: vectors, shape (queries, dimension).
        count: number of labels.

    Returns:
        Shape (queries, labels).
    """
    dimension = demonstrations.shape[1]
    one_hot = np.eye(count)[labels]
    added = np.zeros((count, dimension))
    for vector, label in zip(np.asarray(demonstrations, dtype=np.float64), one_hot, strict=True):
        added += np.outer(label, vector)
    return np.asarray(np.asarray(queries, dtype=np.float64) @ added.T)
