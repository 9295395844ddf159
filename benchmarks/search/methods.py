"""What is compared: strategies, modes, and the recipe "best of 64 random".

Invariant: a method is a name and plain values; names are what the result file keeps.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

import promptsearch as ps
from promptsearch.candidate import MODES, Candidate
from promptsearch.run.phases import make_plan
from promptsearch.search.base import Allowance, Strategy, StrategyRun
from promptsearch.search.random_search import random_search
from promptsearch.search.registry import STRATEGIES
from promptsearch.search.space import SearchSpace

CANDIDATES = 64
RECIPE = "best_of_64"
PLAIN_RANDOM = "plain random"
PRIOR = "+prior"
_MODE_STRATEGY = "halving"


@dataclass(frozen=True)
class Method:
    """One way to search.

    Attributes:
        name: as it is kept and shown.
        strategy: what ``optimize`` is given; one of its own strategies or of ``OWN_STRATEGIES``.
        space: what may vary.
        budgeted: whether it runs at every token budget; else it has a budget of its own.
    """

    name: str
    strategy: str
    space: ps.Space
    budgeted: bool = True


def methods() -> dict[str, Method]:
    """All of them: every strategy for the prompt alone and with the prior, every mode alone, best of 64 random."""
    found = [
        Method(f"{name}{PRIOR if prior else ''}", name, ps.Space(prior=prior))
        for name in STRATEGIES
        if name != "auto"
        for prior in (False, True)
    ]
    found += [Method(f"{mode} only", _MODE_STRATEGY, ps.Space(modes=(mode,), prior=False)) for mode in MODES]
    found += [
        Method(RECIPE, PLAIN_RANDOM, _recipe_space(), budgeted=False),
        Method(
            f"{RECIPE} any wording",
            PLAIN_RANDOM,
            ps.Space(shots=(8,), modes=("static",), prior=False, reasoning=("none",)),
            budgeted=False,
        ),
    ]
    return {method.name: method for method in found}


def _recipe_space() -> ps.Space:
    """Eight random demonstrations in the usual wording, calibrated on the search rows: the plain recipe."""
    return ps.Space(
        shots=(8,),
        modes=("static",),
        templates=("fields",),
        names=(),
        instructions=False,
        calibrations=("batch",),
        prior=False,
        reasoning=("none",),
    )


def recipe_budget(search_rows: int) -> ps.Budget:
    """The least budget that pays for 64 candidates on all search rows, and for as much measuring as any other."""
    wanted = CANDIDATES * search_rows
    totals = range(wanted, 100 * wanted)  # no plan gives the race less than a hundredth
    return ps.Budget(evaluations=totals[bisect_left(totals, wanted, key=_for_the_race)])


def _for_the_race(evaluations: int) -> int:
    """Evaluations of a budget that a search may race with."""
    return make_plan(ps.Budget(evaluations=evaluations), tokens_per_second=0.0, setup_seconds=0.0).search


def plain_random(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """Random search without anchors and without the sets that selection strategies choose: what the recipe draws.

    It scores 64 candidates, however much more the plan would allow it.
    """
    plain = copy.copy(space)
    plain.choosers = {}
    wanted = min(allowance.total, CANDIDATES * allowance.items)
    return random_search(plain, (), replace(allowance, total=wanted), rng)


OWN_STRATEGIES: Mapping[str, Strategy] = {PLAIN_RANDOM: plain_random}
"""Strategies that the package does not offer."""
