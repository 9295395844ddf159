"""What is compared: strategies, modes, and the recipe "best of 64 random".

Invariant: a method is a name and plain values; names are what the result file keeps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import promptsearch as ps
from promptsearch.candidate import MODES
from promptsearch.optimizer import STRATEGIES

CANDIDATES = 64
RECIPE = "best_of_64"
PRIOR = "+prior"
_SEARCH_SHARE = 0.55  # of a budget in evaluations that goes to the race
_MODE_STRATEGY = "halving"


@dataclass(frozen=True)
class Method:
    """One way to search.

    Attributes:
        name: as it is kept and shown.
        strategy: what ``optimize`` is given.
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
        Method(RECIPE, "random", _recipe_space(), budgeted=False),
        Method(
            f"{RECIPE} any wording", "random", ps.Space(shots=(8,), modes=("static",), prior=False), budgeted=False
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
    )


def recipe_budget(search_rows: int) -> ps.Budget:
    """A budget that pays for exactly 64 candidates on all search rows, and for as much measuring as any other."""
    return ps.Budget(evaluations=math.ceil((CANDIDATES * search_rows + 1) / _SEARCH_SHARE))
