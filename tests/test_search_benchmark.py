"""The search benchmark's arithmetic, its recipe's budget, and its way through a model that is over in an instant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fakes import WatchedLM, WordEncoder, golds_of, numbered_task
from made_up import ZERO, by_examples, make, run

import promptsearch as ps
from benchmarks.search import summary
from benchmarks.search.cells import measure_search
from benchmarks.search.methods import CANDIDATES, OWN_STRATEGIES, RECIPE, methods, plain_random, recipe_budget
from promptsearch.candidate import MODES
from promptsearch.lm.resolve import open_engine
from promptsearch.run.phases import make_plan
from promptsearch.search.base import Allowance
from promptsearch.search.registry import STRATEGIES


def point(value: float, choosing: float, per_query: float = 10.0) -> summary.Point:
    return summary.Point("x", 2 * choosing, choosing, (value,), (value,), per_query)


def test_every_strategy_and_mode_is_compared() -> None:
    found = methods()
    strategies = set(STRATEGIES) - {"auto"}
    assert {method.strategy for method in found.values() if method.budgeted} == strategies
    for strategy in strategies:
        assert (found[strategy].space.prior, found[f"{strategy}+prior"].space.prior) == (False, True)
    assert {method.space.modes for name, method in found.items() if name.endswith(" only")} == {
        (mode,) for mode in MODES
    }
    assert all("," not in name and "|" not in name for name in found)


def by_shots(prompt: str) -> float:
    return min(0.95, 0.6 + 0.03 * prompt.count("#"))


def test_the_recipe_is_64_candidates_of_eight_on_all_search_rows() -> None:
    task = numbered_task()
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    rows = len(task.split(0).search)
    cell = measure_search(task, methods()[RECIPE], recipe_budget(rows), open_engine(lm), WordEncoder(), 0)
    assert cell["trials"] == cell["raced_to_the_end"] == CANDIDATES
    assert (cell["mode"], cell["shots"]) == ("static", 8)
    assert cell["full"] == cell["full_without_prior"]


def test_a_cell_counts_the_tokens_of_choosing_and_of_a_query() -> None:
    task = numbered_task()
    lm = WatchedLM(golds_of(task), reliability=by_shots)
    cell = measure_search(task, methods()["halving+prior"], "30k tokens", open_engine(lm), WordEncoder(), 0)
    assert 0 < cell["choosing_tokens"] < cell["tokens"] < 33_000
    assert cell["tokens"] - cell["choosing_tokens"] >= cell["test"]["n"]  # the final measurement is left out
    asked = len(task.split(0).test)
    assert cell["full"]["n"] == asked
    shortest = min(len(example.text.split()) for example in task.examples)
    assert cell["tokens_per_query"] > shortest - 8  # rows may share their first words
    again = measure_search(
        task,
        methods()["halving+prior"],
        "30k tokens",
        open_engine(WatchedLM(golds_of(task), reliability=by_shots)),
        WordEncoder(),
        0,
    )
    assert {**cell, "seconds": 0} == {**again, "seconds": 0}


@pytest.mark.parametrize(
    ("value", "tokens"), [(0.4, 100.0), (0.5, 100.0), (0.6, 1000.0), (0.7, 10_000.0), (0.8, None), (0.55, 10**2.5)]
)
def test_tokens_to_reach_a_value(value: float, tokens: float | None) -> None:
    line = [point(0.7, 10_000), point(0.5, 100), point(0.6, 1000)]
    found = summary.tokens_to_reach(line, value)
    assert found is tokens is None or found == pytest.approx(tokens)


def test_a_line_that_falls_reaches_at_its_first_point() -> None:
    assert summary.tokens_to_reach([point(0.7, 100), point(0.6, 1000)], 0.65) == 100


def test_shares_of_retrievals_gain() -> None:
    static, retrieved, routed = point(0.5, 1), point(0.8, 1), point(0.7, 1)
    assert summary.share_of_gain(static, retrieved, routed) == pytest.approx(2 / 3)
    assert summary.share_of_gain(retrieved, static, routed) is None
    assert summary.share_of_gain(static, None, routed) is None


def cell(value: float, tokens: int, per_query: float = 10.0) -> dict[str, Any]:
    full = {"value": value}
    return {
        "full": full,
        "full_without_prior": full,
        "tokens": tokens,
        "choosing_tokens": tokens // 2,
        "tokens_per_query": per_query,
    }


def example_cells() -> dict[str, Any]:
    cells = {}
    for seed, more in enumerate((0.0, 0.02)):
        cells[f"a|halving|25k|{seed}"] = cell(0.6 + more, 25_000)
        cells[f"a|halving|75k|{seed}"] = cell(0.8 + more, 75_000)
        cells[f"a|{RECIPE}|own|{seed}"] = cell(0.7 + more, 400_000)
        for mode, value, tokens in (("static", 0.6, 10.0), ("retrieved", 0.8, 60.0), ("routed", 0.75, 14.0)):
            cells[f"a|{mode} only|75k|{seed}"] = cell(value + more, 75_000, tokens)
    return cells


def test_tables_say_what_was_measured() -> None:
    found = summary.points(example_cells())
    assert [each.budget for each in found["a"]["halving"]] == ["25k", "75k"]
    assert found["a"]["halving"][0].mean == pytest.approx(0.61)
    assert found["a"]["halving"][0].spread == pytest.approx(0.01 * 2**0.5)
    text = summary.table(example_cells())
    reached = (25_000 * 75_000) ** 0.5 / 2
    assert f"{reached:,.0f} tokens, {reached / 200_000:.2f} of it" in text
    assert "1.40 of static's; 0.75 of retrieval's gain" in text


def reported(value: float, n: int, low: float, high: float) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high, "n": n}


def test_reported_numbers_are_held_against_rows_not_read() -> None:
    cells = example_cells()
    assert summary.reported_lines(cells) == []
    for dataset, seed, value in (("a", 0, 0.9), ("a", 1, 0.8), ("b", 0, 0.8), ("b", 1, 0.8)):
        for method in ("halving", "random"):
            measured = {**cell(0.8, 25_000), "test": reported(value, 50, value - 0.05, value + 0.05)}
            cells[f"{dataset}|{method}|50k|{seed}"] = {**measured, "full": {"value": 0.8, "n": 200}}
    cells["b|tpe|50k|0"] = {
        **cell(0.8, 25_000),
        "test": reported(0.8, 200, 0.7, 0.9),
        "full": {"value": 0.8, "n": 200},
    }
    a, b, every, covered = summary.reported_lines(cells)
    # 160 of 200 right and 45 of the 50 that were read: 115 of the 150 others
    mean = (0.9 - 115 / 150) / 2 * 100
    half = 12.706 * mean
    assert a.split() == ["a", f"{mean:+.1f}", "+-", f"{half:.1f}", "n", "=", "4,", "2", "seeds"]
    assert b.split() == ["b", "+0.0", "+-", "0.0", "n", "=", "4,", "2", "seeds"]
    assert "n = 8, 4 datasets and seeds" in every  # a run that read every row says nothing
    assert " in 6 of 8 " in covered


def test_strategies_are_compared_on_the_same_datasets_and_seeds() -> None:
    assert summary.DEFAULT == "halving"
    cells = {f"a|halving|25k|{seed}": cell(0.7 + seed / 10, 1) for seed in (0, 1)}
    cells |= {"a|random|25k|0": cell(0.6, 1), "a|random|25k|1": cell(0.7, 1), "b|random|25k|0": cell(0.1, 1)}
    cells |= {"a|greedy|75k|0": cell(0.1, 1), "a|random+prior|25k|0": cell(0.1, 1)}
    (line,) = summary.strategy_lines(cells)
    assert " ".join(line.split()) == "25k random 65.0, halving 75.0: -10.0 +- 0.0 n = 2"


def test_plots_are_written(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.search.plots import plot

    lines = summary.points(example_cells())["a"]
    for name in ("a.svg", "a.png", "again.svg"):
        plot("a", lines, tmp_path / "plots" / name)
        assert (tmp_path / "plots" / name).stat().st_size > 5000
    assert (tmp_path / "plots" / "a.svg").read_bytes() == (tmp_path / "plots" / "again.svg").read_bytes()


@pytest.mark.parametrize("rows", [1, 37, 100, 999])
def test_the_recipes_budget_is_the_least_that_races_64_candidates(rows: int) -> None:
    def raced(evaluations: int) -> int:
        return make_plan(ps.Budget(evaluations=evaluations), tokens_per_second=0.0, setup_seconds=0.0).search

    total = recipe_budget(rows).evaluations
    assert total is not None
    assert raced(total - 1) < CANDIDATES * rows <= raced(total) < (CANDIDATES + 1) * rows


def test_the_recipe_draws_sets_and_never_chooses_them() -> None:
    def choose(count: int, rng: np.random.Generator) -> tuple[int, ...]:
        raise AssertionError("a selection strategy was asked")

    space = make(shots=(8,), modes=("static",), templates=1, choosers={"any": choose})
    found = run(plain_random, space, Allowance(CANDIDATES * 10, 10, True), by_examples)
    assert len(found.scores) == CANDIDATES
    assert ZERO not in found.scores
    assert {(each.mode, each.shots) for each in found.scores} == {("static", 8)}
    assert set(space.choosers) == {"any"}
    assert {method.strategy for method in methods().values() if not method.budgeted} == set(OWN_STRATEGIES)
    assert not set(OWN_STRATEGIES) & set(STRATEGIES)
