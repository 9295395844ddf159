"""``optimize(task)``: puts the parts together, runs the study, measures the winner.

Data flows one way: task, splits, pool, candidates, engine, calibration, item scores, strategy, finalists, result.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.budget import Budget, Meter
from promptsearch.calibration import CONTENT_FREE
from promptsearch.candidate import CUES, SHOWN_THOUGHT, Candidate
from promptsearch.data.splits import Splits, in_turns
from promptsearch.embed.base import Encoder
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import resolve_encoder
from promptsearch.errors import UserError
from promptsearch.evaluation import Asker, Evaluator, answer_grammar
from promptsearch.events import Listener, Note, Progress, silent
from promptsearch.finalists import Finalist
from promptsearch.lm.base import Engine, TellsNext
from promptsearch.lm.llamacpp.busy import QUIET_SHARE
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.lm.wrapped import GeneratedChoice
from promptsearch.machine import encoder_speed, model_speed
from promptsearch.measurement import Difference, Measurement
from promptsearch.multiple_choice import MultipleChoice, find_multiple_choice, may_name_options
from promptsearch.parts import PromptParts, Retriever
from promptsearch.phases import (
    FEWEST_CONFIRM,
    FEWEST_TEST,
    MOST_READ,
    Plan,
    make_plan,
    require_enough,
    tokens_in_time,
)
from promptsearch.prompt import Prompt
from promptsearch.prompting import PromptBuilder, answer_room, template_of
from promptsearch.rationales import Rationalizer
from promptsearch.readout import READ_TOKENS, likeliest_tokens
from promptsearch.reasoning import one_line
from promptsearch.result import Result, Trial, Trials
from promptsearch.row_limits import RowCounts, RowLimits, drawn_order, first_rows
from promptsearch.scoring import ROWS_A_LABEL, Asked, Judge, Judged
from promptsearch.search.base import Strategy
from promptsearch.search.drawing import draw_balanced, draw_fresh, draw_shown_reasoning
from promptsearch.search.front import PREFERENCES
from promptsearch.search.race import FIRST_RUNG
from promptsearch.search.registry import STRATEGIES
from promptsearch.search.space import SearchSpace, Space
from promptsearch.store import RunStore
from promptsearch.study import Outcome, Study
from promptsearch.task import Task
from promptsearch.template import TEMPLATES
from promptsearch.version import __version__
from promptsearch.workbench import (
    Neighbourhood,
    check_lengths,
    check_space,
    count_rationales,
    demonstrations_of,
    embed_splits,
    make_space,
)

__all__ = ["optimize"]

_BASELINE_SHOTS = 8
_WORDING_SHOTS = 4
_WANTED_TEST = 50  # rows under which baselines are left out rather than measured on fewer
_NEAREST_TOKENS = 250  # a query with nearest demonstrations: dearer ones would leave few test rows to measure
_ROWS_A_SECOND = 400  # pool rows for each second of a time budget: with more, reading them would take too long
_SAMPLED_TEXTS = 128  # that an encoder's speed is measured on
_UNKNOWN_ROWS_A_SECOND, _FEWEST_POOL = 100, 50  # that get vectors, where the model's size is not known
_WEIGHTS_SHARE = 0.1  # of a time budget, for measuring which weights run fastest, once on a machine
_LOOK_SHARE = 0.01  # of the search, that a first look at a prompt that reasons may take where labels are scored
_RATIONALES_SHARE = 0.1  # of the search, for having the model write reasoning
_ATTEMPTS = 3.0  # of an example, that its share pays for: most are asked more than once
_TELLING_VOTE = 0.5  # mean score of the label vote, from which neighbours tell most labels
_FEWEST_RATIONALES, _MOST_RATIONALES = 8, 64  # examples that reasoning is written for
_FEWEST_KEPT = 2
_LOOKED_ROWS = 8  # after which those tokens are looked for, under each of a few prompts
_LOOKED_SHARE = 0.02  # of the plan, that this may take
_MOST_FINALISTS = 5
_MOST_BASELINES = 5  # that are asked
_LOADING_SECONDS = 6.0  # model and encoder, when nothing is cached
_FEWEST_OF_A_LABEL = 3
_LONG_SETUP = 0.4  # of a time budget
_LESS_OF_IT = ("without_readout", "without_readout_alone", "single", "single_alone")
_WITHOUT_MODEL = {
    "label_vote": "The label vote of neighbours, which needs no model,",
    "embedding_prior": "The embedding prior (label vote and linear classifier), which needs no model,",
}


def optimize(
    task: Task,
    model: object = None,
    budget: str | float | Budget = "2m",
    *,
    encoder: object = None,
    weights: str = "auto",
    space: Space | None = None,
    strategy: str = "auto",
    prefer: str = "accuracy",
    seed: int = 0,
    run: str | Path | None = None,
    progress: bool | Listener = True,
) -> Result:
    """Find the prompt that makes a model best at a task.

    Args:
        task: examples, columns, metric.
        model: None for the packaged model, a name, a GGUF path, ``"hf:owner/repo:quant"``, the URL of an
            OpenAI-compatible server, a ``dspy.LM``, or an object with ``score`` and ``generate``.
        budget: ``"90s"``, ``"2m"``, ``"500k tokens"``, ``"4000 evaluations"`` or a :class:`Budget`; loading,
            embedding and the final measurement are inside it.
        encoder: None for the packaged one, a sentence-transformers name, or an object with ``encode(texts)``.
        weights: weight type of a GGUF model: ``"auto"`` for the fastest on this machine that answers as the file's
            own does, ``"as-is"``, ``"BF16"``, ``"F16"`` or ``"Q8_0"``. The result is measured on the type that its
            prompt runs on.
        space: what may vary; None for everything.
        strategy: ``"auto"`` or ``"halving"``, ``"greedy"``, ``"tpe"`` or ``"random"``.
        prefer: ``"accuracy"`` takes the best finalist on search and confirmation rows, by its scores and the
            probability it gives to right answers; ``"cheap"`` the one with the fewest prompt tokens among those that
            are not measurably worse (one standard error of the paired difference).
        seed: the same seed on the same machine gives the same result.
        run: folder in which everything measured is written as it happens; the same call with the same folder
            goes on where a stopped one ended.
        progress: True for a display on a terminal, False for none, or a function that hears events.

    Returns:
        The best prompt found, its value on test rows, and what else was measured.

    Raises:
        UserError: something given cannot be used; says what, why, and the way out.
        BackendError: the model or encoder failed.
    """
    limits = Budget.parse(budget)
    if not isinstance(strategy, str) or strategy not in STRATEGIES:
        raise UserError(f"strategy={strategy!r} is unknown; give one of {', '.join(STRATEGIES)}")
    if not isinstance(task, Task):
        raise UserError(f"optimize takes a Task and was given a {type(task).__name__}; make one with ps.Task(...)")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise UserError(f"seed={seed!r} is no seed; give a whole number from 0")
    if space is not None and not isinstance(space, Space):
        raise UserError(f"space={space!r} is no Space; give ps.Space(...)")
    if prefer not in PREFERENCES:
        raise UserError(f"prefer={prefer!r} is unknown; give one of {', '.join(PREFERENCES)}")
    task.require_metric()
    chosen: Any = encoder  # checked there
    found = resolve_encoder(chosen)
    check_space(space or Space(), task, found)
    splits = _limited_pool(_search_in_turns(task, task.split(seed)), limits, seed)
    with _listener(progress) as listen:
        job = _Job(task, splits, limits, space or Space(), STRATEGIES[strategy], prefer, seed, listen)
        hurry = None if limits.seconds is None else _WEIGHTS_SHARE * limits.seconds
        opened = open_engine(model, weights, _weights_listener(listen), hurry)
        return job.run(opened, found, _encoder_source(encoder), run)


def _listener(progress: bool | Listener) -> Any:
    from contextlib import nullcontext

    if progress is True:
        from promptsearch.terminal import progress_display

        return progress_display()
    return nullcontext(silent if progress is False else progress)


def _weights_listener(listen: Listener) -> Callable[[float], None]:
    """Tell of the measuring of weights, which takes a while and happens once."""

    def tell(done: float) -> None:
        if done == 0.0:
            listen(Note("measuring which weights run fastest here (once)"))
        listen(Progress("weights", done))

    return tell


def _search_in_turns(task: Task, splits: Splits) -> Splits:
    """Search rows ordered so that labels take turns, where they count alike, as long as there are rows of each."""
    if not task.require_metric().labels_alike:
        return splits
    return replace(splits, search=in_turns(splits.search, [example.output for example in task.examples]))


def _limited_pool(splits: Splits, limits: Budget, seed: int) -> Splits:
    """A random part of a pool that is too large to look at within a short time budget."""
    if limits.seconds is None:
        return splits
    most = max(_FEWEST_POOL, int(_ROWS_A_SECOND * limits.seconds))
    return first_rows(splits, drawn_order(splits.pool, seed), RowCounts(most, len(splits.test)))


@dataclass(frozen=True)
class _Measured:
    """The final measurement."""

    items: Sequence[int]
    winner: Judged
    alone: Judged
    baselines: Mapping[str, Judged]


class _Job:
    """One call of :func:`optimize`."""

    def __init__(
        self,
        task: Task,
        splits: Splits,
        limits: Budget,
        space: Space,
        strategy: Strategy,
        prefer: str,
        seed: int,
        listen: Listener,
    ) -> None:
        self.task = task
        self.splits = splits
        self.limits = limits
        self.user_space = space
        self.strategy = strategy
        self.prefer = prefer
        self.seed = seed
        self.listen = listen
        self.meter = Meter()
        self._encoding = math.inf  # characters a second
        self._given_test = len(splits.test)
        self.rationales: Mapping[str, int] = {}  # attempts at reasoning by what became of them

    def run(self, opened: OpenedModel, encoder: Encoder, source: str, run: str | Path | None) -> Result:
        """Set up, search, measure."""
        store = RunStore(None if run is None else Path(run).expanduser(), self._identity(opened))
        try:
            self.listen(Note(f"model: {opened.description}"))
            if len(store):
                self.listen(Note(f"going on with {str(run)!r}, where {len(store):,} calls of the model are recorded"))
            builder, space = self._lay_out(opened)
            cached = encoder if isinstance(encoder, CachedEncoder) else CachedEncoder(encoder)
            store.require_same({"encoder": cached.fingerprint})
            near, space, plan = self._set_up(opened, builder, cached, store)
            study = self._study(opened, builder, space, near, plan, store)
            zero_shot = Candidate(instruction=space.instructions[0], template=space.templates[0])
            require_enough(self.limits, study.plan, space, zero_shot)
            self._let_reason(study, builder, store)
            anchors, baselines = self._anchors(space, near)
            outcome = study.run(
                self.strategy,
                anchors,
                near.splits.search,
                near.splits.confirm,
                np.random.default_rng([self.seed, 5]).permutation(near.splits.pool).tolist(),
                np.random.default_rng([self.seed, 2]),
            )
            measured = self._measure(study, near, outcome, _with_unreasoned(baselines, outcome.winner), store)
            return self._result(opened, near, study, outcome, measured, source)
        finally:
            store.close()

    def _identity(self, opened: OpenedModel) -> dict[str, str]:
        """What a run folder belongs to; the encoder is compared once it is open."""
        return {
            "instruction": " | ".join(self.task.instructions),
            "metric": self.task.metric_name,
            "labels": ", ".join(self.task.labels or ()),
            "task": self.task.fingerprint,
            "model": opened.engine.fingerprint,
            "seed": str(self.seed),
            "budget": str(self.limits),
            "space": repr(self.user_space),
            "strategy": getattr(self.strategy, "__name__", type(self.strategy).__name__),
            "prefer": self.prefer,
            "promptsearch": __version__,
        }

    def _lay_out(self, opened: OpenedModel) -> tuple[PromptBuilder, SearchSpace]:
        """Check labels and lengths before anything slow."""
        engine, labels = opened.engine, self.task.labels
        self.room = answer_room(engine, labels, self.task.answer_form)
        shown = demonstrations_of(self.task.examples, self.splits.pool)
        listed = None if isinstance(engine, GeneratedChoice) else self._multiple_choice()
        builder = PromptBuilder(engine, self.task.inputs, self.task.output, shown, self.room, listed)
        if labels is not None:
            engine.check_continuations([f" {label}" for label in labels])
        space = make_space(self.task, self.splits, self.user_space, engine, builder, self.room)
        check_lengths(self.task, space, self.splits, engine, builder)
        return builder, space

    def _multiple_choice(self) -> MultipleChoice | None:
        """How rows list options, where all of them do."""
        labels, rows = self.task.labels, [example.fields for example in self.task.examples]
        found = find_multiple_choice(labels, rows)
        if found is None and may_name_options(labels):
            count = sum(MultipleChoice(tuple(labels)).find(row) is not None for row in rows)
            if count > len(rows) // 2:
                self.listen(
                    Note(f"{count:,} of {len(rows):,} rows list options; if all did, their texts could be scored")
                )
        return found

    def _set_up(
        self, opened: OpenedModel, builder: PromptBuilder, encoder: CachedEncoder, store: RunStore
    ) -> tuple[Neighbourhood, SearchSpace, Plan]:
        """Vectors, the space over them, and the plan, on as many pool rows as the plan's tokens allow."""
        engine, whole, recorded = opened.engine, self.splits, store.fact("plan")
        speed = 0.0
        if recorded is None and self.limits.seconds is not None:
            speed = model_speed(engine, generates=self.task.labels is None)
            self._encoding = encoder_speed(encoder, self._sample())
        limits = self._row_limits(engine)
        counts = self._row_counts(limits, speed) if recorded is None else RowCounts(*recorded["rows"])
        while True:
            self.splits = first_rows(whole, drawn_order(whole.pool, self.seed), counts)
            near = self._embed(encoder)
            space = make_space(self.task, near.splits, self.user_space, engine, builder, self.room, near.matcher)
            if recorded is not None:
                break
            plan = self._plan(
                engine, near.splits, space, speed, math.inf if limits is None else limits.most_tokens(counts)
            )
            allowed = counts if limits is None else limits.counts(plan.total)
            if plan.unit == "evaluations" or (allowed.pool >= counts.pool and allowed.test >= counts.test):
                recorded = {"plan": plan.to_dict(), "elapsed": self.meter.elapsed, "rows": counts}
                store.record_fact("plan", recorded)
                break
            counts = allowed  # setting up took longer than was expected
        self.meter.set_clock(recorded["elapsed"])
        sizes = ", ".join(f"{name} {size:,}" for name, size in near.splits.sizes.items())
        self.listen(Note(f"rows: {sizes}; duplicates removed: {near.splits.report.total:,}"))
        for name, count in counts._asdict().items():
            if count < (given := len(getattr(whole, name))):
                self.listen(
                    Note(f"of {given:,} {name} rows {count:,} are taken, as many as the budget can make use of")
                )
        return near, space, Plan(**recorded["plan"])

    def _row_limits(self, engine: Engine) -> RowLimits | None:
        """What rows are taken for a number of tokens; None where no number, or not the model's size, is known."""
        if engine.parameters is None or (self.limits.seconds is None and self.limits.tokens is None):
            return None
        sizes = [len(example.text.encode("utf-8", "surrogatepass")) for example in self.task.examples]
        return RowLimits(self.splits, sizes, engine.parameters, len(self.task.labels or ()), self.seed)

    def _row_counts(self, limits: RowLimits | None, speed: float) -> RowCounts:
        """The rows to take."""
        splits, seconds = self.splits, self.limits.seconds
        every = RowCounts(len(splits.pool), len(splits.test))
        if limits is None:
            most = every.pool if seconds is None else max(_FEWEST_POOL, int(_UNKNOWN_ROWS_A_SECOND * seconds))
            return every._replace(pool=min(every.pool, most))
        allowed = every if self.limits.tokens is None else limits.counts(self.limits.tokens)
        if seconds is None:
            return allowed
        begun = max(_LOADING_SECONDS, self.meter.elapsed)
        others = self._characters([*splits.search, *splits.confirm])
        pool = np.cumsum([0, *(self._characters([number]) for number in drawn_order(splits.pool, self.seed))])
        test = np.cumsum([0, *(self._characters([number]) for number in splits.test)])

        def tokens_left(counts: RowCounts) -> float:
            embedded = others + int(pool[counts.pool]) + int(test[counts.test])
            return tokens_in_time(seconds, begun + embedded / self._encoding, speed)

        found = limits.counts_within(tokens_left)
        return RowCounts(min(allowed.pool, found.pool), min(allowed.test, found.test))

    def _sample(self) -> list[str]:
        """Some of the texts that are embedded in any case."""
        numbers = [*self.splits.search, *self.splits.confirm, *self.splits.test][:_SAMPLED_TEXTS]
        return [self.task.examples[number].text for number in numbers]

    def _embed(self, encoder: CachedEncoder) -> Neighbourhood:
        """Vectors, near duplicates, neighbours."""
        return embed_splits(
            self.task,
            self.splits,
            encoder,
            lambda done, total: self.listen(Progress("embed", done / max(1, total))),
            clusters=self.user_space.clusters if "routed" in self.user_space.modes else (),
            seed=self.seed,
        )

    def _bytes(self, number: int) -> int:
        return len(self.task.examples[number].text.encode("utf-8", "surrogatepass"))

    def _characters(self, numbers: Sequence[int]) -> int:
        return sum(len(self.task.examples[number].text) for number in numbers)

    def _study(
        self,
        opened: OpenedModel,
        builder: PromptBuilder,
        space: SearchSpace,
        near: Neighbourhood,
        plan: Plan,
        store: RunStore,
    ) -> Study:
        metric = self.task.require_metric()
        self.listen(Note(f"plan: {plan}"))

        form = self.task.answer_form
        asker = Asker(opened.engine, builder, self.task.labels, form, answer_grammar(metric, form))
        evaluator = Evaluator(asker, self.task.examples, near.matcher, store, self.meter)
        if self._reads(opened.engine, space):
            self.meter.enter("search")
            asker.ask_for(self._next_tokens(evaluator, space, near.splits, plan))
        judge = near.judge(self.task, metric, prior=self.user_space.prior, tokens=asker.tokens)
        return Study(space, evaluator, judge, plan, self.limits, self.meter, self.listen, store, self.prefer)

    def _reads(self, engine: Engine, space: SearchSpace) -> bool:
        """Whether labels may be read off all that the model expects next."""
        return (
            self.task.labels is not None
            and "readout" in self.user_space.calibrations
            and isinstance(engine, TellsNext)
            and "none" in self.user_space.reasoning
            and set(self.user_space.modes) != {"routed"}
            and not all(TEMPLATES[name].scores_options for name in space.templates)
        )

    def _row_to_read(self, engine: Engine, space: SearchSpace) -> float:
        """Units of asking a prompt about one more row that its readout is fitted on; 0 where none can be."""
        if not self._reads(engine, space) or "static" not in self.user_space.modes:
            return 0.0
        if self.limits.seconds is None and self.limits.tokens is None:
            return 1.0
        return space.query_tokens(Candidate(instruction=space.instructions[0]))

    def _next_tokens(self, evaluator: Evaluator, space: SearchSpace, splits: Splits, plan: Plan) -> tuple[int, ...]:
        """The tokens that are likeliest to come next after a few prompts; none where looking for them is too dear."""
        zero = Candidate(instruction=space.instructions[0], template=space.templates[0])
        shots = min(_WORDING_SHOTS, len(space.pool))
        few = replace(zero, demonstrations=draw_balanced(space, shots, np.random.default_rng([self.seed, 6])))
        others = [replace(zero, template=name) for name in space.templates[1:] if not TEMPLATES[name].scores_options]
        prompts = [each for each in (zero, few, *others[-1:]) if space.fits(each)]
        once = len(prompts) if plan.unit == "evaluations" else sum(space.price(each, 1) for each in prompts)
        rows = splits.search[: min(_LOOKED_ROWS, int(_LOOKED_SHARE * plan.total / max(1.0, once)))]
        found = itertools.chain.from_iterable(evaluator.likely_next(each, rows, READ_TOKENS) for each in prompts)
        return likeliest_tokens(found, READ_TOKENS)

    def _plan(self, engine: Engine, splits: Splits, space: SearchSpace, speed: float, most_tokens: float) -> Plan:
        """What each phase may spend, of so many tokens at most where a time is planned for."""
        setup = self.meter.elapsed
        if self.limits.seconds is not None:  # with a full cache as with an empty one: the same call plans the same
            whole = self.splits
            embedded = self._characters([*whole.pool, *whole.search, *whole.confirm, *whole.test])
            setup = max(setup, _LOADING_SECONDS + embedded / self._encoding)
        return make_plan(
            self.limits,
            tokens_per_second=speed,
            setup_seconds=setup,
            most_to_measure=self._most_to_measure(space, splits),
            least_to_measure=self._least_to_measure(space),
            row_to_read=self._row_to_read(engine, space),
            rows_to_read=self.user_space.ensemble * min(len(space.pool), MOST_READ),
            fewest_to_read=ROWS_A_LABEL * len(self.task.labels or ()),
            tokens_per_evaluation=space.query_tokens(Candidate(instruction=space.instructions[0])),
            most_tokens=most_tokens,
        )

    def _most_to_measure(self, space: SearchSpace, splits: Splits) -> float:
        """Units of measuring finalists on all confirmation rows, and winner and baselines on all test rows."""
        if self.limits.seconds is None and self.limits.tokens is None:
            confirmed = _MOST_FINALISTS * (len(splits.confirm) + len(CONTENT_FREE))
            return confirmed + (1 + _MOST_BASELINES) * len(splits.test) + _MOST_BASELINES * FIRST_RUNG
        zero = Candidate(instruction=space.instructions[0])
        nearest = replace(zero, mode="retrieved", count=self._nearest_count(space, zero))
        shown = min(_BASELINE_SHOTS, len(space.pool))
        prefix = shown * space.price(nearest, 1) / max(1, nearest.count)
        static = 3 * (space.price(zero, len(splits.test)) + prefix)
        dear = 2 * space.price(nearest, len(splits.test))  # the baseline, and a winner that retrieves
        return _MOST_FINALISTS * space.price(nearest, len(splits.confirm)) + static + dear

    def _least_to_measure(self, space: SearchSpace) -> float:
        """Tokens of one finalist on the fewest confirmation rows, and of it and zero-shot on the fewest test rows."""
        zero = Candidate(instruction=space.instructions[0])
        shots = max((count for count in space.shots if count <= _BASELINE_SHOTS), default=0)
        shown = replace(zero, demonstrations=tuple(space.pool[:shots].tolist()))
        return space.price(shown, FEWEST_CONFIRM + FEWEST_TEST) + space.price(zero, FEWEST_TEST)

    def _anchors(self, space: SearchSpace, near: Neighbourhood) -> tuple[list[Candidate], dict[str, Candidate]]:
        """Candidates that every search tries, the baselines first; and the baselines by name."""
        rng = np.random.default_rng([self.seed, 3])
        instruction, template = space.instructions[0], space.templates[0]
        zero = Candidate(instruction=instruction, template=template)
        shots = min(_BASELINE_SHOTS, len(space.pool))
        random = replace(zero, demonstrations=draw_balanced(space, shots, rng))
        while not space.fits(random) and random.demonstrations:
            random = replace(random, demonstrations=random.demonstrations[:-1])
        nearest = replace(zero, mode="retrieved", count=self._nearest_count(space, zero))
        baselines = {"zero_shot": zero, "random": random, "nearest": nearest}
        by_options = next((name for name in space.templates if TEMPLATES[name].scores_options), None)
        if by_options is not None and by_options != template:  # the last ones are left out where a budget is small
            options = {
                f"{name}_options": replace(baselines[name], template=by_options) for name in ("zero_shot", "random")
            }
            baselines = {"zero_shot": zero, **options, "random": random, "nearest": nearest}
        first = [nearest] if self._needs_neighbours(near) else []
        anchors = [
            *first,
            *baselines.values(),
            *_reasoned(space, zero, rng),
            *_wordings(space, random, self.task.instructions[1:], rng),
        ]
        usable = [anchor for anchor in anchors if space.allows(anchor)]
        usable = usable or [draw_fresh(space, rng)]
        return [replace(anchor, calibration=space.calibration) for anchor in dict.fromkeys(usable)], baselines

    def _needs_neighbours(self, near: Neighbourhood) -> bool:
        """Whether labels are more than a usual prompt shows, and similar rows tell most of them by their votes alone.

        Then what retrieves is looked at first: where a budget is small, nothing else would be left for it.
        """
        labels, rows = self.task.labels, near.splits.search
        if labels is None or len(labels) <= _BASELINE_SHOTS:
            return False
        voted = near.judge(self.task, self.task.require_metric(), prior=False).judge_labels(
            rows, np.stack([near.votes[row] for row in rows])
        )
        return float(voted.scores.mean()) > _TELLING_VOTE

    def _let_reason(self, study: Study, builder: PromptBuilder, store: RunStore) -> None:
        """Open the space to candidates that reason, and have the model write reasoning to show.

        Free text and tasks with written reasoning may look at some, as far as first looks are paid for; others where
        that costs next to nothing, since labels are scored in one step and reasoning takes several times as long.
        """
        space, plan = study.space, study.plan
        kinds = set(self.user_space.reasoning) - {"none"}
        written = {
            number: one_line(self.task.examples[number].rationale or "") for number in map(int, space.pool.tolist())
        }
        rationales = count_rationales(builder.engine, written)
        plain = replace(self._plain(space), thinking_tokens=min(self.user_space.thinking_tokens))
        look = space.price(plain, FIRST_RUNG)
        if plan.unit == "evaluations":  # one that reasons takes the time of several
            look = FIRST_RUNG * space.query_tokens(plain) / space.query_tokens(plain.without_reasoning())
        is_cheap = look <= _LOOK_SHARE * plan.search
        is_asked_for = "none" not in self.user_space.reasoning
        if not kinds or not (self.task.labels is None or rationales.tokens or is_cheap or is_asked_for):
            return
        space.reasons = True
        if "gold" in kinds and rationales.tokens:
            space.rationales["gold"] = rationales
        if "self" in kinds:
            self._write_rationales(study, builder, store)
        if is_asked_for and not space.reasonings:
            self.listen(Note("there is no reasoning to show; the search goes on without"))

    def _plain(self, space: SearchSpace) -> Candidate:
        """The usual prompt that reasons without being shown how."""
        return Candidate(
            instruction=space.instructions[0],
            template=space.plain_templates[0] if space.plain_templates else space.templates[0],
            reasoning="cue",
            thought=CUES[0],
            thinking_tokens=max(self.user_space.thinking_tokens),
        )

    def _write_rationales(self, study: Study, builder: PromptBuilder, store: RunStore) -> None:
        """Have the model write reasoning for pool examples, within a share of the search's units."""
        space, plan = study.space, study.plan
        plain = self._plain(space)
        units = _RATIONALES_SHARE * plan.search
        once = 1.0 if plan.unit == "evaluations" else space.price(plain, 1, begun=True)
        count = min(_MOST_RATIONALES, len(space.pool), int(units / (_ATTEMPTS * once)))
        if self.limits.evaluations is not None:
            count = min(count, int(_RATIONALES_SHARE * self.limits.evaluations / _ATTEMPTS))
        if count < _FEWEST_RATIONALES or not space.plain_templates:
            return
        self.meter.enter("rationales")
        self.listen(Note(f"writing reasoning for {count} examples"))
        rng = np.random.default_rng([self.seed, 4])
        chooser = space.choosers.get("k-means")
        numbers = draw_balanced(space, count, rng) if chooser is None or self.task.labels else chooser(count, rng)
        rationalizer = Rationalizer(
            study.evaluator, self.task.examples, self.task.require_metric(), plain, plain.thinking_tokens
        )
        limit = study.spent + units
        late = float("inf")
        if self.limits.seconds is not None:
            late = self.meter.elapsed + _RATIONALES_SHARE * self.limits.seconds
        asked = itertools.count()

        def may_go_on() -> bool:
            """As recorded, or else by tokens and clock, which is then recorded."""
            name = f"rationales go on: {next(asked)}"
            store.record_fact(name, study.spent < limit and self.meter.elapsed < late)
            return bool(store.fact(name))

        rationalizer.run(sorted(numbers), may_go_on)
        self.rationales = rationalizer.fates
        builder.own_rationales.clear()
        builder.own_rationales.update(rationalizer.kept)
        found = count_rationales(builder.engine, rationalizer.kept, rationalizer.doubt)
        self.listen(Note(f"kept the reasoning of {len(found.tokens)} of {count}"))
        if len(found.tokens) >= _FEWEST_KEPT:
            space.rationales["self"] = found

    def _nearest_count(self, space: SearchSpace, zero: Candidate) -> int:
        """Neighbours that the baseline shows: four, fewer where they are long."""
        for count in (4, 2, 1):
            if space.query_tokens(replace(zero, mode="retrieved", count=count)) <= _NEAREST_TOKENS:
                return count
        return 1

    # -- the final measurement ------------------------------------------------------------------------------

    def _measure(
        self,
        study: Study,
        near: Neighbourhood,
        outcome: Outcome,
        baselines: Mapping[str, Candidate],
        store: RunStore,
    ) -> _Measured:
        """The winner and the baselines on the test rows, which nothing has read before."""
        winner = outcome.winner
        recorded = store.fact("test")
        if recorded is None or outcome.stopped_by == "interrupt":
            count, names = self._affordable_test(study, near.splits, outcome, baselines)
            recorded = {"rows": count, "baselines": names, "elapsed": self.meter.elapsed}
            if outcome.stopped_by != "interrupt":  # the same call may go on with the search
                store.record_fact("test", recorded)
        self.meter.set_clock(max(self.meter.elapsed, recorded["elapsed"]))
        self.meter.enter("test")
        items = near.splits.test[: recorded["rows"]]
        baselines = {name: baselines[name] for name in recorded["baselines"]}
        asked = _readings(winner, baselines.values())
        for place, candidate in enumerate(asked):
            study.evaluator.answers(candidate, items)
            self.listen(Progress("test", (place + 1) / len(asked)))
        measured = self._baselines(study, near, items, baselines)
        if winner.words is not None:
            by_words = replace(winner, weighing=winner.words, alone=winner.words_alone)
            measured["without_readout"] = study.fitter.judged(by_words, items)
            measured["without_readout_alone"] = study.fitter.judged_alone(by_words, items)
        if winner.single is not None:
            measured["single"] = study.fitter.judged(winner.single, items)
            measured["single_alone"] = study.fitter.judged_alone(winner.single, items)
        return _Measured(
            items, study.fitter.judged(winner, items), study.fitter.judged_alone(winner, items), measured
        )

    def _affordable_test(
        self, study: Study, splits: Splits, outcome: Outcome, baselines: Mapping[str, Candidate]
    ) -> tuple[int, list[str]]:
        """How many test rows are measured, and which baselines: the dearest go first where the rows get few."""
        test, wanted = splits.test, min(_WANTED_TEST, len(splits.test))
        names = list(baselines)
        if outcome.stopped_by == "interrupt":  # whoever pressed Ctrl-C wants an answer soon
            return wanted, names[:1]
        while True:
            readings = _readings(outcome.winner, [baselines[name] for name in names])
            calibrated = [baselines[name] for name in names if self._is_calibrated(baselines[name])]
            reserved = sum(study.price_of_asking(each, splits.search[:FIRST_RUNG]) for each in calibrated)
            count = len(study.affordable_test_items(readings, test, reserved))
            if count >= wanted or len(names) == 1:
                return max(count, min(FEWEST_TEST, len(test))), names
            names.pop()

    def _baselines(
        self, study: Study, near: Neighbourhood, items: Sequence[int], candidates: Mapping[str, Candidate]
    ) -> dict[str, Judged]:
        """Each baseline as the model answers by itself and calibrated, and what vectors say without a model."""
        labels = self.task.labels
        if labels is None:
            return {name: study.fitter.judged(Finalist(each, None), items) for name, each in candidates.items()}
        found: dict[str, Judged] = {}
        alone = near.judge(self.task, self.task.require_metric(), prior=False)
        for name, candidate in candidates.items():
            answers = study.evaluator.answers(candidate, items)
            found[name] = alone.judge(items, answers, alone.plain(len(labels)))
            if not self._is_calibrated(candidate):
                continue
            calibrated = self._calibrated(study, alone, near, candidate)
            found[f"{name}_calibrated"] = alone.judge(items, answers, calibrated)
        for name, logs in (("label_vote", near.votes), ("embedding_prior", near.priors)):
            found[name] = alone.judge_labels(items, np.stack([logs[item] for item in items]))
        return found

    def _is_calibrated(self, candidate: Candidate) -> bool:
        """Whether a baseline is measured calibrated too: not where texts are answers, written ones or options'."""
        return self.task.labels is not None and not template_of(candidate).scores_options

    def _calibrated(self, study: Study, alone: Judge, near: Neighbourhood, candidate: Candidate) -> Any:
        """Batch calibration on the search rows that the race began with: some twenty unlabelled inputs settle it."""
        rows = near.splits.search[:FIRST_RUNG]
        return alone.fit("batch", Asked(rows, study.evaluator.answers(candidate, rows)))

    # -- the result -----------------------------------------------------------------------------------------

    def _result(
        self,
        opened: OpenedModel,
        near: Neighbourhood,
        study: Study,
        outcome: Outcome,
        measured: _Measured,
        source: str,
    ) -> Result:
        judge = near.judge(self.task, self.task.require_metric(), prior=False)
        baselines = {name: judge.measure(measured.items, judged) for name, judged in measured.baselines.items()}
        test = judge.measure(measured.items, measured.winner)
        differences, alone = (
            {name: judge.difference(measured.items, ours, judged) for name, judged in measured.baselines.items()}
            for ours in (measured.winner, measured.alone)
        )
        self.meter.enter("done")
        facts = self._facts(opened, near, study, measured)
        shown = study.evaluator.asker.builder.shown_by(outcome.winner.candidate)
        parts = PromptParts(
            task=self.task,
            candidate=outcome.winner.candidate,
            examples={number: shown[number] for number in near.pool.ids.tolist()},
            weighing=outcome.winner.weighing,
            weighing_alone=outcome.winner.alone,
            weighing_words=outcome.winner.words,
            weighing_words_alone=outcome.winner.words_alone,
            prior=near.prior,
            retriever=Retriever(near.pool, near.encoder, source),
            router=near.router(outcome.winner.candidate),
            measured={"test": test.to_dict(), "facts": facts},
        )
        return Result(
            prompt=Prompt.from_parts(parts, opened),
            test=test,
            test_without_prior=judge.measure(measured.items, measured.alone),
            validation=outcome.confirmed,
            baselines=baselines,
            improvement=differences["zero_shot"],
            against=differences,
            improvement_without_prior=alone["zero_shot"],
            against_without_prior=alone,
            gain_of_prior=judge.difference(measured.items, measured.winner, measured.alone),
            trials=_trials(study.space, outcome),
            insights=outcome.insights,
            cost=self.meter.cost,
            stopped_by=outcome.stopped_by,
            facts=facts,
            notes=(
                *_notes(test, baselines, differences, self._given_test, outcome.stopped_by),
                *_rows_notes(self.task),
                *_setup_notes(self.limits, self.meter.cost.seconds.get("setup", 0.0)),
                *_processor_notes(opened.engine),
            ),
        )

    def _facts(self, opened: OpenedModel, near: Neighbourhood, study: Study, measured: _Measured) -> dict[str, Any]:
        report = near.splits.report
        return {
            "version": __version__,
            "task": self.task.describe(),
            "model": opened.description,
            "model_fingerprint": opened.engine.fingerprint,
            "encoder": near.encoder.fingerprint,
            "rows": near.splits.sizes,
            "rows_dropped": self.task.dropped,
            "duplicates_removed": {
                "repeated": report.repeated,
                "conflicting": report.conflicting,
                "across splits": report.across,
                "near": report.near,
            },
            "test_rows_measured": len(measured.items),
            **({"rationales": dict(self.rationales)} if self.rationales else {}),
            "plan": study.plan.to_dict(),
            "budget": str(self.limits),
            "seed": self.seed,
        }


