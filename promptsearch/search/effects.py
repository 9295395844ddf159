"""What the scores so far tell about each choice: how much better candidates that made it did.

Leaves out: what they tell about single examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores, rank_key

__all__ = ["choice_effects", "choices_of"]


def choices_of(candidate: Candidate) -> dict[str, Any]:
    """The level that a candidate has of each factor."""
    return {
        "template": candidate.template,
        "instruction": candidate.instruction,
        "shots": candidate.shots,
        "names": (candidate.input_name, candidate.output_name),
    }


def choice_effects(scores: Mapping[Candidate, Scores], shrinkage: float = 1.0) -> dict[str, dict[Any, float]]:
    """How much better candidates with each choice did than all on average, shrunk by how few there were.

    Every candidate tells something about each of its choices, so a random field is a factorial experiment. All are
    compared on the first items, which every one has seen.
    """
    seen = {arm: kept for arm, kept in scores.items() if kept.items}
    if not seen:
        return {}
    shared = min(kept.items for kept in seen.values())
    values = {arm: rank_key(kept.upto(shared)) for arm, kept in seen.items()}
    mean = sum(values.values()) / len(values)
    sums: dict[str, dict[Any, list[float]]] = {}
    for arm, value in values.items():
        for factor, level in choices_of(arm).items():
            sums.setdefault(factor, {}).setdefault(level, []).append(value - mean)
    return {
        factor: {level: sum(found) / (len(found) + shrinkage) for level, found in levels.items()}
        for factor, levels in sums.items()
    }
