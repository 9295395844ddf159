"""What the log of all evaluations says about candidates and examples, fairly compared.

Candidates were scored on prefixes of different lengths of one item order, and the long ones are those that did well
early. Their plain means are not comparable: late items may be easier, and late rivals stronger. So a score is taken
as what its candidate adds plus what its item adds, fitted together; candidates are shrunk by how few items they saw.
An item's score is steadied by the probability given to its right answer, half and half: rights and wrongs of a few
dozen items are mostly luck, and the probability tells the accuracy on further items better than they do.
Invariant: an item that all who saw it found equally easy or hard changes nobody's effect.
Leaves out: why a candidate is good beyond the examples that it shows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from itertools import pairwise

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.lm.base import FloatArray
from promptsearch.search.base import Scores

__all__ = ["TRUSTED_ITEMS", "candidate_effects", "conditional_accuracy", "leaders", "reliability", "showing"]

TRUSTED_ITEMS = 96
"""Items that a leader was scored on at least, once anybody was."""

_NOISE = 32.0  # variance of an item's score over that of candidates' true means: 47 without the steadying, 19 with
_FEW_SETS = 3.0  # sets of average quality that each example is counted with


def conditional_accuracy(scores: Mapping[Candidate, Scores], shrinkage: float = _FEW_SETS) -> dict[int, float]:
    """How much better sets that hold an example did than sets on average, shrunk by how few there were.

    CondAcc of Chang and Jia 2023 (arXiv 2212.10378), from paired effects instead of plain means.

    Args:
        scores: item scores on prefixes of one shared order; candidates that show no fixed demonstrations tell
            nothing of examples and are passed over.
        shrinkage: sets of average quality that each example is counted with, at least 0.

    Returns:
        For each example that some set held, in the order of ids: expected gain in score of a set that holds it.
    """
    shown = showing(scores)
    sums: dict[int, float] = defaultdict(float)
    weights: dict[int, float] = defaultdict(float)
    for arm, effect in candidate_effects(shown).items():
        for number in set(arm.demonstrations):
            sums[number] += effect
            weights[number] += reliability(scores[arm].items)
    return {number: sums[number] / (weights[number] + shrinkage) for number in sorted(sums)}


def showing(scores: Mapping[Candidate, Scores]) -> dict[Candidate, Scores]:
    """Those that show the same demonstrations to every query, and were scored."""
    return {arm: seen for arm, seen in scores.items() if arm.mode == "static" and arm.demonstrations and seen.items}


def reliability(items: int) -> float:
    """Share of a candidate's measured effect that is expected to be real, 0 to 1."""
    return items / (items + _NOISE)


def candidate_effects(scores: Mapping[Candidate, Scores]) -> dict[Candidate, float]:
    """How much better than the average candidate each is on the same items, shrunk by how few it saw.

    Minimizes ``sum over seen (a, i) of (score[a, i] - effect[a] - item[i])^2 + 32 * sum over a of effect[a]^2`` with
    ``score = (value + confidence) / 2``; the effects add up to 0. Divide by :func:`reliability` for the effect as
    measured.

    Args:
        scores: item scores on prefixes of one shared order; candidates without items are left out.
    """
    arms = [arm for arm, seen in scores.items() if seen.items]
    if not arms:
        return {}
    lengths = np.array([scores[arm].items for arm in arms])
    # Everybody who saw one item between two lengths saw all between them, so blocks of items do for items.
    ends = np.unique(lengths)
    blocks = [(int(start), int(stop)) for start, stop in pairwise([0, *ends.tolist()])]
    steadied = [scores[arm].steadied for arm in arms]
    totals = np.array([[each[start:stop].sum() for start, stop in blocks] for each in steadied])
    seen = (lengths[:, None] >= ends[None, :]).astype(np.float64)
    effects = _fit_effects(totals, seen, np.diff(ends, prepend=0).astype(np.float64))
    return dict(zip(arms, effects.tolist(), strict=True))


def leaders(scores: Mapping[Candidate, Scores], count: int) -> list[Candidate]:
    """The best candidates of any length that can be trusted, by effects that are fair across lengths.

    Args:
        scores: item scores on prefixes of one shared order, of one candidate at least.
        count: how many.
    """
    longest = max(seen.items for seen in scores.values())
    effects = candidate_effects(scores)
    trusted = [arm for arm, seen in scores.items() if seen.items and seen.items >= min(TRUSTED_ITEMS, longest)]
    return sorted(trusted, key=lambda arm: (-round(effects[arm], 9), arm.key))[:count]


def _fit_effects(totals: FloatArray, seen: FloatArray, sizes: FloatArray) -> FloatArray:
    """Effects of candidates from their total score in each block, by the normal equations of the blocks.

    Args:
        totals: shape (candidates, blocks), 0 where a candidate did not see a block.
        seen: 1 where it did, else 0; same shape.
        sizes: items of each block, shape (blocks,).
    """
    weights = 1.0 / (seen @ sizes + _NOISE)
    system = np.diag(seen.sum(axis=0)) - sizes[:, None] * (seen.T @ (weights[:, None] * seen))
    right = totals.sum(axis=0) - sizes * (seen.T @ (weights * totals.sum(axis=1)))
    block_totals = np.linalg.solve(system, right)
    return np.asarray(weights * (totals.sum(axis=1) - seen @ block_totals))
