"""Sets a search up: checks what the model can do, makes vectors, decides which rows are taken, and plans.

Invariant: what a user got wrong is refused before anything slow; a plan is recorded before it is used, with the rows
that it was made for, so that a resumed run works on the same ones.
Leaves out: searching.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.anchors import BASELINE_SHOTS, WORDING_SHOTS, nearest_count
from promptsearch.budget import Budget
from promptsearch.calibration import CONTENT_FREE
from promptsearch.candidate import Candidate
from promptsearch.data.splits import Splits, in_turns
from promptsearch.embed.cache import CachedEncoder
from promptsearch.evaluation import Evaluator
from promptsearch.events import Note, Progress
from promptsearch.job import Job
from promptsearch.lm.base import Engine, TellsNext
from promptsearch.lm.wrapped import GeneratedChoice
from promptsearch.machine import encoder_speed, model_speed
from promptsearch.multiple_choice import MultipleChoice, find_multiple_choice, may_name_options
from promptsearch.phases import FEWEST_CONFIRM, FEWEST_TEST, MOST_READ, Plan, make_plan, tokens_in_time
from promptsearch.prompting import PromptBuilder, answer_room
from promptsearch.readout import READ_TOKENS, likeliest_tokens
from promptsearch.row_limits import RowCounts, RowLimits, drawn_order, first_rows
from promptsearch.scoring import ROWS_A_LABEL
from promptsearch.search.drawing import draw_balanced
from promptsearch.search.race import FIRST_RUNG
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore
from promptsearch.task import Task
from promptsearch.template import TEMPLATES
from promptsearch.workbench import Neighbourhood, check_lengths, demonstrations_of, embed_splits, make_space

__all__ = ["Ground", "Preparation", "limited_pool", "may_read", "next_tokens", "search_in_turns"]

_ROWS_A_SECOND = 400  # pool rows for each second of a time budget: with more, reading them would take too long
_SAMPLED_TEXTS = 128  # that an encoder's speed is measured on
_UNKNOWN_ROWS_A_SECOND, _FEWEST_POOL = 100, 50  # that get vectors, where the model's size is not known
_LOOKED_ROWS = 8  # after which those tokens are looked for, under each of a few prompts
_LOOKED_SHARE = 0.02  # of the plan, that this may take
_MOST_FINALISTS = 5
_MOST_BASELINES = 5  # that are asked
_LOADING_SECONDS = 6.0  # model and encoder, when nothing is cached


@dataclass(frozen=True)
class Ground:
    """What a search stands on.

    Attributes:
        near: the splits that are taken, and who is near whom.
        space: the candidates over them.
        plan: what each phase may spend.
    """

    near: Neighbourhood
    space: SearchSpace
    plan: Plan


class Preparation:
    """Sets one search up.

    Args:
        job: what was asked for.
        splits: all rows.
        engine: the model.
    """

    def __init__(self, job: Job, splits: Splits, engine: Engine) -> None:
        self._job = job
        self._splits = splits
        self._engine = engine
        self._encoding = math.inf  # characters a second
        self._room = answer_room(engine, job.task.labels, job.task.answer_form)

    def lay_out(self) -> PromptBuilder:
        """Check labels and lengths before anything slow."""
        engine, labels = self._engine, self._job.task.labels
        shown = demonstrations_of(self._job.task.examples, self._splits.pool)
        listed = None if isinstance(engine, GeneratedChoice) else self._multiple_choice()
        builder = PromptBuilder(engine, self._job.task.inputs, self._job.task.output, shown, self._room, listed)
        if labels is not None:
            engine.check_continuations([f" {label}" for label in labels])
        space = make_space(self._job.task, self._splits, self._job.space, engine, builder, self._room)
        check_lengths(self._job.task, space, self._splits, engine, builder)
        return builder

    def _multiple_choice(self) -> MultipleChoice | None:
        """How rows list options, where all of them do."""
        labels, rows = self._job.task.labels, [example.fields for example in self._job.task.examples]
        found = find_multiple_choice(labels, rows)
        if found is None and may_name_options(labels):
            count = sum(MultipleChoice(tuple(labels)).find(row) is not None for row in rows)
            if count > len(rows) // 2:
                self._job.listen(
                    Note(f"{count:,} of {len(rows):,} rows list options; if all did, their texts could be scored")
                )
        return found

    def set_up(self, builder: PromptBuilder, encoder: CachedEncoder, store: RunStore) -> Ground:
        """Vectors, the space over them, and the plan, on as many pool rows as the plan's tokens allow."""
        engine, whole, recorded = self._engine, self._splits, store.fact("plan")
        speed = 0.0
        if recorded is None and self._job.limits.seconds is not None:
            speed = model_speed(engine, generates=self._job.task.labels is None)
            self._encoding = encoder_speed(encoder, self._sample())
        limits = self._row_limits()
        counts = self._row_counts(limits, speed) if recorded is None else RowCounts(*recorded["rows"])
        while True:
            self._splits = first_rows(whole, drawn_order(whole.pool, self._job.seed), counts)
            near = self._embed(encoder)
            space = make_space(
                self._job.task, near.splits, self._job.space, engine, builder, self._room, near.matcher
            )
            if recorded is not None:
                break
            most_tokens = math.inf if limits is None else limits.most_tokens(counts)
            plan = self._plan(near.splits, space, speed, most_tokens)
            allowed = counts if limits is None else limits.counts(plan.total)
            if plan.unit == "evaluations" or (allowed.pool >= counts.pool and allowed.test >= counts.test):
                recorded = {"plan": plan.to_dict(), "elapsed": self._job.meter.elapsed, "rows": counts}
                store.record_fact("plan", recorded)
                break
            counts = allowed  # setting up took longer than was expected
        self._job.meter.set_clock(recorded["elapsed"])
        sizes = ", ".join(f"{name} {size:,}" for name, size in near.splits.sizes.items())
        self._job.listen(Note(f"rows: {sizes}; duplicates removed: {near.splits.report.total:,}"))
        for name, count in counts._asdict().items():
            if count < (given := len(getattr(whole, name))):
                self._job.listen(
                    Note(f"of {given:,} {name} rows {count:,} are taken, as many as the budget can make use of")
                )
        return Ground(near, space, Plan(**recorded["plan"]))

    def _row_limits(self) -> RowLimits | None:
        """What rows are taken for a number of tokens; None where no number, or not the model's size, is known."""
        if self._engine.parameters is None or (self._job.limits.seconds is None and self._job.limits.tokens is None):
            return None
        sizes = [len(example.text.encode("utf-8", "surrogatepass")) for example in self._job.task.examples]
        return RowLimits(
            self._splits, sizes, self._engine.parameters, len(self._job.task.labels or ()), self._job.seed
        )

    def _row_counts(self, limits: RowLimits | None, speed: float) -> RowCounts:
        """The rows to take."""
        splits, seconds = self._splits, self._job.limits.seconds
        every = RowCounts(len(splits.pool), len(splits.test))
        if limits is None:
            most = every.pool if seconds is None else max(_FEWEST_POOL, int(_UNKNOWN_ROWS_A_SECOND * seconds))
            return every._replace(pool=min(every.pool, most))
        allowed = every if self._job.limits.tokens is None else limits.counts(self._job.limits.tokens)
        if seconds is None:
            return allowed
        begun = max(_LOADING_SECONDS, self._job.meter.elapsed)
        others = self._characters([*splits.search, *splits.confirm])
        pool = np.cumsum([0, *(self._characters([number]) for number in drawn_order(splits.pool, self._job.seed))])
        test = np.cumsum([0, *(self._characters([number]) for number in splits.test)])

        def tokens_left(counts: RowCounts) -> float:
            embedded = others + int(pool[counts.pool]) + int(test[counts.test])
            return tokens_in_time(seconds, begun + embedded / self._encoding, speed)

        found = limits.counts_within(tokens_left)
        return RowCounts(min(allowed.pool, found.pool), min(allowed.test, found.test))

    def _sample(self) -> list[str]:
        """Some of the texts that are embedded in any case."""
        numbers = [*self._splits.search, *self._splits.confirm, *self._splits.test][:_SAMPLED_TEXTS]
        return [self._job.task.examples[number].text for number in numbers]

    def _embed(self, encoder: CachedEncoder) -> Neighbourhood:
        """Vectors, near duplicates, neighbours."""
        return embed_splits(
            self._job.task,
            self._splits,
            encoder,
            lambda done, total: self._job.listen(Progress("embed", done / max(1, total))),
            clusters=self._job.space.clusters if "routed" in self._job.space.modes else (),
            seed=self._job.seed,
        )

    def _characters(self, numbers: Sequence[int]) -> int:
        return sum(len(self._job.task.examples[number].text) for number in numbers)

    def _plan(self, splits: Splits, space: SearchSpace, speed: float, most_tokens: float) -> Plan:
        """What each phase may spend, of so many tokens at most where a time is planned for."""
        setup = self._job.meter.elapsed
        if (
            self._job.limits.seconds is not None
        ):  # with a full cache as with an empty one: the same call plans the same
            whole = self._splits
            embedded = self._characters([*whole.pool, *whole.search, *whole.confirm, *whole.test])
            setup = max(setup, _LOADING_SECONDS + embedded / self._encoding)
        return make_plan(
            self._job.limits,
            tokens_per_second=speed,
            setup_seconds=setup,
            most_to_measure=self._most_to_measure(space, splits),
            least_to_measure=self._least_to_measure(space),
            row_to_read=self._row_to_read(space),
            rows_to_read=self._job.space.ensemble * min(len(space.pool), MOST_READ),
            fewest_to_read=ROWS_A_LABEL * len(self._job.task.labels or ()),
            tokens_per_evaluation=space.query_tokens(Candidate(instruction=space.instructions[0])),
            most_tokens=most_tokens,
        )

    def _most_to_measure(self, space: SearchSpace, splits: Splits) -> float:
        """Units of measuring finalists on all confirmation rows, and winner and baselines on all test rows."""
        if self._job.limits.seconds is None and self._job.limits.tokens is None:
            confirmed = _MOST_FINALISTS * (len(splits.confirm) + len(CONTENT_FREE))
            return confirmed + (1 + _MOST_BASELINES) * len(splits.test) + _MOST_BASELINES * FIRST_RUNG
        zero = Candidate(instruction=space.instructions[0])
        nearest = replace(zero, mode="retrieved", count=nearest_count(space, zero))
        shown = min(BASELINE_SHOTS, len(space.pool))
        prefix = shown * space.price(nearest, 1) / max(1, nearest.count)
        static = 3 * (space.price(zero, len(splits.test)) + prefix)
        dear = 2 * space.price(nearest, len(splits.test))  # the baseline, and a winner that retrieves
        return _MOST_FINALISTS * space.price(nearest, len(splits.confirm)) + static + dear

    def _least_to_measure(self, space: SearchSpace) -> float:
        """Tokens of one finalist on the fewest confirmation rows, and of it and zero-shot on the fewest test rows."""
        zero = Candidate(instruction=space.instructions[0])
        shots = max((count for count in space.shots if count <= BASELINE_SHOTS), default=0)
        shown = replace(zero, demonstrations=tuple(space.pool[:shots].tolist()))
        return space.price(shown, FEWEST_CONFIRM + FEWEST_TEST) + space.price(zero, FEWEST_TEST)

    def _row_to_read(self, space: SearchSpace) -> float:
        """Units of asking a prompt about one more row that its readout is fitted on; 0 where none can be."""
        if not may_read(self._job, self._engine, space) or "static" not in self._job.space.modes:
            return 0.0
        if self._job.limits.seconds is None and self._job.limits.tokens is None:
            return 1.0
        return space.query_tokens(Candidate(instruction=space.instructions[0]))


