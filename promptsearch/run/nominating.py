"""Which candidates of a race are confirmed: those that will do best once readouts tell their labels.

Invariant: only the log decides; the model is asked nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from promptsearch.candidate import Candidate
from promptsearch.events import Progress
from promptsearch.run.study import USUAL_FINALISTS, Study
from promptsearch.scoring import ROWS_A_LABEL
from promptsearch.search.base import best_first
from promptsearch.search.log_knowledge import candidate_effects

__all__ = ["nominated"]

_FEWEST_READ = 96  # search rows from which readouts rank candidates better than labels' words do
_GAIN_OF_READING = 0.1  # of a score, that asking about some hundred more rows may bring at most
_MOST_COMPARED = 12  # candidates, the race's best, whose readouts are compared: each takes a good part of a second


def nominated(study: Study, raced: Sequence[Candidate], items: Sequence[int]) -> Sequence[Candidate]:
    """Finalists.

    Args:
        study: the search, after its race.
        raced: the race's own finalists, best first.
        items: search rows.
    """
    return _fixed_first(study, _by_readout(study, raced, items))


def _by_readout(study: Study, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[Candidate]:
    """As many finalists, the first of them now those of all that raced long whose labels can be told best.

    Candidates race by labels' words, which few rows are enough for; on many rows a readout's own held-out score
    ranks better what it will do. The race's own best stays among the first three, which are confirmed on as many
    rows as the plan pays for.
    """
    longest = max((scores.items for scores in study.scores.values()), default=0)
    enough = max(_FEWEST_READ, ROWS_A_LABEL * len(study.fitter.judge.labels or ()), longest // 2)
    long = {each: scores for each, scores in study.scores.items() if scores.items >= enough}
    raced = best_first(long)[:_MOST_COMPARED]
    rows = items[: min((long[each].items for each in raced), default=0)]
    if not any(study.fitter.can_be_read(each, rows) for each in raced):
        return finalists
    worths: dict[Candidate, float] = {}
    for candidate in raced:
        worths[candidate] = study.fitter.worth(candidate, rows)
        study.listen(Progress("search", 1.0, len(raced), len(study.scores)))
    best = sorted(worths, key=lambda each: -worths[each])[:USUAL_FINALISTS]
    if finalists[0] not in best:
        best[-1] = finalists[0]
    return list(dict.fromkeys([*best, *finalists]))[: max(len(best), len(finalists))]


def _fixed_first(study: Study, finalists: Sequence[Candidate]) -> Sequence[Candidate]:
    """The finalists, first a prompt that may be asked about more rows and raced as long, unless all lag far.

    Only fixed prompts are asked about further rows before the confirmation, and have yet to gain by them.
    """
    if not study.plan.read or study.fitter.may_be_read(finalists[0]):
        return finalists
    effects = {each: round(effect, 9) for each, effect in candidate_effects(study.scores).items()}
    rows = min(study.scores[each].items for each in finalists)
    long = [each for each in effects if study.scores[each].items >= rows and study.fitter.may_be_read(each)]
    ranked = sorted(long, key=lambda each: (each not in finalists, -effects[each], each.key))
    if not ranked or effects[ranked[0]] < max(effects[each] for each in finalists) - _GAIN_OF_READING:
        return finalists
    found = ranked[0]
    return [found, *(each for each in finalists if each != found)]
