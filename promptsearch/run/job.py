"""What one call of :func:`promptsearch.optimize` was asked to do, with the clock and the listener of the run.

Invariant: its phases share it, and none of them changes more of it than the clock.
Leaves out: doing it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from promptsearch.budget import Budget, Meter
from promptsearch.events import Listener
from promptsearch.lm.resolve import OpenedModel
from promptsearch.search.base import Strategy
from promptsearch.search.space import Space
from promptsearch.task import Task
from promptsearch.version import __version__

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One call.

    Attributes:
        task: the user's task.
        limits: what may be spent.
        space: what may vary.
        strategy: how it is searched.
        prefer: "accuracy" or "cheap".
        seed: of everything that is drawn.
        listen: hears of progress.
        meter: what was spent.
    """

    task: Task
    limits: Budget
    space: Space
    strategy: Strategy
    prefer: str
    seed: int
    listen: Listener
    meter: Meter = field(default_factory=Meter)

    def identity(self, opened: OpenedModel) -> dict[str, str]:
        """What a run folder belongs to; the encoder is compared once it is open."""
        return {
            "instruction": " | ".join(self.task.instructions),
            "metric": self.task.metric_name,
            "labels": ", ".join(self.task.labels or ()),
            "task": self.task.fingerprint,
            "model": opened.engine.fingerprint,
            "seed": str(self.seed),
            "budget": str(self.limits),
            "space": repr(self.space),
            "strategy": getattr(self.strategy, "__name__", type(self.strategy).__name__),
            "prefer": self.prefer,
            "promptsearch": __version__,
        }
