"""Sets a search up: checks what the model can do, makes vectors, decides which rows are taken, and plans.

Invariant: what a user got wrong is refused before anything slow; a plan is recorded before it is used, with the rows
that it was made for, so that a resumed run works on the same ones.
Leaves out: searching.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.calibration import CONTENT_FREE
from promptsearch.candidate import Candidate
from promptsearch.data.splits import Splits, in_turns
from promptsearch.embed.cache import CachedEncoder
from promptsearch.evaluation import Evaluator
from promptsearch.events import Note, Progress
from promptsearch.lm.base import Engine, TellsNext
from promptsearch.lm.wrapped import GeneratedChoice
from promptsearch.machine import encoder_speed, model_speed
from promptsearch.multiple_choice import MultipleChoice, find_multiple_choice, may_name_options
from promptsearch.prompting import PromptBuilder, answer_room
from promptsearch.readout import READ_TOKENS, likeliest_tokens
from promptsearch.row_limits import RowCounts, RowLimits, drawn_order, first_rows, further_rows, read_size
from promptsearch.run.anchors import BASELINE_SHOTS, WORDING_SHOTS, nearest_count
from promptsearch.run.job import Job
from promptsearch.run.phases import FEWEST_CONFIRM, FEWEST_TEST, MOST_READ, Plan, make_plan, tokens_in_time
from promptsearch.run.workbench import (
    Neighbourhood,
    check_instructions,
    demonstrations_of,
    embed_splits,
    make_space,
    with_prior,
)
from promptsearch.scoring import ROWS_A_LABEL
from promptsearch.search.drawing import draw_balanced
from promptsearch.search.race import FIRST_RUNG
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore
from promptsearch.task import Task
from promptsearch.template import TEMPLATES

__all__ = ["Ground", "Preparation", "may_read", "next_tokens", "search_in_turns"]

_SAMPLED_TEXTS = 256  # that an encoder's speed is measured on; of fewer, batches hold more padding than usual
_UNKNOWN_ROWS_A_SECOND, _FEWEST_POOL = 100, 50  # that get vectors, where the model's size is not known
_ENCODING_SHARE = 0.2  # of a time, that vectors may take there
_FEWEST_ROWS = 100  # of each part, that get vectors there in any case
_LOOKED_FOR_OPTIONS = 100  # pool rows; of long texts and many labels each takes milliseconds
_LOOKED_ROWS = 8  # after which the tokens that readouts read are looked for, under each of a few prompts
_LOOKED_SHARE = 0.02  # of the plan, that this may take
_MOST_FINALISTS = 5
_MOST_BASELINES = 5  # that are asked
_FITTED_A_SECOND = 700_000  # bytes of pool rows times labels; where it is too high, the prior is fitted twice
_COUNTING_SHARE = 0.4  # of that time, which characters alone take
_MOST_FITTING = 12.0  # seconds: of many rows and labels a fit takes a part
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
        self._whole = splits
        self._engine = engine
        self._room = answer_room(engine, job.task.labels, job.task.answer_form)
        self._sizes = [read_size(example.text) for example in job.task.examples]
        outputs = [example.output for example in job.task.examples] if job.task.is_classification else None
        self._drawn = drawn_order(splits.pool, outputs, job.seed)
        self._limits = self._row_limits()
        self._speed = 0.0  # of the model, where a time is planned for

    def lay_out(self, store: RunStore) -> PromptBuilder:
        """Check labels and lengths before anything slow."""
        job, engine, labels = self._job, self._engine, self._job.task.labels
        if labels is not None:
            engine.check_continuations([f" {label}" for label in labels])
        recorded = store.fact("plan")
        if recorded is None and job.limits.seconds is not None:
            self._speed = model_speed(engine, generates=labels is None)
        counts = self._most_rows() if recorded is None else RowCounts(*recorded["rows"])
        splits = first_rows(self._whole, self._drawn, counts)
        shown = demonstrations_of(job.task.examples, splits.pool)
        listed = None if isinstance(engine, GeneratedChoice) else self._multiple_choice()
        builder = PromptBuilder(engine, job.task.inputs, job.task.output, shown, self._room, listed)
        space = make_space(job.task, splits, job.space, engine, builder, self._room)
        check_instructions(space)
        return builder

    def _multiple_choice(self) -> MultipleChoice | None:
        """How rows list options, where all of them do."""
        labels, rows = self._job.task.labels, [example.fields for example in self._job.task.examples]
        found = find_multiple_choice(labels, rows)
        if found is None and may_name_options(labels):
            looked = [rows[number] for number in self._drawn[:_LOOKED_FOR_OPTIONS]]
            count = sum(MultipleChoice(tuple(labels)).find(row) is not None for row in looked)
            if count > len(looked) // 2:
                of_them = f"{count:,} of {len(looked):,} pool rows looked at list options"
                self._job.listen(Note(f"{of_them}; if all rows did, their texts could be scored"))
        return found

    def set_up(self, builder: PromptBuilder, encoder: CachedEncoder, store: RunStore) -> Ground:
        """Vectors, the space over them, and the plan, on as many rows as the plan's tokens allow."""
        job, recorded = self._job, store.fact("plan")
        begun, sample = job.meter.elapsed, self._sample()
        if recorded is None and job.limits.seconds is not None:
            encoding = encoder_speed(encoder, sample)
        else:  # nothing follows from it
            encoding = math.inf
            encoder.encode(sample)  # first in every run, so that batches are the same
        counts = self._row_counts(encoding, begun) if recorded is None else RowCounts(*recorded["rows"])
        fitted, fitting = counts, math.nan
        while True:
            splits = first_rows(self._whole, self._drawn, counts, self._further(counts))
            near = self._embed(splits, encoder)
            space = make_space(job.task, near.splits, job.space, self._engine, builder, self._room, near.matcher)
            if recorded is not None:
                near = with_prior(job.task, near)
                break
            if math.isnan(fitting):  # else only once rows are settled: time for fits would cost rows, again and again
                started = job.meter.elapsed
                near = with_prior(job.task, near)
                fitting = job.meter.elapsed - started
            elapsed = job.meter.elapsed + (fitting if counts != fitted else 0.0)
            most_tokens = math.inf if self._limits is None else self._limits.most_tokens(counts)
            # with kept vectors as with none, so that the same call plans the same
            expected = self._bytes_read(counts) / encoding + self._fitting_seconds(counts)
            setup = max(elapsed, _LOADING_SECONDS + expected)
            plan = self._plan(near.splits, space, setup, most_tokens)
            allowed = counts
            if self._limits is not None and plan.unit == "tokens":
                allowed = counts.within(self._limits.counts(plan.total))
            if allowed == counts:
                near = near if counts == fitted else with_prior(job.task, near)
                recorded = {"plan": plan.to_dict(), "elapsed": job.meter.elapsed, "rows": counts}
                store.record_fact("plan", recorded)
                break
            counts = allowed  # setting up took longer than was expected
        job.meter.set_clock(recorded["elapsed"])
        sizes = ", ".join(f"{name} {size:,}" for name, size in near.splits.sizes.items())
        job.listen(Note(f"rows: {sizes}; duplicates removed: {near.splits.report.total:,}"))
        given = RowCounts.of(self._whole)
        fewer = [name for name in RowCounts._fields if getattr(counts, name) < getattr(given, name)]
        if fewer:
            taken = ", ".join(f"{getattr(counts, name):,} of {getattr(given, name):,} {name} rows" for name in fewer)
            job.listen(Note(f"the budget can make use of {taken}; a larger one takes more"))
        if near.splits.further:
            rows = f"{len(near.splits.further):,} further pool rows"
            job.listen(Note(f"the prior's classifier of characters learns from {rows} too"))
        return Ground(near, space, Plan(**recorded["plan"]))

    def _row_limits(self) -> RowLimits | None:
        """What rows are taken for a number of tokens; None where no number, or not the model's size, is known."""
        job, parameters = self._job, self._engine.parameters
        if parameters is None or (job.limits.seconds is None and job.limits.tokens is None):
            return None
        return RowLimits(self._whole, self._drawn, self._sizes, parameters, len(job.task.labels or ()))

    def _most_rows(self) -> RowCounts:
        """The rows that may be taken, however fast the encoder is."""
        limits, rows = self._job.limits, RowCounts.of(self._whole)
        if self._limits is None:
            if limits.seconds is None:
                return rows
            return rows._replace(pool=min(rows.pool, max(_FEWEST_POOL, int(_UNKNOWN_ROWS_A_SECOND * limits.seconds))))
        if limits.tokens is not None:
            rows = rows.within(self._limits.counts(limits.tokens))
        if limits.seconds is not None:
            rows = rows.within(self._limits.counts(tokens_in_time(limits.seconds, 0.0, self._speed)))
        return rows

    def _row_counts(self, encoding: float, begun: float) -> RowCounts:
        """The rows to take, with an encoder that reads so many bytes a second, so many seconds after the start."""
        most, seconds = self._most_rows(), self._job.limits.seconds
        if seconds is None:
            return most
        if self._limits is None:
            return self._rows_in_time(most, _ENCODING_SHARE * seconds * encoding)
        loaded = max(_LOADING_SECONDS, begun)

        def tokens_left(counts: RowCounts) -> float:
            setup = loaded + self._bytes_read(counts) / encoding + self._fitting_seconds(counts)
            return tokens_in_time(seconds, setup, self._speed)

        return most.within(self._limits.counts_within(tokens_left))

    def _rows_in_time(self, most: RowCounts, readable: float) -> RowCounts:
        """The largest share of each part that comes to so many bytes in all, but a few rows of each in any case."""

        def share(percent: int) -> RowCounts:
            return RowCounts(*(max(min(_FEWEST_ROWS, count), count * percent // 100) for count in most))

        return share(bisect_right(range(1, 101), readable, key=lambda percent: self._bytes_read(share(percent))))

    def _further(self, counts: RowCounts) -> list[int]:
        """Pool rows without vectors that the prior learns from, with so many that have some."""
        return further_rows(self._drawn, self._sizes, counts.pool, len(self._job.task.labels or ()))

    def _fitting_seconds(self, counts: RowCounts) -> float:
        """What fitting the prior on so many rows will take, about."""
        size = sum(self._sizes[row] for row in self._drawn[: counts.pool])
        further = sum(self._sizes[row] for row in self._further(counts))
        return min(
            _MOST_FITTING, (size + _COUNTING_SHARE * further) * len(self._job.task.labels or ()) / _FITTED_A_SECOND
        )

    def _bytes_read(self, counts: RowCounts) -> int:
        """What the encoder reads of so many rows."""
        parts = (self._drawn, self._whole.search, self._whole.confirm, self._whole.test)
        return sum(self._sizes[row] for rows, count in zip(parts, counts, strict=True) for row in rows[:count])

    def _sample(self) -> list[str]:
        """Some texts, nearly all of which are embedded in any case."""
        numbers = [*self._whole.search, *self._whole.confirm, *self._whole.test][:_SAMPLED_TEXTS]
        return [self._job.task.examples[number].text for number in numbers]

    def _embed(self, splits: Splits, encoder: CachedEncoder) -> Neighbourhood:
        """Vectors, near duplicates, neighbours."""
        job = self._job
        return embed_splits(
            job.task,
            splits,
            encoder,
            lambda done, total: job.listen(Progress("embed", done / max(1, total))),
            clusters=job.space.clusters if "routed" in job.space.modes else (),
            seed=job.seed,
        )

    def _plan(self, splits: Splits, space: SearchSpace, setup_seconds: float, most_tokens: float) -> Plan:
        """What each phase may spend, of so many tokens at most where a time is planned for."""
        job = self._job
        return make_plan(
            job.limits,
            tokens_per_second=self._speed,
            setup_seconds=setup_seconds,
            most_to_measure=self._most_to_measure(space, splits),
            least_to_measure=self._least_to_measure(space),
            row_to_read=self._row_to_read(space),
            rows_to_read=job.space.ensemble * min(len(space.pool), MOST_READ),
            fewest_to_read=ROWS_A_LABEL * len(job.task.labels or ()),
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
