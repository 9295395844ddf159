"""Scores one prediction against one example, and a set of predictions as a whole.

Invariant: a score is a float from 0 to 1, and a text that cannot be read scores 0 instead of raising.
It leaves out intervals and tests of significance.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from promptsearch.data.answers import answer_text, is_number, number_in
from promptsearch.data.text import clean_text, quoted
from promptsearch.errors import DataError, PromptsearchError

__all__ = [
    "METRICS",
    "Aggregate",
    "Gold",
    "Metric",
    "Score",
    "reading_answers",
    "resolve_metric",
]


class Gold(Protocol):
    """What a metric reads of an example."""

    @property
    def output(self) -> str:
        """The expected output."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted outputs, the expected one among them."""


Score = Callable[[Gold, str], float]
Aggregate = Callable[[Sequence[float], Sequence[str], Sequence[str]], float]


def _mean(scores: Sequence[float], golds: Sequence[str], predictions: Sequence[str]) -> float:
    return math.fsum(scores) / len(scores)


@dataclass(frozen=True)
class Metric:
    """A named way to score.

    Attributes:
        name: what reports call it.
        score: score of one prediction for one example.
        combine: value of a whole set, from scores, expected outputs and predictions; the mean by default.
        is_custom: whether the score is the user's own callable.
        understands: whether a text holds an answer of the metric's kind at all; one that does not scores 0 and is
            counted apart.
        labels_alike: whether every label counts alike, however many rows it has; then a set's value is no mean over
            its rows.
    """

    name: str
    score: Score
    combine: Aggregate = _mean
    is_custom: bool = False
    understands: Callable[[str], bool] = bool
    labels_alike: bool = False

    @property
    def mean_name(self) -> str:
        """What the mean over single rows' scores is called where it is not the metric's value; empty where it is."""
        return "accuracy" if self.labels_alike else ""

    def __call__(self, example: Gold, prediction: str) -> float:
        """Score of one prediction."""
        return self.score(example, prediction)

    def aggregate(self, scores: Sequence[float], golds: Sequence[str], predictions: Sequence[str]) -> float:
        """Value of a whole set of items.

        Raises:
            DataError: there are no items.
        """
        if not len(scores):
            raise DataError(f"metric {self.name!r} was asked for the value of 0 items; it needs at least one")
        return self.combine(scores, golds, predictions)


def resolve_metric(
    spec: str | Callable[..., float] | Metric | None, is_classification: bool, golds: Sequence[str]
) -> Metric:
    """Find the metric that the user named, or the usual one for the kind of task.

    Args:
        spec: a name among `METRICS`, a callable ``(example, prediction) -> float`` from 0 to 1, or None.
        is_classification: whether the outputs are labels.
        golds: expected outputs; None as ``spec`` picks "numeric" where they are numbers.

    Raises:
        DataError: no such metric, or one that does not suit the task.
    """
    if isinstance(spec, Metric):
        return spec
    if spec is None:
        return METRICS[_usual_name(is_classification, golds)]
    if callable(spec):
        return _custom(spec)
    if not isinstance(spec, str) or spec not in METRICS:
        raise DataError(f"metric={quoted(spec)} is unknown; give one of {', '.join(METRICS)}, or a callable")
    if spec == "macro_f1" and not is_classification:
        raise DataError("metric='macro_f1' needs labels and the outputs are free text; give labels, or use 'f1'")
    if spec == "numeric" and golds and all(number_in(gold) is None for gold in golds):
        raise DataError(f"metric='numeric' needs numbers, and outputs such as {quoted(golds[0])} hold none")
    return METRICS[spec]


@dataclass(frozen=True)
class _Read:
    """An example's answers as they were found in its outputs."""

    output: str
    answers: tuple[str, ...]


