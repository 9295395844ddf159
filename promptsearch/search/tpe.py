"""Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) over the space's parameters, by ask and tell.

Trials are cut short by successive halving in its asynchronous form (Li et al. 2020, arXiv 1810.05934): after each
rung of the shared item order a candidate goes on while it is among the best of all that were scored on those items.
What is compared is always comparable: values of a rung are of the same items; complete trials have seen all items;
and the sampler takes complete trials for better than pruned ones, and among those a later rung for better.

Invariant: the study lives in memory; the sampler is seeded from ``rng``; Optuna is imported when a search begins.
Leaves out: changes of single demonstrations; sets come from orderings drawn beforehand, see
:mod:`promptsearch.search.parameters`.
"""

from __future__ import annotations

import bisect
import logging
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, StrategyRun, best_first, rank_key
from promptsearch.search.parameters import Choose, Parameters, draw_orderings
from promptsearch.search.race import Race
from promptsearch.search.space import SearchSpace

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["tpe"]

_ANCHORS_KEPT = 5  # one in so many goes on after the first look; the others have told what they could
_FINALISTS = 5
_PROMOTED = 0.5  # of the candidates that were scored on a rung, those that go on
_LOOK_SHARE = 0.05  # of the allowance, that a first look may cost; what an anchor's cost is never too much
_RANDOM_TRIALS = 10  # before the sampler has a say, anchors included
_CONSIDERED = 4  # draws of which the sampler takes the best; of many it takes levels that were hardly tried yet
_FEWEST_ORDERINGS = 8
_MOST_ORDERINGS = 64
_TRIALS_AN_ORDERING = 4  # that the allowance should pay for, so that the sampler can learn which is good
_REPEATS = 3  # proposals in a row that are of no use, after which they are drawn at random
_MOST_MISSES = 120  # in a row: a space may hold fewer candidates than the allowance pays for