def _reasoned(space: SearchSpace, zero: Candidate, rng: np.random.Generator) -> list[Candidate]:
    """One candidate of each kind of reasoning, in the usual words."""
    found = []
    for kind in space.reasonings:
        ids = space.rationales[kind].ids if kind in space.rationales else ()
        count = max((count for count in space.shots if count <= min(_WORDING_SHOTS, len(ids))), default=0)
        found.append(
            replace(
                zero,
                template=zero.template if zero.template in space.plain_templates else space.plain_templates[0],
                demonstrations=draw_shown_reasoning(space, kind, count, rng) if ids and count else (),
                reasoning=kind,
                thought=CUES[0] if kind == "cue" else SHOWN_THOUGHT,
                thinking_tokens=max(space.space.thinking_tokens),
            )
        )
    return found


def _wordings(
    space: SearchSpace, random: Candidate, given: Sequence[str], rng: np.random.Generator
) -> list[Candidate]:
    """Every instruction, pair of names and template once, with the same few demonstrations for all.

    The user's other instructions come first, the rest in random order, so that no kind of words is always what a
    small budget cannot pay for.
    """
    count = max((count for count in space.shots if count <= _WORDING_SHOTS), default=0)
    few = replace(random, demonstrations=random.demonstrations[:count])
    own = [replace(few, instruction=text) for text in given]
    others = [
        *(replace(few, input_name=names[0], output_name=names[1]) for names in space.names[1:]),
        *(replace(few, instruction=text) for text in space.instructions[1:] if text not in given),
        *(replace(few, template=name) for name in space.templates[1:]),
    ]
    return [few, *own, *(others[place] for place in rng.permutation(len(others)))]


