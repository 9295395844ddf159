"""Plans from budgets, and how the winner is chosen among finalists."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, numbered_task
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.budget import Budget, Meter
from promptsearch.candidate import Candidate
from promptsearch.events import silent
from promptsearch.metrics import resolve_metric
from promptsearch.run.confirming import Confirmation
from promptsearch.run.finalists import Finalist, Fitter
from promptsearch.run.nominating import _fixed_first
from promptsearch.run.phases import Plan, make_plan
from promptsearch.run.racing import Race
from promptsearch.run.study import Study
from promptsearch.scoring import Judge, Judged
from promptsearch.search.base import Scores
from promptsearch.search.space import Lengths, SearchSpace
from promptsearch.store import RunStore

CHEAP = Candidate("", "fields")
DEAR = Candidate("", "fields", mode="retrieved", count=4)
OTHER = Candidate("", "arrow")


class Known(Fitter):
    """Knows how finalists did; confirmation rows are those from 1000 on."""

    early: dict[Candidate, Any]
    late: dict[Candidate, list[float]]

    def judged(self, finalist: Finalist, items: Sequence[int]) -> Judged:
        early, late = self.early[finalist.candidate], self.late[finalist.candidate]
        values = np.array([late[item - 1000] if item >= 1000 else early[item] for item in items])
        return Judged((), values, values, {})

    judged_alone = judged


def study(scores: dict[Candidate, Any], prefer: str = "accuracy") -> Study:
    """A study that has seen these scores on search rows."""
    lengths = Lengths({"": 0}, dict.fromkeys(range(20), 25), 20.0, 30, 1000)
    space = SearchSpace(
        ps.Space(),
        templates=["fields", "arrow"],
        instructions=[""],
        pool=range(20),
        labels=[0, 1] * 10,
        lengths=lengths,
    )
    budget = Budget(evaluations=1000)
    plan = make_plan(budget, tokens_per_second=0.0, setup_seconds=0.0)
    judge = Judge((), None, resolve_metric("exact_match", False, []), {})
    store = RunStore(None, {})
    made = Study(space, None, judge, plan, budget, Meter(), silent, store, prefer)  # type: ignore[arg-type]
    made.scores = {each: Scores(np.array(values), np.array(values)) for each, values in scores.items()}
    return made


def choose(scores: dict[Candidate, tuple[list[float], list[float]]], prefer: str = "accuracy") -> Candidate:
    """The winner, from scores on search rows and on confirmation rows."""
    made = study({candidate: seen for candidate, (seen, _) in scores.items()}, prefer)
    made.fitter = known = Known(None, made.fitter.judge, ())  # type: ignore[arg-type]
    known.early = {candidate: early for candidate, (early, _) in scores.items()}
    known.late = {candidate: late for candidate, (_, late) in scores.items()}
    finalists = [Finalist(candidate, None) for candidate in scores]
    confirmed = len(next(iter(known.late.values())))
    confirmation = Confirmation(made, range(1000))
    seen = confirmation._seen_scores(finalists, range(1000, 1000 + confirmed))
    return list(scores)[confirmation._choose(finalists, seen)]


@given(st.integers(1, 10**9), st.sampled_from(["tokens", "evaluations"]))
def test_a_plan_shares_the_budget_out(total: int, unit: str) -> None:
    plan = make_plan(Budget(**{unit: total}), tokens_per_second=0.0, setup_seconds=5.0)
    assert (plan.unit, plan.total) == (unit, total)
    assert 0 <= plan.search + plan.confirm <= total
    assert Plan(**plan.to_dict()) == plan
    assert unit in str(plan)


@given(st.floats(0.1, 10**5), st.floats(1, 10**5), st.floats(0, 10**5))
def test_a_time_becomes_tokens_that_fit_in_it(seconds: float, speed: float, setup: float) -> None:
    plan = make_plan(Budget(seconds=seconds), tokens_per_second=speed, setup_seconds=setup)
    assert plan.unit == "tokens"
    assert 1 <= plan.total <= max(1, seconds * speed) + 50
    assert plan.tokens_per_second == speed


@given(st.integers(1, 10**6), st.floats(0, 10**6), st.floats(0, 10**6))
def test_a_search_leaves_what_measuring_takes_at_least(total: int, least: float, more: float) -> None:
    plan = make_plan(
        Budget(tokens=total),
        tokens_per_second=0.0,
        setup_seconds=0.0,
        most_to_measure=least + more,
        least_to_measure=least,
    )
    assert 0 <= plan.search + plan.confirm <= total
    assert total - 1.1 * plan.search >= min(least, 0.78 * total) - 2


def test_nothing_is_set_aside_for_fewer_rows_than_are_needed() -> None:
    def read(fewest: int) -> int:
        budget = Budget(tokens=10_000)
        return make_plan(
            budget, tokens_per_second=1, setup_seconds=0, row_to_read=100, rows_to_read=5000, fewest_to_read=fewest
        ).read

    assert read(19) == 1_980
    assert read(20) == 0


@given(st.integers(1_000, 10**7), st.floats(1, 500), st.integers(0, 5000))
def test_reading_takes_its_units_from_the_search(total: int, row: float, rows: int) -> None:
    """A part of the search's, and no more than there are rows."""
    budget = Budget(tokens=total)
    with_it = make_plan(budget, tokens_per_second=1, setup_seconds=0, row_to_read=row, rows_to_read=rows)
    without = make_plan(budget, tokens_per_second=1, setup_seconds=0)
    assert without.read == 0
    assert with_it.search + with_it.read == without.search
    assert with_it.confirm == without.confirm
    assert with_it.read <= min(0.5 * without.search, rows * row) + 1


