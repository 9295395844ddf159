"""What the log of all evaluations says about candidates and examples, fairly compared.

Candidates were scored on prefixes of different lengths of one item order, and the long ones are those that did well
early. Their plain means are not comparable: late items may be easier, and late rivals stronger. So a score is taken
as what its candidate adds plus what its item adds, fitted together; candidates are shrunk by how few items they saw,
towards what candidates of their kind add: if all that retrieve do well, one more of them is likely to.
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
from promptsearch.search.drawing import kind_of

__all__ = ["TRUSTED_ITEMS", "candidate_effects", "conditional_accuracy", "leaders", "reliability", "showing"]

TRUSTED_ITEMS = 96
"""Items that a leader was scored on at least, once anybody was."""

_KIND_NOISE = 16.0  # the same over the variance of means of kinds, which differ more than candidates of one kind
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

    Minimizes ``sum over seen (a, i) of (score[a, i] - own[a] - kind[k(a)] - item[i])^2 + 32 * sum over a of
    own[a]^2 + 16 * sum over k of kind[k]^2`` with ``score = (value + confidence) / 2`` and the mode for a kind, or
    reasoning. A candidate's effect is ``own + kind``; the effects add up to 0.

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
    kinds = [kind_of(arm) for arm in arms]
    names = list(dict.fromkeys(kinds))
    members = np.array([[kind == name for name in names] for kind in kinds], dtype=np.float64)
    effects = _fit_effects(totals, seen, np.diff(ends, prepend=0).astype(np.float64), members)
    return dict(zip(arms, (effects - effects.mean()).tolist(), strict=True))


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


def _fit_effects(totals: FloatArray, seen: FloatArray, sizes: FloatArray, members: FloatArray) -> FloatArray:
    """Effects of candidates from their total score in each block, by the normal equations.

    Args:
        totals: shape (candidates, blocks), 0 where a candidate did not see a block.
        seen: 1 where it did, else 0; same shape.
        sizes: items of each block, shape (blocks,).
        members: 1 where a candidate is of a kind, else 0, shape (candidates, kinds).
    """
    items = seen * sizes
    # Own effects are eliminated first: each stands in one equation of its own.
    own = 1.0 / (items.sum(axis=1) + _NOISE)
    design = np.concatenate([members * items.sum(axis=1, keepdims=True), items], axis=1)  # by kind and block
    whole = np.block(
        [
            [members.T @ (members * items.sum(axis=1, keepdims=True)), members.T @ items],
            [items.T @ members, np.diag(items.sum(axis=0))],
        ]
    )
    whole[: members.shape[1], : members.shape[1]] += _KIND_NOISE * np.eye(members.shape[1])
    mine = totals.sum(axis=1)
    right = np.concatenate([members.T @ mine, totals.sum(axis=0)])
    found = np.linalg.solve(whole - design.T @ (own[:, None] * design), right - design.T @ (own * mine))
    return np.asarray(own * (mine - design @ found) + members @ found[: members.shape[1]])
