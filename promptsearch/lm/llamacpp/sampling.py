"""From logits to a token: the likeliest, or one drawn from what temperature, limits and a constraint leave.

A constraint is asked about as few tokens as decide the draw, since asking about all of them costs as much as a
small model's step; the token drawn is always the one that masking the whole vocabulary first would give.

Invariant: pure but for the random generator, which gives every token of the vocabulary one time in each draw. A
request's logits are computed alike whatever runs beside it (:mod:`promptsearch.lm.llamacpp.batching`), so its draws
are too.
Leaves out: what a constraint is, and what a token means.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from promptsearch.errors import BackendError
from promptsearch.lm.base import GenerationParams

__all__ = ["Constraint", "log_probability", "sample"]

Indices = NDArray[np.intp]
_ASKED_FIRST = 256  # tokens asked about before the whole vocabulary is


class Constraint(Protocol):
    """Which tokens may come next."""

    def allows(self, tokens: Indices) -> NDArray[np.bool_]:
        """Whether each of some tokens is allowed."""
        ...

    def allowed(self) -> NDArray[np.bool_]:
        """Whether each token of the vocabulary is allowed, shape (vocabulary,)."""
        ...


def sample(
    logits: NDArray[np.float32],
    params: GenerationParams,
    rng: np.random.Generator,
    constraint: Constraint | None = None,
) -> int | None:
    """Choose the next token.

    Args:
        logits: shape (vocabulary,).
        params: temperature and limits; the limits choose among the tokens that the constraint allows.
        rng: drawn from where the temperature is above 0.
        constraint: which tokens are allowed; None for all.

    Returns:
        The token; None where the constraint allows none.

    Raises:
        BackendError: a logit is infinite or no number.
    """
    if not np.isfinite(logits).all():
        raise BackendError("the model answered with values that are no numbers; its file may be damaged")
    if params.temperature == 0:
        return _first_allowed(-logits, constraint)
    # the times' logarithms minus the scaled logits: tokens race, and the first one is drawn with its probability
    # float64, since a float32 time is 0 once in some millions, and a time of 0 wins against any probability
    times = np.log(rng.standard_exponential(len(logits)))
    scaled = logits.astype(np.float64) / params.temperature
    if not _limited(params, len(logits)):
        return _first_allowed(times - scaled, constraint)
    return _limited_draw(scaled, times, params, constraint)


def log_probability(logits: NDArray[np.float32], token: int) -> float:
    """Natural log-probability of a token under the softmax of one row of logits."""
    peak = float(logits.max())
    return float(logits[token]) - peak - float(np.log(np.exp(logits - peak).sum(dtype=np.float64)))


def _limited(params: GenerationParams, size: int) -> bool:
    return 0 < params.top_k < size or params.top_p < 1 or params.min_p > 0


def _first_allowed(order: NDArray[np.floating], constraint: Constraint | None) -> int | None:
    """The allowed token of the lowest value.

    Of all tokens the lowest may be asked about alone: if it is allowed, it is also the lowest allowed one.
    """
    best = int(order.argmin())
    if constraint is None or constraint.allows(np.array([best]))[0]:
        return best
    if len(order) > _ASKED_FIRST:
        near = np.argpartition(order, _ASKED_FIRST)[:_ASKED_FIRST]
        near = near[constraint.allows(near)]
        if len(near):
            return int(near[order[near].argmin()])
    tokens = np.flatnonzero(constraint.allowed())
    return int(tokens[order[tokens].argmin()]) if len(tokens) else None


class _Draw(NamedTuple):
    """A token, and the tokens that all have to be allowed for a constraint to leave the draw as it is."""

    token: int
    decisive: Indices | None  # None: the whole vocabulary


def _limited_draw(
    scaled: NDArray[np.float64], times: NDArray[np.float64], params: GenerationParams, constraint: Constraint | None
) -> int | None:
    drawn = _draw(scaled, times, params)
    if constraint is None or (drawn.decisive is not None and constraint.allows(drawn.decisive).all()):
        return drawn.token
    allowed = constraint.allowed()
    if not allowed.any():
        return None
    return _draw(np.where(allowed, scaled, -np.inf), times, params).token


def _draw(scaled: NDArray[np.float64], times: NDArray[np.float64], params: GenerationParams) -> _Draw:
    """Draw within the limits; a token at minus infinity is none."""
    tokens = np.arange(len(scaled))
    if 0 < params.top_k < len(scaled):
        tokens = np.argpartition(-scaled, params.top_k - 1)[: params.top_k]
    weights = np.exp(scaled[tokens] - scaled[tokens].max())
    weights /= weights.sum()
    kept, before = _kept(weights, params)
    raced = times[tokens[kept]] - scaled[tokens[kept]]
    winner = int(raced.argmin())
    decisive: Indices | None = tokens[kept]
    if len(tokens) < len(scaled):
        decisive = tokens  # the likeliest tokens stay the likeliest when others are refused, but not in their shares
    elif params.top_p < 1 and before[winner] >= params.top_p * weights[kept].sum():
        decisive = None  # refused tokens outside the nucleus take their share from the whole, which shrinks it
    return _Draw(int(tokens[kept[winner]]), decisive)


def _kept(weights: NDArray[np.float64], params: GenerationParams) -> tuple[Indices, NDArray[np.float64]]:
    """Indices of the probabilities that ``min_p`` and ``top_p`` leave, and what is likelier than each of them.

    The second is all zeros where ``top_p`` leaves everything.
    """
    # what is rarer holds less than 1 - top_p together, so the nucleus lies in what remains to be sorted
    rare = max(params.min_p * weights.max(), (1 - params.top_p) / len(weights))
    kept = np.flatnonzero((weights >= rare) & (weights > 0))
    if params.top_p == 1:
        return kept, np.zeros(len(kept))
    kept = kept[np.argsort(-weights[kept], kind="stable")]
    before = np.cumsum(weights[kept]) - weights[kept]
    within = before < params.top_p
    return kept[within], before[within]
