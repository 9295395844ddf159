"""One search over the demonstrations of a program: candidates become programs, runs become scores.

Every run is written down before it counts. A program's choices are calibrated from the log-probabilities that its
first runs gave, and only where that changes a choice is the example run again.
Invariant: the search rows are in one fixed order; candidates are compared on the same ones. Rows for confirmation are
run by finalists only.
Leaves out: where demonstrations come from, see :mod:`promptsearch.dspy.bootstrapping`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dspy
import numpy as np
from numpy.typing import NDArray

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.dspy.bootstrapping import Shown
from promptsearch.dspy.calibrating import batch_weighing, best_weighing
from promptsearch.dspy.fields import choices_of
from promptsearch.dspy.joint import JointPool
from promptsearch.dspy.library import Library
from promptsearch.dspy.predictor import Predict, model_identity
from promptsearch.dspy.running import Ran, Runner
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import softmax
from promptsearch.search.base import Scores
from promptsearch.store import Call, RunStore

__all__ = ["Compilation", "Field", "Outcome", "ScoredField", "Weighings"]

Field = tuple[int, str]
"""A predictor's place in the program, and the name of one of its output fields."""

Weighings = Mapping[Field, Weighing]
"""How the choices of fields are calibrated."""


@dataclass(frozen=True)
class ScoredField:
    """One answer that was chosen by log-probabilities.

    Attributes:
        field: which field of which predictor.
        log_probabilities: of its choices, before calibration.
    """

    field: Field
    log_probabilities: tuple[float, ...]

    @property
    def likeliest(self) -> int:
        """Index of the likeliest choice."""
        return int(np.argmax(self.log_probabilities))


@dataclass(frozen=True)
class Outcome:
    """What is kept of a run.

    Attributes:
        score: what the metric said.
        failure: why there is no prediction; empty where there is one.
        scored: answers that were chosen by log-probabilities, in the order asked.
    """

    score: float
    failure: str
    scored: tuple[ScoredField, ...]

    def to_list(self) -> list[Any]:
        """Plain values."""
        scored = [[*each.field, list(each.log_probabilities)] for each in self.scored]
        return [self.score, self.failure, scored]

    @classmethod
    def from_list(cls, values: Sequence[Any]) -> Outcome:
        """The reverse of :meth:`to_list`."""
        score, failure, scored = values
        return cls(score, failure, tuple(ScoredField((at, name), tuple(logs)) for at, name, logs in scored))


