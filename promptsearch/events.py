"""What a long job tells while it works. The library emits events; who listens decides what is shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from promptsearch.measurement import Measurement

__all__ = ["Event", "Listener", "Note", "Progress", "silent"]


@dataclass(frozen=True)
class Note:
    """A fact worth a line: the model and its weights, the splits, the plan, why the search stopped."""

    text: str


@dataclass(frozen=True)
class Progress:
    """Where the job stands.

    Attributes:
        phase: "load", "weights", "embed", "rationales", "bootstrap", "search", "confirm", "read" or "test".
        done: share of the phase that is done, 0 to 1.
        alive: candidates still in the race.
        tried: candidates tried.
        best: the best so far on search items; None before there is one.
        tokens_per_second: of the model; 0 where it does not run.
        left: share of the budget that is left, 0 to 1.
        best_is: what ``best`` is called where it is not the task's metric; empty where it is.
    """

    phase: str
    done: float
    alive: int = 0
    tried: int = 0
    best: Measurement | None = None
    tokens_per_second: float = 0.0
    left: float = 1.0
    best_is: str = ""


Event = Note | Progress
Listener = Callable[[Event], None]


def silent(_event: Event) -> None:
    """Listens to nothing."""
