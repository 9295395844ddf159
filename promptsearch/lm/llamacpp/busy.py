"""Notices that other work takes the processor away from a model.

A model's threads wait for each other many times in a batch, so that one process beside them can cost half of the
speed and more, and nothing says so. While batches run, this process should get its threads' worth of processor time;
what it got instead is the share.

Where threads sleep while they wait (OpenMP with a small ``GOMP_SPINCOUNT``, which this package asks for), a thread
that is held up costs the others' time too, and the share falls with the speed: to about 0.3 with one foreign process
on two cores. Where they spin (other OpenMP settings, ggml's own threads), waiting counts as work, and the share shows
only what the foreign process itself took: it falls little where there are many cores.

Invariant: pure; it is told times and keeps no clock. Short batches are left out: waking the threads takes part of
their time on a quiet machine too.
"""

from __future__ import annotations

__all__ = ["QUIET_SHARE", "BusyMeter"]

QUIET_SHARE = 0.7
"""Below this share a machine counts as busy; quiet ones give 0.9 and more."""

_WINDOW = 2.0  # seconds of batches for one share: shorter ones are noise
_SHORTEST = 0.1  # seconds of a batch that counts; waking threads took 0.01 of any batch where this was measured


class BusyMeter:
    """What share of its threads' time a process gets while batches run.

    Args:
        threads: threads that run a batch.

    Attributes:
        share: of the latest full window, in [0, 1]; 1.0 before the first.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.share = 1.0
        self._wall = self._processor = 0.0
        self._complained = False

    def add(self, wall: float, processor: float) -> str | None:
        """Count a batch.

        Args:
            wall: seconds that the batch took.
            processor: seconds that this process's threads ran meanwhile, all together.

        Returns:
            One line for people, the first time that a full window shows other work on the processor.
        """
        if wall < _SHORTEST:
            return None
        self._wall += wall
        self._processor += processor
        if self._wall < _WINDOW:
            return None
        self.share = min(1.0, self._processor / (self._wall * self.threads))
        self._wall = self._processor = 0.0
        if self._complained or not self.is_busy:
            return None
        self._complained = True
        return self._complaint()

    @property
    def is_busy(self) -> bool:
        """Whether the latest window shows other work on the processor."""
        return self.share < QUIET_SHARE

    def _complaint(self) -> str:
        cores = "1 core" if self.threads == 1 else f"{self.threads} cores"
        return (
            f"another process uses the processor: the model gets {self.share:.0%} of {cores}; speeds and time "
            "budgets suffer"
        )
