"""Guesses from embeddings alone how well a set of demonstrations will do, and measures how good the guesses are.

Invariant: it is trusted only where it ranked sets of equally many demonstrations, by settings fitted on others, as
their measured scores did (rank correlation of 0.3 and above over 30 candidates and more).
Leaves out: how a guess is made, see :mod:`promptsearch.search.attention`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import one_thread
from promptsearch.search.attention import LinearAttention
from promptsearch.search.base import Scores
from promptsearch.search.log_knowledge import candidate_effects, reliability, showing
from promptsearch.search.rank_correlation import FEWEST_CANDIDATES, centred_ranks, is_trusted, rank_correlation

__all__ = ["Surrogate", "fit_surrogate"]

_TEMPERATURES = (0.05, 0.1, 0.2, 0.5)
_FADINGS = (1.0, 0.9, 0.7)
_FOLDS = 5


@dataclass(frozen=True)
class Surrogate:
    """Linear attention with fitted settings.

    Attributes:
        rank_correlation: of predictions by settings fitted on other candidates with measured effects, among sets of
            equally many demonstrations; None where it is unknown.
        overall_correlation: the same among all sets, so that what more demonstrations gain counts too.
        candidates: candidates that it was compared on.
        temperature: how fast a demonstration's say fades with similarity.
        fading: factor on it for each place away from the end of the prompt.
    """

    rank_correlation: float | None
    overall_correlation: float | None
    candidates: int
    temperature: float
    fading: float
    _attention: LinearAttention = field(repr=False)

    @property
    def is_trusted(self) -> bool:
        """Whether it may decide what is tried."""
        return is_trusted(self.rank_correlation)

    def predict(self, candidates: Sequence[Candidate]) -> FloatArray:
        """Predicted quality, 0 to 1, shape (candidates,); NaN for candidates without fixed demonstrations.

        Good for ranking sets of equally many demonstrations only: a language model's accuracy is another number.
        """
        return self._attention.quality(candidates, self.temperature, self.fading)

    def __str__(self) -> str:
        if self.rank_correlation is None:
            return f"similarity surrogate: off, nothing to judge it by in {self.candidates} candidates"
        state = "on" if self.is_trusted else "off"
        return (
            f"similarity surrogate: {state}, rank correlation {self.rank_correlation:+.2f} "
            f"with {self.candidates} measured candidates, compared at equal numbers of demonstrations"
        )


def fit_surrogate(scores: Mapping[Candidate, Scores], attention: LinearAttention) -> Surrogate:
    """Choose temperature and fading by the log, and see on left-out candidates how well they rank.

    Args:
        scores: item scores on prefixes of one shared order.
        attention: the similarities of the same items.
    """
    shown = {arm: seen for arm, seen in showing(scores).items() if attention.knows(arm)}
    settings = list(product(_TEMPERATURES, _FADINGS))
    if len(shown) < FEWEST_CANDIDATES:
        return Surrogate(None, None, len(shown), *settings[0], attention)
    effects = candidate_effects(shown)
    measured = np.array([effect / reliability(shown[arm].items) for arm, effect in effects.items()])
    with one_thread():
        predicted = np.array([attention.quality(list(effects), *setting) for setting in settings])
    groups = np.unique([arm.shots for arm in effects], return_inverse=True)[1]
    joined = _left_out_ranks(predicted, measured, groups)
    chosen = settings[_best_setting(predicted, measured, groups)]
    within, overall = rank_correlation(joined, measured, groups), rank_correlation(joined, measured)
    return Surrogate(within, overall, len(shown), *chosen, attention)


def _left_out_ranks(predicted: FloatArray, measured: FloatArray, groups: NDArray[np.int64]) -> FloatArray:
    """Predictions for each fold by the setting that is best for the others, as ranks among all candidates.

    Settings differ in scale, so that only ranks can be joined.

    Args:
        predicted: by each setting, shape (settings, candidates).
        measured: shape (candidates,).
        groups: number of each candidate's group, same shape.
    """
    from scipy.stats import rankdata

    ranks = rankdata(predicted, axis=1)
    folds = np.arange(len(measured)) % _FOLDS
    joined = np.empty(len(measured))
    for fold in range(_FOLDS):
        inside = folds != fold
        best = _best_setting(predicted[:, inside], measured[inside], groups[inside])
        joined[~inside] = ranks[best, ~inside]
    return joined


def _best_setting(predicted: FloatArray, measured: FloatArray, groups: NDArray[np.int64]) -> int:
    """The setting whose predictions rank the members of groups most as measured; the first of equals."""
    wanted = centred_ranks(measured, groups)
    given = np.array([centred_ranks(row, groups) for row in predicted])
    lengths = np.sqrt((given**2).sum(axis=1))
    return int(np.argmax(np.round(given @ wanted / np.maximum(lengths, 1e-9), 9)))
