"""Intervals where truth is known: exactly by enumeration, and through whole searches of a synthetic world."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.outside import best_search_value
from benchmarks.synthetic import HashedWords, World, search
from promptsearch.measurement import measure, paired_difference


@pytest.mark.parametrize("items", [30, 60, 120])
def test_wilson_covers_exactly_so_often(items: int) -> None:
    """No drawing: the probability of each count of right items, summed where its interval holds the truth."""
    from scipy.stats import binom

    found = [measure([1.0] * right + [0.0] * (items - right)) for right in range(items + 1)]
    grid = np.arange(0.05, 0.96, 0.05)
    covered = [
        sum(binom.pmf(right, items, share) for right, each in enumerate(found) if each.low <= share <= each.high)
        for share in grid
    ]
    assert min(covered) > coverage.LEAST["accuracy"]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.01)


@pytest.mark.parametrize("items", [30, 50])
def test_paired_intervals_cover_exactly_so_often(items: int) -> None:
    """Few items that changed, and all of them for the better, are where resampling is surest and most often wrong."""
    from scipy.stats import multinomial

    counts = [(up, down) for up, down in itertools.product(range(items + 1), repeat=2) if up + down <= items]
    intervals = np.array([_interval(up, down, items) for up, down in counts])
    outcomes = np.array([(up, down, items - up - down) for up, down in counts])
    for better, worse in coverage.CHANGES:
        chances = multinomial.pmf(outcomes, items, [better, worse, 1 - better - worse])
        truth = better - worse
        held = (intervals[:, 0] <= truth + 1e-12) & (intervals[:, 1] >= truth - 1e-12)
        assert chances[held].sum() > coverage.LEAST["pairs"]


def _interval(up: int, down: int, items: int) -> tuple[float, float]:
    same = items - up - down
    found = paired_difference([1.0] * (up + same) + [0.0] * down, [0.0] * up + [1.0] * (same + down))
    return found.low, found.high


@pytest.mark.parametrize("name", sorted(coverage.SCORES))
def test_means_of_scores_cover(name: str) -> None:
    cell = coverage.scores(100, np.random.default_rng(1), name, 60)
    assert coverage.passes("scores", cell)
    assert cell["hits"] + cell["above"] + cell["below"] == 100


@pytest.mark.parametrize("name", ["equally good", "few differ, even", "few differ, better"])
def test_paired_scores_cover(name: str) -> None:
    cell = coverage.score_pairs(60, np.random.default_rng(2), name, 60)
    assert coverage.passes("score pairs", cell)
    assert ("small" in cell) == (name != "few differ, better")


@pytest.mark.parametrize("share", [0.05, 0.2])
def test_p_values_are_small_as_often_as_they_say(share: float) -> None:
    """Under the null a p-value is below a level no more often than that level."""
    cell = coverage.pairs(4000, np.random.default_rng(3), share, share, 120)
    assert coverage.passes("pairs", cell)
    assert all(count <= float(level) * 4000 * 1.1 for level, count in cell["small"].items())
    assert cell["small"]["0.1"] > 0.02 * 4000  # an exact test is cautious, and no dead one


# -- the counting itself ----------------------------------------------------------------------------------------


def test_hits_are_counted_on_both_sides() -> None:
    found = [measure([1.0] * right + [0.0] * (20 - right)) for right in (2, 10, 18)]
    cell = coverage.counted(found, 0.5)
    assert (cell["hits"], cell["above"], cell["below"]) == (1, 1, 1)
    assert coverage.counted(found, [0.1, 0.5, 0.9])["hits"] == 3


@pytest.mark.parametrize(("hits", "good"), [(1000, True), (950, True), (930, True), (915, False), (0, False)])
def test_a_cell_fails_beyond_binomial_error(hits: int, good: bool) -> None:
    cell: dict[str, Any] = {"hits": hits, "repeats": 1000}
    assert coverage.passes("protocol", cell) is good


def test_a_cell_fails_for_small_p_values() -> None:
    cell: dict[str, Any] = {"hits": 1000, "repeats": 1000, "small": {"0.05": 60}}
    assert coverage.passes("pairs", cell)
    cell["small"] = {"0.05": 90}
    assert not coverage.passes("pairs", cell)
    assert "FAILS" in coverage.table({"pairs|x|30": {**cell, "width": 0.1}})


def test_every_kind_of_cell_runs() -> None:
    kinds = {}
    for key, cell in coverage.cells(repeats=8, seed=0):
        kind, _, items = key.split("|")
        if items == "30" and kind not in kinds and kind != "macro F1":
            kinds[kind] = cell()
    assert set(kinds) == set(coverage.LEAST) - {"macro F1", "protocol"}
    found = coverage.macro_f1(2, np.random.default_rng(0), 40)
    assert found["repeats"] == 2


# -- whole searches ---------------------------------------------------------------------------------------------


def test_a_worlds_truth_is_its_models() -> None:
    """What a prompt scores on fresh rows is the mean of the probabilities by which the model answers."""
    world = World()
    model, rows = world.model(), world.fresh(3000)
    prompts = [f"Text: {row['text']}\nLabel:" for row in rows]
    scores = model.score(prompts, [" bad", " good"])
    right = [
        ("bad", "good")[int(best)] == row["label"] for best, row in zip(scores.argmax(axis=1), rows, strict=True)
    ]
    assert np.mean(right) == pytest.approx(np.mean([world.reliability(prompt) for prompt in prompts]), abs=0.03)
    assert len({row["text"] for row in rows}) == 3000


def test_encoding_is_by_unit_vectors() -> None:
    found = HashedWords().encode(["a word", "another word here"])
    assert found.shape == (2, 256)
    assert np.linalg.norm(found, axis=1) == pytest.approx([1, 1])


def test_reported_numbers_hold_where_search_scores_do_not() -> None:
    """Prompts of one worth: what the race believes of its best lies far above it, what is reported does not."""
    world = World(help=0.0, rows=160, test=80)
    truths = [search(world, seed, budget="900 evaluations", fresh=1000) for seed in range(10)]
    held = [each.result.test.low <= each.value <= each.result.test.high for each in truths]
    gains = [each.result.improvement.low <= 0 <= each.result.improvement.high for each in truths]
    assert sum(held) >= coverage.fewest_hits(10)
    assert sum(gains) >= coverage.fewest_hits(10)
    imagined = np.mean([best_search_value(each.result) - each.value for each in truths])
    reported = [each.result.test.value - each.value for each in truths]
    assert imagined > 0.04
    assert abs(np.mean(reported)) < 3 * np.std(reported, ddof=1) / 10**0.5
    assert abs(np.mean(reported)) < imagined / 2
