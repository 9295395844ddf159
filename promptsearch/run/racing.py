"""The race: a strategy's requests are answered on search rows until it is done or its budget is spent.

Prompts are compared by themselves and by their labels' words; the prior and readouts join when finalists are weighed.
Invariant: the race spends what the plan gives it; where the clock ends it is written down.
Leaves out: what is tried (:mod:`promptsearch.search`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.events import Note, Progress
from promptsearch.measurement import measure
from promptsearch.run.finalists import race_calibration
from promptsearch.run.phases import OVERSPENT
from promptsearch.run.study import USUAL_FINALISTS, Study
from promptsearch.search.base import Allowance, Strategy, best_first
from promptsearch.search.log_knowledge import TRUSTED_ITEMS, leaders

__all__ = ["Race"]

_FEWEST_RACED = TRUSTED_ITEMS  # search rows
_RACED_WHOLE = 8  # prompts without demonstrations that the race could ask about all its rows


class _BudgetMetError(Exception):
    """Ends the race; its argument says what was met."""


class Race:
    """One race.

    Args:
        study: the search; its scores are filled.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._asked = 0

    def run(
        self,
        strategy: Strategy,
        anchors: Sequence[Candidate],
        items: Sequence[int],
        rng: np.random.Generator,
    ) -> tuple[list[Candidate], str]:
        """Run a strategy.

        Args:
            strategy: which candidates are asked about, and about how many items.
            anchors: candidates that it begins with.
            items: search rows.
            rng: what the strategy draws from.

        Returns:
            Finalists, best first, and what ended the race.
        """
        units = max(1.0, self._study.plan.search - self._study.spent)
        items = self._raced_items(units, items)
        allowance = Allowance(units, len(items), self._study.plan.unit == "evaluations")
        limit = self._study.spent + allowance.total * OVERSPENT
        race = strategy(self._study.space, anchors, allowance, rng)
        try:
            request = next(race)
            while True:
                for candidate in request.candidates:
                    self._score(candidate, items[: request.items], limit, len(request.candidates))
                request = race.send({candidate: self._study.scores[candidate] for candidate in request.candidates})
        except StopIteration as finished:
            stopped_by = (
                self._study.budget_unit() if self._study.spent >= 0.8 * self._study.plan.search else "strategy"
            )
            return list(finished.value), stopped_by
        except _BudgetMetError as met:
            stopped_by = str(met)
        except KeyboardInterrupt:
            if not self._study.scores:
                raise
            self._study.listen(Note("stopped; measuring the best prompt so far (Ctrl-C again to quit at once)"))
            stopped_by = "interrupt"
        race.close()
        return self._best_so_far(), stopped_by

    def _raced_items(self, units: float, items: Sequence[int]) -> Sequence[int]:
        """The rows that candidates race on: so few that the units pay for several candidates on all of them.

        A part of the rows is the fewest that race, twice as many, and so on, so that a race ends with a whole rung.
        """
        payable = units / (_RACED_WHOLE * self._study.price([Candidate()], [0]))
        if payable >= len(items):
            return items
        doublings = max(0, int(np.log2(max(1.0, payable / _FEWEST_RACED))))
        return items[: _FEWEST_RACED * 2**doublings]

    def _score(self, candidate: Candidate, items: Sequence[int], limit: float, alive: int) -> None:
        """Score a candidate on items, unless the budget is met."""
        if self._study.scores:  # the first candidate is scored whatever it costs: there must be a result
            self._require_budget(limit)
        self._asked += 1
        answers = self._study.evaluator.answers(candidate, items)
        self._study.scores[candidate] = self._study.fitter.alone.scores_for_race(
            items, answers, race_calibration(candidate)
        )
        self._tell(alive)

    def _require_budget(self, limit: float) -> None:
        if self._study.spent >= limit:
            raise _BudgetMetError(self._study.budget_unit())
        cost, budget = self._study.meter.cost, self._study.budget
        remaining = 1.0 - self._study.plan.search / self._study.plan.total  # for confirmation, reading and test
        evaluations = None if self._study.plan.unit == "evaluations" else budget.evaluations
        if evaluations is not None and cost.evaluations >= evaluations * (1 - remaining):
            raise _BudgetMetError("evaluations")
        if budget.seconds is not None and self._out_of_time(budget.seconds * (1 - 0.8 * remaining)):
            raise _BudgetMetError("seconds")

    def _out_of_time(self, seconds: float) -> bool:
        """Whether the clock ends the race here: as recorded, or else by the clock, which is then recorded."""
        recorded = self._study.store.fact("out of time")
        if recorded is not None:
            return bool(self._asked >= recorded["after"])
        if self._study.meter.elapsed < seconds:
            return False
        self._study.store.record_fact("out of time", {"after": self._asked})
        return True

    def _best_so_far(self) -> list[Candidate]:
        """Finalists of an unfinished race."""
        return leaders(self._study.scores, USUAL_FINALISTS)

    def _tell(self, alive: int) -> None:
        most = max(scores.items for scores in self._study.scores.values())
        full = {arm: scores for arm, scores in self._study.scores.items() if scores.items == most}
        best = self._study.scores[best_first(full)[0]]
        cost = self._study.meter.cost
        self._study.listen(
            Progress(
                phase="search",
                done=min(1.0, self._study.spent / max(1, self._study.plan.search)),
                alive=alive,
                tried=len(self._study.scores),
                best=measure(best.values),
                tokens_per_second=cost.tokens / max(1e-9, self._study.meter.elapsed),
                left=max(0.0, 1 - self._study.spent / self._study.plan.total),
                best_is=self._study.fitter.alone.mean_name,
            )
        )