def _with_unreasoned(baselines: Mapping[str, Candidate], winner: Finalist) -> dict[str, Candidate]:
    """The baselines, and after the first one a winner that reasons without its reasoning: what that gains."""
    if not winner.candidate.reasons:
        return dict(baselines)
    (first, *others), bare = baselines, winner.candidate.without_reasoning()
    return {first: baselines[first], "without_reasoning": bare, **{name: baselines[name] for name in others}}


def _readings(winner: Finalist, others: Iterable[Candidate]) -> list[Candidate]:
    """What the model must read to measure the winner and others; equal readings once, ensembles prompt by prompt."""
    readings = [winner.candidate.reading, *(each.reading for each in others)]
    return list(dict.fromkeys(member for reading in readings for member in reading.members))


def _encoder_source(encoder: object) -> str:
    from promptsearch.embed.transformer import DEFAULT_ENCODER

    if encoder is None:
        return DEFAULT_ENCODER
    return encoder if isinstance(encoder, str) else ""


def _trials(space: SearchSpace, outcome: Outcome) -> Trials:
    return Trials(
        Trial(
            number,
            candidate,
            outcome.scores[candidate].items,
            float(outcome.scores[candidate].values.mean()),
            float(outcome.scores[candidate].confidence.mean()),
            space.prefix_tokens(candidate),
        )
        for number, candidate in enumerate(outcome.order)
    )


