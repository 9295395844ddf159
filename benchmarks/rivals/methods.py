"""Which methods are compared, by name, and the cells that a run consists of.

Names are ``ours 2m``, ``ours 2m alone`` (the space without the prior), ``dspy random-search chat`` (its own
defaults), ``dspy random-search chat 2m`` (bounded), ``recipe plain``, ``recipe topk-mdl 2m``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = ["ADAPTERS", "RECIPES", "Method", "methods", "minutes_text", "selected"]

ADAPTERS = ("chat", "plain", "json")

_CHOOSING = ("labeled", "random-search", "knn", "mipro")
RECIPES = (
    *("topk-calibrated", "topk-mdl", "best-of-10-random", "best-of-64-random", "knn-prompting"),
    *("readout-zero-shot", "readout-random"),
)


@dataclass(frozen=True)
class Method:
    """One row of the table.

    Attributes:
        family: "ours", "dspy" or "recipe".
        kind: optimizer or recipe; "alone" or "full" for ours.
        adapter: DSPy's adapter; empty for others.
        minutes: ours: its budget. DSPy: what bounds it, None for its defaults. Recipe: the budget of ours whose
            tokens it may spend, None for one that spends nothing.
        tokens: ours: its budget in model tokens, which gives the same search on any machine. Recipe: what it may
            spend.
    """

    family: str
    kind: str
    adapter: str = ""
    minutes: float | None = None
    tokens: int | None = None

    @property
    def name(self) -> str:
        """What the results call it."""
        if self.family == "ours":
            return f"ours {self._bound}" + " alone" * (self.kind == "alone")
        return " ".join(part for part in (self.family, self.kind, self.adapter, self._bound) if part)

    @property
    def _bound(self) -> str:
        if self.tokens is not None:
            return f"{self.tokens / 1000:g}k"
        return "" if self.minutes is None else minutes_text(self.minutes)


def minutes_text(minutes: float) -> str:
    """A time in few characters: ``30s``, ``2m``."""
    return f"{60 * minutes:g}s" if minutes < 1 else f"{minutes:g}m"


def methods(
    our_minutes: Sequence[float],
    rival_minutes: Sequence[float],
    recipe_minutes: Sequence[float],
    adapters: Sequence[str],
    tokens: Sequence[int] = (),
) -> list[Method]:
    """All methods, in the order in which they run: ours first, since recipes spend what ours spent.

    For each of ``tokens`` there are ours and the recipes, as for ``our_minutes`` and ``recipe_minutes``.
    """
    kinds = ("full", "alone")
    found = [Method("ours", kind, minutes=minutes) for minutes in our_minutes for kind in kinds]
    found += [Method("ours", kind, tokens=count) for count in tokens for kind in kinds]
    found.append(Method("recipe", "plain"))
    found += [Method("recipe", recipe, minutes=minutes) for minutes in recipe_minutes for recipe in RECIPES]
    found += [Method("recipe", recipe, tokens=count) for count in tokens for recipe in RECIPES]
    found += [Method("dspy", "zero-shot", adapter) for adapter in adapters]
    for kind in _CHOOSING:
        for adapter in adapters:
            found += [Method("dspy", kind, adapter, minutes) for minutes in rival_minutes]
            found.append(Method("dspy", kind, adapter))
    return found


def selected(every: Iterable[Method], only: Sequence[str]) -> list[Method]:
    """The methods that one of these texts names, or whose names hold it where none is named so; all for no text.

    Raises:
        ValueError: a text that no name holds.
    """
    known = list(every)
    names = [method.name for method in known]
    chosen: set[str] = set()
    for text in only:
        meant = [name for name in names if name == text] or [name for name in names if text in name]
        if not meant:
            raise ValueError(f"no method's name holds {text!r}; there are {', '.join(names)}")
        chosen.update(meant)
    return [method for method in known if not only or method.name in chosen]
