"""A prompt as a value: everything that decides what the model reads, and how its answer is weighed.

Invariant: frozen; equal candidates have equal keys in every process. Demonstrations are ids, never texts.
Leaves out: how it is rendered, and how good it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from promptsearch.errors import ArtifactError

__all__ = [
    "CALIBRATIONS",
    "CONCLUDING_TOKENS",
    "CONSIDERED",
    "CUES",
    "MDL_SETS",
    "MODES",
    "ORDERS",
    "REASONINGS",
    "RERANKERS",
    "RETRIEVERS",
    "SHOWN_THOUGHT",
    "Candidate",
]

MODES = ("static", "retrieved", "routed")
ORDERS = ("nearest-last", "nearest-first", "interleaved")
RETRIEVERS = ("nearest", "mmr", "dpp", "bm25", "hybrid", "coverage")
RERANKERS = ("none", "cone", "mdl")
CALIBRATIONS = ("batch", "contextual", "fitted", "matrix", "readout", "none")
REASONINGS = ("none", "cue", "gold", "self")
CUES = (
    "Let's think step by step.",
    "Let's solve this problem by splitting it into steps.",
    "Let's think about this logically.",
    "First,",
)
"""What reasoning may begin with where none is shown, best first in Kojima et al. 2022 (arXiv 2205.11916, table 4)."""
SHOWN_THOUGHT = "Reasoning:"
"""What reasoning begins with where demonstrations show some."""
CONSIDERED = 30
"""Best matches among which a reranker chooses."""
CONCLUDING_TOKENS = 24
"""Tokens that lead from reasoning to the answer, and what retokenizing it may add, at most."""
MDL_SETS = 10
"""Ordered sets that the reranker ``"mdl"`` compares for each query."""


@dataclass(frozen=True)
class Candidate:
    """One point of the search space.

    Attributes:
        instruction: text before the demonstrations; empty for none.
        template: name of a template in :data:`promptsearch.template.TEMPLATES`.
        input_name: what the prompt calls the input; empty for the column's own name.
        output_name: what it calls the output, likewise.
        mode: ``"static"``: the same demonstrations for every query; ``"retrieved"``: each query's own;
            ``"routed"``: the same for all queries of one cluster.
        demonstrations: ids in the order shown (static).
        routes: for each cluster of queries, ids in the order shown (routed).
        count: demonstrations for each query (retrieved).
        retriever: how each query's demonstrations are found (retrieved), one of :data:`RETRIEVERS`.
        among: ids that they are found among (retrieved); empty for the whole pool.
        order: where the best match stands (retrieved), one of :data:`ORDERS`.
        reranker: how the model itself chooses among what was found (retrieved), one of :data:`RERANKERS`.
        calibration: how label log-probabilities are corrected, one of :data:`CALIBRATIONS`.
        reasoning: ``"none"``: the model answers at once; ``"cue"``: it reasons first, without being shown how;
            ``"gold"``: every demonstration shows its written reasoning; ``"self"``: every one shows what the model
            itself wrote and came to the right answer by.
        thought: what reasoning begins with, such as "Let's think step by step."; empty without reasoning.
        thinking_tokens: tokens of one piece of reasoning at most; 0 without reasoning.
        samples: pieces of reasoning that are sampled for each query and vote (self-consistency); 1 for the likeliest
            one alone.
        ensemble: further fixed prompts that every query is put to, beside this one; their evidence is read together.
    """

    instruction: str = ""
    template: str = "fields"
    input_name: str = ""
    output_name: str = ""
    mode: str = "static"
    demonstrations: tuple[int, ...] = ()
    routes: tuple[tuple[int, ...], ...] = ()
    count: int = 0
    retriever: str = "nearest"
    among: tuple[int, ...] = ()
    order: str = "nearest-last"
    reranker: str = "none"
    calibration: str = "batch"
    reasoning: str = "none"
    thought: str = ""
    thinking_tokens: int = 0
    samples: int = 1
    ensemble: tuple[Candidate, ...] = ()

    @property
    def members(self) -> tuple[Candidate, ...]:
        """The prompts that a query is put to: itself alone, or this one and those beside it, each by itself."""
        return (replace(self, ensemble=()), *self.ensemble) if self.ensemble else (self,)

    @property
    def reasons(self) -> bool:
        """Whether the model reasons before it answers."""
        return self.reasoning != "none"

    @property
    def shots(self) -> int:
        """Demonstrations that a query sees, at most."""
        if self.mode == "routed":
            return max(map(len, self.routes), default=0)
        return self.count if self.mode == "retrieved" else len(self.demonstrations)

    @property
    def shown(self) -> tuple[int, ...]:
        """Ids of all demonstrations that are chosen before any query is known, each once."""
        own = [*self.demonstrations, *(number for route in self.routes for number in route)]
        return tuple(dict.fromkeys([*own, *(number for each in self.ensemble for number in each.shown)]))

    def route(self, cluster: int) -> Candidate:
        """The static candidate that queries of one cluster see (routed)."""
        return replace(self, mode="static", demonstrations=self.routes[cluster], routes=())

    def without_reasoning(self) -> Candidate:
        """The same, answering at once."""
        return replace(self, reasoning="none", thought="", thinking_tokens=0, samples=1)

    @cached_property
    def reading(self) -> Candidate:
        """What the model reads: candidates that differ only in the weighing have the same one."""
        return replace(self, calibration="none", ensemble=tuple(each.reading for each in self.ensemble))

    @cached_property
    def key(self) -> str:
        """Content hash, 32 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        values = asdict(replace(self, ensemble=()))
        del values["ensemble"]
        return {**values, "ensemble": [each.to_dict() for each in self.ensemble]} if self.ensemble else values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """The reverse of :meth:`to_dict`.

        Raises:
            ArtifactError: these are no values of a candidate.
        """
        try:
            candidate = cls(
                **{
                    **values,
                    "demonstrations": tuple(values["demonstrations"]),
                    "routes": tuple(tuple(route) for route in values.get("routes", ())),
                    "among": tuple(values.get("among", ())),
                    "ensemble": tuple(cls.from_dict(each) for each in values.get("ensemble", ())),
                }
            )
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{values!r} describes no prompt candidate ({error}); save it anew") from error
        routed = [number for route in candidate.routes for number in route]
        numbers = (candidate.count, *candidate.demonstrations, *routed, *candidate.among)
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ArtifactError(f"{values!r} holds a number of demonstrations, or one, that is none; save it anew")
        lengths = (candidate.thinking_tokens, candidate.samples - 1) if type(candidate.samples) is int else (None,)
        if not all(type(number) is int and number >= 0 for number in lengths):
            raise ArtifactError(f"{values!r} holds a length of reasoning, or samples, that are none; save it anew")
        if not all(isinstance(text, str) for text in (candidate.instruction, *_names(candidate))):
            raise ArtifactError(f"{values!r} holds a name that is no text; save it anew")
        known = zip(
            (candidate.mode, candidate.order, candidate.calibration, candidate.retriever, candidate.reranker),
            (MODES, ORDERS, CALIBRATIONS, RETRIEVERS, RERANKERS),
            strict=True,
        )
        if not all(name in names for name, names in known) or candidate.reasoning not in REASONINGS:
            raise ArtifactError(
                f"{values!r} names an unknown mode, order, calibration, retriever or reasoning; save it anew"
            )
        whole = candidate.reasons == bool(candidate.thinking_tokens) == bool(candidate.thought)
        if not whole or (candidate.samples > 1 and not candidate.reasons):
            raise ArtifactError(
                f"{values!r} reasons without room for it, or does not reason and has some; save it anew"
            )
        if candidate.mode == "routed" and candidate.reasons:
            raise ArtifactError(f"{values!r} routes and reasons, which no prompt does; save it anew")
        if (candidate.mode == "routed") != bool(candidate.routes):
            raise ArtifactError(f"{values!r} has routes without being routed, or none; save it anew")
        if candidate.ensemble and any(each.mode != "static" or each.reasons for each in candidate.members):
            raise ArtifactError(f"{values!r} puts queries to several prompts that are not all fixed; save it anew")
        if any(each.ensemble for each in candidate.ensemble):
            raise ArtifactError(f"{values!r} holds an ensemble within an ensemble; save it anew")
        return candidate


def _names(candidate: Candidate) -> tuple[str, ...]:
    return (
        *(candidate.template, candidate.input_name, candidate.output_name, candidate.mode, candidate.order),
        *(candidate.calibration, candidate.retriever, candidate.reranker, candidate.reasoning, candidate.thought),
    )
