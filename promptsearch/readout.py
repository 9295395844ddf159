"""Reads a label off everything the model expects next, not off the labels' own words alone.

After a prompt the model has a probability for every token of its vocabulary, and how likely ``"Where"`` or ``"19"``
is tells about a label too. A *readout* is a multinomial logistic regression on the log-probabilities of the likeliest
tokens and of the labels, fitted on labelled rows that were asked with the same prompt. It generalizes the affine maps
of label probabilities of Zhao et al. 2021 (arXiv 2102.09690) to other words, and has its evidence in common with kNN
prompting (Xu et al. 2023, arXiv 2303.13824), whose anchors' whole distributions vote. It needs no run of the model
beyond those that score the labels.
Invariant: what judges a readout is cross-fitted, each row read by a fit without it; a readout is plain numbers and
reads one query alone.
Leaves out: which tokens are likely, and what a readout counts beside the prior (:mod:`promptsearch.calibration`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptsearch.linear import LinearClassifier, fit_linear
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized

__all__ = [
    "READ_TOKENS",
    "JointReadout",
    "Readout",
    "ReadoutFit",
    "fit_readout",
    "join_readouts",
    "likeliest_tokens",
    "packed",
    "readout_from",
    "unpacked",
]

READ_TOKENS = 512
"""Next tokens that a search reads; half as many cost most of a point, and twice as many gain nothing."""
_LEAST = -30.0  # nats; what is less likely is all alike
_LARGEST = 1e6  # of any number in a saved readout
_MOST_TOKENS = 2**31  # of any vocabulary
_MOST_PROMPTS = 64


@dataclass(frozen=True, eq=False)
class Readout:
    """``log p(y) = classifier((x - means) / scale)``, x the tokens' and then the labels' log-probabilities.

    Attributes:
        tokens: numbers of the tokens that are read, of the vocabulary of one model.
        means: mean of each log-probability over the rows that it was fitted on, shape (tokens + labels,), float32.
        scale: root mean square of the length of what is left, above 0.
        classifier: on what is left.
    """

    tokens: tuple[int, ...]
    means: NDArray[np.float32]
    scale: float
    classifier: LinearClassifier

    @property
    def rows(self) -> int:
        """Rows that it was fitted on."""
        return self.classifier.rows

    @property
    def prompts(self) -> int:
        """Prompts that an item is put to."""
        return 1

    def log_probabilities(self, labels: FloatArray, following: FloatArray) -> FloatArray:
        """Log-probability of each label, shape (items, labels); -inf throughout for an item without answer.

        Args:
            labels: the labels' log-probabilities by the model, shape (items, labels).
            following: those of next tokens, shape (items, tokens).
        """
        seen = _evidence(labels, following)
        vectors = ((seen - self.means) / self.scale).astype(np.float32)
        logs = self.classifier.log_probabilities(vectors, labels.shape[1])
        return np.where(np.isfinite(labels).any(axis=1, keepdims=True), logs, -np.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain values; means are the base64 text of little-endian float32 numbers."""
        return {
            "tokens": list(self.tokens),
            "means": base64.b64encode(self.means.astype("<f4").tobytes()).decode("ascii"),
            "scale": self.scale,
            "classifier": self.classifier.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> Readout:
        """The reverse of :meth:`to_dict`.

        Args:
            values: plain values.
            label_count: number of labels of the task.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        tokens = tuple(values["tokens"])
        if not all(type(token) is int and 0 <= token < _MOST_TOKENS for token in tokens):
            raise ValueError("a readout's tokens are numbers of a vocabulary")
        if list(tokens) != sorted(set(tokens)):
            raise ValueError("a readout's tokens are different ones in ascending order")
        means = np.frombuffer(base64.b64decode(values["means"], validate=True), dtype="<f4").astype(np.float32)
        scale = float(values["scale"])
        classifier = LinearClassifier.from_dict(values["classifier"], label_count)
        width = len(tokens) + label_count
        if (
            len(means) != width
            or classifier.weights.shape[1] != width
            or not 0 <= min(tokens, default=0) <= max(tokens, default=0) < _MOST_TOKENS
        ):
            raise ValueError("a readout's numbers do not match its tokens")
        if not (np.abs(means) <= _LARGEST).all() or not 0 < scale <= _LARGEST:
            raise ValueError("no such numbers of a readout")
        return cls(tokens, means, scale, classifier)


@dataclass(frozen=True, eq=False)
class JointReadout:
    """What an ensemble's readouts say together: the mean of their log-probabilities.

    Each reads its own prompt and may be fitted on rows of its own, which tells more than the same rows for all.

    Attributes:
        readouts: one for each prompt, two at least; they read the same tokens.
    """

    readouts: tuple[Readout, ...]

    @property
    def tokens(self) -> tuple[int, ...]:
        """Numbers of the tokens that are read after each prompt."""
        return self.readouts[0].tokens

    @property
    def rows(self) -> int:
        """Rows that one of them was fitted on, at most."""
        return max(readout.rows for readout in self.readouts)

    @property
    def prompts(self) -> int:
        """Prompts that an item is put to."""
        return len(self.readouts)

    def log_probabilities(self, labels: FloatArray, following: FloatArray) -> FloatArray:
        """Log-probability of each label, shape (items, labels); -inf throughout for an item without answer.

        Args:
            labels: the labels' log-probabilities by the ensemble, shape (items, labels).
            following: for each prompt those of next tokens and then of the labels, shape (items, prompts * (tokens +
                labels)), as :func:`promptsearch.evaluation.join_members` has them.
        """
        said = []
        for readout, part in zip(self.readouts, np.split(following, self.prompts, axis=1), strict=True):
            said.append(readout.log_probabilities(part[:, len(self.tokens) :], part[:, : len(self.tokens)]))
        logs = normalized(np.mean(said, axis=0))
        return np.where(np.isfinite(labels).any(axis=1, keepdims=True), logs, -np.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {"readouts": [readout.to_dict() for readout in self.readouts]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], label_count: int) -> JointReadout:
        """The reverse of :meth:`to_dict`.

        Raises:
            KeyError: a value lacks.
            TypeError, ValueError, OverflowError: a value is none that a fit could have found.
        """
        readouts = tuple(Readout.from_dict(each, label_count) for each in values["readouts"])
        if not 2 <= len(readouts) <= _MOST_PROMPTS or len({readout.tokens for readout in readouts}) != 1:
            raise ValueError("the readouts of an ensemble are several, and read the same tokens")
        return cls(readouts)


def readout_from(values: Mapping[str, Any], label_count: int) -> Readout | JointReadout:
    """A readout of either kind from its plain values; raises what theirs do."""
    kind: type[Readout | JointReadout] = JointReadout if "readouts" in values else Readout
    return kind.from_dict(values, label_count)


@dataclass(frozen=True)
class ReadoutFit:
    """A readout, and what its like says about rows that it was not fitted on.

    Attributes:
        readout: fitted on all rows.
        held_out: log-probabilities of the labels of each row from a readout that was fitted without its fold, shape
            (rows, labels); -inf throughout for a row without answer.
    """

    readout: Readout | JointReadout
    held_out: FloatArray


def fit_readout(
    tokens: Sequence[int],
    labels: FloatArray,
    following: FloatArray,
    golds: NDArray[np.int64],
) -> ReadoutFit | None:
    """Fit a readout, its penalty chosen by the likelihood of held-out rows.

    Args:
        tokens: numbers of the tokens.
        labels: the labels' log-probabilities by the model, shape (rows, labels).
        following: those of next tokens, shape (rows, tokens).
        golds: index of each row's right label, shape (rows,).

    Returns:
        None where there are too few rows: a fold would leave fewer than two labels to fit on.
    """
    readable = np.isfinite(labels).any(axis=1)
    if not readable.any():
        return None
    seen = _evidence(labels, following)
    means = seen[readable].mean(axis=0).astype(np.float32)
    scale = float(np.sqrt(((seen[readable] - means) ** 2).sum(axis=1).mean())) or 1.0
    vectors = ((seen - means) / scale).astype(np.float32)
    fitted = fit_linear(vectors[readable], golds[readable], labels.shape[1])
    if fitted is None:
        return None
    readout = Readout(tuple(int(token) for token in tokens), means, scale, fitted.classifier)
    held_out = readout.log_probabilities(labels, following)  # of rows beyond those that a fit takes
    held_out[np.flatnonzero(readable)[fitted.rows]] = fitted.held_out
    return ReadoutFit(readout, held_out)


def join_readouts(fits: Sequence[ReadoutFit], items: int) -> ReadoutFit:
    """The readout of an ensemble from those of its prompts, each of which was fitted on these items and on others.

    Args:
        fits: one for each prompt; the items come first in their rows.
        items: how many items all of them were fitted on.
    """
    readouts = tuple(fit.readout for fit in fits if isinstance(fit.readout, Readout))
    held_out = np.stack([fit.held_out[:items] for fit in fits])
    readable = np.all(np.isfinite(held_out).any(axis=2), axis=0).reshape(-1, 1)
    logs = normalized(np.mean(np.where(readable, held_out, 0.0), axis=0))
    return ReadoutFit(JointReadout(readouts), np.where(readable, logs, -np.inf))


def _evidence(labels: FloatArray, following: FloatArray) -> FloatArray:
    """What a readout reads, shape (items, tokens + labels); zeros for an item without answer."""
    seen = np.concatenate([following, normalized(labels)], axis=1)
    seen = np.maximum(np.nan_to_num(seen, nan=_LEAST, neginf=_LEAST, posinf=0.0), _LEAST)
    return np.where(np.isfinite(labels).any(axis=1, keepdims=True), seen, 0.0)


def likeliest_tokens(likely: Iterable[Sequence[tuple[int, float]]], count: int) -> tuple[int, ...]:
    """The tokens that are likeliest on average over prompts, in ascending order.

    Args:
        likely: for each prompt its likeliest next tokens with their log-probabilities.
        count: how many at most.
    """
    totals: dict[int, float] = {}
    for each in likely:
        for token, log in each:
            totals[token] = totals.get(token, 0.0) + float(np.exp(log))
    best = sorted(totals, key=lambda token: (-totals[token], token))[:count]
    return tuple(sorted(best))


def packed(log_probabilities: FloatArray) -> str:
    """Log-probabilities as the base64 text of little-endian half-precision numbers: to 0.01 nats, as short as can be.

    What a readout is fitted on and what it reads goes through this, so that a record gives the same numbers again.
    """
    return base64.b64encode(np.maximum(log_probabilities, _LEAST).astype("<f2").tobytes()).decode("ascii")


def unpacked(text: str, count: int) -> FloatArray:
    """The reverse of :func:`packed`, shape (count,).

    Raises:
        ValueError: the text holds another number of them.
    """
    values = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f2")
    if len(values) != count:
        raise ValueError(f"{len(values)} log-probabilities were packed and {count} are asked for")
    return values.astype(np.float64)
