"""How much of an optimizer fits a time: numbers of candidates, trials and validation rows.

An optimizer that is ended from outside wastes what it began, so a bounded run asks for as much as fits beforehand.
Invariant: pure. Counts follow the optimizers' own code (DSPy 3.4), and the rule is the same for all: first fewer
candidates, then fewer validation rows, down to what still is the optimizer.
Leaves out: how long a request takes; callers measure that.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

__all__ = [
    "MiproPlan",
    "RandomSearchPlan",
    "choice_rows",
    "full_proposer_calls",
    "mipro_calls",
    "mipro_plan",
    "mipro_trials",
    "random_search_plan",
]

_MOST_CANDIDATES = 16  # BootstrapFewShotWithRandomSearch's own default
_FIXED_PROGRAMS = 3  # zero-shot, labelled only, unshuffled: it tries them whatever it is told
_BOOTSTRAP_CALLS = 8  # of a program: four traces at most, every other one right
_WANTED_PROGRAMS = 5  # under these, fewer validation rows buy more programs
_FEWEST_ROWS = 10

_MIPRO_SETS = 6  # of auto="light"
_FEWEST_SETS = 4  # zero-shot, labelled only, unshuffled, and one random
_MINIBATCH = 35
_FULL_EVERY = 5
_MINIBATCH_ABOVE = 50
_SUMMARY_CALLS = 10  # that read the data, ten rows each
_LONGER_PROPOSALS = 2.0  # than the first one: later ones read what earlier ones wrote
_INFORMED_SHARE = 0.25  # of the time that describing data and program may take; the trials need the rest
_CALLS_AN_INSTRUCTION = 3  # describe the program, describe the module, propose


@dataclass(frozen=True)
class RandomSearchPlan:
    """Parameters of BootstrapFewShotWithRandomSearch."""

    candidates: int
    validation_rows: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def random_search_plan(calls: float, rows: int) -> RandomSearchPlan:
    """As many candidate programs as ``calls`` requests pay for, and validation rows, ``rows`` at most."""
    for kept in _row_choices(rows):
        programs = int(calls // (kept + _BOOTSTRAP_CALLS))
        if programs >= _WANTED_PROGRAMS:
            return RandomSearchPlan(min(_MOST_CANDIDATES, programs - _FIXED_PROGRAMS), kept)
    kept = _row_choices(rows)[-1]
    programs = int(calls // (kept + _BOOTSTRAP_CALLS))
    return RandomSearchPlan(max(0, programs - _FIXED_PROGRAMS), kept)


@dataclass(frozen=True)
class MiproPlan:
    """Parameters of MIPROv2.

    Attributes:
        sets: demonstration sets; instructions are half as many, as in its own presets.
        trials: trials of the search.
        validation_rows: rows of a full evaluation.
        minibatch: whether trials see a part of them.
        informed: whether its proposer first describes data and program, as by default.
    """

    sets: int
    trials: int
    validation_rows: int
    minibatch: bool
    informed: bool

    @property
    def instructions(self) -> int:
        """Instructions to propose."""
        return self.sets // 2

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def mipro_trials(sets: int) -> int:
    """Trials that MIPROv2 itself takes for a program of one predictor."""
    return int(max(2 * 2 * math.log2(sets), 1.5 * sets))


def mipro_calls(trials: int, rows: int, *, minibatch: bool) -> int:
    """Programs that MIPROv2 runs in its trials: the default program, minibatches, full evaluations in between."""
    if not minibatch:
        return rows + trials * rows
    last = trials + trials // _FULL_EVERY + (1 if trials % _FULL_EVERY else 0)
    calls, number = rows, 1  # the default program is trial number 0, and full evaluations take numbers too
    for _ in range(trials):
        calls += _MINIBATCH
        place = number + 1
        number += 1
        if place % (_FULL_EVERY + 1) == 0 or place == last:
            calls += rows
            number += 1
    return calls


def full_proposer_calls(instructions: int, training_rows: int) -> int:
    """Requests of a proposer that describes data and program first."""
    return min(_SUMMARY_CALLS, math.ceil(training_rows / 10)) + 1 + _CALLS_AN_INSTRUCTION * instructions


def mipro_plan(
    seconds: float, *, call_seconds: float, proposal_seconds: float, rows: int, training_rows: int
) -> MiproPlan:
    """The largest search that fits.

    Args:
        seconds: what is allowed.
        call_seconds: of one run of the program.
        proposal_seconds: of the proposer's first request.
        rows: validation rows there are.
        training_rows: training rows there are.
    """
    plans = [
        _mipro(sets, kept, informed)
        for kept in _row_choices(rows)
        for sets in range(_MIPRO_SETS, _FEWEST_SETS - 1, -1)
        for informed in (True, False)
    ]
    for plan in plans:
        proposals = full_proposer_calls(plan.instructions, training_rows) if plan.informed else plan.instructions
        proposing = _LONGER_PROPOSALS * proposals * proposal_seconds
        runs = mipro_calls(plan.trials, plan.validation_rows, minibatch=plan.minibatch)
        runs += (plan.sets - 2) * _BOOTSTRAP_CALLS
        too_long = plan.informed and proposing > _INFORMED_SHARE * seconds
        if not too_long and proposing + runs * call_seconds <= seconds:
            return plan
    return plans[-1]


def choice_rows(calls: float, programs: int, rows: int) -> int:
    """Validation rows on which each of ``programs`` can be tried, ``rows`` at most."""
    return max(1, min(rows, int(calls // programs)))


def _mipro(sets: int, rows: int, informed: bool) -> MiproPlan:
    minibatch = rows > _MINIBATCH_ABOVE
    return MiproPlan(sets, mipro_trials(sets), rows, minibatch, informed)


def _row_choices(rows: int) -> list[int]:
    """All rows, halves of them, quarters, down to the fewest that are worth a comparison."""
    found = [rows]
    while found[-1] // 2 >= _FEWEST_ROWS:
        found.append(found[-1] // 2)
    return found
