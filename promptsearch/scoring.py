"""What answers are worth: item scores, fitted weighings, and measurements.

Invariant: whatever is fitted here is fitted on the items that are passed in, which callers take from the search split
and, once the winner is chosen, from the confirmation split and the pool; measuring fits nothing.
Leaves out: asking the model.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from promptsearch.calibration import Weighing, batch_offsets, contextual_offsets, fit_weighing, route_shifts
from promptsearch.data.text import clean_text
from promptsearch.evaluation import Answers
from promptsearch.folds import FOLDS, stratified_folds
from promptsearch.lm.base import FloatArray
from promptsearch.measurement import (
    Difference,
    Measurement,
    measure,
    measure_alike,
    measure_statistic,
    paired_difference,
)
from promptsearch.metrics import Metric
from promptsearch.probabilities import normalized, softmax
from promptsearch.readout import ReadoutFit, fit_readout, join_readouts
from promptsearch.search.base import Scores
from promptsearch.task import Example

__all__ = ["ROWS_A_LABEL", "Asked", "Judge", "Judged", "resampled_macro_f1"]

ROWS_A_LABEL = 4
"""Under these, labels have too little to be moved or mixed by."""
_RESAMPLES = 1000
_LEARNING = ("fitted", "matrix", "readout")  # calibrations whose correction comes from labels


@dataclass(frozen=True)
class Judged:
    """Predictions and their worth.

    Attributes:
        predictions: answer to each item; empty where there is none.
        scores: worth of each, 0 to 1, shape (items,).
        confidence: probability given to the right answer (classification), else the scores again.
        failures: number of items without an answer, by reason.
    """

    predictions: tuple[str, ...]
    scores: FloatArray
    confidence: FloatArray
    failures: Mapping[str, int]


@dataclass(frozen=True)
class Asked:
    """Labelled items and the model's answers about them: what weights are fitted on.

    Attributes:
        items: the items.
        answers: the model's answers about them.
        content_free: its log-probabilities on inputs without content, shape (inputs, labels), where the calibration
            is ``"contextual"``.
        others: further items, on which a readout is fitted too.
        members: of an ensemble what was asked of each of its prompts: the same items, and others of its own.
    """

    items: Sequence[int]
    answers: Answers
    content_free: FloatArray | None = None
    others: Asked | None = None
    members: tuple[Asked, ...] = ()


class Judge:
    """Scores answers about one task.

    Args:
        examples: the task's examples, by id.
        labels: words of the labels, None for free text.
        metric: what a prediction is worth.
        priors: log-probability of labels by similar examples, by item id; empty without a prior.
        tokens: next tokens that answers tell the log-probabilities of.
        counted: examples that say how frequent labels are, by id; None for all, where none of them is a test.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        labels: Sequence[str] | None,
        metric: Metric,
        priors: Mapping[int, FloatArray],
        tokens: Sequence[int] = (),
        counted: Sequence[int] | None = None,
    ) -> None:
        self._examples = examples
        self._counted = range(len(examples)) if counted is None else counted
        self.labels = tuple(labels) if labels is not None else None
        self._metric = metric
        self._priors = priors
        self._tokens = tuple(tokens)
        self._readouts: dict[str, ReadoutFit | None] = {}  # a fit takes a good part of a second
        self._index = {word: number for number, word in enumerate(self.labels or ())}

    def without_prior(self) -> Judge:
        """A judge of the prompt alone."""
        alone = Judge(self._examples, self.labels, self._metric, {}, self._tokens, self._counted)
        alone._readouts = self._readouts  # they know of no prior
        return alone

    def golds(self, items: Sequence[int]) -> NDArray[np.int64]:
        """Index of each item's right label."""
        return np.array([self._index[self._examples[item].output] for item in items], dtype=np.int64)

    @cached_property
    def _common(self) -> FloatArray:
        """Counted rows of each label, at least one, shape (labels,)."""
        outputs = [self._examples[number].output for number in self._counted]
        known = [self._index[output] for output in outputs if output in self._index]
        return np.maximum(np.bincount(known, minlength=len(self._index)), 1).astype(np.float64)

    @property
    def labels_alike(self) -> bool:
        """Whether every label counts alike, however many rows it has."""
        return self._metric.labels_alike

    @property
    def mean_name(self) -> str:
        """See :attr:`promptsearch.metrics.Metric.mean_name`."""
        return self._metric.mean_name

    def weights(self, items: Sequence[int]) -> FloatArray:
        """What each item counts in a fit, shape (items,), 1 on average.

        Where labels count alike, all rows of a label together count as the root of its number among the counted
        rows, however many of it are at hand: a rare label's F1 is best where it is named more readily than
        its rows alone say, and less than if it were as common as others.
        """
        if not self.labels_alike:
            return np.ones(len(items))
        golds = self.golds(items)
        weights = self._common[golds] ** 0.5 / np.bincount(golds)[golds]
        return np.asarray(weights / weights.mean())

    def prior(self, items: Sequence[int]) -> FloatArray | None:
        """The prior's log-probabilities, shape (items, labels); None without a prior."""
        if not self._priors:
            return None
        return np.array([self._priors[item] for item in items]).reshape(len(items), len(self.labels or ()))

    def fit(self, calibration: str, asked: Asked) -> Weighing:
        """Fit how log-probabilities are weighed, on search items.

        Args:
            calibration: which correction; ``"contextual"`` needs ``content_free``, ``"readout"`` items on which
                :meth:`read` finds one.
            asked: search items and what goes with them.

        Raises:
            ValueError: no readout can be fitted on these items.
        """
        items, answers = asked.items, asked.answers
        if calibration == "readout":
            fitted = self.read(asked)
            if fitted is None:
                raise ValueError("there is nothing to fit a readout on")
            weighing = self._weigh_read(items, fitted.held_out[: len(items)])
            return replace(weighing, calibration="readout", readout=fitted.readout)
        logs = answers.log_probabilities
        shifts: tuple[tuple[float, ...], ...] = ()
        if answers.routes is not None and calibration != "none":
            each = route_shifts(normalized(logs), answers.routes, self.golds(items), answers.route_count)
            shifts = tuple(map(tuple, each.tolist()))
            logs = normalized(logs) - each[answers.routes]
        offsets = np.zeros(logs.shape[1])
        if calibration in ("batch", "fitted", "matrix"):
            offsets = batch_offsets(normalized(logs), self.weights(items))
        elif calibration == "contextual" and asked.content_free is not None:
            offsets = contextual_offsets(normalized(asked.content_free))
        golds, weights = self.golds(items), self.weights(items)
        return replace(fit_weighing(calibration, offsets, logs, self.prior(items), golds, weights), shifts=shifts)

    def read(self, asked: Asked) -> ReadoutFit | None:
        """Fit a readout on what came next after items; None where nothing is known of that, or there are too few."""
        if asked.members:
            fits = [fit for member in asked.members if (fit := self.read(member)) is not None]
            return join_readouts(fits, len(asked.items)) if len(fits) == len(asked.members) else None
        if asked.answers.following is None:
            return None
        parts = [asked, *([] if asked.others is None else [asked.others])]
        following = [part.answers.following for part in parts if part.answers.following is not None]
        golds = np.concatenate([self.golds(part.items) for part in parts])
        logs = np.concatenate([part.answers.log_probabilities for part in parts])
        key = hashlib.sha256(b"|".join(array.tobytes() for array in (golds, logs, *following))).hexdigest()
        if key not in self._readouts:
            self._readouts[key] = fit_readout(self._tokens, logs, np.concatenate(following), golds)
        return self._readouts[key]

    def _weigh_read(self, items: Sequence[int], held_out: FloatArray) -> Weighing:
        """Fit how what a readout says is weighed, on items that it was judged on without having seen them.

        Its probabilities are honest, so that labels are left as they are, unless rare ones are to be named more
        readily.
        """
        is_moved = self.labels_alike and len(items) >= ROWS_A_LABEL * len(self.labels or ())
        calibration = "fitted" if is_moved else "none"
        golds, weights = self.golds(items), self.weights(items)
        unmoved = np.zeros(held_out.shape[1])
        return fit_weighing(calibration, unmoved, held_out, self.prior(items), golds, weights)

    def cross_fitted(self, calibration: str, asked: Asked) -> Judged:
        """Judge items with weighings that did not see them, each fifth of every label by a fit on the others.

        A readout is fitted once: what it says of each item is from a fit without it, and only the weights are then
        fitted on the others.

        Args:
            calibration: which correction; ``"contextual"`` needs ``content_free``.
            asked: search items and what goes with them.
        """
        items, answers = asked.items, asked.answers
        fitted = self.read(asked) if calibration == "readout" else None
        if fitted is not None:
            answers = replace(answers, log_probabilities=fitted.held_out[: len(items)], routes=None, route_count=0)
        folds = stratified_folds(self.golds(items))
        predictions = np.full(len(items), "", dtype=object)
        scores, confidence = np.zeros(len(items)), np.zeros(len(items))
        failures: Counter[str] = Counter()
        for fold in range(min(FOLDS, len(items))):
            inside, outside = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            learned, seen = [items[at] for at in inside.tolist()], answers.take(inside)
            if fitted is not None:
                weighing = self._weigh_read(learned, seen.log_probabilities)
            else:
                weighing = self.fit(calibration, Asked(learned, seen, asked.content_free))
            judged = self.judge([items[at] for at in outside.tolist()], answers.take(outside), weighing)
            predictions[outside], scores[outside] = judged.predictions, judged.scores
            confidence[outside] = judged.confidence
            failures.update(judged.failures)
        return Judged(tuple(predictions.tolist()), scores, confidence, dict(failures))

    def likelihoods(self, calibration: str, asked: Asked) -> FloatArray:
        """Log-likelihood of the right label of each item under fits that did not see it, see :meth:`cross_fitted`.

        What an item counts (:meth:`weights`) is in it; shape (items,).
        """
        judged = self.cross_fitted(calibration, asked)
        return self.weights(asked.items) * np.log(np.maximum(judged.confidence, 1e-9))

    def plain(self, label_count: int) -> Weighing:
        """The model's own choice: nothing subtracted, nothing added."""
        return Weighing("none", (0.0,) * label_count)

    def judge(self, items: Sequence[int], answers: Answers, weighing: Weighing | None) -> Judged:
        """Decide and score; ``weighing`` is None for free text."""
        if self.labels is None or weighing is None:
            return self._judge_texts(items, answers)
        scores = weighing.scores(answers.log_probabilities, self.prior(items), answers.routes, answers.following)
        readable: NDArray[np.bool_] = np.asarray(np.isfinite(scores).any(axis=1))
        best = np.where(np.isfinite(scores), scores, -np.inf).argmax(axis=1)
        predictions = tuple(self.labels[index] if known else "" for index, known in zip(best, readable, strict=True))
        probabilities = softmax(scores)
        confidence = probabilities[np.arange(len(items)), self.golds(items)]
        return self._judged(items, answers, predictions, np.asarray(confidence))

    def judge_labels(self, items: Sequence[int], log_probabilities: FloatArray) -> Judged:
        """Score label choices made without the model."""
        answers = Answers(log_probabilities, (), np.ones(len(items), dtype=bool))
        plain = self.plain(log_probabilities.shape[1])
        return self.judge(items, answers, plain)

    def scores_for_race(self, items: Sequence[int], answers: Answers, calibration: str) -> Scores:
        """Item scores: what candidates race by.

        Where a calibration learns from labels, as that of routes always does, each item is judged by a fit on the
        others, so that few items do not flatter anybody. Where it does not, all items settle it together.
        """
        if self.labels is None:
            judged = self.judge(items, answers, None)
        elif calibration in _LEARNING or (answers.routes is not None and calibration != "none"):
            judged = self.cross_fitted(calibration, Asked(items, answers))
        else:
            judged = self.judge(items, answers, self.fit(calibration, Asked(items, answers)))
        return Scores(judged.scores, judged.confidence)

    def measure(self, items: Sequence[int], judged: Judged) -> Measurement:
        """The metric's value on these items, with its interval."""
        failures = {reason: count for reason, count in judged.failures.items() if count}
        if not self.labels_alike:
            return measure(judged.scores, failures)
        golds = [self._examples[item].output for item in items]
        if judged.scores.min() == judged.scores.max():  # resamples would all be alike
            return measure_alike(bool(judged.scores[0]), list(Counter(golds).values()), failures)
        value = self._aggregate(judged, golds)
        return measure_statistic(value, resampled_macro_f1(golds, [judged.predictions])[0], len(items), failures)

    def difference(self, items: Sequence[int], ours: Judged, theirs: Judged) -> Difference:
        """Paired difference of the metric's value on the same items, with interval and p-value.

        For a metric that is no mean over items, the interval is a paired bootstrap of the metric itself and the
        p-value twice the share of resamples on the other side of zero, the sample itself counted with them.
        """
        if not self.labels_alike:
            return paired_difference(ours.scores, theirs.scores)
        golds = [self._examples[item].output for item in items]
        of_ours, of_theirs = resampled_macro_f1(golds, [ours.predictions, theirs.predictions])
        gains = of_ours - of_theirs
        low, high = np.percentile(gains, [2.5, 97.5])
        value = self._aggregate(ours, golds) - self._aggregate(theirs, golds)
        beyond = (min(int((gains <= 0).sum()), int((gains >= 0).sum())) + 1) / (_RESAMPLES + 1)
        if ours.predictions == theirs.predictions:
            return paired_difference(ours.scores, theirs.scores)
        low, high = min(value, float(low)), max(value, float(high))
        return Difference(value, low, high, min(1.0, 2 * beyond), len(items), "paired bootstrap 95 %")

    def _aggregate(self, judged: Judged, golds: Sequence[str]) -> float:
        return self._metric.aggregate(judged.scores.tolist(), golds, judged.predictions)

    def _judge_texts(self, items: Sequence[int], answers: Answers) -> Judged:
        return self._judged(items, answers, answers.texts, None)

    def failures(self, answers: Answers, predictions: Sequence[str]) -> list[str | None]:
        """Why each item has no answer: "too long", "not understood" or, of free text, "empty answer"; else None.

        Args:
            answers: the model's answers.
            predictions: what they were judged to say, empty where that is nothing.
        """
        found: list[str | None] = []
        for fits, said in zip(answers.fits, predictions, strict=True):
            if not fits:
                found.append("too long")
            elif self.labels is not None:
                found.append(None if said else "not understood")
            elif not said:
                found.append("empty answer")
            else:
                found.append(None if self._metric.understands(said) else "not understood")
        return found

    def _judged(
        self,
        items: Sequence[int],
        answers: Answers,
        predictions: Sequence[str],
        confidence: FloatArray | None,
    ) -> Judged:
        scores = np.array(
            [
                self._metric(self._examples[item], prediction) if prediction else 0.0
                for item, prediction in zip(items, predictions, strict=True)
            ],
            dtype=np.float64,
        )
        failures = Counter(reason for reason in self.failures(answers, predictions) if reason is not None)
        return Judged(tuple(predictions), scores, scores if confidence is None else confidence, dict(failures))


