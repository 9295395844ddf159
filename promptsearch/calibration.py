"""Turns label log-probabilities into decisions: calibration, and the weight of the prior.

A label's log-probability holds the prompt's own bias. *Batch calibration* subtracts its mean over unlabelled items
(Zhou et al. 2023, arXiv 2309.17249, eq. 5: s_y(x) - mean over x of s_y(x)); *contextual calibration* subtracts the
log-probability on inputs without content (Zhao et al. 2021, arXiv 2102.09690); *fitted* offsets start from batch
calibration and move to where the labels of search items are likeliest; *matrix* scaling (Guo et al. 2017, arXiv
1706.04599, section 4.2; held near a multiple of the identity as Kull et al. 2019, arXiv 1910.12656, propose) also
mixes the labels' log-probabilities: a word that the model says too readily is evidence for another label. A *readout*
(:mod:`promptsearch.readout`) takes the labels' place with what all likely next tokens tell of them. The *prior* adds
``weight * log p(label | the query's vector)``.
Invariant: everything fitted is fitted on search items (the winner's once more with those that confirmed it, and a
readout with pool items, when all is chosen), is a plain value, and works on one query alone.
Leaves out: where log-probabilities come from, those of the model and those of the prior.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import CALIBRATIONS
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized, one_thread
from promptsearch.readout import JointReadout, Readout, readout_from

__all__ = [
    "CONTENT_FREE",
    "Weighing",
    "batch_offsets",
    "contextual_offsets",
    "fit_weighing",
    "route_shifts",
]

CONTENT_FREE = ("N/A", "[MASK]", "")
_LARGEST_PRIOR = 8.0  # beyond this the prior decides alone
_SHIFT_ITEMS = 4.0
_PULL_TO_PRIOR = 4.0  # of a Gaussian around prior weight 1: a standard deviation of 0.5
_PULL_FROM_MODEL = 2.0  # of one around 0 on what the model adds to the prior: 0.7 nats
_OFFSET_PENALTY = 2.0  # of a Gaussian on what "fitted" adds to batch offsets: a standard deviation of 0.7
_MIXING_PENALTY = 4.0  # of one around 0 on what mixing adds to each label's score: a standard deviation of 0.5 nats


def batch_offsets(logs: FloatArray, weights: FloatArray | None = None) -> FloatArray:
    """Mean normalized log-probability of each label over items, shape (labels,).

    Args:
        logs: shape (items, labels).
        weights: what each item counts, shape (items,); None for one each.
    """
    readable = np.isfinite(logs).all(axis=1)
    if not readable.any():
        return np.zeros(logs.shape[1])
    counts = np.ones(len(logs)) if weights is None else weights
    return np.asarray((counts[readable, None] * logs[readable]).sum(axis=0) / counts[readable].sum())


def contextual_offsets(logs: FloatArray) -> FloatArray:
    """Log of the mean probability of each label on inputs without content, shape (labels,)."""
    return np.asarray(np.log(np.maximum(np.exp(logs).mean(axis=0), 1e-12)))


def route_shifts(logs: FloatArray, routes: NDArray[np.int64], golds: NDArray[np.int64], count: int) -> FloatArray:
    """How each route's prompt leans, relative to the others.

    Routes see different queries, so that a route's mean log-probabilities hold its queries' labels as well as its
    prompt's bias. The additive model ``log p = shift[route] + effect[right label]`` tells them apart; shifts are
    pulled towards 0 like by so many further items without any.

    Args:
        logs: normalized log-probabilities, shape (items, labels).
        routes: route of each item, shape (items,).
        golds: index of each item's right label, shape (items,).
        count: number of routes.

    Returns:
        Shape (routes, labels); a route without items has none.
    """
    readable = np.isfinite(logs).all(axis=1)
    labels = logs.shape[1]
    design = np.concatenate([np.eye(count)[routes[readable]], np.eye(labels)[golds[readable]]], axis=1)
    pull = np.diag([_SHIFT_ITEMS] * count + [0.0] * labels)
    with one_thread():
        # Least squares by the normal equations; a label that no item has leaves its effect at 0.
        solved = np.linalg.lstsq(design.T @ design + pull, design.T @ logs[readable], rcond=None)[0]
    return np.asarray(solved[:count])


@dataclass(frozen=True)
class Weighing:
    """How a prompt's log-probabilities become scores of labels.

    ``score = sharpness * (log p - offset) + mixing * log p + prior_weight * log prior``, where log p is the model's
    or, with a readout, the readout's.

    Attributes:
        calibration: one of :data:`promptsearch.candidate.CALIBRATIONS`.
        offsets: what is subtracted from each label; all zero without calibration.
        sharpness: factor on the model's log-probabilities, above 0; it makes probabilities honest.
        prior_weight: factor on the prior's log-probabilities, at least 0; 0 leaves it out.
        shifts: for each route of a routed prompt what is subtracted from each label beforehand; empty for others.
        mixing: for each label what its log-probability adds to the score of each label; empty without mixing.
        readout: what tells a label's log-probability from all that the model expects next; None for the model's own.
    """

    calibration: str
    offsets: tuple[float, ...]
    sharpness: float = 1.0
    prior_weight: float = 0.0
    shifts: tuple[tuple[float, ...], ...] = ()
    mixing: tuple[tuple[float, ...], ...] = ()
    readout: Readout | JointReadout | None = None

    def scores(
        self,
        log_probabilities: FloatArray,
        prior: FloatArray | None = None,
        routes: NDArray[np.int64] | None = None,
        following: FloatArray | None = None,
    ) -> FloatArray:
        """Scores of labels, shape (items, labels).

        Args:
            log_probabilities: from the model, shape (items, labels).
            prior: log-probabilities from the prior, same shape; needed where ``prior_weight`` is above 0.
            routes: route of each item, shape (items,); needed where there are ``shifts``.
            following: log-probabilities of next tokens, shape (items, tokens); needed where there is a ``readout``.

        Raises:
            ValueError: there is a readout and nothing to read.
        """
        logs = normalized(log_probabilities)
        if self.readout is not None:
            if following is None:
                raise ValueError("a readout reads what comes next, and that was not asked for")
            logs = self.readout.log_probabilities(log_probabilities, following)
        if self.shifts and routes is not None:
            logs = normalized(logs - np.asarray(self.shifts)[routes])
        scores = self.sharpness * (logs - np.asarray(self.offsets))
        if self.mixing:
            known = np.where(np.isfinite(logs), logs, 0.0)
            # Not a matrix product: that rounds differently with the number of items.
            scores = scores + np.einsum("il,lk->ik", known, np.asarray(self.mixing))
        if self.prior_weight > 0 and prior is not None:
            unreadable = ~np.isfinite(scores).any(axis=1, keepdims=True)
            scores = np.where(unreadable, scores, scores + self.prior_weight * prior)
        return np.asarray(scores)

    def without_prior(self) -> Weighing:
        """The same for the prompt alone."""
        return replace(self, prior_weight=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        plain = asdict(replace(self, readout=None))
        return {**plain, "readout": None if self.readout is None else self.readout.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Weighing:
        """The reverse of :meth:`to_dict`.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        calibration, offsets = values["calibration"], _floats(values["offsets"])
        shifts, mixing = (tuple(_floats(row) for row in values.get(name, ())) for name in ("shifts", "mixing"))
        sharpness, prior_weight = float(values["sharpness"]), float(values["prior_weight"])
        numbers_hold = np.isfinite([*offsets, sharpness, prior_weight]).all() and sharpness > 0 and prior_weight >= 0
        rows_hold = all(len(row) == len(offsets) and np.isfinite(row).all() for row in (*shifts, *mixing))
        if (
            calibration not in CALIBRATIONS
            or not numbers_hold
            or not rows_hold
            or len(mixing) not in (0, len(offsets))
            or (calibration == "readout") != bool(values.get("readout"))
        ):
            raise ValueError("no such weighing")
        readout = readout_from(values["readout"], len(offsets)) if calibration == "readout" else None
        return cls(calibration, offsets, sharpness, prior_weight, shifts, mixing, readout)


