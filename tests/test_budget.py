"""What a budget may look like, and that costs are counted once, also by a run that goes on."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.budget import Budget, Cost, Meter
from promptsearch.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "seconds", "tokens", "evaluations"),
    [
        ("90s", 90, None, None),
        ("90 s", 90, None, None),
        ("90sec", 90, None, None),
        ("1 second", 1, None, None),
        ("1.5 seconds", 1.5, None, None),
        ("2m", 120, None, None),
        ("2M", 120, None, None),
        ("2 min", 120, None, None),
        ("2 mins", 120, None, None),
        ("2 minutes", 120, None, None),
        ("1 minute", 60, None, None),
        ("0.5h", 1800, None, None),
        ("2 hours", 7200, None, None),
        ("1m30s", 90, None, None),
        ("1h 2m 3s", 3723, None, None),
        ("  2m ", 120, None, None),
        ("1,000s", 1000, None, None),
        ("500k tokens", None, 500_000, None),
        ("500K Tokens", None, 500_000, None),
        ("500 k tokens", None, 500_000, None),
        ("1.5k tokens", None, 1500, None),
        ("2m tokens", None, 2_000_000, None),
        ("1 token", None, 1, None),
        ("1,234,567 tokens", None, 1_234_567, None),
        ("4000 evaluations", None, None, 4000),
        ("4k evals", None, None, 4000),
        ("1 evaluation", None, None, 1),
        ("2m, 500k tokens", 120, 500_000, None),
        ("2m + 4000 evaluations", 120, None, 4000),
        ("90s 500k tokens 4k evaluations", 90, 500_000, 4000),
    ],
)
def test_texts(text: str, seconds: float | None, tokens: int | None, evaluations: int | None) -> None:
    assert Budget.parse(text) == Budget(seconds, tokens, evaluations)


@pytest.mark.parametrize("number", [90, 90.0])
def test_a_number_is_seconds(number: float) -> None:
    assert Budget.parse(number) == Budget(seconds=90.0)


def test_a_budget_is_itself() -> None:
    budget = Budget(seconds=1, tokens=2, evaluations=3)
    assert Budget.parse(budget) is budget


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "2", "m", "soon", "-2m", "2x", "2 m tok ens", "two minutes", "1,00 tokens", "1.2.3s", "2m!"),
        *("1e5 tokens", "100ms", "5 ss", "5k", "5k s", "0s", "0 tokens", "0.2 tokens", "0 evaluations"),
        *("2m and 5s", "inf", "nan s"),
    ],
)
def test_texts_that_are_no_budget(text: str) -> None:
    with pytest.raises(BudgetError) as caught:
        Budget.parse(text)
    assert "\n" not in str(caught.value)
    assert "give a time" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [0, -1, -0.5, math.nan, math.inf, -math.inf, 10**400, True, None, [], {}, b"2m", "9" * 400 + "tokens"],
    ids=lambda given: repr(given)[:12],
)
def test_values_that_are_no_budget(given: Any) -> None:
    with pytest.raises(BudgetError):
        Budget.parse(given)


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"seconds": 0},
        {"tokens": -5},
        {"evaluations": 0},
        {"seconds": math.nan},
        {"seconds": 5, "tokens": 0},
        {"seconds": "2m"},
    ],
)
def test_limits_that_allow_nothing(limits: dict[str, Any]) -> None:
    with pytest.raises(BudgetError):
        Budget(**limits)


@given(st.text() | st.from_regex(r"\A\d{0,4}[.,]?\d{0,4} ?[kmKM]? ?[a-zA-Z\u212a\u017f]{0,8}( \d[ms])?\Z"))
def test_no_text_does_worse_than_a_budget_error(text: str) -> None:
    said = ""
    try:
        budget = Budget.parse(text)
    except BudgetError as error:
        said = str(error)
    else:
        limits = [limit for limit in (budget.seconds, budget.tokens, budget.evaluations) if limit is not None]
        assert limits
        assert all(0 < limit < math.inf for limit in limits)
    assert len(said.splitlines()) <= 1


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_what_it_prints_it_reads(seconds: int, tokens: int, evaluations: int) -> None:
    for budget in (Budget(tokens=tokens), Budget(evaluations=evaluations), Budget(None, tokens, evaluations)):
        assert Budget.parse(str(budget)) == budget
    assert Budget.parse(str(Budget(seconds=seconds % 10**5 + 1))) == Budget(seconds=seconds % 10**5 + 1)


class Clock:
    """Time that stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr("promptsearch.budget.time.monotonic", lambda: self.now)


def test_phases_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter()
    for phase, lasts in (("search", 3.0), ("confirm", 5.0), ("search", 7.0), ("done", 11.0)):
        clock.now += lasts  # of the phase before
        meter.enter(phase)
    assert meter.cost.seconds == {"setup": 3.0, "search": 16.0, "confirm": 7.0}
    assert meter.cost.total_seconds == meter.elapsed == 26.0


def test_charges_add_up() -> None:
    meter = Meter()
    meter.charge(tokens=5, evaluations=2)
    meter.replay(tokens=7, evaluations=3, elapsed=20.0)
    assert (meter.cost.tokens, meter.cost.evaluations, meter.cost.calls) == (12, 5, 2)


def test_a_replay_sets_the_clock_and_it_goes_on_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter()
    clock.now += 1.0
    meter.enter("search")
    meter.replay(tokens=1, evaluations=1, elapsed=40.0)
    assert meter.elapsed == 40.0
    clock.now += 2.0
    assert meter.elapsed == 42.0
    meter.enter("done")
    assert meter.cost.seconds == {"setup": 1.0, "search": 41.0}


def test_time_that_was_recorded_stays_spent(monkeypatch: pytest.MonkeyPatch) -> None:
    Clock(monkeypatch)
    meter = Meter()
    meter.replay(tokens=1, evaluations=1, elapsed=60.0)
    meter.replay(tokens=1, evaluations=1, elapsed=30.0)  # kept by an interrupted run's early measurement
    assert meter.elapsed == 60.0


def test_a_clock_set_back_takes_no_seconds_from_a_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    meter = Meter()
    clock.now += 10.0
    meter.enter("search")
    meter.set_clock(4.0)
    meter.enter("done")
    assert meter.cost.seconds == {"setup": 10.0, "search": 0.0}


def test_cost_round_trip() -> None:
    cost = Cost(5, 6, 7, {"search": 1.5, "test": 2.0})
    assert cost.to_dict()["total_seconds"] == 3.5
    assert Cost.from_dict(cost.to_dict()) == cost
