"""Plain recipes: prompts that anybody can make without a search, on the footing of ours.

All have the task's instruction, the first template, the columns' own names, and labels scored by the same engine.
Invariant: calibration is fitted on search rows, and no recipe reads a test row's label but to be measured.
Leaves out: recipes that spend a budget on choosing (``benchmarks.rivals.budgeted``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

import promptsearch as ps
from promptsearch.calibration import Weighing, batch_offsets
from promptsearch.candidate import Candidate
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.evaluation import Answers, Asker
from promptsearch.lm.base import FloatArray
from promptsearch.lm.resolve import OpenedModel
from promptsearch.measurement import Measurement
from promptsearch.multiple_choice import find_multiple_choice
from promptsearch.probabilities import normalized
from promptsearch.prompting import PromptBuilder
from promptsearch.run.workbench import demonstrations_of, embed_splits, with_prior
from promptsearch.template import OPTION_TEMPLATES

__all__ = ["CALIBRATION_ROWS", "PLAIN_RECIPES", "SHOTS", "Bench", "Price", "offsets_of", "random_shots"]

SHOTS = 8
CALIBRATION_ROWS = 64
_ANSWER_ROOM = 16
_AT_ONCE = 128
_PRICED_ROWS = 32


@dataclass(frozen=True)
class Price:
    """Tokens of asking a candidate.

    Attributes:
        opening: what all queries begin with, paid once.
        row: of each query.
    """

    opening: float
    row: float

    def rows(self, tokens: float) -> int:
        """Queries that ``tokens`` pay for."""
        return max(0, int((tokens - self.opening) // self.row))


class Bench:
    """A task with its splits, neighbours and model.

    Args:
        task: the task; its labels are words.
        opened: the model.
        seed: of the splits and of what is random.

    Attributes:
        test: rows measured in the end.
        search: rows that calibration is fitted on, in random order.
        validation: rows that candidates may be compared on: all that ours has, those of its confirmation too.
        spent: tokens of all questions so far; what the queries of a candidate begin with counts once.
    """

    def __init__(self, task: ps.Task, opened: OpenedModel, seed: int) -> None:
        self.task = task
        self.seed = seed
        self.engine = opened.engine
        near = embed_splits(task, task.split(seed), resolve_encoder(None), lambda done, total: None)
        self.near = with_prior(task, near)
        self.labels = tuple(task.labels or ())
        shown = demonstrations_of(task.examples, self.near.splits.pool)
        listed = find_multiple_choice(task.labels, (example.fields for example in task.examples))
        self.builder = PromptBuilder(self.engine, task.inputs, task.output, shown, _ANSWER_ROOM, listed)
        self.judge = self.near.judge(task, task.require_metric(), prior=False)
        self.test = list(self.near.splits.test)
        self.search = list(self.near.splits.search)
        self.validation = [*self.near.splits.search, *self.near.splits.confirm]
        self.zero = Candidate(instruction=task.instructions[0] if task.instructions else "")
        self.spent = 0
        self._asker = Asker(self.engine, self.builder, task.labels)
        self._begun: set[str] = set()

    # -- asking ---------------------------------------------------------------------------------------------

    def ask(
        self, candidate: Candidate, items: Sequence[int], shown: Mapping[int, Sequence[int]] | None = None
    ) -> Answers:
        """Answers about items.

        Args:
            candidate: what to show.
            items: rows of the task.
            shown: for each item the demonstrations that a retrieving candidate shows; None for its nearest.
        """
        values: list[object] = []
        for start in range(0, len(items), _AT_ONCE):
            part = items[start : start + _AT_ONCE]
            inputs = [self.task.examples[item].fields for item in part]
            matches = [shown[item] for item in part] if shown is not None else self.matches(candidate, part)
            with self.metered(candidate):
                values += self._asker.ask(candidate, inputs, matches)
        return self._asker.answers(values)

    def matches(self, candidate: Candidate, items: Sequence[int]) -> Sequence[Sequence[int]]:
        """For each item the pool ids that a retrieving candidate may show, the nearest first."""
        return self.near.matcher.matches(candidate, items) if candidate.mode == "retrieved" else [()] * len(items)

    def metered(self, candidate: Candidate) -> _Metered:
        """A context that counts the tokens of asking a candidate."""
        return _Metered(self, candidate.reading.key)

    def price(self, candidate: Candidate, items: Sequence[int]) -> Price:
        """Expected tokens, from the first of the items and their true prompts."""
        sample = items[:_PRICED_ROWS]
        built = [
            self.builder.build(candidate, self.task.examples[item].fields, match).prompt
            for item, match in zip(sample, self.matches(candidate, sample), strict=True)
        ]
        prompts = [prompt for prompt in built if prompt is not None]
        if not prompts:
            return Price(0.0, float(self.engine.context_tokens))
        mean = float(np.mean(self.engine.count_tokens(prompts)))
        opening = 0.0
        if candidate.mode == "static":
            opening = float(self.engine.count_tokens([prompts[0][: prompts[0].shared] or " "])[0])
        return Price(opening, mean - opening + self._answer_tokens)

    @property
    def _answer_tokens(self) -> float:
        """Tokens that scoring the labels adds to each query at most; the last one of a label is never run."""
        begun = self.engine.count_tokens([""])[0]
        return float(
            sum(count - begun - 1 for count in self.engine.count_tokens([f" {each}" for each in self.labels]))
        )

    # -- measuring ------------------------------------------------------------------------------------------

    def measure(self, answers: Answers, offsets: FloatArray | None = None) -> Measurement:
        """Accuracy on the test rows, calibrated where offsets are given."""
        return self.judge.measure(self.test, self.judge.judge(self.test, answers, self._weighing(offsets)))

    def measure_labels(self, scores: FloatArray) -> Measurement:
        """Accuracy on the test rows of choices made otherwise; scores have the shape (rows, labels)."""
        return self.judge.measure(self.test, self.judge.judge_labels(self.test, scores))

    def worth(self, items: Sequence[int], answers: Answers) -> tuple[float, float]:
        """Accuracy on items calibrated by themselves, and the right answer's mean probability, which breaks ties."""
        judged = self.judge.judge(items, answers, self._weighing(offsets_of(answers)))
        return float(judged.scores.mean()), float(judged.confidence.mean())

    def _weighing(self, offsets: FloatArray | None) -> Weighing:
        plain = self.judge.plain(len(self.labels))
        return plain if offsets is None else replace(plain, calibration="batch", offsets=tuple(offsets.tolist()))

    # -- recipes --------------------------------------------------------------------------------------------

    def both(self, candidate: Candidate) -> dict[str, Measurement]:
        """A candidate as the model answers, and calibrated on the first search rows."""
        answers = self.ask(candidate, self.test)
        offsets = offsets_of(self.ask(candidate, self.search[:CALIBRATION_ROWS]))
        return {"": self.measure(answers), "_calibrated": self.measure(answers, offsets)}

    def label_vote(self) -> Measurement:
        """The label vote of neighbours, without a model."""
        return self.measure_labels(np.stack([self.near.votes[item] for item in self.test]))

    def prior_only(self) -> Measurement:
        """The label vote and linear classifiers of vectors and letters, without a model."""
        return self.measure_labels(np.stack([self.near.priors[item] for item in self.test]))

    def random_shots(self, rng: np.random.Generator) -> Candidate:
        """Eight random demonstrations."""
        return replace(self.zero, demonstrations=random_shots(self.task, self.near.pool.ids, rng))

    def nearest(self, count: int) -> Candidate:
        """The nearest demonstrations of each query, the nearest last."""
        return replace(self.zero, mode="retrieved", count=count)

    def plain_recipes(self, names: Collection[str] = ()) -> dict[str, Measurement]:
        """Recipes that choose nothing, all of them or some by name.

        Where rows list options, those that ask for labels ask for the options' texts too (``_options``).
        """
        found = {}
        for name, make in PLAIN_RECIPES.items():
            if names and name not in names:
                continue
            candidate = make(self)
            found.update({f"{name}{how}": value for how, value in self.both(candidate).items()})
            if self.builder.multiple_choice is not None and candidate.mode == "static":
                by_options = replace(candidate, template=OPTION_TEMPLATES[0].name)
                found[f"{name}_options"] = self.measure(self.ask(by_options, self.test))
        return {**found, "label_vote": self.label_vote(), "prior_only": self.prior_only()}