def fit_weighing(
    calibration: str,
    offsets: FloatArray,
    log_probabilities: FloatArray,
    prior: FloatArray | None,
    golds: NDArray[np.int64],
    weights: FloatArray | None = None,
) -> Weighing:
    """Fit sharpness and prior weight, for ``"fitted"`` the offsets too and for ``"matrix"`` also the mixing.

    What is maximized is the likelihood of the right labels: it moves with every item, where accuracy on some hundred
    items moves in steps and by luck. The problem is multinomial logistic regression, so it is convex and has one
    answer. Gaussian penalties hold fitted offsets near the given ones and mixing near none, the latter in nats of
    score whatever the scale of the log-probabilities. Without a prior a weak one holds sharpness near one half. A
    prior comes with probabilities that are honest on many more rows than are at hand here, so that Bayes' rule would
    give it weight 1 and add what the model knows: the fit starts from the prior alone, and rows must show that the
    model adds to it.

    Args:
        calibration: name of the calibration that made ``offsets``; ``"fitted"`` and ``"matrix"`` move them further.
        offsets: shape (labels,).
        log_probabilities: from the model on search items, shape (items, labels).
        prior: log-probabilities from the prior, same shape; None to leave it out.
        golds: index of each item's right label, shape (items,).
        weights: what each item counts, shape (items,); None for one each.
    """
    from scipy.optimize import minimize

    logs = normalized(log_probabilities)
    readable = np.isfinite(logs).all(axis=1)
    if readable.sum() < 2:
        return Weighing(calibration, _floats(offsets))
    model = logs[readable] - offsets
    labels = model.shape[1]
    others = np.zeros_like(model) if prior is None else prior[readable]
    right = np.eye(labels)[golds[readable]]
    counts = np.ones((len(model), 1)) if weights is None else weights[readable][:, None]
    moving, mixing = calibration in ("fitted", "matrix"), calibration == "matrix"
    spread = _spread(model, counts)
    scale = np.array([0.5, 0.0] if prior is None else [0.0, 1.0])
    usual = np.concatenate([scale, np.zeros(labels * moving + labels**2 * mixing)])
    pulls = np.concatenate(
        [
            [1.0, 0.0] if prior is None else [_PULL_FROM_MODEL * spread**2, _PULL_TO_PRIOR],
            np.full(labels * moving, _OFFSET_PENALTY),
            np.full(labels**2 * mixing, _MIXING_PENALTY * max(spread**2, 1e-6)),
        ]
    )

    def parts(values: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Offsets and mixing, shapes (labels,) and (labels, labels)."""
        moved = values[2 : 2 + labels] if moving else np.zeros(labels)
        return moved, values[2 + labels :].reshape(labels, labels) if mixing else np.zeros((labels, labels))

    def loss(values: FloatArray) -> tuple[float, FloatArray]:
        moved, mixed = parts(values)
        scores = normalized(values[0] * model + model @ mixed + values[1] * others - moved)
        wrong = counts * (np.exp(scores) - right)  # derivative of the loss by the scores
        apart = values - usual
        slopes = [[(wrong * model).sum(), (wrong * others).sum()]]
        slopes += [-wrong.sum(axis=0)] * moving + [(model.T @ wrong).ravel()] * mixing
        likelihood = float((counts * scores * right).sum())
        return -likelihood + float(0.5 * (pulls * apart**2).sum()), np.concatenate(slopes) + pulls * apart

    limits: list[tuple[float | None, float | None]] = [(0.01, 10.0), (0.0, 0.0 if prior is None else _LARGEST_PRIOR)]
    limits += [(-20.0, 20.0)] * (labels * moving) + [(None, None)] * (labels**2 * mixing)
    start = usual.copy()
    start[0] = 0.5
    with one_thread():  # such small algebra only waits for threads: a hundred times as long on busy cores
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=limits).x
    sharpness, weight = float(found[0]), float(found[1])
    moved, mixed = parts(found)
    return Weighing(
        calibration,
        _floats(offsets + (moved + offsets @ mixed) / sharpness),
        sharpness,
        weight if weight > 1e-3 else 0.0,
        mixing=tuple(map(_floats, mixed)) if mixing else (),
    )


def _spread(logs: FloatArray, counts: FloatArray) -> float:
    """Root mean square of what tells an item's labels apart, in nats; items count as told, shape (items, 1)."""
    squares = counts * (logs - logs.mean(axis=1, keepdims=True)) ** 2
    return float(np.sqrt(squares.sum() / (counts.sum() * logs.shape[1])))


def _floats(values: Iterable[float] | FloatArray) -> tuple[float, ...]:
    return tuple(float(value) for value in values)
