"""Runs a strategy: scores what it asks for, stops when the budget ends, and measures what it found.

Three phases, each on its own rows: the race on the search split, finalists on the confirmation split, the winner and
the baselines on the test split, which is read once. Between the first two the best fixed prompts may be asked about
pool rows, which their readouts are then fitted on as well; together they are finalists too, as ensembles. The race
compares prompts by themselves; the prior joins when finalists are weighed.
Invariant: a phase spends what the plan gives it; every decision follows from recorded answers and the plan, so that
a resumed run repeats them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.budget import Budget, Meter
from promptsearch.candidate import Candidate
from promptsearch.evaluation import Evaluator
from promptsearch.events import Listener, Note, Progress
from promptsearch.finalists import NO_OTHERS, Finalist, Fitter, Others, race_calibration, steadied
from promptsearch.lm.base import FloatArray
from promptsearch.measurement import Measurement, measure
from promptsearch.phases import FEWEST_CONFIRM, FEWEST_TEST, MOST_READ, OVERSPENT, Plan
from promptsearch.scoring import ROWS_A_LABEL, Judge
from promptsearch.search.base import Allowance, Scores, Strategy, best_first
from promptsearch.search.confidence_sequence import certainly_better
from promptsearch.search.front import choose
from promptsearch.search.insights import Insights
from promptsearch.search.log_knowledge import TRUSTED_ITEMS, candidate_effects, leaders
from promptsearch.search.space import SearchSpace
from promptsearch.store import RunStore

__all__ = ["Outcome", "Study"]

_FEWEST_READ = 96  # search rows from which readouts rank candidates better than labels' words do
_GAIN_OF_READING = 0.1  # of a score, that asking about some hundred more rows may bring at most
_MOST_COMPARED = 12  # candidates, the race's best, whose readouts are compared: each takes a good part of a second
_ENOUGH_READ = 250  # rows from which a prompt's readout gains less by more of them than by another prompt's beside it
_READ_AT_ONCE = 256  # rows, between two words to who listens
_USUAL_FINALISTS = 3
_FEWEST_RACED = TRUSTED_ITEMS  # search rows
_RACED_WHOLE = 8  # prompts without demonstrations that the race could ask about all its rows
_MUCH_TOO_SLOW = 0.9  # share of the planned rows that the clock must allow at least for the plan to stand
_FEWEST_HURRIED = 10  # rows of a confirmation for which there is no time
_CONFIRMED_PARTS = (0.34, 0.67)  # of the confirmation rows, after which finalists that are certainly worse go


@dataclass(frozen=True)
class Outcome:
    """What a study found.

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


class _BudgetMetError(Exception):
    """Ends the race; its argument says what was met."""


