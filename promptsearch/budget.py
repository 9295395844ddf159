"""What a search may cost, and what it has cost.

Invariant: costs are counted in one place, the :class:`Meter`, and a replayed call counts what it cost when it ran,
so that a resumed search makes the same decisions as an undisturbed one.
Leaves out: what the costs are spent on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from promptsearch.errors import BudgetError

__all__ = ["Budget", "Cost", "Meter"]

_UNITS = {"s": 1.0, "sec": 1.0, "second": 1.0, "m": 60.0, "min": 60.0, "minute": 60.0, "h": 3600.0, "hour": 3600.0}
_AMOUNT = re.compile(r"(\d+(?:[.,]\d+)*)\s*([km]?)\s*([a-z]+)", re.IGNORECASE)
_TOO_MUCH = 1e15  # of any unit; beyond it floats no longer count
_WAY_OUT = 'give a time ("90s", "2m"), tokens ("500k tokens") or evaluations ("4000 evaluations")'


@dataclass(frozen=True)
class Budget:
    """Limits of a search; the first one met ends it.

    Attributes:
        seconds: wall-clock time, above 0.
        tokens: tokens run through the model, at least 1.
        evaluations: answers of the model to one item under one candidate, at least 1.
    """

    seconds: float | None = None
    tokens: int | None = None
    evaluations: int | None = None

    def __post_init__(self) -> None:
        limits = asdict(self)
        if all(limit is None for limit in limits.values()):
            raise BudgetError(f"the budget names no limit; {_WAY_OUT}")
        for name, limit in limits.items():
            if limit is None:
                continue
            if isinstance(limit, bool) or not isinstance(limit, (int, float)):
                raise BudgetError(f"a budget of {limit!r} {name} is no number; {_WAY_OUT}")
            if not 0 < limit < _TOO_MUCH:  # NaN is neither
                raise BudgetError(f"a budget of {str(limit)[:20]} {name} allows nothing, or everything; {_WAY_OUT}")
            if name != "seconds" and limit != int(limit):
                raise BudgetError(f"a budget of {limit} {name} is no whole number; {_WAY_OUT}")

    @classmethod
    def parse(cls, given: str | float | Budget) -> Budget:
        """Read what a person wrote.

        Args:
            given: ``"90s"``, ``"2m"``, ``"1m30s"``, ``"500k tokens"``, ``"4000 evaluations"``, a number of
                seconds, or a budget.

        Raises:
            BudgetError: it cannot be read, or allows nothing.
        """
        if isinstance(given, Budget):
            return given
        if isinstance(given, (int, float)) and not isinstance(given, bool):
            return cls(seconds=given)
        if not isinstance(given, str):
            raise BudgetError(f"budget={given!r} cannot be read; {_WAY_OUT}")
        return cls._from_text(given)

    @classmethod
    def _from_text(cls, text: str) -> Budget:
        amounts = _AMOUNT.findall(text.strip())
        rest = _AMOUNT.sub("", text.strip()).strip(" ,+")
        if not amounts or rest:
            number = text.strip().isdecimal()
            hint = f'name the unit of the number, as in "{text.strip()}s": ' if number else ""
            raise BudgetError(f"budget={text!r} cannot be read; {hint}{_WAY_OUT}")
        limits: dict[str, float] = {}
        for number, scale, unit in amounts:
            name, amount = _limit(text, number, scale.lower(), unit.lower())
            limits[name] = limits.get(name, 0.0) + amount
        counts = {name: int(min(limits[name], _TOO_MUCH)) for name in ("tokens", "evaluations") if name in limits}
        return cls(seconds=limits.get("seconds"), **counts)

    def __str__(self) -> str:
        parts = []
        if self.seconds is not None:
            parts.append(f"{self.seconds:g} s")
        if self.tokens is not None:
            parts.append(f"{self.tokens:,} tokens")
        if self.evaluations is not None:
            parts.append(f"{self.evaluations:,} evaluations")
        return ", ".join(parts)


def _limit(text: str, number: str, scale: str, unit: str) -> tuple[str, float]:
    """Name and amount of one limit; ``m`` alone is minutes, before a word it is millions."""
    whole = scale + unit
    singular = whole[:-1] if len(whole) > 3 and whole.endswith("s") else whole  # "mins", but "ms" is no plural
    if singular in _UNITS:
        return "seconds", _number(text, number) * _UNITS[singular]
    amount = _number(text, number) * {"": 1.0, "k": 1e3, "m": 1e6}[scale]
    for name in ("tokens", "evaluations"):
        if len(unit) >= 4 and name.startswith(unit.rstrip("s")):
            return name, amount
    raise BudgetError(f"budget={text!r} has the unknown unit {scale + unit!r}; {_WAY_OUT}")


def _number(text: str, number: str) -> float:
    """Reads ``1,000`` as a thousand and ``1.5`` as one and a half."""
    if re.fullmatch(r"\d{1,3}(,\d{3})+(\.\d+)?|\d+(\.\d+)?", number) is None:
        raise BudgetError(f"budget={text!r} holds the unclear number {number!r}; {_WAY_OUT}")
    return float(number.replace(",", ""))


@dataclass
class Cost:
    """What was spent.

    Attributes:
        tokens: tokens run through the model.
        calls: calls of the model, each over many prompts.
        evaluations: answers to one item under one candidate.
        seconds: wall-clock seconds by phase.
    """

    tokens: int = 0
    calls: int = 0
    evaluations: int = 0
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "total_seconds": self.total_seconds}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Cost:
        """The reverse of :meth:`to_dict`."""
        return cls(int(values["tokens"]), int(values["calls"]), int(values["evaluations"]), dict(values["seconds"]))


class Meter:
    """Counts the cost of a run, with a clock that goes on where a stopped run's ended."""

    def __init__(self) -> None:
        self.cost = Cost()
        self._phase = "setup"
        self._start = time.monotonic()
        self._offset = 0.0
        self._recorded = 0.0
        self._phase_start = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of this run, those of stopped processes included as far as their work was kept."""
        return self._offset + time.monotonic() - self._start

    def enter(self, phase: str) -> None:
        """Begin a phase; the seconds since the last one began are charged to the last one."""
        now = self.elapsed
        seconds = self.cost.seconds
        seconds[self._phase] = seconds.get(self._phase, 0.0) + max(0.0, now - self._phase_start)
        self._phase, self._phase_start = phase, now

    def charge(self, *, tokens: int, evaluations: int) -> None:
        """Count one call."""
        self.cost.tokens += tokens
        self.cost.evaluations += evaluations
        self.cost.calls += 1
        self._recorded = max(self._recorded, self.elapsed)  # a later call that is found again was no later than this

    def replay(self, *, tokens: int, evaluations: int, elapsed: float) -> None:
        """Count a call that ran in a stopped process, and set the clock to when it ended there."""
        self.set_clock(elapsed)
        self.charge(tokens=tokens, evaluations=evaluations)

    def set_clock(self, elapsed: float) -> None:
        """Go on from ``elapsed`` seconds, or from the latest that was set: time that was recorded stays spent."""
        self._recorded = max(self._recorded, elapsed)
        self._offset = self._recorded - (time.monotonic() - self._start)
