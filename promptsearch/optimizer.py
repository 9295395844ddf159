"""``optimize(task)``: puts the parts together, runs the study, measures the winner.

Data flows one way: task, splits, pool, candidates, engine, calibration, item scores, strategy, finalists, result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from promptsearch.budget import Budget, Meter
from promptsearch.candidate import Candidate
from promptsearch.data.splits import Splits
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import encoder_source, resolve_encoder
from promptsearch.errors import UserError
from promptsearch.evaluation import Asker, Evaluator, answer_grammar
from promptsearch.events import Listener, Note, Progress, silent
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.parts import PromptParts, Retriever
from promptsearch.prompt import Prompt
from promptsearch.prompting import PromptBuilder
from promptsearch.result import Result, Trial, Trials
from promptsearch.run.anchors import first_candidates
from promptsearch.run.final_measurement import FinalMeasurement, Measured, with_unreasoned
from promptsearch.run.job import Job
from promptsearch.run.notes import encoder_notes, measurement_notes, processor_notes, rows_notes, setup_notes
from promptsearch.run.phases import require_enough
from promptsearch.run.preparation import Ground, Preparation, may_read, next_tokens, search_in_turns
from promptsearch.run.reasoning_space import let_reason
from promptsearch.run.searching import Outcome, search
from promptsearch.run.study import Study
from promptsearch.run.workbench import Neighbourhood, check_space, fitting_rows
from promptsearch.search.front import PREFERENCES
from promptsearch.search.registry import STRATEGIES
from promptsearch.search.space import SearchSpace, Space
from promptsearch.seen import SeenRows
from promptsearch.store import RunStore
from promptsearch.task import Task
from promptsearch.version import __version__

__all__ = ["optimize"]

_WEIGHTS_SHARE = 0.1  # of a time budget, for measuring which weights run fastest, once on a machine


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
    begun = Meter()  # dividing a hundred thousand rows takes seconds, which are the budget's
    task.require_metric()
    chosen: Any = encoder  # checked there
    found = resolve_encoder(chosen)
    check_space(space or Space(), task, found)
    splits = search_in_turns(task, task.split(seed))
    with _listener(progress) as listen:
        job = Job(task, limits, space or Space(), STRATEGIES[strategy], prefer, seed, listen, begun)
        hurry = None if limits.seconds is None else _WEIGHTS_SHARE * limits.seconds
        opened = open_engine(model, weights, _weights_listener(listen), hurry)
        cached = found if isinstance(found, CachedEncoder) else CachedEncoder(found)
        return _Run(job, opened, cached, encoder_source(encoder)).result(splits, run)


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


class _Run:
    """One call of :func:`optimize`, once the model is open."""

    def __init__(self, job: Job, opened: OpenedModel, encoder: CachedEncoder, source: str) -> None:
        self._job = job
        self._opened = opened
        self._encoder = encoder
        self._source = source
        self._too_long: tuple[int, ...] = ()

    def result(self, splits: Splits, run: str | Path | None) -> Result:
        """Set up, search, measure."""
        job = self._job
        store = RunStore(None if run is None else Path(run).expanduser(), job.identity(self._opened))
        try:
            job.listen(Note(f"model: {self._opened.description}"))
            if len(store):
                job.listen(Note(f"going on with {str(run)!r}, where {len(store):,} calls of the model are recorded"))
            splits, self._too_long = fitting_rows(job.task, splits, self._opened.engine, vary=job.space.instructions)
            preparation = Preparation(job, splits, self._opened.engine)
            builder = preparation.lay_out(store)
            store.require_same({"encoder": self._encoder.fingerprint})
            ground = preparation.set_up(builder, self._encoder, store)
            near, space = ground.near, ground.space
            study = self._study(builder, ground, store)
            zero_shot = Candidate(instruction=space.instructions[0], template=space.templates[0])
            require_enough(job.limits, study.plan, space, zero_shot)
            rationales = let_reason(job, study, builder, store)
            anchors, baselines = first_candidates(job, space, near)
            outcome = search(
                study,
                job.strategy,
                anchors,
                near.splits.search,
                near.splits.confirm,
                np.random.default_rng([job.seed, 5]).permutation(near.splits.pool).tolist(),
                np.random.default_rng([job.seed, 2]),
            )
            compared = with_unreasoned(baselines, outcome.winner)
            measured = FinalMeasurement(job, study, near).measure(outcome, compared, store)
            return self._result(near, study, outcome, measured, rationales, len(splits.test))
        finally:
            store.close()

    def _study(self, builder: PromptBuilder, ground: Ground, store: RunStore) -> Study:
        job, task = self._job, self._job.task
        engine, metric, near = self._opened.engine, task.require_metric(), ground.near
        job.listen(Note(f"plan: {ground.plan}"))
        asker = Asker(engine, builder, task.labels, task.answer_form, answer_grammar(metric, task.answer_form))
        evaluator = Evaluator(asker, task.examples, near.matcher, store, job.meter)
        if may_read(job, engine, ground.space):
            job.meter.enter("search")
            asker.ask_for(next_tokens(job, evaluator, ground))
        judge = near.judge(task, metric, prior=job.space.prior, tokens=asker.tokens)
        return Study(
            ground.space, evaluator, judge, ground.plan, job.limits, job.meter, job.listen, store, job.prefer
        )

    def _result(
        self,
        near: Neighbourhood,
        study: Study,
        outcome: Outcome,
        measured: Measured,
        rationales: Mapping[str, int],
        given_test: int,
    ) -> Result:
        judge = near.judge(self._job.task, self._job.task.require_metric(), prior=False)
        baselines = {name: judge.measure(measured.items, judged) for name, judged in measured.baselines.items()}
        test = judge.measure(measured.items, measured.winner)
        differences, alone = (
            {name: judge.difference(measured.items, ours, judged) for name, judged in measured.baselines.items()}
            for ours in (measured.winner, measured.alone)
        )
        self._job.meter.enter("done")
        facts = self._facts(near, study, measured, rationales)
        shown = study.evaluator.asker.builder.shown_by(outcome.winner.candidate)
        parts = PromptParts(
            task=self._job.task,
            candidate=outcome.winner.candidate,
            examples={number: shown[number] for number in near.pool.ids.tolist()},
            weighing=outcome.winner.weighing,
            weighing_alone=outcome.winner.alone,
            weighing_words=outcome.winner.words,
            weighing_words_alone=outcome.winner.words_alone,
            prior=near.prior,
            retriever=Retriever(near.pool, near.encoder, self._source),
            router=near.router(outcome.winner.candidate),
            measured={"test": test.to_dict(), "facts": facts},
            seen=SeenRows.of(self._job.task.examples[number].text for number in near.splits.searched),
        )
        return Result(
            prompt=Prompt.from_parts(parts, self._opened),
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
            cost=self._job.meter.cost,
            stopped_by=outcome.stopped_by,
            facts=facts,
            notes=(
                *measurement_notes(test, baselines, differences, given_test, outcome.stopped_by),
                *rows_notes(self._job.task, self._too_long, near.splits.report),
                *encoder_notes(near.indistinct),
                *setup_notes(self._job.limits, self._job.meter.cost.seconds.get("setup", 0.0)),
                *processor_notes(self._opened.engine, self._job.limits),
            ),
        )

    def _facts(
        self, near: Neighbourhood, study: Study, measured: Measured, rationales: Mapping[str, int]
    ) -> dict[str, Any]:
        report = near.splits.report
        return {
            "version": __version__,
            "task": self._job.task.describe(),
            "model": self._opened.description,
            "model_fingerprint": self._opened.engine.fingerprint,
            "encoder": near.encoder.fingerprint,
            "rows": near.splits.sizes,
            "further_rows": len(near.splits.further),
            "rows_dropped": self._job.task.dropped,
            "rows_too_long": len(self._too_long),
            "duplicates_removed": {
                "repeated": report.repeated,
                "conflicting": report.conflicting,
                "across splits": report.across,
                "near": report.near,
            },
            "test_rows_measured": len(measured.items),
            **({"rationales": dict(rationales)} if rationales else {}),
            "plan": study.plan.to_dict(),
            "budget": str(self._job.limits),
            "seed": self._job.seed,
        }


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
