"""What a prompt consists of, apart from the model.

Invariant: the parts alone decide what the model reads for a query, and how its answer is weighed.
Leaves out: asking (:mod:`promptsearch.prompt`) and files (:mod:`promptsearch.artifact`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from promptsearch.calibration import Weighing
from promptsearch.candidate import Candidate
from promptsearch.embed.base import Encoder
from promptsearch.pool import Pool
from promptsearch.prior import LabelPrior
from promptsearch.routing import Router
from promptsearch.seen import SeenRows
from promptsearch.task import Task
from promptsearch.template import Demonstration

__all__ = ["PromptParts", "Retriever"]


@dataclass(frozen=True)
class Retriever:
    """Makes a query's vector, and finds similar labelled examples.

    Attributes:
        pool: vectors and index of the examples; None where only vectors are needed.
        encoder: what makes a query's vector.
        source: what opens the encoder again; empty for an object that only exists here.
    """

    pool: Pool | None
    encoder: Encoder
    source: str = ""


@dataclass(frozen=True)
class PromptParts:
    """Everything that a prompt consists of, apart from the model.

    Attributes:
        task: columns, labels and metric; its rows are not needed.
        candidate: what is shown; its demonstrations are keys of ``examples``.
        examples: examples that can be shown, or vote, by number.
        weighing: how log-probabilities become a choice; None for free text.
        prior: what labelled examples say about a query; needed where the weighing gives it weight.
        retriever: makes vectors and finds neighbours; needed where the prompt retrieves or routes, or a prior with
            weight asks for vectors.
        router: tells a query's cluster; needed where the prompt is routed.
        measured: what was measured of it when it was made, as plain values.
        weighing_alone: the same as ``weighing`` fitted for the prompt without its prior; None where there is none.
        weighing_words: the same as ``weighing`` fitted on the labels' own words, for other models than the one whose
            tokens a readout reads; not needed where there is no readout.
        weighing_words_alone: that without the prior.
        seen: all rows that it was made by.
    """

    task: Task
    candidate: Candidate
    examples: Mapping[int, Demonstration]
    weighing: Weighing | None = None
    prior: LabelPrior | None = None
    retriever: Retriever | None = None
    router: Router | None = None
    measured: Mapping[str, Any] = field(default_factory=dict)
    weighing_alone: Weighing | None = None
    weighing_words: Weighing | None = None
    weighing_words_alone: Weighing | None = None
    seen: SeenRows = field(default_factory=SeenRows)

    @property
    def uses_prior(self) -> bool:
        """Whether the prior has weight."""
        return self.weighing is not None and self.weighing.prior_weight > 0 and self.prior is not None

    @property
    def read_tokens(self) -> tuple[int, ...]:
        """Next tokens that the readout reads; none without one."""
        readouts = [each.readout for each in (self.weighing, self.weighing_alone) if each is not None]
        return next((readout.tokens for readout in readouts if readout is not None), ())

    def without_readout(self) -> PromptParts:
        """The same, its labels told by their own words."""
        if not self.read_tokens:
            return self
        weighing = self.weighing_words if self.uses_prior else self.weighing_words_alone
        calibration = "none" if weighing is None else weighing.calibration
        return replace(
            self,
            candidate=replace(self.candidate, calibration=calibration),
            weighing=weighing,
            weighing_alone=self.weighing_words_alone,
            weighing_words=None,
            weighing_words_alone=None,
        )

    @property
    def needs_pool(self) -> bool:
        """Whether predicting asks for similar examples."""
        return self.candidate.mode == "retrieved" or self.voters > 0

    @property
    def needs_vectors(self) -> bool:
        """Whether predicting asks for a query's vector."""
        by_prior = self.uses_prior and self.prior is not None and self.prior.needs_vectors
        return self.needs_pool or by_prior or self.candidate.mode == "routed"

    @property
    def voters(self) -> int:
        """Similar examples that a query needs to let them vote."""
        return self.prior.neighbours if self.prior is not None and self.uses_prior else 0
