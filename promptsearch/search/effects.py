"""What the scores so far tell about each choice: how much better candidates that made it did.

Leaves out: what they tell about single examples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.search.base import Scores, rank_key

__all__ = ["choice_effects", "choices_of"]


def choices_of(candidate: Candidate) -> dict[str, Any]:
    """The level that a candidate has of each factor; some factors are those of one mode."""
    choices: dict[str, Any] = {
        "mode": candidate.mode,
        "template": candidate.template,
        "instruction": candidate.instruction,
        f"{candidate.mode} shots": candidate.shots,
        "names": (candidate.input_name, candidate.output_name),
        "reasoning": candidate.reasoning,
    }
    if candidate.mode == "retrieved":
        choices |= {"retriever": candidate.retriever, "order": candidate.order}
    if candidate.reasons:
        choices |= {"thought": candidate.thought, "thinking tokens": candidate.thinking_tokens}
        choices |= {"samples": candidate.samples}
    return choices


def choice_effects(scores: Mapping[Candidate, Scores], shrinkage: float = 1.0) -> dict[str, dict[Any, float]]:
    """How much each choice adds to a candidate's score, by ridge regression on all choices together.

    Every candidate tells something about each of its choices, so a random field is a factorial experiment. All are
    fitted at once, since what is tried first is no balanced one: what demonstrations gain must not count against an
    instruction that was tried without any. All are compared on the first items, which every one has seen.

    Args:
        scores: item scores on prefixes of one shared order.
        shrinkage: candidates of average quality that each choice is counted with, above 0.

    Returns:
        For each factor the effect of each level that was tried, in shares of the score.
    """
    seen = {arm: kept for arm, kept in scores.items() if kept.items}
    if not seen:
        return {}
    shared = min(kept.items for kept in seen.values())
    values = np.array([rank_key(kept.upto(shared)) for kept in seen.values()])
    chosen = [choices_of(arm) for arm in seen]
    levels = list(dict.fromkeys(pair for choices in chosen for pair in choices.items()))
    design = np.array(
        [[(factor, level) in choices.items() for factor, level in levels] for choices in chosen], dtype=np.float64
    )
    system = design.T @ design + shrinkage * np.eye(len(levels))
    fitted = np.linalg.solve(system, design.T @ (values - values.mean()))
    effects: dict[str, dict[Any, float]] = {}
    for (factor, level), effect in zip(levels, fitted.tolist(), strict=True):
        effects.setdefault(factor, {})[level] = round(effect, 9)  # so that sums in another order draw the same
    return effects
