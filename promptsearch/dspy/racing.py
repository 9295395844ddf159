"""The search over one program's demonstrations: the race, the confirmation of its finalists, what users see of it.

Invariant: what the budget allows, and where the clock ended a search, are written down, so that a resumed search
takes the same path.
Leaves out: how a candidate becomes a program and a score, see :mod:`promptsearch.dspy.compiling`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from promptsearch.budget import Budget
from promptsearch.candidate import Candidate
from promptsearch.dspy.adapter import STYLES
from promptsearch.dspy.compiling import Compilation, Weighings
from promptsearch.dspy.rows import Rows
from promptsearch.events import Listener, Note, Progress
from promptsearch.measurement import Difference, Measurement, measure, paired_difference
from promptsearch.search.base import Allowance, Scores, best_first
from promptsearch.search.drawing import draw_balanced
from promptsearch.search.front import choose
from promptsearch.search.log_knowledge import leaders
from promptsearch.search.registry import STRATEGIES
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore

__all__ = ["DemoRace", "RaceSettings", "attach_results", "without_results"]

_logger = logging.getLogger("promptsearch.dspy")

_CONFIRMING_SHARE = 0.15  # of the budget
_MOST_FINALISTS = 5
_RACED_WHOLE = 2.0  # candidates that the budget pays for on all search rows, at least
_FEWEST_RACED = 24
_TIMED_ROWS = 16
_TIME_SHARE = 0.85  # of what is left of a time budget, that is planned
_CANDIDATE_PROGRAMS = 16


@dataclass(frozen=True)
class RaceSettings:
    """How to search.

    Attributes:
        budget: what may be spent; None for ``programs`` programs on all validation rows.
        programs: see above.
        strategy: name of a strategy.
        prefer: see :func:`promptsearch.search.front.choose`.
        enough: percent of the score, on all raced rows, at which the search ends; None for no such end.
    """

    budget: Budget | None
    programs: int
    strategy: str
    prefer: str
    enough: float | None = None


@dataclass(frozen=True)
class _Finalist:
    """A candidate with its calibration, and its scores on the rows that confirm."""

    candidate: Candidate
    weighings: Weighings
    scores: Scores


class DemoRace:
    """Runs a strategy over a compilation, and makes its result a program.

    Args:
        settings: how to search.
        compilation: scores candidates.
        space: what they are; None where nothing can be shown.
        rows: which rows serve for what.
        store: where the plan is written down.
        rng: the only source of chance.
        listen: hears of progress.
        elapsed: seconds since the optimization began.
    """

    def __init__(
        self,
        settings: RaceSettings,
        compilation: Compilation,
        space: SearchSpace | None,
        rows: Rows,
        store: RunStore,
        rng: np.random.Generator,
        listen: Listener,
        elapsed: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._compilation = compilation
        self._space = space
        self._rows = rows
        self._store = store
        self._rng = rng
        self._listen = listen
        self._elapsed = elapsed
        self._scores: dict[Candidate, Scores] = {}  # as strategies know them
        self._measured: dict[Candidate, Scores] = {}  # as the metric gave them
        self._asked = 0
        self._ended_early = False  # by Ctrl-C, or because a program is good enough
        self._bounds: tuple[float, float] | None = None

    # -- the race -------------------------------------------------------------------------------------------

    def run(self) -> list[Candidate]:
        """Finalists, best first; the student without demonstrations where there is nothing to search."""
        zero = self._zero()
        if self._space is None or not self._space.shots or self._space.shots == (0,):
            return [zero]
        total = self._plan()
        items = self._raced_items(total)
        allowance = Allowance(total * (1 - _CONFIRMING_SHARE), len(items), by_evaluations=True)
        race = STRATEGIES[self._settings.strategy](self._space, self._anchors(), allowance, self._rng)
        try:
            request = next(race)
            while True:
                for candidate in request.candidates:
                    self._score(candidate, items[: request.items], total)
                    self._end_if_enough(candidate, len(items))
                request = race.send({each: self._scores[each] for each in request.candidates})
        except StopIteration as finished:
            return list(finished.value)
        except _EndedError:
            if not self._scores:
                raise
        except KeyboardInterrupt:
            if not self._scores:
                raise
            said = "stopped by Ctrl-C after %d candidates; confirming the best so far (Ctrl-C again to quit at once)"
            self._warn(said, len(self._scores))
            self._ended_early = True
        race.close()
        return leaders(self._scores, _MOST_FINALISTS)

    def _warn(self, said: str, *values: object) -> None:
        """Tell the log, which people see without a listener too."""
        _logger.warning(said, *values)
        self._listen(Note(said % values))

    def _zero(self) -> Candidate:
        """The program as it came, without demonstrations."""
        return Candidate(template=next(iter(STYLES)) if self._space is None else self._space.templates[0])

    def _plan(self) -> float:
        """Runs of the program that the budget allows, written down so that a resumed run has the same."""
        allowed = self._allowed()  # also where it is recorded: its runs are the first of every search
        self._store.record_fact("plan", allowed)
        recorded = self._store.fact("plan")
        self._listen(Note(f"plan: {recorded:,.0f} runs of the program"))
        return float(recorded)

    def _allowed(self) -> float:
        budget = self._settings.budget
        if budget is None:
            return float(self._settings.programs * len(self._rows.validation))
        limits = []
        if budget.evaluations is not None:
            limits.append(float(budget.evaluations))
        if budget.seconds is not None:
            rows = self._rows.search_items[:_TIMED_ROWS]
            self._compilation.outcomes(self._zero(), rows[:1])  # the first run pays for what all share
            begun = self._elapsed()
            self._compilation.outcomes(self._zero(), rows)
            each = max(1e-4, (self._elapsed() - begun) / max(1, len(rows) - 1))
            limits.append(max(1.0, _TIME_SHARE * (budget.seconds - self._elapsed()) / each))
        return min(limits)

    def _raced_items(self, total: float) -> list[int]:
        """Search rows that candidates race on: so few that the budget pays for several candidates on all."""
        items = self._rows.search_items
        payable = total / _RACED_WHOLE
        if payable >= len(items):
            return items
        doublings = max(0, int(np.log2(max(1.0, payable / _FEWEST_RACED))))
        return items[: _FEWEST_RACED * 2**doublings]

    def _anchors(self) -> list[Candidate]:
        """What must be tried: no demonstrations, the nearest ones, some balanced sets, and every wording with one."""
        assert self._space is not None
        space = self._space
        usual = Candidate(template=space.templates[0])
        found = [usual] if 0 in space.shots else []
        counts = [count for count in space.shots if count]
        if "retrieved" in space.space.modes:
            retrieving = [replace(usual, mode="retrieved", count=count) for count in counts[:3]]
            found += [each for each in retrieving if space.fits(each)][-1:]
        few = usual
        if "static" in space.space.modes:
            drawn = [replace(usual, demonstrations=draw_balanced(space, count, self._rng)) for count in counts[1:]]
            sets = [each for each in drawn if space.fits(each)]
            found += sets
            few = sets[0] if sets else usual
        wordings = [
            *(replace(few, template=style) for style in space.templates[1:]),
            *(replace(few, input_name=names[0], output_name=names[1]) for names in space.names[1:]),
        ]
        found += [wordings[place] for place in self._rng.permutation(len(wordings))]
        return found or [usual]

    def _score(self, candidate: Candidate, items: Sequence[int], total: float) -> None:
        # What is known costs no time: a resumed search takes all of it, wherever the clock stands by now.
        if self._scores and not self._compilation.knows(candidate, items) and self._out_of_time():
            raise _EndedError
        self._asked += 1
        seen = self._measured[candidate] = self._compilation.raced(candidate, items)
        self._scores[candidate] = self._scaled(seen)
        best = self._measured[best_first(self._scores)[0]]
        done = min(1.0, self._compilation.evaluations / total)
        self._listen(
            Progress("search", done, tried=len(self._scores), best=measure(best.values), left=max(0.0, 1 - done))
        )

    def _end_if_enough(self, candidate: Candidate, items: int) -> None:
        seen, enough = self._measured[candidate], self._settings.enough
        if enough is not None and seen.items == items and 100 * float(seen.values.mean()) >= enough:
            self._ended_early = True
            raise _EndedError

    def _scaled(self, seen: Scores) -> Scores:
        """Scores as strategies know them, about 0 to 1: a metric of another range is scaled by what came first."""
        if self._bounds is None:
            first = self._store.fact("bounds")
            if first is None:
                ends = [min(0.0, float(seen.values.min())), max(1.0, float(seen.values.max()))]
                self._store.record_fact("bounds", ends)
                first = self._store.fact("bounds")
            self._bounds = (float(first[0]), float(first[1]))
        low, high = self._bounds
        told = seen.confidence != seen.values  # a probability, where the right answer is known, needs no scaling
        scaled = (seen.values - low) / (high - low)
        return Scores(scaled, np.where(told, seen.confidence, scaled))

    def _out_of_time(self) -> bool:
        """Whether the clock ends the search here: as recorded, or else by the clock, which is then recorded."""
        recorded = self._store.fact("out of time")
        if recorded is not None:
            return bool(self._asked >= recorded)
        budget = self._settings.budget
        if budget is None or budget.seconds is None or self._elapsed() < budget.seconds * (1 - _CONFIRMING_SHARE):
            return False
        self._store.record_fact("out of time", self._asked)
        return True

    # -- the result -----------------------------------------------------------------------------------------

    def finished(self, finalists: Sequence[Candidate]) -> Any:
        """The best finalist as a program, measured on rows that the search did not see, if there are enough."""
        confirm, zero = self._rows.confirm_items, self._zero()
        kept = []
        candidates = self._with_zero(finalists[:_MOST_FINALISTS])
        for place, candidate in enumerate(candidates):
            self._listen(Progress("confirm", place / len(candidates), alive=len(candidates), tried=len(self._scores)))
            kept.append(self._confirmed(candidate))
        winner = kept[self._best_of(kept)]
        every = sorted({*self._seen(winner.candidate), *confirm})
        program = self._compilation.program(
            winner.candidate, self._compilation.best_weighings(winner.candidate, every)
        )
        program._compiled = True
        measured = measure(winner.scores.values)
        before = np.array([each.score for each in self._compilation.outcomes(zero, confirm)])
        improvement = paired_difference(winner.scores.values, before)
        attach_results(
            program,
            {
                "score": _percent(winner.scores),
                "validation": measured,
                "confirmed_apart": self._rows.confirmed_apart,
                "improvement": improvement,
                "candidate_programs": self._candidates(kept, winner),
                "trial_logs": self._trials(),
            },
        )
        self._tell_result(measured, improvement)
        return program

    def _with_zero(self, finalists: Sequence[Candidate]) -> list[Candidate]:
        """The finalists and the program without demonstrations, which runs on the rows that confirm in any case.

        It is run on as many search rows as they were, so that all are compared on the same ones.
        """
        zero = self._zero()
        if zero not in self._scores or zero in finalists:
            return list(finalists)
        items = max((self._scores[each].items for each in finalists if each in self._scores), default=0)
        if self._scores[zero].items < items:
            self._measured[zero] = self._compilation.raced(zero, self._rows.search_items[:items])
            self._scores[zero] = self._scaled(self._measured[zero])
        return [*finalists, zero]

    def _confirmed(self, candidate: Candidate) -> _Finalist:
        weighings = self._compilation.best_weighings(candidate, self._seen(candidate))
        scores = self._compilation.judged(candidate, self._rows.confirm_items, weighings)
        return _Finalist(candidate, weighings, scores)

    def _best_of(self, finalists: Sequence[_Finalist]) -> int:
        """Place of the best by the rows that confirm and the search rows that all of them ran on."""
        known = [self._scores[each.candidate] for each in finalists if each.candidate in self._scores]
        shortest = min((scores.items for scores in known), default=0)
        pooled = [
            np.concatenate([self._early(each.candidate, shortest), self._scaled(each.scores).steadied])
            for each in finalists
        ]
        tokens = [0.0 if self._space is None else self._space.prompt_tokens(each.candidate) for each in finalists]
        return choose(pooled, tokens, self._settings.prefer)

    def _tell_result(self, measured: Measurement, improvement: Difference) -> None:
        tried = [each for each in self._scores if each.shots or each.mode != "static"]
        if self._scores and not tried and not self._ended_early:
            self._warn("nothing but the program without demonstrations was tried: the budget paid for no more")
        rows = len(self._rows.confirm_items)
        if self._rows.confirmed_apart:
            self._listen(Note(f"confirmed on {rows} rows: {measured}; over no demonstrations {improvement}"))
        else:
            said = "the %d rows are too few to confirm on others than the search saw, so this is too high: %s"
            self._warn(said, rows, measured)

    def _seen(self, candidate: Candidate) -> list[int]:
        """Search rows that a candidate ran on; all of them where it did not race."""
        items = self._rows.search_items
        return items[: self._scores[candidate].items] if candidate in self._scores else items

    def _early(self, candidate: Candidate, items: int) -> Any:
        return self._scores[candidate].upto(items).steadied if candidate in self._scores else np.zeros(0)

    def _candidates(self, finalists: Sequence[_Finalist], winner: _Finalist) -> list[dict[str, Any]]:
        """What DSPy users find in ``candidate_programs``.

        The winner, the other finalists by their scores on the rows that confirm, then what else was tried, by its
        scores on the search rows that it ran on.
        """
        best = sorted(finalists, key=lambda each: (each is not winner, -float(each.scores.values.mean())))
        found = [
            _candidate_program(
                each.scores, number, self._compilation.program(each.candidate, each.weighings), confirmed=True
            )
            for number, each in enumerate(best)
        ]
        known = {each.candidate for each in finalists}
        others = [each for each in best_first(self._scores) if each not in known]
        for candidate in others[: max(0, _CANDIDATE_PROGRAMS - len(found))]:
            made = self._compilation.program(candidate)
            found.append(_candidate_program(self._measured[candidate], len(found), made, confirmed=False))
        return found

    def _trials(self) -> dict[int, dict[str, Any]]:
        """What was tried, in the order of the search."""
        return {
            number: {
                "score": _percent(seen),
                "rows": seen.items,
                "mode": candidate.mode,
                "demonstrations": candidate.shots,
                "key": candidate.key,
                "failures": self._compilation.failures(candidate, list(range(seen.items))),
            }
            for number, (candidate, seen) in enumerate(self._measured.items(), 1)
        }


class _EndedError(Exception):
    """The time is over, or a program is good enough."""


def attach_results(program: Any, results: Mapping[str, Any]) -> None:
    """Give a program its results as attributes; what it has of these names by itself stays."""
    own = set(vars(program)) | set(dir(type(program)))
    taken = sorted(own & set(results))
    if taken:
        _logger.warning("the program has %s of its own, so that these results are not told", ", ".join(taken))
    kept = {name: value for name, value in results.items() if name not in own}
    for name, value in kept.items():
        setattr(program, name, value)
    program._promptsearch_results = tuple(kept)


def without_results(program: Any) -> Any:
    """A program, in place, without what an earlier search told about it."""
    for name in getattr(program, "_promptsearch_results", ()):
        vars(program).pop(name, None)
    vars(program).pop("_promptsearch_results", None)
    return program


def _candidate_program(scores: Scores, number: int, program: Any, *, confirmed: bool) -> dict[str, Any]:
    return {
        "score": _percent(scores),
        "subscores": [float(value) for value in scores.values],
        "seed": number,
        "confirmed": confirmed,
        "program": program,
    }


def _percent(scores: Scores) -> float:
    """A mean as DSPy writes it."""
    return round(100 * float(scores.values.mean()), 2)
