"""What a strategy exchanges with the study that runs it.

Invariant: all candidates are scored on prefixes of one fixed item order, so that scores at equal length are paired.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.search.space import SearchSpace

__all__ = ["Allowance", "Request", "Scores", "Strategy", "StrategyRun", "best_first", "rank_key"]

_STEADYING_ITEMS = 160


@dataclass(frozen=True)
class Request:
    """Score each candidate on the first ``items`` items of the shared order."""

    candidates: tuple[Candidate, ...]
    items: int


@dataclass(frozen=True)
class Scores:
    """Item scores of one candidate.

    Attributes:
        values: score of each item, 0 to 1, shape (items seen,).
        confidence: probability given to the right answer, same shape; it breaks ties.
    """

    values: FloatArray
    confidence: FloatArray

    @property
    def items(self) -> int:
        """Items seen."""
        return len(self.values)

    @property
    def steadied(self) -> FloatArray:
        """Item scores that also move with the right answer's probability: fewer items tell candidates apart."""
        return np.asarray((self.values + self.confidence) / 2)

    def upto(self, items: int) -> Scores:
        """The same on the first ``items`` items."""
        return Scores(self.values[:items], self.confidence[:items])


def rank_key(scores: Scores) -> float:
    """What candidates are compared by: mean score, steadied by mean confidence where few items were seen.

    The mean score of a few items moves in large steps by luck; the probability given to the right answer moves with
    every item. Confidence counts like a fixed number of items, so it fades as items come in.
    """
    if scores.items == 0:
        return 0.0
    total = float(scores.values.sum()) + _STEADYING_ITEMS * float(scores.confidence.mean())
    return total / (scores.items + _STEADYING_ITEMS)


def best_first(scores: Mapping[Candidate, Scores], items: int | None = None) -> list[Candidate]:
    """Candidates by rank on their first ``items`` items; equal ones by content hash."""

    def key(candidate: Candidate) -> tuple[float, str]:
        seen = scores[candidate] if items is None else scores[candidate].upto(items)
        return (-round(rank_key(seen), 9), candidate.key)

    return sorted(scores, key=key)


@dataclass(frozen=True)
class Allowance:
    """What a strategy may spend, in the budget's own unit.

    Attributes:
        total: units for this search.
        items: items in the shared order.
        by_evaluations: whether a unit is one evaluation rather than one token.
    """

    total: float
    items: int
    by_evaluations: bool = False

    def price(self, space: SearchSpace, candidate: Candidate, items: int, *, begun: bool) -> float:
        """Expected units of scoring so many items; ``begun`` where the candidate was asked about others before."""
        return float(items) if self.by_evaluations else space.price(candidate, items, begun=begun)


StrategyRun = Generator[Request, Mapping[Candidate, Scores], list[Candidate]]


class Strategy(Protocol):
    """Chooses what to score next."""

    def __call__(
        self,
        space: SearchSpace,
        anchors: Sequence[Candidate],
        allowance: Allowance,
        rng: np.random.Generator,
    ) -> StrategyRun:
        """Search.

        Args:
            space: what candidates there are.
            anchors: candidates that must be tried, such as zero-shot.
            allowance: what may be spent.
            rng: the only source of randomness.

        Yields:
            Requests; each is answered with the scores of its candidates on all items asked for. A study that
            runs out of budget closes the generator.

        Returns:
            Finalists, best first.
        """
        ...
