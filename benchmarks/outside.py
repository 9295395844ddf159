"""Measures prompts item by item outside a search's budget, and lays out again on which rows a search fitted them.

Everything goes through what a user has: ``Prompt.predict``. A label's probability under a prompt without any
weighing is the model's own, so that another prompt can be calibrated here exactly as the search calibrates.
Invariant: nothing is fitted on test rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.data.splits import Splits
from promptsearch.embed.base import Encoder
from promptsearch.evaluation import Answers
from promptsearch.lm.resolve import OpenedModel
from promptsearch.result import Trial
from promptsearch.run.workbench import Neighbourhood, embed_splits, with_prior
from promptsearch.scoring import Asked, Judge
from promptsearch.task import Example, input_text

__all__ = [
    "SearchRows",
    "best_search_value",
    "calibrated",
    "item_scores",
    "race_score",
    "search_rows",
    "test_rows",
    "uncalibrated",
    "winning_trial",
]

_ROWS_A_CALL = 256


@dataclass(frozen=True)
class SearchRows:
    """The rows by which a search judged its winner.

    Attributes:
        trial: the winner as it raced.
        raced: search rows that the winner was scored on.
        fitted: rows that the winner's weights were fitted on.
        near: splits and neighbours, as the search had them.
    """

    trial: Trial
    raced: tuple[Example, ...]
    fitted: tuple[Example, ...]
    near: Neighbourhood


def search_rows(task: ps.Task, result: ps.Result, encoder: Encoder, seed: int) -> SearchRows:
    """Lay out a finished search's rows again.

    Raises:
        RuntimeError: the splits are not those of the search.
    """
    near = with_prior(task, embed_splits(task, task.split(seed), encoder, lambda done, total: None))
    if near.splits.sizes != result.facts["rows"]:
        raise RuntimeError(f"the search had rows {result.facts['rows']} and these are {near.splits.sizes}")
    trial = winning_trial(result)
    raced = near.splits.search[: trial.items]
    fitted = [*raced, *near.splits.confirm[: result.validation.n]]
    return SearchRows(trial, _examples(task, raced), _examples(task, fitted), near)


def test_rows(task: ps.Task, splits: Splits) -> tuple[Example, ...]:
    """All test rows, in the order in which a search measures them."""
    return _examples(task, splits.test)


def _examples(task: ps.Task, numbers: Sequence[int]) -> tuple[Example, ...]:
    return tuple(task.examples[number] for number in numbers)


def winning_trial(result: ps.Result) -> Trial:
    """The trial that the result's prompt comes from: the one it reads like, of an ensemble its first prompt's."""
    reading = result.prompt.candidate.members[0].reading
    alike = [trial for trial in result.trials if trial.candidate.reading == reading]
    return max(alike, key=lambda trial: trial.items)


def best_search_value(result: ps.Result) -> float:
    """The highest score among the candidates that saw the most search rows: what a careless report would print."""
    most = max(trial.items for trial in result.trials)
    return max(trial.value for trial in result.trials if trial.items == most)


def item_scores(prompt: ps.Prompt, rows: Sequence[Example]) -> NDArray[np.float64]:
    """Whether each row is answered rightly, shape (rows,)."""
    predictions = _predict(prompt, rows)
    return np.array([float(said.output == row.value) for said, row in zip(predictions, rows, strict=True)])


def calibrated(
    prompt: ps.Prompt, opened: OpenedModel, candidate: Candidate, calibration: str, rows: Sequence[Example]
) -> ps.Prompt:
    """Another candidate as a prompt, with a calibration fitted on ``rows`` as the search fits it.

    Args:
        prompt: a prompt of the same task, whose examples may be shown.
        opened: its model.
        candidate: what the model shall read.
        calibration: "batch", "fitted", "matrix" or "none"; for any other one "batch".
        rows: labelled rows to fit on.
    """
    kind = calibration if calibration in ("batch", "fitted", "matrix", "none") else "batch"
    weighing, _, _ = _fit(uncalibrated(prompt, opened, candidate), kind, rows)
    return _with(prompt, opened, candidate, weighing)


def race_score(
    prompt: ps.Prompt, opened: OpenedModel, candidate: Candidate, calibration: str, rows: Sequence[Example]
) -> float:
    """Accuracy on search rows with weighings fitted on the others of these rows: what candidates race by.

    Args:
        prompt: a prompt of the same task, whose examples may be shown.
        opened: its model.
        candidate: what the model shall read.
        calibration: that of the race, see :attr:`promptsearch.search.space.SearchSpace.calibration`.
        rows: search rows.
    """
    _, answers, judge = _fit(uncalibrated(prompt, opened, candidate), calibration, rows)
    return float(judge.scores_for_race(range(len(rows)), answers, calibration).values.mean())


def uncalibrated(prompt: ps.Prompt, opened: OpenedModel, candidate: Candidate) -> ps.Prompt:
    """Another candidate as a prompt that answers what the model finds likeliest."""
    return _with(prompt, opened, candidate, Weighing("none", (0.0,) * len(prompt.task.labels or ())))


def _predict(prompt: ps.Prompt, rows: Sequence[Example]) -> list[ps.Prediction]:
    """Predictions in calls of as many rows as ``Prompt.evaluate`` takes."""
    parts = [rows[start : start + _ROWS_A_CALL] for start in range(0, len(rows), _ROWS_A_CALL)]
    return [prediction for part in parts for prediction in prompt.predict(part)]


def _with(prompt: ps.Prompt, opened: OpenedModel, candidate: Candidate, weighing: Weighing) -> ps.Prompt:
    parts = replace(prompt.parts, candidate=candidate, weighing=weighing)
    return ps.Prompt.from_parts(parts, opened)


def _fit(plain: ps.Prompt, calibration: str, rows: Sequence[Example]) -> tuple[Weighing, Answers, Judge]:
    """The weighing of a prompt without prior, and what it was fitted by."""
    values = list(plain.task.label_values.values())
    predictions = _predict(plain, rows)
    fits = np.array([bool(said.probabilities) for said in predictions])
    shares = [[said.probabilities.get(value, 0.0) for value in values] for said in predictions]
    with np.errstate(divide="ignore"):
        logs = np.log(np.array(shares))
    answers = Answers(logs, (), fits, _routes(plain, rows), len(plain.parts.candidate.routes))
    numbered = [replace(row, id=place) for place, row in enumerate(rows)]
    judge = Judge(numbered, plain.task.labels, plain.task.require_metric(), {})
    return judge.fit(calibration, Asked(range(len(rows)), answers)), answers, judge


def _routes(prompt: ps.Prompt, rows: Sequence[Example]) -> NDArray[np.int64] | None:
    """The route that each row takes; None where there is only one."""
    parts = prompt.parts
    if parts.router is None or parts.retriever is None or parts.candidate.mode != "routed":
        return None
    return parts.router.clusters(parts.retriever.encoder.encode([input_text(row.fields) for row in rows]))