def may_read(job: Job, engine: Engine, space: SearchSpace) -> bool:
    """Whether labels may be read off all that the model expects next."""
    return (
        job.task.labels is not None
        and "readout" in job.space.calibrations
        and isinstance(engine, TellsNext)
        and "none" in job.space.reasoning
        and set(job.space.modes) != {"routed"}
        and not all(TEMPLATES[name].scores_options for name in space.templates)
    )


def next_tokens(job: Job, evaluator: Evaluator, ground: Ground) -> tuple[int, ...]:
    """The tokens that are likeliest to come next after a few prompts; none where looking for them is too dear."""
    space, plan = ground.space, ground.plan
    zero = Candidate(instruction=space.instructions[0], template=space.templates[0])
    shots = min(WORDING_SHOTS, len(space.pool))
    few = replace(zero, demonstrations=draw_balanced(space, shots, np.random.default_rng([job.seed, 6])))
    others = [replace(zero, template=name) for name in space.templates[1:] if not TEMPLATES[name].scores_options]
    prompts = [each for each in (zero, few, *others[-1:]) if space.fits(each)]
    once = len(prompts) if plan.unit == "evaluations" else sum(space.price(each, 1) for each in prompts)
    rows = ground.near.splits.search[: min(_LOOKED_ROWS, int(_LOOKED_SHARE * plan.total / max(1.0, once)))]
    found = itertools.chain.from_iterable(evaluator.likely_next(each, rows, READ_TOKENS) for each in prompts)
    return likeliest_tokens(found, READ_TOKENS)


def search_in_turns(task: Task, splits: Splits) -> Splits:
    """Search rows ordered so that labels take turns, where they count alike, as long as there are rows of each."""
    if not task.require_metric().labels_alike:
        return splits
    return replace(splits, search=in_turns(splits.search, [example.output for example in task.examples]))


def limited_pool(splits: Splits, limits: Budget, seed: int) -> Splits:
    """A random part of a pool that is too large to look at within a short time budget."""
    if limits.seconds is None:
        return splits
    most = max(_FEWEST_POOL, int(_ROWS_A_SECOND * limits.seconds))
    return first_rows(splits, drawn_order(splits.pool, seed), RowCounts(most, len(splits.test)))
