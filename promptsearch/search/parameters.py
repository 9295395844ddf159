"""The search space as a few parameters with numbered levels, for samplers of hyper-parameters.

A set of demonstrations is one of a few orderings of the pool, drawn beforehand, and how many of its first examples
are shown. So what is learned about an ordering holds, more or less, for every number of demonstrations, and also for
routed candidates, which show an ordering's first examples in each cluster; and there are never more than a dozen
parameters, of which a candidate uses those of its mode.

Invariant: equal levels give equal candidates; the orderings that anchors begin come first, so that an anchor has
levels too wherever the parameters can say it.
Leaves out: which levels to try. Curated pools of retrieved candidates have no level.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from promptsearch.candidate import ORDERS, Candidate
from promptsearch.search.drawing import central_members, retrieved_counts, routed_counts, usable_clusters
from promptsearch.search.space import SearchSpace

__all__ = ["Choose", "Ordering", "Parameters", "draw_orderings"]

_NATURAL_EVERY = 4  # one ordering in so many takes labels as they fall


class Choose(Protocol):
    """Chooses the level of a parameter."""

    def __call__(self, name: str, levels: int, *, ranked: bool = False) -> int:
        """A level, from 0 up to ``levels`` exclusive; ``ranked`` where near levels are alike."""
        ...


@dataclass(frozen=True)
class Ordering:
    """An order of the pool, of which a candidate shows the first examples.

    Attributes:
        ids: every pool id once.
        balanced: whether labels take turns among those shown.
    """

    ids: tuple[int, ...]
    balanced: bool

    @cached_property
    def places(self) -> dict[int, int]:
        """Where each id stands."""
        return {number: place for place, number in enumerate(self.ids)}

    def first(self, count: int, group: Sequence[int], label_of: Callable[[int], int]) -> tuple[int, ...]:
        """The first ``count`` examples of a group; of fewer, those of a larger count are longer by their end only."""
        ids = sorted(group, key=self.places.__getitem__)
        return _taking_turns(ids, count, label_of) if self.balanced else tuple(ids[:count])


def _taking_turns(ids: Sequence[int], count: int, label_of: Callable[[int], int]) -> tuple[int, ...]:
    """The next example is always the first one of a label that was taken least often."""
    queues: dict[int, deque[tuple[int, int]]] = {}
    for place, number in enumerate(ids):
        queues.setdefault(label_of(number), deque()).append((place, number))
    taken = dict.fromkeys(queues, 0)
    found: list[int] = []
    while queues and len(found) < count:
        label = min(queues, key=lambda each: (taken[each], queues[each][0]))
        found.append(queues[label].popleft()[1])
        taken[label] += 1
        if not queues[label]:
            del queues[label]
    return tuple(found)


def draw_orderings(
    space: SearchSpace, anchors: Sequence[Candidate], count: int, rng: np.random.Generator
) -> tuple[Ordering, ...]:
    """The anchors' own orderings, then random ones and those of selection strategies, ``count`` in all or more.

    Args:
        space: what there is.
        anchors: candidates whose demonstrations an ordering should begin with.
        count: how many.
        rng: randomness.
    """
    begun: list[tuple[int, ...]] = []
    for anchor in sorted(anchors, key=lambda each: -len(each.demonstrations)):  # stable: longest first
        shown = anchor.demonstrations
        if shown and not any(longer[: len(shown)] == shown for longer in begun):
            begun.append(shown)
    orderings = [Ordering(_begun_with(space, shown, rng), balanced=False) for shown in begun]
    names = sorted(space.choosers)
    while len(orderings) < count:
        turn = len(orderings)
        if names and turn % 3 == 0:
            chosen = space.choosers[names[(turn // 3) % len(names)]](max(1, space.most_shots), rng)
            orderings.append(Ordering(_begun_with(space, chosen, rng), balanced=False))
        else:
            orderings.append(Ordering(_begun_with(space, (), rng), balanced=turn % _NATURAL_EVERY != 1))
    return tuple(orderings)


def _begun_with(space: SearchSpace, shown: Sequence[int], rng: np.random.Generator) -> tuple[int, ...]:
    """An ordering that begins with these examples and goes on at random."""
    rest = np.setdiff1d(space.pool, shown)
    return (*shown, *rng.permutation(rest).tolist())


class Parameters:
    """Candidates by the levels of their parameters.

    Args:
        space: what there is.
        orderings: what demonstrations are taken from; at least one.
    """

    def __init__(self, space: SearchSpace, orderings: Sequence[Ordering]) -> None:
        self.space = space
        self.orderings = tuple(orderings)
        self._static = space.shots if "static" in space.space.modes else ()
        self._retrieved = retrieved_counts(space)
        self._clusters = tuple(sorted(set(usable_clusters(space))))
        self._routed = routed_counts(space) if self._clusters else ()
        usable = {"static": self._static, "retrieved": self._retrieved, "routed": self._routed}
        self.modes = tuple(mode for mode, counts in usable.items() if counts) or ("static",)
        self._heads = [self._first(ordering, space.most_shots, space.pool.tolist()) for ordering in self.orderings]

    def candidate(self, choose: Choose) -> Candidate:
        """The candidate that has the chosen levels; it may not fit the context.

        Args:
            choose: asked for the level of each parameter that the candidate has, in the same order for equal answers.
        """
        names = self.space.names[choose("names", len(self.space.names))]
        mode = self.modes[choose("mode", len(self.modes))]
        chosen = Candidate(
            instruction=self.space.instructions[choose("instruction", len(self.space.instructions))],
            template=self.space.templates[choose("template", len(self.space.templates))],
            input_name=names[0],
            output_name=names[1],
            mode=mode,
            calibration=self.space.calibration,
            **{"static": self._shown, "retrieved": self._found, "routed": self._routed_by}[mode](choose),
        )
        return self.space.usual(chosen)

    def levels(self, candidate: Candidate) -> dict[str, int] | None:
        """The levels that give a candidate; None where none do."""
        try:
            levels = self._guess(candidate)
            same = self.candidate(lambda name, _, ranked=False: levels[name]) == candidate
        except (ValueError, KeyError):  # a value that is no level, or a parameter that other levels would need
            return None
        return levels if same else None

    # -- each mode's own ------------------------------------------------------------------------------------

    def _shown(self, choose: Choose) -> dict[str, Any]:
        counts = self._static or (0,)
        count = counts[choose("shots", len(counts), ranked=True)]
        return {"demonstrations": self._heads[choose("ordering", len(self.orderings))][:count] if count else ()}

    def _found(self, choose: Choose) -> dict[str, Any]:
        retrievers, rerankers = self.space.space.retrievers, self.space.space.rerankers
        return {
            "count": self._retrieved[choose("retrieved shots", len(self._retrieved), ranked=True)],
            "retriever": retrievers[choose("retriever", len(retrievers))],
            "order": ORDERS[choose("order", len(ORDERS))],
            "reranker": rerankers[choose("reranker", len(rerankers))],
        }

    def _routed_by(self, choose: Choose) -> dict[str, Any]:
        clusters = self._clusters[choose("clusters", len(self._clusters), ranked=True)]
        count = self._routed[choose("routed shots", len(self._routed), ranked=True)]
        ordering = self.orderings[choose("ordering", len(self.orderings))]
        return {"routes": self._routes(ordering, clusters, count)}

    def _routes(self, ordering: Ordering, clusters: int, count: int) -> tuple[tuple[int, ...], ...]:
        groups = [central_members(self.space, clusters, cluster, count) for cluster in range(clusters)]
        return tuple(self._first(ordering, count, group) for group in groups)

    def _first(self, ordering: Ordering, count: int, group: Sequence[int]) -> tuple[int, ...]:
        return ordering.first(count, group, self.space.label_of)

    # -- the reverse ----------------------------------------------------------------------------------------

    def _guess(self, candidate: Candidate) -> dict[str, int]:
        """Levels that a candidate has if any give it.

        Raises:
            ValueError: something in it is no level.
        """
        levels = {
            "names": self.space.names.index((candidate.input_name, candidate.output_name)),
            "mode": self.modes.index(candidate.mode),
            "instruction": self.space.instructions.index(candidate.instruction),
            "template": self.space.templates.index(candidate.template),
        }
        if candidate.mode == "static":
            shown = candidate.demonstrations
            levels["shots"] = (self._static or (0,)).index(len(shown))
            levels["ordering"] = [head[: len(shown)] for head in self._heads].index(shown) if shown else 0
        elif candidate.mode == "retrieved":
            levels["retrieved shots"] = self._retrieved.index(candidate.count)
            levels["retriever"] = self.space.space.retrievers.index(candidate.retriever)
            levels["order"] = ORDERS.index(candidate.order)
            levels["reranker"] = self.space.space.rerankers.index(candidate.reranker)
        else:
            levels["clusters"] = self._clusters.index(len(candidate.routes))
            levels["routed shots"], levels["ordering"] = self._guess_routes(candidate.routes)
        return levels

    def _guess_routes(self, routes: tuple[tuple[int, ...], ...]) -> tuple[int, int]:
        """Levels of count and ordering; a small cluster's route does not tell how many were asked for."""
        for at, count in enumerate(self._routed):
            for place, ordering in enumerate(self.orderings):
                if self._routes(ordering, len(routes), count) == routes:
                    return at, place
        raise ValueError("no ordering gives these routes")
