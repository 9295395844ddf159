"""What a finished search's log tells beside the winner: the accuracy-token front, and what predicted what.

Leaves out: any decision; nothing here is used to choose.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from promptsearch.candidate import Candidate
from promptsearch.measurement import Difference, paired_difference
from promptsearch.search.base import Scores
from promptsearch.search.datamodel import Datamodel, fit_datamodel
from promptsearch.search.front import FrontPoint, pareto_front
from promptsearch.search.log_knowledge import candidate_effects
from promptsearch.search.order import OrderEffect, order_effect
from promptsearch.search.space import SearchSpace
from promptsearch.search.surrogate import Surrogate, fit_surrogate

__all__ = ["Insights", "ReasoningEffect", "RunnerUp"]

_FEWEST_ORDERS = 3
_FEWEST_ITEMS = 24


@dataclass(frozen=True)
class ReasoningEffect:
    """The best prompt that reasons beside the best that answers at once, on search rows that both saw.

    Attributes:
        tried: prompts that reason.
        gain: paired difference of their item scores; both were chosen by these rows.
        tokens: tokens of a query with reasoning.
        tokens_without: tokens of one without.
    """

    tried: int
    gain: Difference
    tokens: float
    tokens_without: float

    def __str__(self) -> str:
        count = "the prompt that reasons" if self.tried == 1 else f"the best of {self.tried} prompts that reason"
        return (
            f"{count} {'gains' if self.gain.value >= 0 else 'loses'} {abs(100 * self.gain.value):.1f} points "
            f"[{100 * self.gain.low:+.1f}, {100 * self.gain.high:+.1f}] against the best that answers at once, on "
            f"{self.gain.n} search rows, at {self.tokens:,.0f} tokens a query instead of {self.tokens_without:,.0f}"
        )


@dataclass(frozen=True)
class RunnerUp:
    """A finalist that was not taken.

    Attributes:
        candidate: the finalist, as it raced.
        tokens: tokens of a query under it.
        lead: the winner's paired lead over it, on the rows by which the winner was chosen; scores also move with the
            right answer's probability.
    """

    candidate: Candidate
    tokens: float
    lead: Difference


@dataclass(frozen=True)
class Insights:
    """What the log tells. Scores are means over rows: accuracy where the metric is macro F1.

    Attributes:
        front: prompts that no other beats in both value on search rows and prompt tokens, cheapest first; ``index``
            is a candidate's place in the order of appearance. Values on search rows are too high for prompts that
            were chosen by them.
        front_items: search rows that the front was measured on.
        order: how much order alone moves the score of the winning set, by the orders that it was not chosen for;
            None where the winner has no fixed set, or one that was tried in too few orders.
        winner_order: mean score of the winner's own order on the same search rows, too high as the winner was
            chosen by them; None where ``order`` is.
        surrogate: what similarity alone predicts; None for free text.
        datamodel: what the members of a set predict; None where too few sets were tried.
        reasoning: what reasoning gained in the race; None where no prompt reasoned, or all did.
        runners_up: finalists that were not taken, the closest first.
    """

    front: tuple[FrontPoint, ...]
    front_items: int
    order: OrderEffect | None
    winner_order: float | None
    surrogate: Surrogate | None = field(repr=False)
    datamodel: Datamodel | None = field(repr=False)
    reasoning: ReasoningEffect | None = None
    runners_up: tuple[RunnerUp, ...] = ()

    @classmethod
    def of(
        cls,
        space: SearchSpace,
        scores: Mapping[Candidate, Scores],
        winner: Candidate,
        runners_up: Iterable[RunnerUp] = (),
    ) -> Insights:
        """Read a log.

        Args:
            space: what the candidates are.
            scores: item scores on prefixes of one shared order, in the order of appearance.
            winner: the candidate that was chosen, as it raced.
            runners_up: finalists that were not.
        """
        front, items = _front(space, scores)
        order, winner_order = _order(scores, winner)
        return cls(
            front,
            items,
            order,
            winner_order,
            None if space.attention is None else fit_surrogate(scores, space.attention),
            fit_datamodel(scores, space.labels_by_id),
            _reasoning(space, scores),
            tuple(sorted(runners_up, key=lambda each: each.lead.value)),
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "front": [{"trial": each.index, "tokens": each.tokens, **each.value.to_dict()} for each in self.front],
            "front_items": self.front_items,
            "order": None if self.order is None else asdict(self.order),
            "winner_order": self.winner_order,
            "surrogate": _predictor(self.surrogate),
            "datamodel": _predictor(self.datamodel),
            "reasoning": None if self.reasoning is None else asdict(self.reasoning),
            "runners_up": [
                {"candidate": each.candidate.to_dict(), "tokens": each.tokens, "lead": each.lead.to_dict()}
                for each in self.runners_up
            ],
        }


def _reasoning(space: SearchSpace, scores: Mapping[Candidate, Scores]) -> ReasoningEffect | None:
    effects = candidate_effects(scores)
    ranked = sorted(effects, key=lambda arm: (-round(effects[arm], 9), arm.key))
    reasoned, others = ([arm for arm in ranked if arm.reasons is kind] for kind in (True, False))
    if not reasoned or not others:
        return None
    items = min(scores[reasoned[0]].items, scores[others[0]].items)
    ours, theirs = (scores[arm].values[:items] for arm in (reasoned[0], others[0]))
    tokens, without = (space.prompt_tokens(arm) for arm in (reasoned[0], others[0]))
    return ReasoningEffect(len(reasoned), paired_difference(ours, theirs), tokens, without)


def _predictor(fitted: Surrogate | Datamodel | None) -> dict[str, Any] | None:
    if fitted is None:
        return None
    return {
        "rank_correlation": fitted.rank_correlation,
        "candidates": fitted.candidates,
        "used": fitted.is_trusted,
    }


def _front(space: SearchSpace, scores: Mapping[Candidate, Scores]) -> tuple[tuple[FrontPoint, ...], int]:
    """The front of all that were seen on half as many items as the longest seen, on items that all of them saw."""
    most = max(seen.items for seen in scores.values())
    candidates = list(scores)
    kept = [at for at, arm in enumerate(candidates) if 2 * scores[arm].items >= most]
    items = min(scores[candidates[at]].items for at in kept)
    found = pareto_front(
        [scores[candidates[at]].values[:items] for at in kept],
        [space.prompt_tokens(candidates[at]) for at in kept],
    )
    return tuple(replace(point, index=kept[point.index]) for point in found), items


def _order(scores: Mapping[Candidate, Scores], winner: Candidate) -> tuple[OrderEffect | None, float | None]:
    """The effect of order on the winning set, and the mean score of the winner's own order on the same rows.

    Two orders of the set are no random ones and stay out of the comparison: the winner's, which scored best of all
    candidates on these very rows, and the one that the set was first tried in, whose score made the search try
    others. Compared with orders that were merely drawn they would stand out even where order had no effect.
    """
    if winner.mode != "static":
        return None, None
    own = _unordered(winner)
    seen = {arm: found for arm, found in scores.items() if arm.mode == "static" and _unordered(arm) == own}
    if not seen:
        return None, None
    selected = {winner.demonstrations, next(iter(seen)).demonstrations}
    drawn = [
        found for arm, found in seen.items() if arm.demonstrations not in selected and found.items >= _FEWEST_ITEMS
    ]
    if len(drawn) < _FEWEST_ORDERS:
        return None, None
    items = min(found.items for found in drawn)
    effect = order_effect(np.stack([found.values[:items] for found in drawn]), np.random.default_rng(0))
    winning = [
        found for arm, found in seen.items() if arm.demonstrations == winner.demonstrations and found.items >= items
    ]
    return effect, float(winning[0].values[:items].mean()) if winning else None


def _unordered(candidate: Candidate) -> Candidate:
    """The candidate with its demonstrations sorted: the same for all orders of a set."""
    return replace(candidate, demonstrations=tuple(sorted(candidate.demonstrations)), calibration="none")
