"""Where new candidates come from, and which sources deserve more of them.

Sources explore (fresh draws of each mode) or exploit (mutations, recombinations, other orders, routed candidates put
together from the log). How the allowance is split between them is measured: each source is a bandit's arm, drawn by
Thompson sampling of how often its candidates held their own against the incumbent at first look, per price (Thompson
1933; Chapelle and Li 2011).
Fresh sets and mutations are drawn several at once where a predictor is trusted, and the most promising one is kept.
Invariant: a proposal is new, fits, and is allowed by the space.
Leaves out: scoring.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.assembly import assemble
from promptsearch.search.datamodel import Datamodel, fit_datamodel
from promptsearch.search.drawing import Preferences, draw_fresh, draw_reasoned, draw_retrieved, draw_routed
from promptsearch.search.effects import choice_effects
from promptsearch.search.log_knowledge import conditional_accuracy
from promptsearch.search.mutation import mutate, recombine
from promptsearch.search.order import neighbours
from promptsearch.search.race import Race
from promptsearch.search.surrogate import Surrogate, fit_surrogate

__all__ = ["Knowledge", "Proposals"]

_AT_ONCE = 6  # draws among which a trusted predictor chooses
_FORCED = ("retrieved", "routed", "reasoned")  # dear sources, which are drawn a few times before their price decides
_FORCED_TRIES = 2
_TRIES = 40  # for each candidate wanted


@dataclass(frozen=True)
class Knowledge:
    """What the log tells.

    Attributes:
        weights: conditional accuracy of examples.
        preferences: effects of the other choices.
        datamodel: predicts sets from their members; None while there are too few.
        surrogate: predicts sets from similarities; None without similarities.
    """

    weights: Mapping[int, float]
    preferences: Preferences
    datamodel: Datamodel | None
    surrogate: Surrogate | None

    @classmethod
    def of(cls, race: Race) -> Knowledge:
        """Everything that a race's scores tell so far."""
        space = race.space
        return cls(
            conditional_accuracy(race.scores),
            choice_effects(race.scores),
            fit_datamodel(race.scores, space.labels_by_id),
            None if space.attention is None else fit_surrogate(race.scores, space.attention),
        )

    def most_promising(self, candidates: Sequence[Candidate]) -> Candidate:
        """The candidate that the best trusted predictor expects most of; the first one without any.

        Predictors are trusted to rank candidates of equally many demonstrations, so only those of the first one's
        number are compared.
        """
        candidates = [each for each in candidates if each.shots == candidates[0].shots]
        predictors = [each for each in (self.datamodel, self.surrogate) if each is not None and each.is_trusted]
        if not predictors or len(candidates) == 1:
            return candidates[0]
        best = max(predictors, key=lambda each: each.rank_correlation or 0.0)
        expected = np.nan_to_num(best.predict(candidates), nan=-np.inf)
        return candidates[int(expected.argmax())]


_Source = Callable[[Race, Sequence[Candidate], Knowledge, np.random.Generator], Candidate | None]


class Proposals:
    """Proposes candidates to one race.

    Args:
        rng: the only source of randomness.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._source_of: dict[Candidate, str] = {}
        self.successes: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self._forced: Counter[str] = Counter()

    def newcomers(self, race: Race, survivors: Sequence[Candidate], count: int, units: float) -> list[Candidate]:
        """Up to ``count`` new candidates whose first looks cost no more than ``units`` together."""
        knowledge = Knowledge.of(race)
        found: list[Candidate] = []
        left = units
        for _ in range(_TRIES * count):
            if len(found) == count:
                break
            source = self._drawn_source(race, survivors)
            arm = _SOURCES[source](race, survivors, knowledge, self._rng)
            if arm is None or arm in found or arm in race.scores or not race.space.allows(arm):
                continue
            price = race.price(arm, 0, race.rungs[0])
            if price > left or (price == 0 and source == "recombined"):  # the latter is luck on what is known already
                continue
            left -= price
            found.append(arm)
            self._source_of[arm] = source
        return found

    def learn(self, race: Race, newcomers: Sequence[Candidate]) -> None:
        """Credit the sources of newcomers that went on after their first look."""
        for arm in newcomers:
            went_on = race.seen(arm) > race.rungs[0] or len(race.rungs) == 1
            (self.successes if went_on else self.failures)[self._source_of[arm]] += 1

    def _drawn_source(self, race: Race, survivors: Sequence[Candidate]) -> str:
        """The source with the highest sampled chance of success per price."""
        for name in _FORCED:
            there_are = name in race.space.space.modes or (name == "reasoned" and bool(race.space.reasonings))
            if there_are and self._forced[name] < _FORCED_TRIES:
                self._forced[name] += 1
                return name

        def worth(name: str) -> float:
            chance = self._rng.beta(1 + self.successes[name], 2 + self.failures[name])
            return float(chance) / _dearness(name, race)

        return max(_SOURCES, key=worth)


def _dearness(source: str, race: Race) -> float:
    """Price of a first look at a typical candidate of a source, in typical static ones."""
    space, items = race.space, race.rungs[0]
    shots = min(4, space.most_shots)
    static = items * space.lengths.query + shots * space.mean_length
    if source == "retrieved":
        return float((items * (space.lengths.query + shots * space.mean_length)) / max(1.0, static))
    if source == "reasoned":
        return float(2 + 2 * min(space.space.thinking_tokens) / max(1.0, space.lengths.query))
    if source == "routed":
        clusters = min(space.clusters, default=1)
        return float((items * space.lengths.query + clusters * shots * space.mean_length) / max(1.0, static))
    return 1.0


# -- sources ------------------------------------------------------------------------------------------------


def _parent(survivors: Sequence[Candidate], rng: np.random.Generator) -> Candidate:
    """A survivor, better ones more often."""
    return survivors[min(int(rng.geometric(0.5)) - 1, len(survivors) - 1)]


def _fresh(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    drawn = [draw_fresh(race.space, rng, known.preferences) for _ in range(_AT_ONCE)]
    return known.most_promising(drawn)


def _retrieved(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    return draw_retrieved(race.space, rng, known.preferences)


def _routed(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    return draw_routed(race.space, rng, known.preferences)


def _reasoned(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    return draw_reasoned(race.space, rng, known.preferences)


def _mutated(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    parent = _parent(survivors, rng)
    drawn = [mutate(race.space, parent, known.weights, rng) for _ in range(_AT_ONCE)]
    usable = [each for each in drawn if each is not None]
    return known.most_promising(usable) if usable else None


def _recombined(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    other = survivors[int(rng.integers(len(survivors)))]
    return recombine(race.space, _parent(survivors, rng), other, rng)


def _reordered(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    """The nearest order of a static survivor that was not tried."""
    parent = _parent(survivors, rng)
    if parent.mode != "static":
        return None
    orders = neighbours(parent.demonstrations, race.space.labels_by_id)
    options = (replace(parent, demonstrations=order) for order in orders)
    return next((option for option in options if option not in race.scores), None)


def _assembled(
    race: Race, survivors: Sequence[Candidate], known: Knowledge, rng: np.random.Generator
) -> Candidate | None:
    counts = sorted(race.space.clusters)
    if not counts or "routed" not in race.space.space.modes:
        return None
    return assemble(race.space, race.scores, int(rng.choice(counts)), _parent(survivors, rng))


_SOURCES: Mapping[str, _Source] = {
    "mutated": _mutated,
    "fresh": _fresh,
    "recombined": _recombined,
    "reordered": _reordered,
    "assembled": _assembled,
    "retrieved": _retrieved,
    "routed": _routed,
    "reasoned": _reasoned,
}