class Compilation:
    """Turns candidates into programs and scores.

    Args:
        student: the program; its predictors are ours where they can be.
        shown: possible demonstrations of all predictors.
        pool: the same as numbers.
        examples: validation rows; items are their numbers.
        runner: runs programs.
        store: where runs are written down.
        libraries: demonstrations by predictor, for candidates that retrieve; empty without them.
        elapsed: the run's clock.
    """

    def __init__(
        self,
        student: Any,
        shown: Sequence[Shown],
        pool: JointPool,
        examples: Sequence[Any],
        runner: Runner,
        store: RunStore,
        libraries: Mapping[int, Library],
        elapsed: Callable[[], float] = time.monotonic,
    ) -> None:
        self._student = student
        self._shown = shown
        self._pool = pool
        self._examples = examples
        self._runner = runner
        self._store = store
        self._libraries = libraries
        self._elapsed = elapsed
        self._outcomes: dict[str, dict[int, Outcome]] = defaultdict(dict)
        for call in store.calls():
            if call.kind == "runs":
                self._outcomes[call.reading].update(
                    zip(call.items, map(Outcome.from_list, call.answers), strict=True)
                )
        self.evaluations = 0

    # -- programs -------------------------------------------------------------------------------------------

    def program(self, candidate: Candidate, weighings: Weighings | None = None) -> Any:
        """The student with a candidate's demonstrations."""
        made = self._student.deepcopy()
        given = self._pool.by_predictor(candidate.demonstrations)
        for place, predictor in enumerate(made.predictors()):
            predictor.demos = [_example(self._shown[number]) for number in given.get(place, ())]
            if not isinstance(predictor, Predict):
                continue
            predictor.style, predictor.titles = candidate.template, _titles(predictor.signature, candidate)
            predictor.library = self._library(candidate, place) if candidate.mode == "retrieved" else None
            predictor.weighings = {
                name: weighing for (at, name), weighing in (weighings or {}).items() if at == place
            }
            predictor.choices = {name: self._texts(place, name) for name in predictor.weighings}
            predictor.model = model_identity(predictor.lm or dspy.settings.lm) if predictor.weighings else ""
        return made

    def _texts(self, place: int, name: str) -> tuple[str, ...]:
        """What the prompt writes for the choices of a field."""
        choices = choices_of(self._student.predictors()[place].signature.output_fields[name])
        return () if choices is None else choices.texts

    def _library(self, candidate: Candidate, place: int) -> Library | None:
        """Where a predictor finds its queries' demonstrations; None where it has none."""
        library = self._libraries.get(place)
        order = "nearest-first" if candidate.order == "nearest-first" else "nearest-last"
        return None if library is None else library.showing(self._pool.retrieved(candidate), order)

    # -- runs -----------------------------------------------------------------------------------------------

    def knows(self, candidate: Candidate, items: Sequence[int]) -> bool:
        """Whether a candidate ran on all of these items."""
        known = self._outcomes[_key(candidate, {})]
        return all(item in known for item in items)

    def outcomes(self, candidate: Candidate, items: Sequence[int]) -> list[Outcome]:
        """What a candidate's program did on items without calibration; those not known yet are run."""
        return self._known(candidate, {}, items)

    def calibrated(self, candidate: Candidate, items: Sequence[int], weighings: Weighings) -> list[Outcome]:
        """The same under a calibration; run again only where it changes a choice."""
        plain = self.outcomes(candidate, items)
        changed = [item for item, each in zip(items, plain, strict=True) if _changes(each, weighings)]
        again = dict(zip(changed, self._known(candidate, weighings, changed), strict=True))
        return [again.get(item, each) for item, each in zip(items, plain, strict=True)]

    def _known(self, candidate: Candidate, weighings: Weighings, items: Sequence[int]) -> list[Outcome]:
        """Outcomes from the record; what lacks is run and recorded first."""
        key = _key(candidate, weighings)
        known = self._outcomes[key]
        missing = [item for item in items if item not in known]
        if missing:
            program = self.program(candidate, weighings)
            runs = self._runner.run(program, [self._examples[item] for item in missing])
            places = {id(predictor): place for place, predictor in enumerate(program.predictors())}
            outcomes = [_outcome(ran, places) for ran in runs]
            answers = tuple(each.to_list() for each in outcomes)
            name = f"{key}:{missing[0]}:{len(known)}"
            self._store.record(Call(name, "runs", key, tuple(missing), answers, 0, self._elapsed()))
            known.update(zip(missing, outcomes, strict=True))
            self.evaluations += 0 if weighings else len(missing)
        return [known[item] for item in items]

    # -- scores ---------------------------------------------------------------------------------------------

    def raced(self, candidate: Candidate, items: Sequence[int]) -> Scores:
        """What a candidate races by: scores under batch calibration, which needs no right answers."""
        weighings = {field: batch_weighing(logs) for field, (logs, _) in self._answers(candidate, items).items()}
        return self.judged(candidate, items, weighings)

    def judged(self, candidate: Candidate, items: Sequence[int], weighings: Weighings) -> Scores:
        """Scores under a calibration, with the probability of the right answer where it is known."""
        outcomes = self.calibrated(candidate, items, weighings)
        values = np.array([each.score for each in outcomes])
        confidence = np.array(
            [self._confidence(item, each, weighings) for item, each in zip(items, outcomes, strict=True)]
        )
        return Scores(values, confidence)

    def best_weighings(self, candidate: Candidate, items: Sequence[int]) -> dict[Field, Weighing]:
        """The calibration of each field, fitted on these items."""
        return {field: best_weighing(logs, golds) for field, (logs, golds) in self._answers(candidate, items).items()}

    def failures(self, candidate: Candidate, items: Sequence[int]) -> dict[str, int]:
        """How many items had no prediction, by reason."""
        return dict(Counter(each.failure for each in self.outcomes(candidate, items) if each.failure))

    def _answers(
        self, candidate: Candidate, items: Sequence[int]
    ) -> dict[Field, tuple[FloatArray, NDArray[np.int64] | None]]:
        """For each field that was chosen its log-probabilities, and the right choices where all are known."""
        logs: dict[Field, list[tuple[float, ...]]] = defaultdict(list)
        golds: dict[Field, list[int | None]] = defaultdict(list)
        for item, outcome in zip(items, self.outcomes(candidate, items), strict=True):
            for each in outcome.scored:
                logs[each.field].append(each.log_probabilities)
                golds[each.field].append(self._gold(item, each.field))
        found: dict[Field, tuple[FloatArray, NDArray[np.int64] | None]] = {}
        for field, rows in logs.items():
            known = [gold for gold in golds[field] if gold is not None]
            found[field] = (np.array(rows), np.array(known, dtype=np.int64) if len(known) == len(rows) else None)
        return found

    def _gold(self, item: int, field: Field) -> int | None:
        """Index of the right choice of a field, where the example holds a value under the field's name."""
        place, name = field
        choices = choices_of(self._student.predictors()[place].signature.output_fields[name])
        labels = self._examples[item].labels()
        return choices.place_of(labels[name]) if choices is not None and name in labels else None

    def _confidence(self, item: int, outcome: Outcome, weighings: Weighings) -> float:
        """Probability given to the right choice; the score itself where that is not known."""
        for each in reversed(outcome.scored):
            gold = self._gold(item, each.field)
            if gold is not None:
                return float(_shares(each, weighings)[gold])
        return outcome.score


