"""One search space over all predictors of a program.

The demonstrations of all predictors form one pool. A candidate's ordered set over that pool shows each predictor its
own members in their order, so that every strategy searches which, how many and in what order jointly; a candidate
that retrieves finds so many for each predictor. A demonstration's *group* is its predictor and, where the output has
few values, that value: draws are balanced over groups, and swaps keep to one.
Invariant: demonstrations, groups and prices are plain numbers to the search.
Leaves out: programs and their runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptsearch.candidate import Candidate
from promptsearch.search.space import Lengths, SearchSpace, Space

__all__ = ["JointPool", "JointSpace", "ShotLimits", "joint_space"]

_SHOTS = (0, 1, 2, 4, 8, 16)


@dataclass(frozen=True)
class JointPool:
    """Possible demonstrations of all predictors, by number.

    Attributes:
        predictors: place of each one's predictor.
        values: what each one's group is known by beside its predictor; empty where the output has no few values.
        tokens: length of each.
        made: whether each was bootstrapped.
    """

    predictors: tuple[int, ...]
    values: tuple[str, ...]
    tokens: tuple[int, ...]
    made: tuple[bool, ...]

    @property
    def groups(self) -> list[int]:
        """Group of each demonstration."""
        keys = list(zip(self.predictors, self.values, strict=True))
        numbers = {key: number for number, key in enumerate(sorted(set(keys)))}
        return [numbers[key] for key in keys]

    @property
    def kinds(self) -> set[frozenset[bool]]:
        """For each predictor that has any, whether it has bootstrapped demonstrations, labelled ones, or both."""
        found: dict[int, set[bool]] = {}
        for place, made in zip(self.predictors, self.made, strict=True):
            found.setdefault(place, set()).add(made)
        return {frozenset(kinds) for kinds in found.values()}

    def by_predictor(self, shown: Sequence[int]) -> Mapping[int, tuple[int, ...]]:
        """The members of each predictor in an ordered set, in their order."""
        found: dict[int, list[int]] = {place: [] for place in sorted(set(self.predictors))}
        for number in shown:
            found[self.predictors[number]].append(number)
        return {place: tuple(numbers) for place, numbers in found.items()}

    def retrieved(self, candidate: Candidate) -> int:
        """How many demonstrations a candidate that retrieves finds for each predictor."""
        return max(1, round(candidate.count / max(1, len(set(self.predictors)))))


@dataclass(frozen=True)
class ShotLimits:
    """How many demonstrations one predictor may show, as DSPy's optimizers count them.

    Attributes:
        bootstrapped: bootstrapped ones at most.
        labelled: all together at most, where any of them is a labelled row.
    """

    bootstrapped: int
    labelled: int

    def allow(self, bootstrapped: int, labelled: int) -> bool:
        """Whether so many of both may stand together."""
        if bootstrapped > self.bootstrapped:
            return False
        return labelled == 0 or bootstrapped + labelled <= self.labelled

    def most_retrieved(self, kinds: frozenset[bool]) -> int:
        """The most that may be found of a predictor's demonstrations of such kinds, whichever they are."""
        return min(self.bootstrapped if made else self.labelled for made in kinds)

    def most(self, pool: JointPool) -> int:
        """The most of a pool that any predictor may show."""
        return max(self.bootstrapped * any(pool.made), self.labelled * (not all(pool.made)))


class JointSpace(SearchSpace):
    """A space whose limits are those of each predictor.

    Args:
        joint: what may be shown.
        limits: how many one predictor may show.
        room: tokens for the demonstrations of one predictor.
        space: see :class:`SearchSpace`.
        **options: as of :class:`SearchSpace`.
    """

    def __init__(self, joint: JointPool, limits: ShotLimits, room: int, space: Space, **options: Any) -> None:
        super().__init__(space, **options)
        self._joint = joint
        self._limits = limits
        self._room = room
        self._most_retrieved = min(limits.most_retrieved(kinds) for kinds in joint.kinds)

    def fits(self, candidate: Candidate) -> bool:
        """Whether each predictor's demonstrations are within its limits."""
        if candidate.mode == "retrieved":
            count = self._joint.retrieved(candidate)
            return count <= self._most_retrieved and count * self.mean_length <= self._room
        return all(self._within(shown) for shown in self._joint.by_predictor(candidate.demonstrations).values())

    def _within(self, shown: Sequence[int]) -> bool:
        made = sum(self._joint.made[number] for number in shown)
        tokens = sum(self._joint.tokens[number] for number in shown)
        return self._limits.allow(made, len(shown) - made) and tokens <= self._room


def joint_space(
    pool: JointPool,
    *,
    limits: ShotLimits,
    modes: Sequence[str],
    styles: Sequence[str],
    names: Sequence[tuple[str, str]],
    opening_tokens: int,
    query_tokens: float,
    long_query: int,
    context_tokens: int,
) -> JointSpace:
    """The space.

    Args:
        pool: what may be shown; not empty.
        limits: how many one predictor may show.
        modes: among "static" and "retrieved".
        styles: words around the fields, the usual ones first.
        names: pairs of titles for input and output, the fields' own first.
        opening_tokens: tokens of one predictor's instructions, the longest.
        query_tokens: mean tokens of a query and its answers.
        long_query: tokens that hardly a query and its answer have more of.
        context_tokens: tokens that one prompt may take.
    """
    shown = max(1, len(set(pool.predictors)))
    most = limits.most(pool)
    counts = sorted({count * shown for count in (*_SHOTS, most) if count <= most})
    space = Space(
        shots=tuple(count for count in counts if count <= len(pool.predictors)) or (0,),
        modes=tuple(modes),
        retrievers=("nearest",),
        calibrations=("batch",),
        prior=False,
        instructions=False,
        reasoning=("none",),
    )
    return JointSpace(
        pool,
        limits,
        context_tokens - opening_tokens - long_query,
        space,
        templates=styles,
        names=names,
        instructions=("",),
        pool=range(len(pool.predictors)),
        labels=pool.groups,
        lengths=Lengths(
            instructions={"": opening_tokens},
            demonstrations=dict(enumerate(pool.tokens)),
            query=query_tokens,
            long_query=long_query,
            context=context_tokens,
        ),
    )
