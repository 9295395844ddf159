"""What each phase of a search may spend: a budget turned into units for the race, for reading and for confirmation.

Invariant: a plan follows from the budget, the speed and the prices that it is given; the clock has no say in it.
Leaves out: spending it (:mod:`promptsearch.run.searching`).
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any

from promptsearch.budget import Budget
from promptsearch.candidate import Candidate
from promptsearch.errors import BudgetError
from promptsearch.search.space import SearchSpace

__all__ = [
    "FEWEST_CONFIRM",
    "FEWEST_TEST",
    "MOST_READ",
    "OVERSPENT",
    "WANTED_TEST",
    "Plan",
    "make_plan",
    "require_enough",
    "tokens_in_time",
]

FEWEST_CONFIRM = 30
FEWEST_TEST = 30
WANTED_TEST = 50  # rows under which baselines are left out rather than measured on fewer
MOST_READ = 2000  # rows that one readout is fitted on beyond the search's: more add little
OVERSPENT = 1.1  # of its units, that a race may spend at most: prices are expectations

_SEARCH_SHARE = 0.6
_LEAST_SEARCH_SHARE = 0.2  # where a budget is so small that measuring would take nearly all
_CONFIRM_SHARE = 0.12
_READ_SHARE = 0.33  # of the search's units, for more rows that a finalist's readout is fitted on
_FEWEST_LOOKS = 24
_ENOUGH = 4  # times what one prompt needs


@dataclass(frozen=True)
class Plan:
    """What each phase may spend.

    Attributes:
        unit: "tokens" or "evaluations".
        total: units for the whole run.
        search: units for the race.
        confirm: units for the confirmation.
        tokens_per_second: speed behind a plan made from a time; 0 otherwise.
        read: units for asking a finalist about further labelled rows, which its readout is fitted on.
    """

    unit: str
    total: int
    search: int
    confirm: int
    tokens_per_second: float = 0.0
    read: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    def __str__(self) -> str:
        speed = f" (at {self.tokens_per_second:,.0f} tokens/s)" if self.tokens_per_second else ""
        read = f"{self.read:,} to read more rows, " if self.read else ""
        shares = f"{self.search:,} to search, {self.confirm:,} to confirm, {read}the rest to test"
        return f"{self.total:,} {self.unit}{speed}: {shares}"


def make_plan(
    budget: Budget,
    *,
    tokens_per_second: float,
    setup_seconds: float,
    most_to_measure: float = math.inf,
    least_to_measure: float = 0.0,
    tokens_per_evaluation: float = 0.0,
    row_to_read: float = 0.0,
    rows_to_read: int = 0,
    fewest_to_read: int = 0,
    most_tokens: float = math.inf,
) -> Plan:
    """Turn a budget into a plan.

    Args:
        budget: what the user allows.
        tokens_per_second: speed of the model on this machine; used for a budget in time only.
        setup_seconds: expected seconds of loading and embedding.
        most_to_measure: units that confirmation and final measurement can take at most; what they leave of their
            shares goes to the search.
        least_to_measure: tokens that they take at least, which the search leaves them.
        tokens_per_evaluation: of a cheap prompt; a plan in tokens allows no more of these than the budget does
            evaluations.
        row_to_read: units of asking a winner about one further labelled row, which make a readout better; 0 where it
            cannot be read.
        rows_to_read: how many such rows may be asked about.
        fewest_to_read: under so many nothing is set aside for them.
        most_tokens: that a plan made from a time may come to.
    """
    plan = _plan_without_reading(
        budget,
        tokens_per_second,
        setup_seconds,
        most_to_measure,
        least_to_measure,
        tokens_per_evaluation,
        most_tokens,
    )
    read = int(min(_READ_SHARE * plan.search, rows_to_read * row_to_read))
    if read < min(fewest_to_read, rows_to_read) * row_to_read:
        return plan
    return replace(plan, search=plan.search - read, read=read)


def _plan_without_reading(
    budget: Budget,
    tokens_per_second: float,
    setup_seconds: float,
    most_to_measure: float,
    least_to_measure: float,
    tokens_per_evaluation: float,
    most_tokens: float,
) -> Plan:
    if budget.tokens is None and budget.evaluations is not None and budget.seconds is None:
        least = FEWEST_CONFIRM + 2 * FEWEST_TEST
        return _shared_out("evaluations", budget.evaluations, 0.0, most_to_measure, least)
    totals = [] if budget.tokens is None else [budget.tokens]
    if budget.evaluations is not None and tokens_per_evaluation > 0:
        totals.append(max(1, int(budget.evaluations * tokens_per_evaluation)))
    if budget.seconds is not None:
        totals.append(int(min(tokens_in_time(budget.seconds, setup_seconds, tokens_per_second), most_tokens)))
    total = min(totals)
    by_time = budget.seconds is not None and total == totals[-1]
    return _shared_out("tokens", total, tokens_per_second if by_time else 0.0, most_to_measure, least_to_measure)


def tokens_in_time(seconds: float, setup_seconds: float, tokens_per_second: float) -> int:
    """Tokens that a time comes to, loading and embedding taken off.

    Fits and files take time, but a search's batches run faster than those that the speed was measured on.
    """
    left = max(0.25 * seconds, seconds - setup_seconds)
    return max(1, int(round(left * tokens_per_second, -2)))


def _shared_out(
    unit: str,
    total: int,
    speed: float = 0.0,
    most_to_measure: float = math.inf,
    least_to_measure: float = 0.0,
) -> Plan:
    search = min(max(_SEARCH_SHARE * total, total - most_to_measure), (total - least_to_measure) / OVERSPENT)
    search = max(search, _LEAST_SEARCH_SHARE * total)
    return Plan(
        unit, total, int(search), min(int(_CONFIRM_SHARE * total), total - int(search)), tokens_per_second=speed
    )


def require_enough(budget: Budget, plan: Plan, space: SearchSpace, zero_shot: Candidate) -> None:
    """Refuse a budget that cannot pay for one candidate and the measurement of it.

    Raises:
        BudgetError: saying about how much is needed, and what to allow, in seconds where the plan was made from a
            time.
    """
    rows = _FEWEST_LOOKS + FEWEST_CONFIRM + 2 * FEWEST_TEST
    needed = rows if plan.unit == "evaluations" else space.price(zero_shot, rows)
    if plan.total < needed:
        wanted = f"{_ENOUGH * needed:,.0f} {plan.unit}"
        given = plan.total in (budget.tokens, budget.evaluations)
        comes_to = "" if given else f", which comes to {plan.total:,} {plan.unit},"
        if plan.tokens_per_second and budget.seconds is not None:
            lacking = (_ENOUGH * needed - plan.total) / plan.tokens_per_second
            wanted = f"{-(-(budget.seconds + lacking) // 10) * 10:.0f} seconds on this machine"
        raise BudgetError(
            f"the budget of {budget}{comes_to} is too small for this task, which needs about {needed:,.0f} "
            f"{plan.unit} to try and measure a single prompt; with some {wanted} there is something to search among"
        )
