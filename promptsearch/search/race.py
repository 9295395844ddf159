"""A race: candidates scored on growing prefixes of one item order, within an allowance.

Invariant: what a candidate is charged is what it adds; queries of a route that were scored under another candidate
cost nothing again.
Leaves out: which candidates enter, see the strategies.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, best_first
from promptsearch.search.elimination import survivors as unbeaten_arms
from promptsearch.search.log_knowledge import TRUSTED_ITEMS, leaders
from promptsearch.search.space import SearchSpace

__all__ = ["FIRST_RUNG", "Race", "rungs_for"]

FIRST_RUNG = 24
_KEEP = 0.5
_ANCHOR_SHARE = 0.3  # of the allowance, for first looks at candidates that must be tried


class Race:
    """Scores seen so far, what is left to spend, and the rungs.

    Args:
        space: what the candidates are.
        allowance: what may be spent.

    Attributes:
        rungs: cumulative items of a race's rounds, the last one all items.
        short_rungs: those after which a candidate can be trusted to lead.
    """

    def __init__(self, space: SearchSpace, allowance: Allowance) -> None:
        self.space = space
        self.allowance = allowance
        self.left = allowance.total
        self.scores: dict[Candidate, Scores] = {}
        self.rungs = rungs_for(allowance.items)
        self.short_rungs = tuple(rung for rung in self.rungs if rung <= TRUSTED_ITEMS) or self.rungs[:1]
        self._given: dict[tuple[Candidate, int], Scores] = {}  # as each rung gave them
        self._read: dict[Candidate, NDArray[np.bool_]] = {}  # which items each prompt was asked about

    # -- prices ---------------------------------------------------------------------------------------------

    def price(self, candidate: Candidate, start: int, stop: int) -> float:
        """Expected units of scoring items ``start`` to ``stop``, without what was asked before."""
        total = 0.0
        for reading, wanted, begun in self._readings(candidate, start, stop):
            known = self._read.get(reading)
            new = int(wanted.sum()) if known is None else int((wanted & ~known).sum())
            total += self.allowance.price(self.space, reading, new, begun=known is not None or begun)
        return total

    def price_of_race(self, arms: Sequence[Candidate], rungs: Sequence[int] = ()) -> float:
        """Expected units of a race of these arms, with the mean arm's price at each rung; all rungs without any."""
        total, alive, start = 0.0, float(len(arms)), 0
        for stop in rungs or self.rungs:
            mean = sum(self.price(arm, start, stop) for arm in arms) / len(arms)
            total += max(1.0, alive) * mean
            alive, start = alive * _KEEP, stop
        return total

    def affordable(self, arms: Sequence[Candidate], start: int, stop: int, units: float) -> list[Candidate]:
        """The arms whose items ``start`` to ``stop`` so many units pay for.

        Those that come first are paid first; one that is too dear is passed over.
        """
        kept: list[Candidate] = []
        for arm in arms:
            price = self.price(arm, start, stop)
            if price <= units:
                units -= price
                kept.append(arm)
        return kept

    def _readings(
        self, candidate: Candidate, start: int, stop: int
    ) -> Iterator[tuple[Candidate, NDArray[np.bool_], bool]]:
        """The prompts that a candidate consists of, the items each is asked about, and whether it was before."""
        wanted = np.zeros(self.allowance.items, dtype=bool)
        wanted[start:stop] = True
        if candidate.mode != "routed":
            yield candidate.reading, wanted, start > 0
            return
        clusters = self.space.clusters[len(candidate.routes)].of_items[: self.allowance.items]
        for cluster, route in enumerate(self.space.routes(candidate.reading)):
            mine = clusters == cluster
            if (wanted & mine).any():
                yield route, wanted & mine, bool(mine[:start].any())

    # -- scoring --------------------------------------------------------------------------------------------

    def seen(self, candidate: Candidate) -> int:
        """Items that a candidate was scored on."""
        return self.scores[candidate].items if candidate in self.scores else 0

    def score(
        self, candidates: Sequence[Candidate], items: int
    ) -> Generator[Request, Mapping[Candidate, Scores], None]:
        """Have candidates scored on the first ``items`` items."""
        if not candidates:
            return
        for candidate in candidates:
            self.left -= self.price(candidate, 0, items)
            for reading, wanted, _ in self._readings(candidate, 0, items):
                known = self._read.setdefault(reading, np.zeros(self.allowance.items, dtype=bool))
                known |= wanted
        found = yield Request(tuple(candidates), items)
        self.scores.update(found)
        self._given.update({(candidate, items): scores for candidate, scores in found.items()})

    def first_looks(
        self, anchors: Sequence[Candidate]
    ) -> Generator[Request, Mapping[Candidate, Scores], list[Candidate]]:
        """Score as many anchors on the first rung as their share of what is left pays for, the cheapest at least.

        Returns those.
        """
        known = list(dict.fromkeys(anchors))
        looked = self.affordable(known, 0, self.rungs[0], _ANCHOR_SHARE * self.left)
        looked = looked or [min(known, key=lambda anchor: self.price(anchor, 0, self.rungs[0]))]
        yield from self.score(looked, self.rungs[0])
        return looked

    def run(
        self,
        arms: Sequence[Candidate],
        against: Candidate | None = None,
        rungs: Sequence[int] = (),
        reserve: float | None = None,
    ) -> Generator[Request, Mapping[Candidate, Scores], None]:
        """Successive halving: the better half goes on, without those that a rival beats by a paired test.

        Args:
            arms: who races.
            against: an arm goes on only while it is not measurably behind this one.
            rungs: cumulative items of each round; all rungs without any.
            reserve: units that the race leaves untouched; None for a race that scores all its arms on the first
                rung and one on each further rung that has any left, even where that costs more than is left.
        """
        alive = list(arms)
        stops = tuple(rungs) or self.rungs
        for rung, items in enumerate(stops):
            start = stops[rung - 1] if rung else 0
            if reserve is not None:
                alive = self.affordable(alive, start, items, self.left - reserve)
            elif rung:
                alive = self.affordable(alive, start, items, self.left) or alive[:1]
            yield from self.score(alive, items)
            if not alive or rung == len(stops) - 1:
                return
            ranked = best_first({arm: self.scores[arm] for arm in alive}, items)
            keep = max(1, int(np.ceil(len(ranked) * _KEEP)))
            unbeaten = set(unbeaten_arms({arm: self.scores[arm].upto(items) for arm in ranked[:keep]}))
            alive = [arm for arm in ranked[:keep] if arm in unbeaten and not self.is_behind(arm, against, items)]

    def survivors(self, count: int) -> list[Candidate]:
        """The best candidates among those that were scored on the most items."""
        most = max(scores.items for scores in self.scores.values())
        full = {arm: scores for arm, scores in self.scores.items() if scores.items == most}
        return best_first(full)[:count]

    def leaders(self, count: int) -> list[Candidate]:
        """See :func:`promptsearch.search.log_knowledge.leaders`."""
        return leaders(self.scores, count)

    def finalists(self, count: int, fewest: int) -> list[Candidate]:
        """The leaders; where fewer than ``fewest`` can be trusted, also the best of those that were seen longest."""
        found = self.leaders(count)
        others = {arm: seen for arm, seen in self.scores.items() if arm not in found}
        while len(found) < fewest and others:
            longest = max(seen.items for seen in others.values())
            best = best_first({arm: seen for arm, seen in others.items() if seen.items == longest})[0]
            found.append(best)
            del others[best]
        return found

    def is_behind(self, arm: Candidate, against: Candidate | None, items: int) -> bool:
        """Whether an arm lies more than one standard error of the paired difference behind another.

        Both by the scores that so many items gave: those of more items may come from calibrations fitted on more.
        """
        if against is None:
            return False
        common = min(items, self.seen(against))
        kept = (self._given.get((each, common), self.scores[each].upto(common)) for each in (arm, against))
        ours, theirs = (scores.steadied for scores in kept)
        difference = theirs - ours
        error = float(difference.std(ddof=1)) / np.sqrt(common) if common > 1 else 0.0
        return float(difference.mean()) > error + 1e-9


def rungs_for(items: int) -> tuple[int, ...]:
    """Cumulative items of each rung: doubling from the first, ending with all."""
    rungs = []
    size = min(FIRST_RUNG, items)
    while size < items:
        rungs.append(size)
        size *= 2
    if rungs and items < 1.3 * rungs[-1]:
        rungs.pop()  # a last rung of a few items more would only repeat the choice before it
    return (*rungs, items)
