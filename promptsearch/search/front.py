"""Value against price: which prompts are worth their tokens, and which one to take.

Invariant: all points are measured on the same items, so that deficits are paired.
Leaves out: how many tokens a prompt takes, and which items measure it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.errors import DataError, UserError
from promptsearch.lm.base import FloatArray
from promptsearch.measurement import Measurement, measure

__all__ = ["PREFERENCES", "FrontPoint", "choose", "pareto_front"]

PREFERENCES = ("accuracy", "cheap")


@dataclass(frozen=True)
class FrontPoint:
    """A prompt that no other beats in both value and tokens.

    Attributes:
        index: its place among the prompts given.
        tokens: what it costs.
        value: mean item score with its interval.
    """

    index: int
    tokens: float
    value: Measurement


def pareto_front(item_scores: Sequence[FloatArray], tokens: Sequence[float]) -> list[FrontPoint]:
    """Prompts for which no other has as high a mean for as few tokens; of equals in both, the first.

    Args:
        item_scores: for each prompt the scores of the same items, each of shape (items,).
        tokens: price of each prompt, at least 0.

    Returns:
        Cheapest first; values rise with tokens.

    Raises:
        DataError: no prompts, no items, unequal lengths, or a price that is none.
    """
    means = _checked_means(item_scores, tokens)
    front: list[FrontPoint] = []
    best = -np.inf
    for at in sorted(range(len(means)), key=lambda place: (tokens[place], -means[place], place)):
        if means[at] > best:
            best = means[at]
            front.append(FrontPoint(at, float(tokens[at]), measure(item_scores[at])))
    return front


def choose(item_scores: Sequence[FloatArray], tokens: Sequence[float], prefer: str = "accuracy") -> int:
    """Index of the prompt to take.

    Args:
        item_scores: for each prompt the scores of the same items, each of shape (items,).
        tokens: price of each prompt, at least 0.
        prefer: ``"accuracy"``: the best mean, the cheapest of equals. ``"cheap"``: the one-standard-error rule: the
            cheapest prompt on the front whose mean deficit to the best is within one standard error of that paired
            difference. (Off the front a prompt can be within its own larger error and still lose to one that
            is cheaper and better.)

    Raises:
        UserError: an unknown preference.
        DataError: no prompts, no items, unequal lengths, or a price that is none.
    """
    if prefer not in PREFERENCES:
        raise UserError(f"prefer={prefer!r} is unknown; give one of {', '.join(PREFERENCES)}")
    front = [point.index for point in pareto_front(item_scores, tokens)]
    best = front[-1]
    if prefer == "accuracy":
        return best
    return next(at for at in front if _within_one_error(item_scores[best] - item_scores[at]))


def _within_one_error(deficits: FloatArray) -> bool:
    """Whether a mean paired deficit is at most one standard error; one item alone has an error of 0."""
    error = float(deficits.std(ddof=1)) / np.sqrt(len(deficits)) if len(deficits) > 1 else 0.0
    return float(deficits.mean()) <= error + 1e-12


def _checked_means(item_scores: Sequence[FloatArray], tokens: Sequence[float]) -> list[float]:
    """Mean of each prompt, rounded so that sums of the same scores in another order are equal."""
    if not len(item_scores) or len(item_scores) != len(tokens):
        raise DataError(f"{len(item_scores)} prompts and {len(tokens)} prices make no front; give one for each")
    lengths = {np.shape(scores) for scores in item_scores}
    if len(lengths) != 1 or len(next(iter(lengths))) != 1 or next(iter(lengths)) == (0,):
        raise DataError(f"scores of shapes {sorted(lengths)} are not of the same items; score all on the same ones")
    wrong = [price for price in tokens if not 0 <= price < np.inf]
    if wrong:
        raise DataError(f"{wrong[0]!r} is no price in tokens; give numbers from 0")
    return [round(float(np.mean(scores)), 9) for scores in item_scores]