def _notes(
    test: Measurement,
    baselines: Mapping[str, Measurement],
    differences: Mapping[str, Difference],
    test_rows: int,
    stopped_by: str,
) -> tuple[str, ...]:
    """What a person must know before trusting the prompt."""
    notes = []
    without_model = [name for name in _WITHOUT_MODEL if name in baselines]
    if without_model:
        best = max(without_model, key=lambda name: baselines[name].value)
        said, value = _WITHOUT_MODEL[best], baselines[best]
        if value.value > test.value:
            notes.append(
                f"{said} did better on the test rows ({value} against {test}): consider it instead of a prompt."
            )
        elif differences[best].low <= 0:
            notes.append(
                f"{said} does about as well ({value}): what the prompt adds to it is within the noise of these test "
                "rows."
            )
    rivals = [name for name in baselines if name not in _WITHOUT_MODEL and name not in _LESS_OF_IT]
    best = max(rivals, key=lambda name: baselines[name].value)
    if baselines[best].value > test.value:
        notes.append(
            f"The baseline {best!r} did better on the test rows ({baselines[best]}): treat the gain as none."
        )
    if "without_readout" in differences and differences["without_readout"].high < 0:
        notes.append(
            f"By its labels' own words the prompt did better ({baselines['without_readout']}): "
            "prompt.without_readout() answers so."
        )
    left_out = [name for name in ("random", "nearest") if name not in baselines]
    if stopped_by == "interrupt":
        notes.append(f"Stopped early: measured on {test.n} of {test_rows} test rows, beside zero-shot alone.")
        return tuple(notes)
    if left_out:
        names = f"baseline{'s' * (len(left_out) > 1)} {' and '.join(left_out)}"
        notes.append(f"The budget did not pay for measuring the {names}.")
    if test.n < test_rows:
        notes.append(f"The budget paid for {test.n} of {test_rows} test rows; a larger one narrows the interval.")
    return tuple(notes)


