"""Confirmation: finalists meet on rows that the race did not see, and one of them is chosen.

The best fixed prompts may be asked about more rows before (:mod:`promptsearch.run.reading`); together they are
finalists too, as ensembles.
Invariant: what the plan has for it is not overspent; rows that the clock takes away are written down.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.events import Progress
from promptsearch.lm.base import FloatArray
from promptsearch.measurement import Measurement, paired_difference
from promptsearch.run.finalists import Finalist, Others, steadied
from promptsearch.run.phases import FEWEST_CONFIRM, FEWEST_TEST
from promptsearch.run.reading import Reading
from promptsearch.run.study import MUCH_TOO_SLOW, USUAL_FINALISTS, Study
from promptsearch.search.confidence_sequence import certainly_better
from promptsearch.search.front import choose
from promptsearch.search.insights import RunnerUp
from promptsearch.search.log_knowledge import candidate_effects

__all__ = ["Confirmation", "Confirmed"]

_FEWEST_HURRIED = 10  # rows of a confirmation for which there is no time
_CONFIRMED_PARTS = (0.34, 0.67)  # of the confirmation rows, after which finalists that are certainly worse go


@dataclass(frozen=True)
class Confirmed:
    """What a confirmation found.

    Attributes:
        winner: the chosen finalist, fitted on search and confirmation rows.
        measured: its value on confirmation rows, before these were among the rows that it was fitted on.
        runners_up: the finalists that were not taken.
    """

    winner: Finalist
    measured: Measurement
    runners_up: tuple[RunnerUp, ...]


class Confirmation:
    """Chooses among finalists.

    Args:
        study: the search, after its race.
        search_items: search rows.
    """

    def __init__(self, study: Study, search_items: Sequence[int]) -> None:
        self._study = study
        self._search_items = search_items
        self._reading = Reading(study)

    def run(
        self, finalists: Sequence[Candidate], confirm_items: Sequence[int], more_items: Sequence[int]
    ) -> Confirmed:
        """Choose among finalists on rows that the race did not see.

        Args:
            finalists: candidates, best first.
            confirm_items: rows that they meet on.
            more_items: pool rows that fixed prompts may be asked about, for their readouts.
        """
        finalists = self._measurable(finalists, confirm_items)
        items = self._affordable_items(finalists, confirm_items)
        finalists = finalists[: self._finalists(finalists, items)]
        members = self._members(finalists, items, bool(more_items))
        members, others = self._reading.read(members, self._search_items, more_items)
        self._study.meter.enter("confirm")
        fitted = [self._fit(candidate, others) for candidate in finalists]
        fitted = self._not_certainly_worse(fitted, items)
        together = members if len(members) > 1 else []
        asked = list(dict.fromkeys(each.reading for each in [*(one.candidate for one in fitted), *together]))
        for place, reading in enumerate(asked):
            self._study.evaluator.answers(reading, items)
            self._study.listen(Progress("confirm", (place + 1) / len(asked), len(asked), len(self._study.scores)))
        if together:
            single = self._fit(members[0], others)
            sizes = range(2, len(members) + 1)
            fitted += [self._together(members[:size], single, others) for size in sizes]
        scores = self._seen_scores(fitted, items)
        best = self._choose(fitted, scores)
        measured = self._study.fitter.judge.measure(items, self._study.fitter.judged(fitted[best], items))
        return Confirmed(self._refitted(fitted[best], items), measured, self._runners_up(fitted, scores, best))

    def in_time(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[int]:
        """The confirmation rows that the clock leaves: as recorded, or else by the clock, which is then recorded.

        The plan decides how many are measured; the clock takes rows away only where the plan would overrun by much.
        """
        if self._study.budget.seconds is None:
            return items
        planned = len(self._affordable_items(finalists, items))
        left = 0.97 * self._study.budget.seconds - self._study.meter.elapsed
        share = self._study.plan.confirm / max(1, self._study.plan.total - self._study.plan.search)
        price = self._study.price(finalists[:USUAL_FINALISTS], items) / len(items)
        rows = int(max(0.0, left * share) * min(1e9, self._study.measured_speed()) / price)
        count = len(items) if rows >= MUCH_TOO_SLOW * planned else max(_FEWEST_HURRIED, rows)
        self._study.store.record_fact("confirm rows", count)
        return items[: int(self._study.store.fact("confirm rows"))]

    def _measurable(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[Candidate]:
        """Finalists that what is left pays for on the fewest rows of confirmation and test; else the cheapest."""
        rows = (FEWEST_CONFIRM + FEWEST_TEST) / len(items)
        prices = {each: rows * self._study.price([each], items) for each in finalists}
        left = self._study.plan.total - self._study.spent
        return [each for each in finalists if prices[each] <= left] or [min(finalists, key=lambda each: prices[each])]

    def _not_certainly_worse(self, finalists: Sequence[Finalist], items: Sequence[int]) -> list[Finalist]:
        """Finalists that a part of the rows does not rule out: the rest of the rows need not pay for those.

        The test holds however often it is made, see :mod:`promptsearch.search.confidence_sequence`.
        """
        kept = list(finalists)
        if self._study.fitter.judge.labels_alike:  # the test is about means over rows
            return kept
        for part in _CONFIRMED_PARTS:
            seen = items[: int(part * len(items))]
            if len(kept) < 2 or not seen:
                break
            scores = {finalist: self._study.fitter.judged(finalist, seen).scores for finalist in kept}
            best = max(kept, key=lambda finalist: float(scores[finalist].mean()))
            kept = [each for each in kept if certainly_better(scores[best] - scores[each]) <= 0]
        return kept

    def _affordable_items(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[int]:
        """As many confirmation rows as the plan pays for with the usual finalists, 30 at least."""
        price = self._study.price(finalists[:USUAL_FINALISTS], items)
        share = min(1.0, self._study.plan.confirm / max(1.0, price))
        return items[: max(min(FEWEST_CONFIRM, len(items)), int(share * len(items)))]

    def _finalists(self, finalists: Sequence[Candidate], items: Sequence[int]) -> int:
        """How many finalists the plan pays for on these rows.

        The usual ones may take what the fewest test rows leave of the whole; one is confirmed whatever it costs.
        """
        tested = 2 * self._study.price(finalists[:1], items) * FEWEST_TEST / len(items)  # with a baseline as dear
        left = self._study.plan.total - self._study.spent - tested
        count = 1
        while count < len(finalists):
            units = max(self._study.plan.confirm, left) if count < USUAL_FINALISTS else self._study.plan.confirm
            if self._study.price(finalists[: count + 1], items) > units:
                break
            count += 1
        return count

    def _refitted(self, winner: Finalist, confirm_items: Sequence[int]) -> Finalist:
        """The winner with its weights fitted on search and confirmation rows together, now that all is chosen."""
        if winner.weighing is None:
            return winner
        single = None if winner.single is None else self._refitted(winner.single, confirm_items)
        items = [*self._study.seen(winner.as_raced, self._search_items), *confirm_items]
        return replace(self._study.fitter.fit(winner.as_raced, items, winner.others), single=single)

    def _fit(self, candidate: Candidate, others: Others) -> Finalist:
        return self._study.fitter.fit(candidate, self._study.seen(candidate, self._search_items), others)

    def _together(self, members: Sequence[Candidate], single: Finalist, others: Others) -> Finalist:
        """An ensemble, which needs no answers beyond those of its members; ``single`` is the first of them."""
        together = replace(members[0], ensemble=tuple(members[1:]))
        return replace(self._fit(together, others), single=single)

    def _members(self, finalists: Sequence[Candidate], items: Sequence[int], with_others: bool) -> list[Candidate]:
        """Those that may stand in an ensemble, best first: fixed prompts that can be read, finalists before others.

        One that finds demonstrations for each query, or routes it, would find a pool row itself. Prompts that differ
        in the order of the same demonstrations alone tell the same. As many are taken as can be confirmed and tested.

        Args:
            finalists: prompts that are confirmed in any case.
            items: rows of the confirmation.
            with_others: whether prompts that are none of these may stand in it too.
        """
        effects = candidate_effects(self._study.scores)
        others = sorted(effects, key=lambda arm: (-round(effects[arm], 9), arm.key))
        found: dict[tuple[object, ...], Candidate] = {}
        for candidate in (*finalists, *(others if with_others else ())):
            told = (candidate.template, candidate.input_name, candidate.output_name, frozenset(candidate.shown))
            if self._study.fitter.may_be_read(candidate) and told not in found:
                found[told] = candidate
        members = list(found.values())[: self._study.space.space.ensemble]
        if not members or members[0] not in finalists:
            return []
        left = self._study.plan.total - self._study.spent - max(0, self._reading.left())
        while len(members) > 1:
            confirmed = self._study.price(list(dict.fromkeys([*finalists, *members])), items)
            if confirmed + 2 * self._study.price(members, range(FEWEST_TEST)) <= left:
                break
            members.pop()
        return members

    def _seen_scores(self, finalists: Sequence[Finalist], confirm_items: Sequence[int]) -> list[FloatArray]:
        """Each finalist's scores on the search rows that all of them saw and on confirmation rows.

        As deployed and of the prompt alone, in the middle: a strong prior makes finalists look alike. Rows weigh as
        they do in the metric, 1 on average, so that values may exceed 1.
        """
        seen = [self._study.seen(finalist.as_raced, self._search_items) for finalist in finalists]
        shortest = min(map(len, seen))
        pooled = []
        for finalist, items in zip(finalists, seen, strict=True):
            early = [judged[:shortest] for judged in self._study.fitter.held_out(finalist, items)]
            late = [
                steadied(self._study.fitter.judged(finalist, confirm_items)),
                steadied(self._study.fitter.judged_alone(finalist, confirm_items)),
            ]
            pooled.append(np.concatenate([np.mean(early, axis=0), np.mean(late, axis=0)]))
        weights = self._study.fitter.judge.weights([*self._search_items[:shortest], *confirm_items])
        return [scores * weights for scores in pooled]

    def _choose(self, finalists: Sequence[Finalist], scores: Sequence[FloatArray]) -> int:
        """The finalist to take, by its scores and its prompt's tokens.

        Where accuracy is preferred, the largest ensemble is taken that nothing is better than by more than a standard
        error: several prompts do better far more often than some hundred rows can tell.
        """
        best = choose(scores, [self._tokens(finalist) for finalist in finalists], self._study.prefer)
        together = [place for place, finalist in enumerate(finalists) if finalist.candidate.ensemble]
        if self._study.prefer != "accuracy" or best in together:
            return best
        kept = (place for place in reversed(together) if not _is_clearly_better(scores[best] - scores[place]))
        return next(kept, best)

    def _runners_up(
        self, finalists: Sequence[Finalist], scores: Sequence[FloatArray], best: int
    ) -> tuple[RunnerUp, ...]:
        return tuple(
            RunnerUp(finalist.as_raced, self._tokens(finalist), paired_difference(scores[best], own))
            for finalist, own in zip(finalists, scores, strict=True)
            if finalist is not finalists[best]
        )

    def _tokens(self, finalist: Finalist) -> float:
        return self._study.space.prompt_tokens(finalist.candidate)


def _is_clearly_better(gains: FloatArray) -> bool:
    """Whether paired gains lie more than a standard error above none."""
    return bool(gains.mean() > gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else False
