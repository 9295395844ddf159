"""Predicts how well a set of demonstrations will do, from the sets that were scored: a ridge datamodel.

A set's effect is taken as a sum of what each example adds, more where it stands near the query, and of what labels,
their places, the number of demonstrations and the wording add (Chang and Jia 2023, arXiv 2212.10378; Ilyas et al.
2022, arXiv 2202.00622).
Invariant: its rank correlation is of sets that were left out, each in turn, so a caller can trust it or not.
Leaves out: interactions of examples, and what vectors say of examples that no set has shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import one_thread
from promptsearch.search.base import Scores
from promptsearch.search.log_knowledge import candidate_effects, reliability, showing
from promptsearch.search.rank_correlation import is_trusted, rank_correlation

__all__ = ["Datamodel", "fit_datamodel"]

_PENALTIES = tuple(float(2.0**power) for power in range(-2, 11, 2))
_FADING = 0.5  # of an example's further pull with each place away from the query
# Scales: how large a feature's effect is expected to be, relative to that of showing one example.
_LABEL_SHARE = 3.0
_LAST_LABEL = 2.0
_WORDING = 3.0
_LAST_PLACES = 2


@dataclass(frozen=True)
class _Features:
    """Turns candidates into rows of numbers."""

    columns: Mapping[tuple[object, ...], int]
    label_of: Mapping[int, int]

    @classmethod
    def of(cls, candidates: Sequence[Candidate], label_of: Mapping[int, int]) -> _Features:
        """Features that occur in these candidates."""
        names = sorted({name for each in candidates for name, _ in _described(each, label_of)}, key=repr)
        return cls({name: place for place, name in enumerate(names)}, label_of)

    def rows(self, candidates: Sequence[Candidate]) -> FloatArray:
        """Shape (candidates, features); what no candidate had before adds nothing."""
        table = np.zeros((len(candidates), len(self.columns)))
        for row, candidate in enumerate(candidates):
            for name, value in _described(candidate, self.label_of):
                if name in self.columns:
                    table[row, self.columns[name]] += value
        return table


def _described(candidate: Candidate, label_of: Mapping[int, int]) -> list[tuple[tuple[object, ...], float]]:
    """Names and values of a candidate's features."""
    shown = candidate.demonstrations
    described: list[tuple[tuple[object, ...], float]] = [(("shots",), float(np.log2(1 + len(shown))))]
    for distance, number in enumerate(reversed(shown)):
        label = label_of.get(number, -1)
        described.append((("shown", number), 1.0))
        described.append((("near", number), _FADING**distance))
        described.append((("label", label), _LABEL_SHARE / len(shown)))
        if distance < _LAST_PLACES:
            described.append((("last label", distance, label), _LAST_LABEL))
    wordings = (candidate.instruction, candidate.template, (candidate.input_name, candidate.output_name))
    described.extend((("wording", which, wording), _WORDING) for which, wording in enumerate(wordings))
    return described


@dataclass(frozen=True)
class Datamodel:
    """A fitted datamodel.

    Attributes:
        rank_correlation: with measured effects, of candidates left out one at a time, among sets of equally many
            demonstrations; None where unknown.
        overall_correlation: the same among all sets, so that what more demonstrations gain counts too.
        penalty: the ridge penalty that makes the measured effects likeliest.
        candidates: how many it was fitted on.
    """

    rank_correlation: float | None
    overall_correlation: float | None
    penalty: float
    candidates: int
    _features: _Features
    _centre: FloatArray
    _weights: FloatArray

    def __str__(self) -> str:
        if self.rank_correlation is None:
            return f"datamodel: off, nothing to judge it by in {self.candidates} candidates"
        state = "on" if self.is_trusted else "off"
        return (
            f"datamodel: {state}, rank correlation {self.rank_correlation:+.2f} with {self.candidates} measured "
            "candidates left out one at a time"
        )

    @property
    def is_trusted(self) -> bool:
        """Whether it ranks unseen candidates well enough to decide what is tried."""
        return is_trusted(self.rank_correlation)

    def predict(self, candidates: Sequence[Candidate]) -> FloatArray:
        """Expected score relative to the average candidate of the log, shape (candidates,).

        NaN for candidates that show no fixed demonstrations: the model knows nothing of them.
        """
        predicted = (self._features.rows(candidates) - self._centre) @ self._weights
        known = [each.mode == "static" and len(each.demonstrations) > 0 for each in candidates]
        return np.asarray(np.where(known, predicted, np.nan))


def fit_datamodel(
    scores: Mapping[Candidate, Scores], label_of: Mapping[int, int], candidates_per_example: float = 0.5
) -> Datamodel | None:
    """Fit the datamodel to all that was scored.

    Args:
        scores: item scores on prefixes of one shared order.
        label_of: label number of each pool id; all 0 for free text.
        candidates_per_example: fewest candidates for each example that two of them or more have shown. Examples
            shown once say nothing that carries over, and cost nothing.

    Returns:
        None where there are too few candidates.
    """
    shown = showing(scores)
    arms = list(shown)
    counts: dict[int, int] = {}
    for arm in arms:
        for number in set(arm.demonstrations):
            counts[number] = counts.get(number, 0) + 1
    repeated = sum(count > 1 for count in counts.values())
    if len(arms) < 2 or len(arms) < candidates_per_example * repeated:
        return None
    trust = np.array([reliability(shown[arm].items) for arm in arms])
    effects = np.array(list(candidate_effects(shown).values())) / trust
    features = _Features.of(arms, label_of)
    rows = features.rows(arms)
    centre = trust @ rows / trust.sum()
    with one_thread():  # it is fitted again in every round, and such small algebra mostly waits for threads
        weights, left_out, penalty = _ridge(rows - centre, effects, trust)
    return Datamodel(
        rank_correlation(left_out, effects, [arm.shots for arm in arms]),
        rank_correlation(left_out, effects),
        penalty,
        len(arms),
        features,
        centre,
        weights,
    )


def _ridge(rows: FloatArray, effects: FloatArray, trust: FloatArray) -> tuple[FloatArray, FloatArray, float]:
    """Weighted ridge regression without an intercept, with the penalty of the highest marginal likelihood.

    An intercept would be refitted without each candidate left out and then rank them backwards; rows and effects
    have a weighted mean of 0 instead.

    Args:
        rows: shape (candidates, features).
        effects: what to predict, shape (candidates,).
        trust: weight of each candidate, same shape.

    Returns:
        Weights of the features; prediction for each candidate by the others; the penalty.
    """
    root = np.sqrt(trust)
    scaled, targets = root[:, None] * rows, root * effects
    spectrum, vectors = np.linalg.eigh(scaled @ scaled.T)
    spectrum = np.maximum(spectrum, 0.0)
    turned = vectors.T @ targets
    penalty = max(_PENALTIES, key=lambda each: _log_evidence(spectrum, turned, each))
    inverse = 1.0 / (spectrum + penalty)
    dual = vectors @ (inverse * turned)
    left_out = targets - dual / ((vectors**2) @ inverse)
    return scaled.T @ dual, left_out / root, penalty


def _log_evidence(spectrum: FloatArray, turned: FloatArray, penalty: float) -> float:
    """Log marginal likelihood of the targets, up to a constant, at the likeliest noise."""
    variances = spectrum / penalty + 1.0
    noise = max(float((turned**2 / variances).mean()), 1e-12)
    return -0.5 * (len(turned) * float(np.log(noise)) + float(np.log(variances).sum()))
