"""Measures what claims need and keeps every cell as soon as it is there.

Invariant: a cell that is kept is never measured again; the cells do not depend on the order in which they come.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.common import Results
from benchmarks.lab.claim import Claim, Needed, Setting
from benchmarks.lab.measuring import Place, Stock, measure_cell
from benchmarks.lab.reader import Models
from benchmarks.lab.reports import key_of

__all__ = ["Bench", "Job"]


@dataclass(frozen=True)
class Job:
    """A cell to be measured."""

    needed: Needed
    seed: int

    @property
    def key(self) -> str:
        """What it is kept under."""
        return key_of(self.needed, self.seed)


@dataclass(frozen=True)
class Bench:
    """All that is needed to measure.

    Attributes:
        setting: how large the experiments are.
        stock: what is asked about.
        models: the models.
        results: where cells are kept.
    """

    setting: Setting
    stock: Stock
    models: Models
    results: Results

    def jobs(self, claims: Sequence[Claim]) -> list[Job]:
        """The cells that are not there yet, each once, claim by claim, and in a claim model by model."""
        found: dict[str, Job] = {}
        for claim in claims:
            needed = claim.needed(self.setting)
            models = list(dict.fromkeys(each.model for each in needed))
            for each in sorted(needed, key=lambda one: models.index(one.model)):
                for seed in range(claim.seeds_of(each.condition, self.setting)):
                    job = Job(each, seed)
                    if job.key not in self.results:
                        found.setdefault(job.key, job)
        return list(found.values())

    def run(self, claims: Sequence[Claim], tell: Callable[[Job], None]) -> None:
        """Measure everything that claims need; hears of each cell before it is measured."""
        for job in self.jobs(claims):
            tell(job)
            place = Place(self.stock, job.needed.dataset, job.seed)
            reader = self.models.reader(job.needed.model)
            self.results.add(job.key, measure_cell(job.needed.condition, place, reader))
