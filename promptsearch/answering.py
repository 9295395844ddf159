"""Asks a model under one prompt: what each item is shown, what the model answers, and what the answers are worth.

Invariant: an item never finds an example with its own text where rows are measured.
Leaves out: the prompt's making, its showing and its file (:mod:`promptsearch.prompt`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.data.text import normalised
from promptsearch.errors import ArtifactError, ContextError
from promptsearch.evaluated_rows import EvaluatedRow, EvaluatedRows, confusions_of
from promptsearch.evaluation import Answers, Asker, answer_grammar, join, join_members, join_routes
from promptsearch.lm.base import Engine, FloatArray
from promptsearch.matching import Matching
from promptsearch.measurement import Measurement
from promptsearch.metrics import Metric
from promptsearch.multiple_choice import MultipleChoice
from promptsearch.parts import PromptParts
from promptsearch.prediction import Prediction
from promptsearch.prior import NeighbourLabels
from promptsearch.probabilities import softmax
from promptsearch.prompting import Built, PromptBuilder, answer_room
from promptsearch.scoring import Judge
from promptsearch.task import Example, input_text

__all__ = ["Answering", "Neighbours"]

_logger = logging.getLogger(__name__)
_ITEMS_A_CALL = 256


@dataclass(frozen=True)
class Neighbours:
    """What labelled examples say about some items.

    Attributes:
        matches: numbers of the examples that each item may be shown, the best match first.
        routes: route of each item, shape (items,); None where there is only one.
        prior: log-probabilities of the labels by the prior, shape (items, labels); None where it has no weight.
    """

    matches: Sequence[Sequence[int]]
    routes: NDArray[np.int64] | None = None
    prior: FloatArray | None = None

    def part(self, start: int, stop: int) -> Neighbours:
        """Matches and routes of some items."""
        routes = None if self.routes is None else self.routes[start:stop]
        return Neighbours(self.matches[start:stop], routes)


@dataclass(frozen=True)
class _Asked:
    """Labelled rows and what was answered.

    Attributes:
        examples: the rows.
        answers: the model's answers.
        prior: log-probabilities of labels by the prior, shape (rows, labels); None where it has no weight.
        shown: numbers of the demonstrations that each row was shown.
    """

    examples: tuple[Example, ...]
    answers: Answers
    prior: FloatArray | None
    shown: Sequence[tuple[int, ...]]


class Answering:
    """One prompt and its model.

    Args:
        parts: what the prompt consists of.
        engine: the model.

    Attributes:
        builder: makes the prompts.
    """

    def __init__(self, parts: PromptParts, engine: Engine) -> None:
        task = parts.task
        self._parts = parts
        self._engine = engine
        self.builder = PromptBuilder(
            engine,
            task.inputs,
            task.output,
            parts.examples,
            answer_room(engine, task.labels, task.answer_form),
            MultipleChoice(tuple(task.labels)) if task.labels is not None else None,
        )
        grammar = None if task.metric is None else answer_grammar(task.metric, task.answer_form)
        self._asker = Asker(engine, self.builder, task.labels, task.answer_form, grammar, tokens=parts.read_tokens)

    def predict(self, inputs: Sequence[Mapping[str, str]]) -> list[Prediction]:
        """What the prompt says about items, asked in calls that take no more memory for many than for a few."""
        found: list[Prediction] = []
        for start in range(0, len(inputs), _ITEMS_A_CALL):
            asked = inputs[start : start + _ITEMS_A_CALL]
            near = self._neighbours(asked)
            answers, shown = self._answers(asked, near)
            found += self._told(answers, near.prior, shown)
        return found

    def measure(
        self, examples: object, metric: str | Callable[..., float] | None, weighings: Sequence[Weighing | None]
    ) -> list[Measurement]:
        """Measure rows once, with the same answers weighed in several ways.

        Args:
            examples: the rows.
            metric: None for the task's own.
            weighings: how log-probabilities become a choice.
        """
        rows = self._parts.task.examples_from(examples)
        measured_by, places = self._metric(metric, rows), range(len(rows))
        asked = self._ask_labelled(rows)
        judge = self._judge_of(asked, measured_by)
        return [judge.measure(places, judge.judge(places, asked.answers, weighing)) for weighing in weighings]

    def measure_rows(self, examples: object, metric: str | Callable[..., float] | None) -> EvaluatedRows:
        """Measure rows, and keep what was said about each.

        Args:
            examples: the rows.
            metric: None for the task's own.
        """
        pairs = self._parts.task.rows_from(examples)
        measured_by, places = self._metric(metric, [example for example, _ in pairs]), range(len(pairs))
        asked = self._ask_labelled([example for example, _ in pairs])
        judge = self._judge_of(asked, measured_by)
        judged = judge.judge(places, asked.answers, self._parts.weighing)
        said = self._told(asked.answers, asked.prior, asked.shown)
        rows = [
            EvaluatedRow(row, example, replace(prediction, failure=failure), score)
            for (example, row), prediction, failure, score in zip(
                pairs, said, judge.failures(asked.answers, judged.predictions), judged.scores.tolist(), strict=True
            )
        ]
        task = self._parts.task
        confusions = () if task.labels is None else confusions_of(rows, judged.predictions, task.label_values)
        return EvaluatedRows(judge.measure(places, judged), tuple(rows), confusions)

    def _metric(self, metric: str | Callable[..., float] | None, rows: Sequence[Example]) -> Metric:
        """What rows are measured by; None is the task's own."""
        task = self._parts.task
        return task.require_metric() if metric is None else task.resolve(metric, rows)

    def _ask_labelled(self, rows: Sequence[Example]) -> _Asked:
        """Ask about rows, none of which finds itself as its own neighbour."""
        self._warn_of_known(rows)
        near = self._neighbours([example.fields for example in rows], others_only=True)
        parts, shown = [], []
        for start in range(0, len(rows), _ITEMS_A_CALL):
            stop = start + _ITEMS_A_CALL
            inputs = [example.fields for example in rows[start:stop]]
            answers, numbers = self._answers(inputs, near.part(start, stop))
            parts.append(answers)
            shown += numbers
        return _Asked(tuple(rows), join(parts), near.prior, shown)

    def _judge_of(self, asked: _Asked, metric: Metric) -> Judge:
        """What scores the rows, by their places."""
        examples = [replace(example, id=place) for place, example in enumerate(asked.examples)]
        priors = {} if asked.prior is None else dict(enumerate(asked.prior))
        return Judge(examples, self._parts.task.labels, metric, priors)

    def build(self, inputs: Mapping[str, str]) -> list[tuple[Candidate, Built]]:
        """What the model reads for an item: the candidates (of a routed one its route), and the prompts.

        Raises:
            ContextError: one does not fit the model.
        """
        near = self._neighbours([inputs])
        candidate = self._parts.candidate
        if near.routes is not None:
            candidate = candidate.route(int(near.routes[0]))
        found = []
        for member in candidate.members:
            (built,) = self._asker.build(member, [inputs], near.matches)
            if built.prompt is None:
                raise ContextError(
                    f"the item {input_text(inputs)[:40]!r}... does not fit the model's "
                    f"{self._engine.context_tokens} tokens; shorten it"
                )
            found.append((member, built))
        return found

    def log_probabilities(self, inputs: Sequence[Mapping[str, str]]) -> FloatArray:
        """What the model says of the labels by their own words, shape (items, labels), nothing retrieved."""
        nearest: list[Sequence[int]] = [() for _ in inputs]
        return self._asker.answers(self._asker.ask(self._parts.candidate, inputs, nearest)).log_probabilities

    def _answers(
        self, inputs: Sequence[Mapping[str, str]], near: Neighbours
    ) -> tuple[Answers, list[tuple[int, ...]]]:
        """The model's answers, and the numbers of the demonstrations that each item was shown."""
        candidate = self._parts.candidate
        if candidate.ensemble:
            answered = [self._asked(member, inputs, near.matches) for member in candidate.members]
            return join_members([answers for answers, _ in answered]), answered[0][1]
        if near.routes is None:
            return self._asked(candidate, inputs, near.matches)
        parts = {}
        shown: list[tuple[int, ...]] = [()] * len(inputs)
        for route in np.unique(near.routes).tolist():
            places = np.flatnonzero(near.routes == route).tolist()
            own = [inputs[at] for at in places]
            parts[route], numbers = self._asked(candidate.route(route), own, [()] * len(places))
            for at, each in zip(places, numbers, strict=True):
                shown[at] = each
        return join_routes(parts, near.routes, len(candidate.routes)), shown

    def _asked(
        self, candidate: Candidate, inputs: Sequence[Mapping[str, str]], matches: Sequence[Sequence[int]]
    ) -> tuple[Answers, list[tuple[int, ...]]]:
        """The answers under one prompt, and the numbers of the demonstrations that each item was shown."""
        built = self._asker.build(candidate, inputs, matches)
        return self._asker.answers(self._asker.ask_built(candidate, built)), [each.demonstrations for each in built]

    def _told(self, answers: Answers, prior: FloatArray | None, shown: Sequence[tuple[int, ...]]) -> list[Prediction]:
        """Predictions with what led to them."""
        rationales: Sequence[str | None] = answers.rationales or [None] * len(shown)
        return [
            replace(
                prediction,
                demonstrations=tuple(self._parts.examples[number] for number in numbers),
                rationale=rationale,
            )
            for prediction, numbers, rationale in zip(
                self._predictions(answers, prior), shown, rationales, strict=True
            )
        ]

    def _predictions(self, answers: Answers, prior: FloatArray | None) -> list[Prediction]:
        labels, weighing = self._parts.task.labels, self._parts.weighing
        if labels is None or weighing is None:
            found = [self._parts.task.answer_form.find(text) or None for text in answers.texts]
            return [
                Prediction(answer, failure=_failure(bool(fits)) if answer is None else None, text=text)
                for answer, text, fits in zip(found, answers.texts, answers.fits, strict=True)
            ]
        values = [self._parts.task.label_values[word] for word in labels]
        scores = weighing.scores(answers.log_probabilities, prior, answers.routes, answers.following)
        predictions = []
        for row, probabilities, fits in zip(scores, softmax(scores), answers.fits, strict=True):
            if not np.isfinite(row).any():
                predictions.append(Prediction(None, failure=_failure(bool(fits))))
                continue
            best = int(np.where(np.isfinite(row), row, -np.inf).argmax())
            shares = dict(zip(values, probabilities.tolist(), strict=True))
            predictions.append(Prediction(values[best], shares))
        return predictions

    def _neighbours(self, inputs: Sequence[Mapping[str, str]], *, others_only: bool = False) -> Neighbours:
        """What labelled examples say: matches to show, routes to take, and the prior where it has weight.

        With ``others_only`` no item finds an example with its own text.
        """
        parts = self._parts
        if not inputs:
            return Neighbours([])
        texts = [input_text(item) for item in inputs]
        if not parts.needs_vectors:
            return Neighbours([()] * len(inputs), None, self._prior(texts, None, None))
        if parts.retriever is None:
            raise ArtifactError("this prompt needs vectors and has no encoder; load it from its file")
        if parts.needs_pool and parts.retriever.pool is None:
            raise ArtifactError("this prompt retrieves examples and has no index; load it with its folder")
        vectors = parts.retriever.encoder.encode(texts)
        own = [self._own_example(item) for item in inputs] if others_only else None
        matches: Sequence[Sequence[int]] = [()] * len(inputs)
        if parts.candidate.mode == "retrieved":
            matches = self._matching.matches(parts.candidate, vectors, texts, own)
        routes = None if parts.router is None else parts.router.clusters(vectors)
        return Neighbours(matches, routes, self._prior(texts, vectors, own))

    def _prior(
        self, texts: Sequence[str], vectors: NDArray[np.float32] | None, own: Sequence[int | None] | None
    ) -> FloatArray | None:
        """What the prior says about labels, shape (items, labels); None where it has no weight."""
        parts, labels = self._parts, self._parts.task.labels
        if parts.prior is None or labels is None or not parts.uses_prior:
            return None
        neighbours = None
        if parts.voters and vectors is not None and parts.retriever is not None and parts.retriever.pool is not None:
            found = parts.retriever.pool.nearest(vectors, parts.voters, exclude=own)
            index = {word: number for number, word in enumerate(labels)}
            numbers = [[index[parts.examples[int(n)].output] for n in row] for row in found.ids]
            voting = np.array(numbers, dtype=np.int64).reshape(found.ids.shape)
            neighbours = NeighbourLabels(found.similarities.astype(np.float64), voting)
        return parts.prior.log_probabilities(texts, vectors, neighbours, len(labels))

    @cached_property
    def _matching(self) -> Matching:
        """Finds what queries are shown."""
        parts = self._parts
        if parts.retriever is None or parts.retriever.pool is None:
            raise ArtifactError("this prompt retrieves examples and has no index; load it with its folder")
        index = {word: number for number, word in enumerate(self._parts.task.labels or ())}
        return Matching(
            parts.retriever.pool,
            {number: input_text(shown.inputs) for number, shown in parts.examples.items()},
            {number: index.get(shown.output, 0) for number, shown in parts.examples.items()},
            parts.retriever.encoder,
        )

    def _warn_of_known(self, rows: Sequence[Example]) -> None:
        known = sum(row.text in self._parts.seen for row in rows)
        if known:
            _logger.warning(
                "%d of %d rows are among those that this prompt was found by, and make it look too good",
                known,
                len(rows),
            )

    def _own_example(self, item: Mapping[str, str]) -> int | None:
        """The example with an item's own text, as duplicates are recognised everywhere."""
        return self._texts.get(normalised(input_text(item)))

    @cached_property
    def _texts(self) -> dict[str, int]:
        examples = self._parts.examples.items()
        return {normalised(input_text(shown.inputs)): number for number, shown in examples}


def _failure(fits: bool) -> str:
    return "not understood" if fits else "too long"
