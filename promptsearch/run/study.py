"""What the phases of a search share: its space, its model, its log, and what may be spent.

Invariant: every decision follows from recorded answers and the plan, so that a resumed run repeats it.
Leaves out: the phases (:mod:`promptsearch.run.racing`, :mod:`promptsearch.run.nominating`,
:mod:`promptsearch.run.reading`, :mod:`promptsearch.run.confirming`).
"""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.budget import Budget, Meter
from promptsearch.candidate import Candidate
from promptsearch.evaluation import Evaluator
from promptsearch.events import Listener
from promptsearch.run.finalists import Fitter
from promptsearch.run.phases import Plan
from promptsearch.scoring import Judge
from promptsearch.search.base import Scores
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore

__all__ = ["MUCH_TOO_SLOW", "USUAL_FINALISTS", "Study"]

USUAL_FINALISTS = 3
MUCH_TOO_SLOW = 0.9  # share of the planned rows that the clock must allow at least for the plan to stand


class Study:
    """One search.

    Args:
        space: candidates.
        evaluator: asks the model.
        judge: scores answers, the prior included where it may be used.
        plan: what may be spent.
        budget: the user's limits, which hold even where the plan was wrong.
        meter: what was spent.
        listen: hears of progress.
        store: what was decided by the clock is written there, so that a resumed run decides the same.
        prefer: "accuracy" or "cheap", see :func:`promptsearch.search.front.choose`.

    Attributes:
        fitter: fits and judges; a race goes by its ``alone``, since a strong prior would make all candidates look
            alike.
        scores: what candidates scored in the race, by first appearance.
        asked_later: search rows that members of an ensemble were asked about after it.
    """

    def __init__(
        self,
        space: SearchSpace,
        evaluator: Evaluator,
        judge: Judge,
        plan: Plan,
        budget: Budget,
        meter: Meter,
        listen: Listener,
        store: RunStore,
        prefer: str = "accuracy",
    ) -> None:
        self.space = space
        self.evaluator = evaluator
        self.fitter = Fitter(evaluator, judge, space.space.calibrations)
        self.plan = plan
        self.budget = budget
        self.meter = meter
        self.listen = listen
        self.store = store
        self.prefer = prefer
        self.scores: dict[Candidate, Scores] = {}
        self.asked_later: dict[Candidate, int] = {}

    # -- the log --------------------------------------------------------------------------------------------

    def seen(self, candidate: Candidate, search_items: Sequence[int]) -> Sequence[int]:
        """The search rows that a candidate was asked about, of an ensemble those that all of its members were."""
        return search_items[: min(self.searched(member) for member in candidate.members)]

    def searched(self, candidate: Candidate) -> int:
        """How many search rows a candidate was asked about."""
        return max(self.scores[candidate].items, self.asked_later.get(candidate, 0))

    # -- prices ---------------------------------------------------------------------------------------------

    @property
    def spent(self) -> int:
        """Units of the plan that are spent."""
        cost = self.meter.cost
        return cost.tokens if self.plan.unit == "tokens" else cost.evaluations

    def budget_unit(self) -> str:
        """The limit that the plan was made from."""
        if self.plan.tokens_per_second:
            return "seconds"
        return "evaluations" if self.budget.tokens != self.plan.total else self.plan.unit

    def price(self, candidates: Sequence[Candidate], items: Sequence[int]) -> float:
        """Units of the plan that these items cost under these candidates."""
        if self.plan.unit == "evaluations":
            return float(len(candidates) * len(items))
        return sum(self.space.price(candidate, len(items), begun=True) for candidate in candidates)

    def price_of_asking(self, candidate: Candidate, items: Sequence[int]) -> float:
        """Units of the plan that asking an unrouted candidate about those items costs that it was not asked about."""
        count = self.evaluator.count_unasked(candidate, items)
        if self.plan.unit == "evaluations":
            return float(count)
        return self.space.price(candidate, count, begun=self.evaluator.has_begun(candidate))

    def affordable_test_items(
        self, candidates: Sequence[Candidate], items: Sequence[int], reserved: float = 0.0
    ) -> Sequence[int]:
        """As many test rows as the rest of the budget pays for.

        The plan decides, so that runs repeat; the clock cuts rows only where the plan would overrun it by much.

        Args:
            candidates: whatever is to be measured on each row.
            items: the test split.
            reserved: units of the plan that are spent on something else.
        """
        cost, budget = self.meter.cost, self.budget
        openings = sum(self.space.opening_tokens(each) for each in candidates if not self.evaluator.has_begun(each))
        each = sum(self.space.query_tokens(candidate) for candidate in candidates)
        rows: list[float] = [len(items)]
        if budget.tokens is not None:
            rows.append((budget.tokens - cost.tokens - openings - reserved) / each)
        if budget.evaluations is not None:
            counted = reserved if self.plan.unit == "evaluations" else 0.0
            rows.append((budget.evaluations - cost.evaluations - counted) / len(candidates))
        if self.plan.unit == "tokens":
            rows.append((self.plan.total - cost.tokens - openings - reserved) / each)
        count = min(rows)
        if budget.seconds is not None:
            in_time = (0.97 * budget.seconds - self.meter.elapsed) * self.measured_speed() / each
            count = in_time if in_time < MUCH_TOO_SLOW * count else count
        return items[: max(0, int(count))]

    def measured_speed(self) -> float:
        """Tokens per second so far, once there is something to go by; the plan's own speed before."""
        seconds = self.meter.elapsed - self.meter.cost.seconds.get("setup", 0.0)
        cost = self.meter.cost
        if seconds > 5 and cost.tokens > 5000:
            return cost.tokens / seconds
        return self.plan.tokens_per_second or float("inf")