def _rows_notes(task: Task) -> tuple[str, ...]:
    """Rows that are probably not what was meant."""
    notes = []
    counts = Counter(example.output for example in task.examples)
    rare = [label for label in task.labels or () if 0 < counts[label] < _FEWEST_OF_A_LABEL]
    if rare:
        shown = ", ".join(f"{label!r} ({counts[label]})" for label in rare[:5])
        more = f" and {len(rare) - 5} more" if len(rare) > 5 else ""
        notes.append(f"Labels with hardly a row: {shown}{more}. Misspelt, or too rare to be learnt or measured.")
    if task.dropped:
        rows = "row" if task.dropped == 1 else "rows"
        notes.append(f"Left out {task.dropped:,} {rows} without an input or an output.")
    return tuple(notes)


def _setup_notes(limits: Budget, seconds: float) -> tuple[str, ...]:
    if limits.seconds is None or seconds <= _LONG_SETUP * limits.seconds:
        return ()
    return (
        f"Setting up took {seconds:.0f} of {limits.seconds:.0f} seconds. What was measured or encoded for the first "
        "time is kept: a second search has that time.",
    )


def _processor_notes(engine: Engine) -> tuple[str, ...]:
    """What other work on the processor did to this run; nothing for engines that run elsewhere."""
    share = float(getattr(engine, "processor_share", 1.0))
    if share >= QUIET_SHARE:
        return ()
    return (
        f"Another process uses the processor: the model got {share:.0%} of its threads' time. It ran slower than it "
        "does alone, and a time budget paid for less; end the other process, or give a budget in tokens.",
    )
