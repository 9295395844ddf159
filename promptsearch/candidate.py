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

__all__ = ["CALIBRATIONS", "MODES", "ORDERS", "Candidate"]

MODES = ("static", "retrieved")
ORDERS = ("nearest-last", "nearest-first")
CALIBRATIONS = ("batch", "contextual", "fitted", "none")


@dataclass(frozen=True)
class Candidate:
    """One point of the search space.

    Attributes:
        instruction: text before the demonstrations; empty for none.
        template: name of a template in :data:`promptsearch.template.TEMPLATES`.
        input_name: what the prompt calls the input; empty for the column's own name.
        output_name: what it calls the output, likewise.
        mode: ``"static"``: the same demonstrations for every query; ``"retrieved"``: each query's nearest.
        demonstrations: ids in the order shown (static).
        count: demonstrations for each query (retrieved).
        order: where the nearest stands (retrieved), one of :data:`ORDERS`.
        calibration: how label log-probabilities are corrected, one of :data:`CALIBRATIONS`.
    """

    instruction: str = ""
    template: str = "fields"
    input_name: str = ""
    output_name: str = ""
    mode: str = "static"
    demonstrations: tuple[int, ...] = ()
    count: int = 0
    order: str = "nearest-last"
    calibration: str = "batch"

    @property
    def shots(self) -> int:
        """Demonstrations that a query sees."""
        return self.count if self.mode == "retrieved" else len(self.demonstrations)

    @cached_property
    def reading(self) -> Candidate:
        """What the model reads: candidates that differ only in the weighing have the same one."""
        return replace(self, calibration="none")

    @cached_property
    def key(self) -> str:
        """Content hash, 32 hexadecimal digits."""
        text = json.dumps(self.to_dict(), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Candidate:
        """The reverse of :meth:`to_dict`.

        Raises:
            ArtifactError: these are no values of a candidate.
        """
        try:
            candidate = cls(**{**values, "demonstrations": tuple(values["demonstrations"])})
        except (KeyError, TypeError) as error:
            raise ArtifactError(f"{values!r} describes no prompt candidate ({error}); save it anew") from error
        numbers = (candidate.count, *candidate.demonstrations)
        names = (
            *(candidate.instruction, candidate.template, candidate.input_name, candidate.output_name),
            *(candidate.mode, candidate.order, candidate.calibration),
        )
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ArtifactError(f"{values!r} holds a number of demonstrations, or one, that is none; save it anew")
        if not all(isinstance(name, str) for name in names):
            raise ArtifactError(f"{values!r} holds a name that is no text; save it anew")
        if candidate.mode not in MODES or candidate.order not in ORDERS or candidate.calibration not in CALIBRATIONS:
            raise ArtifactError(f"{values!r} names an unknown mode, order or calibration; save it anew")
        return candidate