PLAIN_RECIPES: dict[str, Callable[[Bench], Candidate]] = {
    "zero_shot": lambda bench: bench.zero,
    "random_8": lambda bench: bench.random_shots(np.random.default_rng([bench.seed, 11])),
    "nearest_8": lambda bench: bench.nearest(SHOTS),
}


class _Metered:
    """Adds what the engine ran and restored to a bench's count."""

    def __init__(self, bench: Bench, key: str) -> None:
        self._bench = bench
        self._key = key

    def __enter__(self) -> None:
        engine = self._bench.engine
        self._before = engine.tokens_decoded + engine.tokens_restored, engine.prefix_tokens

    def __exit__(self, *exception: object) -> None:
        engine, begun = self._bench.engine, self._bench._begun
        tokens = engine.tokens_decoded + engine.tokens_restored - self._before[0]
        self._bench.spent += tokens - (engine.prefix_tokens - self._before[1]) * (self._key in begun)
        begun.add(self._key)


def offsets_of(answers: Answers) -> FloatArray:
    """Batch calibration's offsets."""
    return batch_offsets(normalized(answers.log_probabilities))


def random_shots(
    task: ps.Task, pool: NDArray[np.int64], rng: np.random.Generator, count: int = SHOTS
) -> tuple[int, ...]:
    """Random demonstrations, as many of each label as goes."""
    groups: dict[str, list[int]] = {}
    for number in rng.permutation(pool).tolist():
        groups.setdefault(task.examples[number].output, []).append(number)
    chosen: list[int] = []
    while len(chosen) < min(count, len(pool)):
        for label in rng.permutation(sorted(groups)).tolist():
            if groups[label] and len(chosen) < count:
                chosen.append(groups[label].pop())
    return tuple(chosen[place] for place in rng.permutation(len(chosen)))
