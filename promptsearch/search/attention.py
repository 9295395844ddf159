"""In-context learning as linear attention: what demonstrations say about queries, by similarity alone.

Each demonstration adds to its label in proportion to how similar the query is to it, and more near the end of the
prompt (the dual form of Dai et al. 2023, arXiv 2212.10559; kernel regression: Han et al. 2023, arXiv 2305.12766):
``score_y(q) = sum over i with label y of exp(cos(q, i) / temperature) * fading^(places from the end)``. The log
shares of the labels are calibrated as a model's are, by their mean over queries; a set's quality is the mean
probability of the right label.
Leaves out: texts, vectors and models, it sees similarities and label numbers; and whether its guesses are any good,
which :mod:`promptsearch.search.surrogate` measures.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import Candidate
from promptsearch.errors import DataError
from promptsearch.lm.base import FloatArray

__all__ = ["LinearAttention"]

_UNIFORM_SHARE = 1e-3  # of a label's share, so that one without demonstrations has a logarithm


class LinearAttention:
    """What demonstrations say about the search queries, by similarity.

    Args:
        similarities: cosine of each query and each pool example, shape (queries, pool).
        pool: id of each pool example, shape (pool,).
        labels: label number of each pool example, from 0, same shape.
        golds: right label of each query, shape (queries,).

    Raises:
        DataError: shapes that do not belong together, or nothing to compare.
    """

    def __init__(
        self,
        similarities: FloatArray,
        pool: Sequence[int],
        labels: Sequence[int] | NDArray[np.int64],
        golds: Sequence[int] | NDArray[np.int64],
    ) -> None:
        table = np.asarray(similarities, dtype=np.float64)
        if table.shape != (len(golds), len(pool)) or len(labels) != len(pool) or table.size == 0:
            raise DataError(
                f"similarities of shape {table.shape}, {len(golds)} queries, {len(pool)} examples and {len(labels)} "
                "labels do not belong together; give one row for each query and one column for each example"
            )
        self._similarities = table
        self._column = {int(number): column for column, number in enumerate(pool)}
        self._golds = np.asarray(golds, dtype=np.int64)
        self._labels = np.eye(int(max(np.max(labels), np.max(golds))) + 1)[np.asarray(labels, dtype=np.int64)]
        self._kernels: dict[float, FloatArray] = {}

    def knows(self, candidate: Candidate) -> bool:
        """Whether a candidate shows fixed demonstrations that are all in the pool."""
        shown = candidate.demonstrations
        return candidate.mode == "static" and len(shown) > 0 and all(number in self._column for number in shown)

    def quality(self, candidates: Sequence[Candidate], temperature: float, fading: float) -> FloatArray:
        """Mean probability of the right labels under each candidate, shape (candidates,); NaN for unknown ones."""
        found = [self._quality(each, temperature, fading) if self.knows(each) else np.nan for each in candidates]
        return np.array(found, dtype=np.float64)

    def _quality(self, candidate: Candidate, temperature: float, fading: float) -> float:
        columns = [self._column[number] for number in candidate.demonstrations]
        weights = fading ** np.arange(len(columns) - 1, -1, -1.0)
        totals = self._kernel(temperature)[:, columns] @ (weights[:, None] * self._labels[columns])
        shares = totals / totals.sum(axis=1, keepdims=True)
        logs = np.log(shares + _UNIFORM_SHARE)
        calibrated = logs - logs.mean(axis=0)
        odds = np.exp(calibrated - calibrated.max(axis=1, keepdims=True))
        right = odds[np.arange(len(odds)), self._golds] / odds.sum(axis=1)
        return float(right.mean())

    def _kernel(self, temperature: float) -> FloatArray:
        if temperature not in self._kernels:
            self._kernels[temperature] = np.exp((self._similarities - 1.0) / temperature)
        return self._kernels[temperature]
