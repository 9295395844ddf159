"""A search from its race to its winner.

Three phases, each on its own rows: the race on the search split, finalists on the confirmation split, the winner and
the baselines on the test split, which is read once (:mod:`promptsearch.run.final_measurement`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.measurement import Measurement
from promptsearch.run.confirming import Confirmation
from promptsearch.run.finalists import Finalist
from promptsearch.run.nominating import nominated
from promptsearch.run.racing import Race
from promptsearch.run.study import Study
from promptsearch.search.base import Scores, Strategy
from promptsearch.search.insights import Insights

__all__ = ["Outcome", "search"]


@dataclass(frozen=True)
class Outcome:
    """What a search found.

    Attributes:
        winner: the chosen finalist.
        confirmed: its value on confirmation rows.
        scores: all search scores.
        order: candidates by first appearance.
        stopped_by: what ended the search.
        insights: what the log tells beside the winner.
    """

    winner: Finalist
    confirmed: Measurement
    scores: Mapping[Candidate, Scores]
    order: tuple[Candidate, ...]
    stopped_by: str
    insights: Insights


def search(
    study: Study,
    strategy: Strategy,
    anchors: Sequence[Candidate],
    search_items: Sequence[int],
    confirm_items: Sequence[int],
    more_items: Sequence[int],
    rng: np.random.Generator,
) -> Outcome:
    """Race, then confirm.

    Args:
        study: what is searched and what may be spent.
        strategy: which candidates are asked about, and about how many items.
        anchors: candidates that it begins with.
        search_items: rows that candidates race on.
        confirm_items: rows that finalists meet on.
        more_items: pool rows, on which a winner's readout may be fitted as well.
        rng: what the strategy draws from.
    """
    study.meter.enter("search")
    raced, stopped_by = Race(study).run(strategy, anchors, search_items, rng)
    confirmation = Confirmation(study, search_items)
    is_whole = stopped_by != "interrupt"  # else the same call may go on with the search, and confirms anew
    finalists = nominated(study, raced, search_items) if is_whole else raced
    study.meter.enter("confirm")
    if is_whole:
        confirm_items = confirmation.in_time(finalists, confirm_items)
    found = confirmation.run(finalists, confirm_items, more_items if is_whole else ())
    winner = found.winner.as_raced.members[0]
    insights = Insights.of(study.space, study.scores, winner, found.runners_up)
    return Outcome(found.winner, found.measured, dict(study.scores), tuple(study.scores), stopped_by, insights)