def tpe(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """First looks at the anchors, then what the sampler proposes."""
    race = Race(space, allowance)
    looked = yield from race.first_looks(anchors)
    ranked = best_first({anchor: race.scores[anchor] for anchor in looked})
    yield from race.run(ranked[: max(2, len(ranked) // _ANCHORS_KEPT)])
    parameters = Parameters(space, draw_orderings(space, looked, _affordable_orderings(race), rng))
    sampler = _Sampler(parameters, int(rng.integers(2**31)), allowance.items)
    ladder = _Ladder(race.rungs)
    for anchor in looked:
        for items in race.rungs:
            ladder.add(race.scores[anchor], items)
        sampler.tell_known(anchor, race.scores[anchor])
    looks = [allowance.price(space, anchor, race.rungs[0], begun=False) for anchor in looked]
    dearest = max(_LOOK_SHARE * allowance.total, *looks)
    misses = 0
    while misses < _MOST_MISSES:
        trial, candidate = sampler.ask(at_random=misses >= _REPEATS)
        if not _worth_trying(race, candidate, dearest):
            sampler.drop(trial)
            misses += 1
            continue
        misses = 0
        yield from _climb(race, ladder, candidate)
        sampler.tell(trial, race.scores[candidate])
    return race.survivors(_FINALISTS)


def _affordable_orderings(race: Race) -> int:
    """Fewer orderings for few trials: each must be seen with other words and numbers to be learned about."""
    space = race.space
    prefix = float(np.mean(space.static_shots)) * space.mean_length
    trial = 2 * race.rungs[0] * (1.0 if race.allowance.by_evaluations else space.lengths.query)
    trial += 0.0 if race.allowance.by_evaluations else prefix
    return int(np.clip(race.allowance.total / trial / _TRIALS_AN_ORDERING, _FEWEST_ORDERINGS, _MOST_ORDERINGS))


def _worth_trying(race: Race, candidate: Candidate, dearest: float) -> bool:
    """Whether a candidate is new, allowed, and can be looked at for what is left and for no more than ``dearest``."""
    if candidate in race.scores or not race.space.allows(candidate):
        return False
    return race.price(candidate, 0, race.rungs[0]) <= min(dearest, race.left)


def _climb(race: Race, ladder: _Ladder, candidate: Candidate) -> Generator[Request, Mapping[Candidate, Scores], None]:
    """Score a candidate on rung after rung while it is promising and paid for."""
    for rung, items in enumerate(race.rungs):
        if rung and race.price(candidate, race.rungs[rung - 1], items) > race.left:
            return
        yield from race.score([candidate], items)
        ladder.add(race.scores[candidate], items)
        if not ladder.promising(race.scores[candidate]):
            return


class _Ladder:
    """What candidates were worth on the items of each rung."""

    def __init__(self, rungs: Sequence[int]) -> None:
        self._values: dict[int, list[float]] = {items: [] for items in rungs}

    def add(self, scores: Scores, items: int) -> None:
        """Take note of a candidate on one rung, if it has climbed so far."""
        if items <= scores.items:
            bisect.insort(self._values[items], rank_key(scores.upto(items)))

    def promising(self, scores: Scores) -> bool:
        """Whether a candidate is among the best of its rung, after it was added there."""
        values = self._values[scores.items]
        better = len(values) - bisect.bisect_right(values, rank_key(scores))
        return better < math.ceil(_PROMOTED * len(values))


class _Sampler:
    """An Optuna study whose trials are candidates.

    The parameters that all candidates have are sampled jointly, those of single modes one by one, which is how the
    sampler treats a space whose parameters depend on each other unless told otherwise.

    Args:
        parameters: what the trials are made of.
        seed: of everything drawn.
        items: items that a complete trial was scored on.
    """

    def __init__(self, parameters: Parameters, seed: int, items: int) -> None:
        import optuna

        self._parameters = parameters
        self._items = items
        self._states = optuna.trial.TrialState
        with _quiet_optuna():
            self._tpe = optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=_RANDOM_TRIALS, n_ei_candidates=_CONSIDERED
            )
            self._random = optuna.samplers.RandomSampler(seed=seed + 1)
            self._study = optuna.create_study(
                storage=optuna.storages.InMemoryStorage(),
                sampler=self._tpe,
                pruner=optuna.pruners.NopPruner(),
                direction="maximize",
            )

    def ask(self, *, at_random: bool) -> tuple[Trial, Candidate]:
        """A new trial and its candidate, proposed by the estimator or drawn at random."""
        with _quiet_optuna():
            self._study.sampler = self._random if at_random else self._tpe
            trial = self._study.ask()
            return trial, self._parameters.candidate(_suggestions(trial))

    def tell(self, trial: Trial, scores: Scores) -> None:
        """What a trial's candidate was worth: complete with all items, pruned with fewer."""
        value = rank_key(scores)
        with _quiet_optuna():
            if scores.items == self._items:
                self._study.tell(trial, value)
            else:
                trial.report(value, step=scores.items)
                self._study.tell(trial, state=self._states.PRUNED)

    def tell_known(self, candidate: Candidate, scores: Scores) -> None:
        """What another candidate was worth, where the parameters can say it."""
        levels = self._parameters.levels(candidate)
        if levels is None:
            return
        with _quiet_optuna():
            self._study.enqueue_trial(levels)
        trial, _ = self.ask(at_random=True)
        self.tell(trial, scores)

    def drop(self, trial: Trial) -> None:
        """Forget a trial; the sampler learns nothing from it."""
        with _quiet_optuna():
            self._study.tell(trial, state=self._states.FAIL)


def _suggestions(trial: Trial) -> Choose:
    """Levels as a trial suggests them."""

    def choose(name: str, levels: int, *, ranked: bool = False) -> int:
        if ranked:
            return trial.suggest_int(name, 0, levels - 1)
        return trial.suggest_categorical(name, range(levels))

    return choose


@contextmanager
def _quiet_optuna() -> Iterator[None]:
    """Keep Optuna from telling of each study and trial; its logger is left as it was found."""
    logger = logging.getLogger("optuna")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
