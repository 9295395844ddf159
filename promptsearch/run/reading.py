"""Asks the best fixed prompts about more rows, which their readouts are then fitted on as well.

Invariant: no prompt is asked about a row that one of them shows; how many rows there are is written down where the
clock decides it.
"""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.candidate import Candidate
from promptsearch.events import Progress
from promptsearch.run.finalists import NO_OTHERS, Others
from promptsearch.run.phases import MOST_READ
from promptsearch.run.study import MUCH_TOO_SLOW, Study
from promptsearch.scoring import ROWS_A_LABEL

__all__ = ["Reading"]

_ENOUGH_READ = 250  # rows from which a prompt's readout gains less by more of them than by another prompt's beside it
_READ_AT_ONCE = 256  # rows, between two words to who listens


class Reading:
    """Reads more rows.

    Args:
        study: the search, after its race; how many search rows prompts were asked about is noted in its log.
    """

    def __init__(self, study: Study) -> None:
        self._study = study

    def read(
        self, members: Sequence[Candidate], search_items: Sequence[int], rows: Sequence[int]
    ) -> tuple[list[Candidate], Others]:
        """Ask members about the search rows that the others saw and about pool rows, as many as the plan pays for.

        Each is asked about pool rows of its own as far as there are enough, which tells more than the same rows for
        all, and about none that one of them shows. Where the plan pays for too few rows for each, the last ones go.

        Returns:
            The members that are left, and the pool rows that each was asked about, by its reading.
        """
        members = list(members)
        while len(members) > 1 and rows and not self._reads_enough(members, rows):
            members.pop()
        if not members or not rows:
            return members, NO_OTHERS
        self._study.meter.enter("read")
        shown = {number for candidate in members for number in candidate.shown}
        rows = [row for row in rows if row not in shown]
        self._study.store.record_fact("read rows", self._affordable(members, rows))
        count = int(self._study.store.fact("read rows"))
        most = max(self._study.searched(member) for member in members)
        others: dict[Candidate, Sequence[int]] = {}
        for place, candidate in enumerate(members):
            self._study.evaluator.answers(candidate, search_items[:most])
            self._study.asked_later[candidate] = most
            start = place * min(count, len(rows) // len(members))
            own = others[candidate.reading] = [*rows[start:], *rows[:start]][:count]
            for start in range(0, len(own), _READ_AT_ONCE):
                self._study.evaluator.answers(candidate, own[: start + _READ_AT_ONCE])
                part = min(1.0, (start + _READ_AT_ONCE) / len(own))
                self._study.listen(Progress("read", (place + part) / len(members)))
        return members, others

    def left(self) -> float:
        """Units that the plan has for reading, with what the race left of its share."""
        return self._study.plan.search + self._study.plan.read - self._study.spent

    def _reads_enough(self, members: Sequence[Candidate], rows: Sequence[int]) -> bool:
        """Whether each member is asked about enough rows, or about all there are."""
        most = max(self._study.searched(member) for member in members)
        count = self._payable(members, rows)
        return count >= len(rows) or most + count >= _ENOUGH_READ

    def _payable(self, members: Sequence[Candidate], rows: Sequence[int]) -> float:
        """How many pool rows the plan pays for with each member, with what the race left of its share."""
        row = self._study.price(members, rows) / len(rows)
        return min(len(rows), MOST_READ, (self.left() - self._price_of_seen(members)) / row)

    def _price_of_seen(self, members: Sequence[Candidate]) -> float:
        """Units of asking each member about the search rows that another one saw."""
        most = max(self._study.searched(member) for member in members)
        return sum(self._study.price([member], range(most - self._study.searched(member))) for member in members)

    def _affordable(self, members: Sequence[Candidate], rows: Sequence[int]) -> int:
        """How many pool rows each member is asked about: as many as plan, limits and clock allow."""
        plan, budget = self._study.plan, self._study.budget
        if not rows:
            return 0
        row = self._study.price(members, rows) / len(rows)
        units = self.left() - self._price_of_seen(members)
        counts = [self._payable(members, rows)]
        share = units / max(1, plan.total - self._study.spent)  # of what is left
        if budget.evaluations is not None and plan.unit != "evaluations":
            counts.append(share * (budget.evaluations - self._study.meter.cost.evaluations) / len(members))
        if budget.seconds is not None:
            left = 0.97 * budget.seconds - self._study.meter.elapsed
            in_time = share * left * min(1e9, self._study.measured_speed()) / row
            counts += [in_time] * (in_time < MUCH_TOO_SLOW * min(counts))
        count = max(0, int(min(counts)))
        return count if count >= min(len(rows), ROWS_A_LABEL * len(self._study.fitter.judge.labels or ())) else 0