def reading_answers(metric: Metric, find: Callable[[str], str | None]) -> Metric:
    """A metric of what stands in texts: the same, asked about the answers found in outputs and predictions.

    Args:
        metric: what an answer is worth. A user's own callable is given the example with the answers found in place of
            its outputs; its ``value`` is what stands in the data.
        find: the answer in a text, None where there is none; it finds one in every expected output.
    """

    def score(example: Gold, prediction: str) -> float:
        answer = find(prediction)
        if answer is None:
            return 0.0
        output, answers = find(example.output) or "", tuple(find(text) or "" for text in example.answers)
        if not metric.is_custom:
            return metric.score(_Read(output, answers), answer)
        whole: Any = example  # a row, which users' callables may read more of
        return metric.score(replace(whole, output=output, answers=answers), answer)

    def understands(text: str) -> bool:
        answer = find(text)
        return answer is not None and metric.understands(answer)

    return replace(metric, score=score, understands=understands)


def _usual_name(is_classification: bool, golds: Sequence[str]) -> str:
    if is_classification:
        return "accuracy"
    numbers = sum(1 for gold in golds if is_number(gold.strip()))
    return "numeric" if golds and numbers >= 0.95 * len(golds) else "exact_match"


def _custom(function: Callable[..., float]) -> Metric:
    name = str(getattr(function, "__qualname__", type(function).__qualname__))

    def score(example: Gold, prediction: str) -> float:
        try:
            result = function(example, prediction)
        except PromptsearchError:  # of a model that the metric asks
            raise
        except Exception as error:
            said = " ".join(str(error).split())[:200]
            raise DataError(
                f"metric {name!r} failed with {type(error).__name__}: {said}; it is called as {name}(example, "
                "prediction) with the row, whose .output and .fields it may read, and the predicted text"
            ) from error
        return _checked_score(result, name)

    return Metric(name, score, is_custom=True)


def _checked_score(result: object, name: str) -> float:
    try:
        value = float(result)  # type: ignore[arg-type]  # whatever a user's function returns
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(result, str) or not 0.0 <= value <= 1.0:
        raise DataError(f"metric {name!r} returned {quoted(result)}; it must return a number from 0 to 1")
    return value


def _accuracy(example: Gold, prediction: str) -> float:
    return float(clean_text(prediction) in example.answers)


def _macro_f1(scores: Sequence[float], golds: Sequence[str], predictions: Sequence[str]) -> float:
    """Mean over labels of ``2 hits / (rows of the label + predictions of it)``."""
    from sklearn.metrics import f1_score

    said = [clean_text(prediction) for prediction in predictions]
    # Only labels that occur: a prediction that is no label lowers recall, but is no class of its own.
    labels = sorted(set(golds))
    return float(f1_score(golds, said, labels=labels, average="macro", zero_division=0))


def _exact_match(example: Gold, prediction: str) -> float:
    given = answer_text(prediction)
    return float(any(given == answer_text(answer) for answer in example.answers))


def _token_f1(example: Gold, prediction: str) -> float:
    given = answer_text(prediction).split()
    return max((_overlap(given, answer_text(answer).split()) for answer in example.answers), default=0.0)


def _overlap(given: list[str], expected: list[str]) -> float:
    """Harmonic mean of precision and recall of the words."""
    common = (Counter(given) & Counter(expected)).total()
    return 2 * common / (len(given) + len(expected)) if common else 0.0


def _numeric(example: Gold, prediction: str) -> float:
    given = number_in(prediction)
    expected = [number_in(answer) for answer in example.answers]
    return float(given is not None and any(_same_number(given, number) for number in expected))


def _same_number(given: float, expected: float | None) -> bool:
    if expected is None:
        return False
    if given.is_integer() and expected.is_integer():
        return given == expected  # tolerance is for rounding; 1234567 is not 1234568
    return math.isclose(given, expected, rel_tol=1e-6, abs_tol=1e-12)


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", _accuracy),
    "macro_f1": Metric("macro_f1", _accuracy, _macro_f1, labels_alike=True),
    "exact_match": Metric("exact_match", _exact_match),
    "numeric": Metric("numeric", _numeric, understands=lambda text: number_in(text) is not None),
    "f1": Metric("f1", _token_f1),
}