def _example(shown: Shown) -> Any:
    """A demonstration as DSPy keeps it."""
    return dspy.Example(**({"augmented": True} if shown.source == "bootstrapped" else {}), **shown.fields)


def _titles(signature: Any, candidate: Candidate) -> dict[str, str]:
    """What a candidate calls input and output, for a predictor that has one input and one output beside reasoning."""
    inputs = list(signature.input_fields)
    outputs = [name for name in signature.output_fields if name != "reasoning"]
    if len(inputs) != 1 or len(outputs) != 1:
        return {}
    named = {inputs[0]: candidate.input_name, outputs[0]: candidate.output_name}
    return {name: title for name, title in named.items() if title}


def _changes(outcome: Outcome, weighings: Weighings) -> bool:
    return any(int(_shares(each, weighings).argmax()) != each.likeliest for each in outcome.scored)


def _shares(each: ScoredField, weighings: Weighings) -> FloatArray:
    logs = np.array([each.log_probabilities])
    weighing = weighings.get(each.field)
    return np.asarray(softmax(logs if weighing is None else weighing.scores(logs))[0])


def _outcome(ran: Ran, places: Mapping[int, int]) -> Outcome:
    scored = tuple(
        ScoredField((places[id(each.owner)], each.field), tuple(each.log_probabilities.tolist()))
        for each in ran.scored
        if id(each.owner) in places
    )
    return Outcome(ran.score, ran.failure, scored)


def _key(candidate: Candidate, weighings: Weighings) -> str:
    """What outcomes are recorded under."""
    weighed = {f"{place}.{name}": weighing.to_dict() for (place, name), weighing in sorted(weighings.items())}
    text = json.dumps([candidate.key, weighed], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