def resampled_macro_f1(golds: Sequence[str], predictions: Sequence[Sequence[str]]) -> list[FloatArray]:
    """Macro F1 of each list of predictions on bootstrap resamples of the items, the same resamples for all.

    Items with the same right label and the same predictions are alike, so that a resample is one multinomial draw of
    how many of each kind there are.

    Args:
        golds: right label of each item.
        predictions: lists of one prediction for each item.

    Returns:
        One array of shape (resamples,) for each list.
    """
    kinds = Counter(zip(golds, *(map(clean_text, said) for said in predictions), strict=True))
    counts = np.array(list(kinds.values()))
    draws = np.random.default_rng(0).multinomial(len(golds), counts / counts.sum(), size=_RESAMPLES)
    columns = np.array(list(kinds), dtype=object)
    labels = sorted(set(golds))
    is_label = np.stack([columns[:, 0] == label for label in labels], axis=1)
    rows = draws @ is_label
    found = []
    for place in range(1, len(predictions) + 1):
        is_named = np.stack([columns[:, place] == label for label in labels], axis=1)
        hits, named = draws @ (is_label & is_named), draws @ is_named
        each = 2 * hits / np.maximum(rows + named, 1)
        found.append(np.asarray((each * (rows > 0)).sum(axis=1) / (rows > 0).sum(axis=1)))
    return found