def _is_clearly_better(gains: FloatArray) -> bool:
    """Whether paired gains lie more than a standard error above none."""
    return bool(gains.mean() > gains.std(ddof=1) / len(gains) ** 0.5) if len(gains) > 1 else False


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
        store: where it is written that the clock ended a race, so that a resumed run ends it there too.
        prefer: "accuracy" or "cheap", see :func:`promptsearch.search.front.choose`.

    Attributes:
        fitter: fits and judges; a race goes by its ``alone``, since a strong prior would make all candidates look
            alike.
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
        self._budget = budget
        self._meter = meter
        self._listen = listen
        self._store = store
        self._prefer = prefer
        self._asked = 0
        self._scores: dict[Candidate, Scores] = {}
        self._read: dict[Candidate, int] = {}  # search rows that members of an ensemble were asked about

    @property
    def spent(self) -> int:
        """Units of the plan that are spent."""
        cost = self._meter.cost
        return cost.tokens if self.plan.unit == "tokens" else cost.evaluations

    def run(
        self,
        strategy: Strategy,
        anchors: Sequence[Candidate],
        search_items: Sequence[int],
        confirm_items: Sequence[int],
        more_items: Sequence[int],
        rng: np.random.Generator,
    ) -> Outcome:
        """Race, then confirm.

        Args:
            strategy: which candidates are asked about, and about how many items.
            anchors: candidates that it begins with.
            search_items: rows that candidates race on.
            confirm_items: rows that finalists meet on.
            more_items: pool rows, on which a winner's readout may be fitted as well.
            rng: what the strategy draws from.
        """
        self._meter.enter("search")
        raced, stopped_by = self._race(strategy, anchors, search_items, rng)
        finalists: Sequence[Candidate] = raced
        if stopped_by != "interrupt":
            finalists = self._fixed_first(self._by_readout(raced, search_items))
        self._meter.enter("confirm")
        if stopped_by != "interrupt":  # the same call may go on with the search, and confirms anew
            confirm_items = self._in_time(finalists, confirm_items)
        more_items = () if stopped_by == "interrupt" else more_items
        winner, confirmed = self._confirm(finalists, search_items, confirm_items, more_items)
        insights = Insights.of(self.space, self._scores, (winner.raced or winner.candidate).members[0])
        return Outcome(winner, confirmed, dict(self._scores), tuple(self._scores), stopped_by, insights)

    # -- the race -------------------------------------------------------------------------------------------

    def _race(
        self,
        strategy: Strategy,
        anchors: Sequence[Candidate],
        items: Sequence[int],
        rng: np.random.Generator,
    ) -> tuple[list[Candidate], str]:
        units = max(1.0, self.plan.search - self.spent)
        items = self._raced_items(units, items)
        allowance = Allowance(units, len(items), self.plan.unit == "evaluations")
        limit = self.spent + allowance.total * OVERSPENT
        race = strategy(self.space, anchors, allowance, rng)
        try:
            request = next(race)
            while True:
                for candidate in request.candidates:
                    self._score(candidate, items[: request.items], limit, len(request.candidates))
                request = race.send({candidate: self._scores[candidate] for candidate in request.candidates})
        except StopIteration as finished:
            stopped_by = self._budget_unit() if self.spent >= 0.8 * self.plan.search else "strategy"
            return list(finished.value), stopped_by
        except _BudgetMetError as met:
            stopped_by = str(met)
        except KeyboardInterrupt:
            if not self._scores:
                raise
            self._listen(Note("stopped; measuring the best prompt so far (Ctrl-C again to quit at once)"))
            stopped_by = "interrupt"
        race.close()
        return self._best_so_far(), stopped_by

    def _raced_items(self, units: float, items: Sequence[int]) -> Sequence[int]:
        """The rows that candidates race on: so few that the units pay for several candidates on all of them.

        A part of the rows is the fewest that race, twice as many, and so on, so that a race ends with a whole rung.
        """
        payable = units / (_RACED_WHOLE * self._price([Candidate()], [0]))
        if payable >= len(items):
            return items
        doublings = max(0, int(np.log2(max(1.0, payable / _FEWEST_RACED))))
        return items[: _FEWEST_RACED * 2**doublings]

    def _budget_unit(self) -> str:
        """The limit that the plan was made from."""
        if self.plan.tokens_per_second:
            return "seconds"
        return "evaluations" if self._budget.tokens != self.plan.total else self.plan.unit

    def _score(self, candidate: Candidate, items: Sequence[int], limit: float, alive: int) -> None:
        """Score a candidate on items, unless the budget is met."""
        if self._scores:  # the first candidate is scored whatever it costs: there must be a result
            self._require_budget(limit)
        self._asked += 1
        answers = self.evaluator.answers(candidate, items)
        self._scores[candidate] = self.fitter.alone.scores_for_race(items, answers, race_calibration(candidate))
        self._tell(alive)

    def _require_budget(self, limit: float) -> None:
        if self.spent >= limit:
            raise _BudgetMetError(self._budget_unit())
        cost, budget = self._meter.cost, self._budget
        remaining = 1.0 - self.plan.search / self.plan.total  # for confirmation, reading and test
        evaluations = None if self.plan.unit == "evaluations" else budget.evaluations
        if evaluations is not None and cost.evaluations >= evaluations * (1 - remaining):
            raise _BudgetMetError("evaluations")
        if budget.seconds is not None and self._out_of_time(budget.seconds * (1 - 0.8 * remaining)):
            raise _BudgetMetError("seconds")

    def _out_of_time(self, seconds: float) -> bool:
        """Whether the clock ends the race here: as recorded, or else by the clock, which is then recorded."""
        recorded = self._store.fact("out of time")
        if recorded is not None:
            return bool(self._asked >= recorded["after"])
        if self._meter.elapsed < seconds:
            return False
        self._store.record_fact("out of time", {"after": self._asked})
        return True

    def _best_so_far(self) -> list[Candidate]:
        """Finalists of an unfinished race."""
        return leaders(self._scores, _USUAL_FINALISTS)

    def _tell(self, alive: int) -> None:
        most = max(scores.items for scores in self._scores.values())
        full = {arm: scores for arm, scores in self._scores.items() if scores.items == most}
        best = self._scores[best_first(full)[0]]
        cost = self._meter.cost
        self._listen(
            Progress(
                phase="search",
                done=min(1.0, self.spent / max(1, self.plan.search)),
                alive=alive,
                tried=len(self._scores),
                best=measure(best.values),
                tokens_per_second=cost.tokens / max(1e-9, self._meter.elapsed),
                left=max(0.0, 1 - self.spent / self.plan.total),
            )
        )

    def _by_readout(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[Candidate]:
        """As many finalists, the first of them now those of all that raced long whose labels can be told best.

        Candidates race by labels' words, which few rows are enough for; on many rows a readout's own held-out score
        ranks better what it will do. The race's own best stays among the first three, which are confirmed on as many
        rows as the plan pays for.
        """
        longest = max((scores.items for scores in self._scores.values()), default=0)
        enough = max(_FEWEST_READ, ROWS_A_LABEL * len(self.fitter.judge.labels or ()), longest // 2)
        long = {each: scores for each, scores in self._scores.items() if scores.items >= enough}
        raced = best_first(long)[:_MOST_COMPARED]
        rows = items[: min((long[each].items for each in raced), default=0)]
        if not any(self.fitter.can_be_read(each, rows) for each in raced):
            return finalists
        worths: dict[Candidate, float] = {}
        for candidate in raced:
            worths[candidate] = self.fitter.worth(candidate, rows)
            self._listen(Progress("search", 1.0, len(raced), len(self._scores)))
        best = sorted(worths, key=lambda each: -worths[each])[:_USUAL_FINALISTS]
        if finalists[0] not in best:
            best[-1] = finalists[0]
        return list(dict.fromkeys([*best, *finalists]))[: max(len(best), len(finalists))]

    def _fixed_first(self, finalists: Sequence[Candidate]) -> Sequence[Candidate]:
        """The finalists, first a prompt that may be asked about more rows and raced as long, unless all lag far.

        Only fixed prompts are asked about further rows before the confirmation, and have yet to gain by them.
        """
        if not self.plan.read or self.fitter.may_be_read(finalists[0]):
            return finalists
        effects = {each: round(effect, 9) for each, effect in candidate_effects(self._scores).items()}
        rows = min(self._scores[each].items for each in finalists)
        long = [each for each in effects if self._scores[each].items >= rows and self.fitter.may_be_read(each)]
        ranked = sorted(long, key=lambda each: (each not in finalists, -effects[each], each.key))
        if not ranked or effects[ranked[0]] < max(effects[each] for each in finalists) - _GAIN_OF_READING:
            return finalists
        found = ranked[0]
        return [found, *(each for each in finalists if each != found)]

    # -- confirmation ---------------------------------------------------------------------------------------

    def _confirm(
        self,
        finalists: Sequence[Candidate],
        search_items: Sequence[int],
        confirm_items: Sequence[int],
        more_items: Sequence[int],
    ) -> tuple[Finalist, Measurement]:
        """Choose among finalists on rows that the race did not see."""
        finalists = self._measurable(finalists, confirm_items)
        items = self._affordable_items(finalists, confirm_items)
        finalists = finalists[: self._finalists(finalists, items)]
        members = self._members(finalists, items, bool(more_items))
        members, others = self._read_more(members, search_items, more_items)
        self._meter.enter("confirm")
        fitted = [self._fit(candidate, search_items, others) for candidate in finalists]
        fitted = self._not_certainly_worse(fitted, items)
        together = members if len(members) > 1 else []
        asked = list(dict.fromkeys(each.reading for each in [*(one.candidate for one in fitted), *together]))
        for place, reading in enumerate(asked):
            self.evaluator.answers(reading, items)
            self._listen(Progress("confirm", (place + 1) / len(asked), len(asked), len(self._scores)))
        if together:
            single = self._fit(members[0], search_items, others)
            sizes = range(2, len(members) + 1)
            fitted += [self._together(members[:size], single, search_items, others) for size in sizes]
        best = self._choose(fitted, search_items, items)
        confirmed = self.fitter.judge.measure(items, self.fitter.judged(fitted[best], items))
        return self._refitted(fitted[best], search_items, items), confirmed

    def _in_time(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[int]:
        """The confirmation rows that the clock leaves: as recorded, or else by the clock, which is then recorded.

        The plan decides how many are measured; the clock takes rows away only where the plan would overrun by much.
        """
        if self._budget.seconds is None:
            return items
        planned = len(self._affordable_items(finalists, items))
        left = 0.97 * self._budget.seconds - self._meter.elapsed
        share = self.plan.confirm / max(1, self.plan.total - self.plan.search)
        price = self._price(finalists[:_USUAL_FINALISTS], items) / len(items)
        rows = int(max(0.0, left * share) * min(1e9, self._measured_speed()) / price)
        count = len(items) if rows >= _MUCH_TOO_SLOW * planned else max(_FEWEST_HURRIED, rows)
        self._store.record_fact("confirm rows", count)
        return items[: int(self._store.fact("confirm rows"))]

    def _measurable(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[Candidate]:
        """Finalists that what is left pays for on the fewest rows of confirmation and test; else the cheapest."""
        rows = (FEWEST_CONFIRM + FEWEST_TEST) / len(items)
        prices = {each: rows * self._price([each], items) for each in finalists}
        left = self.plan.total - self.spent
        return [each for each in finalists if prices[each] <= left] or [min(finalists, key=lambda each: prices[each])]

    def _not_certainly_worse(self, finalists: Sequence[Finalist], items: Sequence[int]) -> list[Finalist]:
        """Finalists that a part of the rows does not rule out: the rest of the rows need not pay for those.

        The test holds however often it is made, see :mod:`promptsearch.search.confidence_sequence`.
        """
        kept = list(finalists)
        if self.fitter.judge.labels_alike:  # the test is about means over rows
            return kept
        for part in _CONFIRMED_PARTS:
            seen = items[: int(part * len(items))]
            if len(kept) < 2 or not seen:
                break
            scores = {finalist: self.fitter.judged(finalist, seen).scores for finalist in kept}
            best = max(kept, key=lambda finalist: float(scores[finalist].mean()))
            kept = [each for each in kept if certainly_better(scores[best] - scores[each]) <= 0]
        return kept

    def _price(self, candidates: Sequence[Candidate], items: Sequence[int]) -> float:
        """Units of the plan that these items cost under these candidates."""
        if self.plan.unit == "evaluations":
            return float(len(candidates) * len(items))
        return sum(self.space.price(candidate, len(items), begun=True) for candidate in candidates)

    def _affordable_items(self, finalists: Sequence[Candidate], items: Sequence[int]) -> Sequence[int]:
        """As many confirmation rows as the plan pays for with the usual finalists, 30 at least."""
        price = self._price(finalists[:_USUAL_FINALISTS], items)
        share = min(1.0, self.plan.confirm / max(1.0, price))
        return items[: max(min(FEWEST_CONFIRM, len(items)), int(share * len(items)))]

    def _finalists(self, finalists: Sequence[Candidate], items: Sequence[int]) -> int:
        """How many finalists the plan pays for on these rows.

        The usual ones may take what the fewest test rows leave of the whole; one is confirmed whatever it costs.
        """
        tested = 2 * self._price(finalists[:1], items) * FEWEST_TEST / len(items)  # with a baseline as dear
        left = self.plan.total - self.spent - tested
        count = 1
        while count < len(finalists):
            units = max(self.plan.confirm, left) if count < _USUAL_FINALISTS else self.plan.confirm
            if self._price(finalists[: count + 1], items) > units:
                break
            count += 1
        return count

    def _refitted(self, winner: Finalist, search_items: Sequence[int], confirm_items: Sequence[int]) -> Finalist:
        """The winner with its weights fitted on search and confirmation rows together, now that all is chosen."""
        if winner.weighing is None:
            return winner
        single = None if winner.single is None else self._refitted(winner.single, search_items, confirm_items)
        candidate = winner.raced or winner.candidate
        items = [*self._seen(candidate, search_items), *confirm_items]
        return replace(self.fitter.fit(candidate, items, winner.others), single=single)

    def _fit(self, candidate: Candidate, search_items: Sequence[int], others: Others) -> Finalist:
        return self.fitter.fit(candidate, self._seen(candidate, search_items), others)

    def _together(
        self, members: Sequence[Candidate], single: Finalist, search_items: Sequence[int], others: Others
    ) -> Finalist:
        """An ensemble, which needs no answers beyond those of its members; ``single`` is the first of them."""
        together = replace(members[0], ensemble=tuple(members[1:]))
        return replace(self._fit(together, search_items, others), single=single)

    def _members(self, finalists: Sequence[Candidate], items: Sequence[int], with_others: bool) -> list[Candidate]:
        """Those that may stand in an ensemble, best first: fixed prompts that can be read, finalists before others.

        One that finds demonstrations for each query, or routes it, would find a pool row itself. Prompts that differ
        in the order of the same demonstrations alone tell the same. As many are taken as can be confirmed and tested.

        Args:
            finalists: prompts that are confirmed in any case.
            items: rows of the confirmation.
            with_others: whether prompts that are none of these may stand in it too.
        """
        effects = candidate_effects(self._scores)
        others = sorted(effects, key=lambda arm: (-round(effects[arm], 9), arm.key))
        found: dict[tuple[object, ...], Candidate] = {}
        for candidate in (*finalists, *(others if with_others else ())):
            told = (candidate.template, candidate.input_name, candidate.output_name, frozenset(candidate.shown))
            if self.fitter.may_be_read(candidate) and told not in found:
                found[told] = candidate
        members = list(found.values())[: self.space.space.ensemble]
        if not members or members[0] not in finalists:
            return []
        left = self.plan.total - self.spent - max(0, self._left_to_read())
        while len(members) > 1:
            confirmed = self._price(list(dict.fromkeys([*finalists, *members])), items)
            if confirmed + 2 * self._price(members, range(FEWEST_TEST)) <= left:
                break
            members.pop()
        return members

    def _read_more(
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
        self._meter.enter("read")
        shown = {number for candidate in members for number in candidate.shown}
        rows = [row for row in rows if row not in shown]
        self._store.record_fact("read rows", self._affordable_to_read(members, rows))
        count = int(self._store.fact("read rows"))
        most = max(self._searched(member) for member in members)
        others: dict[Candidate, Sequence[int]] = {}
        for place, candidate in enumerate(members):
            self.evaluator.answers(candidate, search_items[:most])
            self._read[candidate] = most
            start = place * min(count, len(rows) // len(members))
            own = others[candidate.reading] = [*rows[start:], *rows[:start]][:count]
            for start in range(0, len(own), _READ_AT_ONCE):
                self.evaluator.answers(candidate, own[: start + _READ_AT_ONCE])
                part = min(1.0, (start + _READ_AT_ONCE) / len(own))
                self._listen(Progress("read", (place + part) / len(members)))
        return members, others

    def _reads_enough(self, members: Sequence[Candidate], rows: Sequence[int]) -> bool:
        """Whether each member is asked about enough rows, or about all there are."""
        most = max(self._searched(member) for member in members)
        count = self._payable_to_read(members, rows)
        return count >= len(rows) or most + count >= _ENOUGH_READ

    def _payable_to_read(self, members: Sequence[Candidate], rows: Sequence[int]) -> float:
        """How many pool rows the plan pays for with each member, with what the race left of its share."""
        row = self._price(members, rows) / len(rows)
        return min(len(rows), MOST_READ, (self._left_to_read() - self._price_of_seen(members)) / row)

    def _price_of_seen(self, members: Sequence[Candidate]) -> float:
        """Units of asking each member about the search rows that another one saw."""
        most = max(self._searched(member) for member in members)
        return sum(self._price([member], range(most - self._searched(member))) for member in members)

    def _left_to_read(self) -> float:
        """Units that the plan has for reading, with what the race left of its share."""
        return self.plan.search + self.plan.read - self.spent

    def _affordable_to_read(self, members: Sequence[Candidate], rows: Sequence[int]) -> int:
        """How many pool rows each member is asked about: as many as plan, limits and clock allow."""
        plan, budget = self.plan, self._budget
        if not rows:
            return 0
        row = self._price(members, rows) / len(rows)
        units = self._left_to_read() - self._price_of_seen(members)
        counts = [self._payable_to_read(members, rows)]
        share = units / max(1, plan.total - self.spent)  # of what is left
        if budget.evaluations is not None and plan.unit != "evaluations":
            counts.append(share * (budget.evaluations - self._meter.cost.evaluations) / len(members))
        if budget.seconds is not None:
            left = 0.97 * budget.seconds - self._meter.elapsed
            in_time = share * left * min(1e9, self._measured_speed()) / row
            counts += [in_time] * (in_time < _MUCH_TOO_SLOW * min(counts))
        count = max(0, int(min(counts)))
        return count if count >= min(len(rows), ROWS_A_LABEL * len(self.fitter.judge.labels or ())) else 0

    def _choose(
        self, finalists: Sequence[Finalist], search_items: Sequence[int], confirm_items: Sequence[int]
    ) -> int:
        """The finalist to take, by its scores on confirmation and search rows together and its prompt's tokens.

        Scores count as deployed and of the prompt alone: a strong prior makes finalists look alike. Where accuracy is
        preferred, the largest ensemble is taken that nothing is better than by more than a standard error: several
        prompts do better far more often than some hundred rows can tell.
        """
        seen = [self._seen(finalist.raced or finalist.candidate, search_items) for finalist in finalists]
        shortest = min(map(len, seen))
        pooled = []
        for finalist, items in zip(finalists, seen, strict=True):
            early = [judged[:shortest] for judged in self.fitter.held_out(finalist, items)]
            late = [
                steadied(self.fitter.judged(finalist, confirm_items)),
                steadied(self.fitter.judged_alone(finalist, confirm_items)),
            ]
            pooled.append(np.concatenate([np.mean(early, axis=0), np.mean(late, axis=0)]))
        tokens = [self.space.prompt_tokens(finalist.candidate) for finalist in finalists]
        weights = self.fitter.judge.weights([*search_items[:shortest], *confirm_items])
        pooled = [scores * weights / weights.max() for scores in pooled]
        best = choose(pooled, tokens, self._prefer)
        together = [place for place, finalist in enumerate(finalists) if finalist.candidate.ensemble]
        if self._prefer != "accuracy" or best in together:
            return best
        kept = (place for place in reversed(together) if not _is_clearly_better(pooled[best] - pooled[place]))
        return next(kept, best)

    def _seen(self, candidate: Candidate, search_items: Sequence[int]) -> Sequence[int]:
        """The search rows that a candidate was asked about, of an ensemble those that all of its members were."""
        return search_items[: min(self._searched(member) for member in candidate.members)]

    def _searched(self, candidate: Candidate) -> int:
        return max(self._scores[candidate].items, self._read.get(candidate, 0))

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
        cost, budget = self._meter.cost, self._budget
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
            in_time = (0.97 * budget.seconds - self._meter.elapsed) * self._measured_speed() / each
            count = in_time if in_time < _MUCH_TOO_SLOW * count else count
        return items[: max(0, int(count))]

    def _measured_speed(self) -> float:
        """Tokens per second so far, once there is something to go by; the plan's own speed before."""
        seconds = self._meter.elapsed - self._meter.cost.seconds.get("setup", 0.0)
        cost = self._meter.cost
        if seconds > 5 and cost.tokens > 5000:
            return cost.tokens / seconds
        return self.plan.tokens_per_second or float("inf")
