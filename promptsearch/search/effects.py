"""What the scores so far tell about each choice: how much better candidates that made it did.

Leaves out: what they tell about single examples.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores, rank_key

__all__ = ["choice_effects", "choices_of", "conditional_accuracy"]


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


def conditional_accuracy(scores: Mapping[Candidate, Scores], shrinkage: float = 3.0) -> dict[int, float]:
    """How much better sets that hold an example did than sets on average, shrunk by how few there were.

    For candidates with ``n`` items each score counts ``n / (n + 32)``, since short ones are noise.
    """
    static = {arm: seen for arm, seen in scores.items() if arm.demonstrations and seen.items}
    if not static:
        return {}
    values = {arm: float(seen.values.mean()) for arm, seen in static.items()}
    trust = {arm: seen.items / (seen.items + 32.0) for arm, seen in static.items()}
    mean = sum(values[arm] * trust[arm] for arm in static) / sum(trust.values())
    sums: dict[int, float] = defaultdict(float)
    counts: dict[int, float] = defaultdict(float)
    for arm in static:
        for number in arm.demonstrations:
            sums[number] += trust[arm] * (values[arm] - mean)
            counts[number] += trust[arm]
    return {number: sums[number] / (counts[number] + shrinkage) for number in sorted(sums)}
