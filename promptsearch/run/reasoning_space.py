"""Opens a search space to candidates that reason, where the budget pays for a look at some.

Leaves out: how reasoning is written and checked (:mod:`promptsearch.rationales`).
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from promptsearch.candidate import CUES, Candidate
from promptsearch.events import Note
from promptsearch.prompting import PromptBuilder
from promptsearch.rationales import Rationalizer
from promptsearch.reasoning import one_line
from promptsearch.run.job import Job
from promptsearch.run.study import Study
from promptsearch.run.workbench import count_rationales
from promptsearch.search.drawing import draw_balanced
from promptsearch.search.race import FIRST_RUNG
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore

__all__ = ["let_reason"]

_LOOK_SHARE = 0.01  # of the search, that a first look at a prompt that reasons may take where labels are scored
_RATIONALES_SHARE = 0.1  # of the search, for having the model write reasoning
_ATTEMPTS = 3.0  # of an example, that its share pays for: most are asked more than once
_FEWEST_RATIONALES, _MOST_RATIONALES = 8, 64  # examples that reasoning is written for
_FEWEST_KEPT = 2


def let_reason(job: Job, study: Study, builder: PromptBuilder, store: RunStore) -> Mapping[str, int]:
    """Open the space to candidates that reason, and have the model write reasoning to show.

    Free text and tasks with written reasoning may look at some, as far as first looks are paid for; others where
    that costs next to nothing, since labels are scored in one step and reasoning takes several times as long.

    Returns:
        Attempts at reasoning by what became of them.
    """
    space, plan = study.space, study.plan
    kinds = set(job.space.reasoning) - {"none"}
    written = {
        number: one_line(job.task.examples[number].rationale or "") for number in map(int, space.pool.tolist())
    }
    rationales = count_rationales(builder.engine, written)
    plain = replace(_plain(job, space), thinking_tokens=min(job.space.thinking_tokens))
    look = space.price(plain, FIRST_RUNG)
    if plan.unit == "evaluations":  # one that reasons takes the time of several
        look = FIRST_RUNG * space.query_tokens(plain) / space.query_tokens(plain.without_reasoning())
    is_cheap = look <= _LOOK_SHARE * plan.search
    is_asked_for = "none" not in job.space.reasoning
    if not kinds or not (job.task.labels is None or rationales.tokens or is_cheap or is_asked_for):
        return {}
    space.reasons = True
    if "gold" in kinds and rationales.tokens:
        space.rationales["gold"] = rationales
    fates = _write_rationales(job, study, builder, store) if "self" in kinds else {}
    if is_asked_for and not space.reasonings:
        job.listen(Note("there is no reasoning to show; the search goes on without"))
    return fates


def _plain(job: Job, space: SearchSpace) -> Candidate:
    """The usual prompt that reasons without being shown how."""
    return Candidate(
        instruction=space.instructions[0],
        template=space.plain_templates[0] if space.plain_templates else space.templates[0],
        reasoning="cue",
        thought=CUES[0],
        thinking_tokens=max(job.space.thinking_tokens),
    )


def _write_rationales(job: Job, study: Study, builder: PromptBuilder, store: RunStore) -> Mapping[str, int]:
    """Have the model write reasoning for pool examples, within a share of the search's units."""
    space, plan = study.space, study.plan
    plain = _plain(job, space)
    units = _RATIONALES_SHARE * plan.search
    once = 1.0 if plan.unit == "evaluations" else space.price(plain, 1, begun=True)
    count = min(_MOST_RATIONALES, len(space.pool), int(units / (_ATTEMPTS * once)))
    if job.limits.evaluations is not None:
        count = min(count, int(_RATIONALES_SHARE * job.limits.evaluations / _ATTEMPTS))
    if count < _FEWEST_RATIONALES or not space.plain_templates:
        return {}
    job.meter.enter("rationales")
    job.listen(Note(f"writing reasoning for {count} examples"))
    rng = np.random.default_rng([job.seed, 4])
    chooser = space.choosers.get("k-means")
    numbers = draw_balanced(space, count, rng) if chooser is None or job.task.labels else chooser(count, rng)
    rationalizer = Rationalizer(
        study.evaluator, job.task.examples, job.task.require_metric(), plain, plain.thinking_tokens
    )
    limit = study.spent + units
    late = float("inf")
    if job.limits.seconds is not None:
        late = job.meter.elapsed + _RATIONALES_SHARE * job.limits.seconds
    asked = itertools.count()

    def may_go_on() -> bool:
        """As recorded, or else by tokens and clock, which is then recorded."""
        name = f"rationales go on: {next(asked)}"
        store.record_fact(name, study.spent < limit and job.meter.elapsed < late)
        return bool(store.fact(name))

    rationalizer.run(sorted(numbers), may_go_on)
    builder.own_rationales.clear()
    builder.own_rationales.update(rationalizer.kept)
    found = count_rationales(builder.engine, rationalizer.kept, rationalizer.doubt)
    job.listen(Note(f"kept the reasoning of {len(found.tokens)} of {count}"))
    if len(found.tokens) >= _FEWEST_KEPT:
        space.rationales["self"] = found
    return rationalizer.fates
