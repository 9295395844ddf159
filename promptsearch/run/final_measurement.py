"""The final measurement: the winner and the baselines on test rows, which nothing has read before.

Invariant: each is measured on the same rows, and how many these are was decided before any of their labels was read.
Leaves out: intervals (:mod:`promptsearch.measurement`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.events import Progress
from promptsearch.prompting import template_of
from promptsearch.run.finalists import Finalist
from promptsearch.run.job import Job
from promptsearch.run.phases import FEWEST_TEST, WANTED_TEST
from promptsearch.run.searching import Outcome
from promptsearch.run.study import Study
from promptsearch.run.workbench import Neighbourhood
from promptsearch.scoring import Asked, Judge, Judged
from promptsearch.search.race import FIRST_RUNG
from promptsearch.store import RunStore

__all__ = ["FinalMeasurement", "Measured", "with_unreasoned"]


@dataclass(frozen=True)
class Measured:
    """What was measured.

    Attributes:
        items: the test rows.
        winner: the winner as it is deployed.
        alone: the winner without the prior.
        baselines: everything that it is compared with, by name.
    """

    items: Sequence[int]
    winner: Judged
    alone: Judged
    baselines: Mapping[str, Judged]


class FinalMeasurement:
    """Measures once.

    Args:
        job: what was asked for.
        study: the search that found the winner; it asks the model.
        near: splits, and what vectors say about labels.
    """

    def __init__(self, job: Job, study: Study, near: Neighbourhood) -> None:
        self._job = job
        self._study = study
        self._near = near

    def measure(self, outcome: Outcome, baselines: Mapping[str, Candidate], store: RunStore) -> Measured:
        """The winner and the baselines on the test rows, which nothing has read before."""
        winner = outcome.winner
        recorded = store.fact("test")
        if recorded is None or outcome.stopped_by == "interrupt":
            count, names = self._affordable(outcome, baselines)
            recorded = {"rows": count, "baselines": names, "elapsed": self._job.meter.elapsed}
            if outcome.stopped_by != "interrupt":  # the same call may go on with the search
                store.record_fact("test", recorded)
        self._job.meter.set_clock(max(self._job.meter.elapsed, recorded["elapsed"]))
        self._job.meter.enter("test")
        items = self._near.splits.test[: recorded["rows"]]
        baselines = {name: baselines[name] for name in recorded["baselines"]}
        asked = _readings(winner, baselines.values())
        for place, candidate in enumerate(asked):
            self._study.evaluator.answers(candidate, items)
            self._job.listen(Progress("test", (place + 1) / len(asked)))
        measured = self._baselines(items, baselines)
        by_words = replace(winner, weighing=winner.words, alone=winner.words_alone)
        if winner.weighing is not None and winner.weighing.readout is not None:
            measured["without_readout"] = self._study.fitter.judged(by_words, items)
        if winner.alone is not None and winner.alone.readout is not None:
            measured["without_readout_alone"] = self._study.fitter.judged_alone(by_words, items)
        if winner.single is not None:
            measured["single"] = self._study.fitter.judged(winner.single, items)
            measured["single_alone"] = self._study.fitter.judged_alone(winner.single, items)
        return Measured(
            items, self._study.fitter.judged(winner, items), self._study.fitter.judged_alone(winner, items), measured
        )

    def _affordable(self, outcome: Outcome, baselines: Mapping[str, Candidate]) -> tuple[int, list[str]]:
        """How many test rows are measured, and which baselines: the dearest go first where the rows get few."""
        test, wanted = self._near.splits.test, min(WANTED_TEST, len(self._near.splits.test))
        names = list(baselines)
        if outcome.stopped_by == "interrupt":  # whoever pressed Ctrl-C wants an answer soon
            return wanted, names[:1]
        while True:
            readings = _readings(outcome.winner, [baselines[name] for name in names])
            calibrated = [baselines[name] for name in names if self._is_calibrated(baselines[name])]
            reserved = sum(
                self._study.price_of_asking(each, self._near.splits.search[:FIRST_RUNG]) for each in calibrated
            )
            count = len(self._study.affordable_test_items(readings, test, reserved))
            if count >= wanted or len(names) == 1:
                return max(count, min(FEWEST_TEST, len(test))), names
            names.pop()

    def _baselines(self, items: Sequence[int], candidates: Mapping[str, Candidate]) -> dict[str, Judged]:
        """Each baseline as the model answers by itself and calibrated, and what vectors say without a model."""
        labels = self._job.task.labels
        if labels is None:
            return {name: self._study.fitter.judged(Finalist(each, None), items) for name, each in candidates.items()}
        found: dict[str, Judged] = {}
        alone = self._near.judge(self._job.task, self._job.task.require_metric(), prior=False)
        for name, candidate in candidates.items():
            answers = self._study.evaluator.answers(candidate, items)
            found[name] = alone.judge(items, answers, alone.plain(len(labels)))
            if not self._is_calibrated(candidate):
                continue
            calibrated = self._calibrated(alone, candidate)
            found[f"{name}_calibrated"] = alone.judge(items, answers, calibrated)
        for name, logs in (("label_vote", self._near.votes), ("prior_only", self._near.priors)):
            found[name] = alone.judge_labels(items, np.stack([logs[item] for item in items]))
        return found

    def _is_calibrated(self, candidate: Candidate) -> bool:
        """Whether a baseline is measured calibrated too: not where texts are answers, written ones or options'."""
        return self._job.task.labels is not None and not template_of(candidate).scores_options

    def _calibrated(self, alone: Judge, candidate: Candidate) -> Weighing:
        """Batch calibration on the search rows that the race began with: some twenty unlabelled inputs settle it."""
        rows = self._near.splits.search[:FIRST_RUNG]
        return alone.fit("batch", Asked(rows, self._study.evaluator.answers(candidate, rows)))


def with_unreasoned(baselines: Mapping[str, Candidate], winner: Finalist) -> dict[str, Candidate]:
    """The baselines, and after the first one a winner that reasons without its reasoning: what that gains."""
    if not winner.candidate.reasons:
        return dict(baselines)
    (first, *others), bare = baselines, winner.candidate.without_reasoning()
    return {first: baselines[first], "without_reasoning": bare, **{name: baselines[name] for name in others}}


def _readings(winner: Finalist, others: Iterable[Candidate]) -> list[Candidate]:
    """What the model must read to measure the winner and others; equal readings once, ensembles prompt by prompt."""
    readings = [winner.candidate.reading, *(each.reading for each in others)]
    return list(dict.fromkeys(member for reading in readings for member in reading.members))
