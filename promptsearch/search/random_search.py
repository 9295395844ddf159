"""Random candidates, each scored on all items: the strategy to compare others with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, StrategyRun
from promptsearch.search.drawing import draw_any
from promptsearch.search.race import Race
from promptsearch.search.space import SearchSpace

__all__ = ["random_search"]

_FINALISTS = 5
_MOST_MISSES = 200  # in a row: a space may hold fewer candidates than the allowance pays for


def random_search(
    space: SearchSpace, anchors: Sequence[Candidate], allowance: Allowance, rng: np.random.Generator
) -> StrategyRun:
    """Score the anchors and random candidates until the allowance is spent."""
    race = Race(space, allowance)
    pending = list(anchors)
    misses = 0
    while misses < _MOST_MISSES:
        candidate = pending.pop(0) if pending else draw_any(space, rng)
        too_dear = bool(race.scores) and race.price(candidate, 0, allowance.items) > race.left
        if too_dear or candidate in race.scores or not (space.reasons_alike(candidate) or not race.scores):
            misses += 1
            continue
        misses = 0
        yield from race.score([candidate], allowance.items)
    return race.survivors(_FINALISTS)