def test_finalists_that_cannot_be_measured_any_more_are_left_out() -> None:
    made = study({CHEAP: ([1.0], [1.0])})
    made.plan = replace(made.plan, unit="tokens", total=10**6)
    cheap, dear = (60 * made.price([each], [0]) for each in (CHEAP, DEAR))
    assert cheap < dear
    confirmation = Confirmation(made, range(100))
    assert confirmation._measurable([DEAR, CHEAP], range(100)) == [DEAR, CHEAP]
    made.meter.charge(tokens=int(10**6 - dear) + 1, evaluations=0)
    assert confirmation._measurable([DEAR, CHEAP], range(100)) == [CHEAP]
    made.meter.charge(tokens=10**6, evaluations=0)
    assert confirmation._measurable([DEAR, CHEAP], range(100)) == [CHEAP]  # there must be a result


@pytest.mark.parametrize(("elapsed", "rows"), [(10.0, 200), (80.0, 200), (95.0, 20), (99.0, 10), (500.0, 10)])
def test_the_clock_takes_confirmation_rows_away(elapsed: float, rows: int) -> None:
    """As it stood when they were counted: a resumed run confirms on as many."""
    made = study({CHEAP: ([1.0], [1.0])})
    price = made.price([CHEAP], [0])
    total = int(2000 * price)
    made.plan = Plan("tokens", total, total // 2, total // 4, 100 * price)
    made.budget = Budget(seconds=100.0)
    made.meter.set_clock(elapsed)
    confirmation = Confirmation(made, range(100))
    found = len(confirmation.in_time([CHEAP], range(200)))
    assert found == pytest.approx(rows, abs=rows if rows == 20 else 0)
    assert 10 <= found <= 200
    made.meter.set_clock(1000.0)
    assert len(confirmation.in_time([CHEAP], range(200))) == found


def test_setting_up_takes_its_time_from_the_plan() -> None:
    quick, slow = (
        make_plan(Budget(seconds=100), tokens_per_second=1000, setup_seconds=setup).total for setup in (0.0, 40.0)
    )
    assert slow == pytest.approx(0.6 * quick, rel=0.01)


def test_a_small_allowance_races_on_few_rows() -> None:
    race = Race(study({}))
    rows = range(400)
    assert len(race._raced_items(10.0, rows)) == 96
    assert len(race._raced_items(8 * 200.0, rows)) == 192
    assert len(race._raced_items(8 * 399.0, rows)) == 384
    assert len(race._raced_items(1e6, rows)) == 400
    assert list(race._raced_items(1.0, range(20))) == list(range(20))


class Reads(Fitter):
    """Fixed prompts may be read."""

    def may_be_read(self, candidate: Candidate) -> bool:
        return candidate.mode == "static"


@pytest.mark.parametrize(("behind", "first"), [(0.0, CHEAP), (0.05, CHEAP), (0.3, DEAR)])
def test_a_prompt_that_is_asked_about_more_rows_stands_first_unless_far_behind(
    behind: float, first: Candidate
) -> None:
    rows = np.arange(200)
    scores = {
        CHEAP: list((rows % 100 < 80 - 100 * behind).astype(float)),
        DEAR: list((rows % 100 < 80).astype(float)),
    }
    made = study(scores)
    made.fitter = Reads(None, made.fitter.judge, ())  # type: ignore[arg-type]
    assert _fixed_first(made, [DEAR])[0] == DEAR  # nothing is read
    made.plan = replace(made.plan, read=100)
    assert _fixed_first(made, [DEAR])[0] == first
    assert _fixed_first(made, [OTHER, DEAR])[0] == OTHER
    made.scores[CHEAP] = made.scores[CHEAP].upto(24)  # dropped early: it cannot be compared on the others' rows
    assert _fixed_first(made, [DEAR])[0] == DEAR


def test_the_best_wins() -> None:
    assert choose({CHEAP: ([0.0] * 60, [0.0] * 30), OTHER: ([1.0] * 60, [1.0] * 30)}) == OTHER


def test_search_and_confirmation_rows_count_together() -> None:
    lucky, steady = (
        ([1.0] * 10 + [0.0] * 50, [1.0] * 20 + [0.0] * 10),
        ([1.0] * 55 + [0.0] * 5, [1.0] * 18 + [0.0] * 12),
    )
    assert choose({CHEAP: lucky, OTHER: steady}) == OTHER


def test_preferring_cheap_ones_a_dear_prompt_must_gain_measurably() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.integers(2, size=60).astype(float), rng.integers(2, size=30).astype(float)
    slightly = second.copy()
    slightly[int(np.flatnonzero(second == 0)[0])] = 1.0
    scores = {DEAR: (first.tolist(), slightly.tolist()), CHEAP: (first.tolist(), second.tolist())}
    assert choose(scores, "cheap") == CHEAP
    assert choose(scores, "accuracy") == DEAR


def test_a_dear_prompt_wins_where_it_clearly_gains() -> None:
    scores = {CHEAP: ([1.0, 0.0] * 30, [1.0, 0.0] * 15), DEAR: ([1.0] * 60, [1.0] * 30)}
    assert choose(scores, "cheap") == choose(scores) == DEAR


def test_an_ensemble_is_taken_unless_something_is_clearly_better() -> None:
    two, three = (replace(CHEAP, ensemble=(OTHER,) * count) for count in (1, 2))
    right, wrong = [1.0] * 40, [0.0] * 40
    mixed, other = [1.0, 0.0] * 20, [0.0, 1.0] * 19 + [0.0, 0.0]
    for scores, prefer, expected in (
        ({CHEAP: mixed, OTHER: wrong, two: other}, "accuracy", two),
        ({CHEAP: mixed, OTHER: wrong, two: mixed, three: other}, "accuracy", three),
        ({CHEAP: mixed, OTHER: wrong, two: mixed, three: wrong}, "accuracy", two),
        ({CHEAP: right, OTHER: wrong, two: mixed}, "accuracy", CHEAP),
        ({CHEAP: mixed, OTHER: wrong, two: other}, "cheap", CHEAP),
    ):
        assert choose({candidate: (values, values) for candidate, values in scores.items()}, prefer) == expected


def test_the_best_so_far_are_among_those_seen_longest() -> None:
    race = Race(study({CHEAP: [1.0] * 24, OTHER: [1.0, 0.0] * 24, DEAR: [0.0] * 48}))
    assert race._best_so_far() == [OTHER, DEAR]


def test_validation_is_measured_on_confirmation_rows_alone() -> None:
    task = numbered_task()
    result = ps.optimize(
        task, WatchedLM(golds_of(task), reliability=0.8), "2000 evaluations", encoder=WordEncoder(), progress=False
    )
    assert result.validation.n <= len(task.split(0).confirm)
    assert result.prompt.weighing is not None
    assert result.prompt.candidate.calibration == result.prompt.weighing.calibration
