"""Puts routed candidates together from what is already measured: for each cluster the set that did best there.

Every static candidate that was scored tells how its demonstrations serve the queries of each cluster, at no cost.
Leaves out: sets made for a cluster, see :func:`promptsearch.search.drawing.draw_routed`.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.search.base import Scores
from promptsearch.search.space import SearchSpace

__all__ = ["assemble"]

_FEWEST_ITEMS = 8  # of a cluster, under which nothing is measurable
_ERRORS = 2.0
_TRUSTED_ITEMS = 8.0  # a set's lead on a cluster counts half after so many of its queries


def assemble(
    space: SearchSpace, scores: Mapping[Candidate, Scores], clusters: int, wording: Candidate
) -> Candidate | None:
    """The routed candidate whose every route did best on its cluster's items so far.

    A set is judged by how far its items' scores lie above those of all sets on the same items, so that sets seen on
    different items compare, shrunk towards 0 where it saw few. A cluster gets another set than the best of those
    that were seen longest only where that set is measurably better on its items: among many sets one is always
    luckier on a handful, and the candidate is scored on these very items.

    Args:
        space: knows the clusters of the items.
        scores: of candidates; static and routed ones in the same words count.
        clusters: how many routes.
        wording: candidate whose instruction, template and names the routes get.

    Returns:
        None where the scores know no set, or one set is best everywhere (a static candidate is the same), or the
        candidate does not fit.
    """
    every = space.clusters[clusters].of_items
    known = _worth_by_set(space, {each: seen for each, seen in scores.items() if _words(each) == _words(wording)})
    if not known:
        return None
    table = np.stack(list(known.values()))
    groups = every[: table.shape[1]]
    seen = np.isfinite(table)
    means = np.where(seen, table, 0.0).sum(axis=0) / np.maximum(seen.sum(axis=0), 1)
    lead = np.where(seen, table - means, 0.0)
    sets = list(known)

    def best(among: NDArray[np.int64], inside: NDArray[np.bool_]) -> int:
        worth = lead[:, inside].sum(axis=1) / (seen[:, inside].sum(axis=1) + _TRUSTED_ITEMS)
        return max((int(at) for at in among), key=lambda at: (round(float(worth[at]), 9), sets[at]))

    lengths = seen.sum(axis=1)
    usual = best(np.flatnonzero(lengths == lengths.max()), np.ones(len(groups), dtype=bool))
    routes = []
    for cluster in range(clusters):
        inside = groups == cluster
        own = best(np.arange(len(sets)), inside)
        routes.append(sets[own if _measurably_better(table[own, inside] - table[usual, inside]) else usual])
    if len(set(routes)) == 1:
        return None
    candidate = Candidate(
        instruction=wording.instruction,
        template=wording.template,
        input_name=wording.input_name,
        output_name=wording.output_name,
        mode="routed",
        routes=tuple(routes),
        calibration=wording.calibration,
    )
    return candidate if space.fits(candidate) else None


def _measurably_better(gains: FloatArray) -> bool:
    """Whether gains on the same items, NaN where one of both was not asked, lie two standard errors above 0."""
    known = gains[np.isfinite(gains)]
    if len(known) < _FEWEST_ITEMS:
        return False
    error = float(known.std(ddof=1)) / np.sqrt(len(known))
    return bool(known.mean() > _ERRORS * error + 1e-9)


def _worth_by_set(space: SearchSpace, scores: Mapping[Candidate, Scores]) -> dict[tuple[int, ...], FloatArray]:
    """For each ordered set its worth on each item, shape (items,); NaN where it was not asked."""
    size = max((each.items for each in scores.values()), default=0)
    totals: dict[tuple[int, ...], FloatArray] = {}
    for candidate, seen in scores.items():
        worth = seen.steadied
        for shown, places in _sets_of(space, candidate, seen.items):
            row = totals.setdefault(shown, np.full(size, np.nan))
            row[places] = np.fmax(row[places], worth[places])
    return totals


def _words(candidate: Candidate) -> tuple[str, ...]:
    return (candidate.instruction, candidate.template, candidate.input_name, candidate.output_name)


def _sets_of(space: SearchSpace, candidate: Candidate, items: int) -> list[tuple[tuple[int, ...], NDArray[np.int64]]]:
    """The sets that a candidate shows, and the places of the items that saw them."""
    if candidate.mode == "static" and candidate.demonstrations:
        return [(candidate.demonstrations, np.arange(items))]
    if candidate.mode != "routed":
        return []
    groups = space.clusters[len(candidate.routes)].of_items[:items]
    return [(route, np.flatnonzero(groups == cluster)) for cluster, route in enumerate(candidate.routes)]
