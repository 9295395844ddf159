"""Forward selection: what each step compares, what it keeps, and when it ends."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import ZERO, Watched, by_examples, by_template, first_ones, make, run

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Scores, best_first
from promptsearch.search.greedy import _holds_up, greedy
from promptsearch.search.space import SearchSpace

STATIC = {"modes": ("static",), "templates": 3}


def by_number(candidate: Candidate) -> float:
    """Every demonstration helps as much."""
    return 0.4 + 0.06 * min(candidate.shots, 8)


def harmful(candidate: Candidate) -> float:
    """Every demonstration harms."""
    return 0.9 - 0.3 * min(candidate.shots, 2)


def steps(watched: Watched) -> list[tuple[Candidate, ...]]:
    """What each race of the selection began with: longer sets than before in the same words."""
    starts = [after for before, after in itertools.pairwise(watched.requests) if after.items <= before.items]
    return [request.candidates for request in starts]


def test_steps_add_to_the_best_so_far() -> None:
    """Each new set is the incumbent with one example at an end, or as many again; the incumbent was fully scored."""
    watched = run(greedy, make(**STATIC), Allowance(8000, 100, True), by_number)
    known: set[Candidate] = set()
    grown = 0
    for request in watched.requests:
        for arm in set(request.candidates) - known:
            shown = arm.demonstrations
            parents = {shown[:-1], shown[1:], shown[: (len(shown) + 1) // 2]}
            full = {each.demonstrations for each in known if watched.scores[each].items == 100}
            grown += len(shown) > 1 and bool(parents & full)
        known |= set(request.candidates)
    assert grown > 20


def test_both_ends_are_tried_on_the_same_items() -> None:
    watched = run(greedy, make(**STATIC), Allowance(8000, 100, True), by_number)
    pairs = 0
    for first in steps(watched):
        sets = {arm.demonstrations for arm in first}
        pairs += sum((shown[-1], *shown[:-1]) in sets for shown in sets if len(shown) > 1)
    assert pairs > 5


def test_demonstrations_are_added_while_they_help() -> None:
    best = run(greedy, make(**STATIC), Allowance(12_000, 150, True), by_number).finalists[0]
    assert best.shots >= 6


def test_selection_ends_where_demonstrations_harm() -> None:
    """Three steps without success, then other words for what is best."""
    watched = run(greedy, make(**STATIC), Allowance(8000, 150, True), harmful)
    assert watched.finalists[0].shots == 0
    alone = [all(arm.shots == 1 and arm.template == "t0" for arm in first) for first in steps(watched)]
    start = alone.index(True)
    assert alone[start : start + 4] == [True, True, True, False]


def test_the_best_anchors_words_are_selected_in() -> None:
    anchors = [ZERO, *(Candidate("Say.", f"t{number}") for number in (1, 8))]
    watched = run(greedy, make(modes=("static",)), Allowance(2000, 60, True), by_template, anchors=anchors)
    assert {arm.template for first in steps(watched)[:4] for arm in first if arm.shots} == {"t8"}


def test_local_search_changes_words_too() -> None:
    watched = run(greedy, make(modes=("static",), shots=(0, 1, 2)), Allowance(8000, 100, True), by_template)
    assert by_template(watched.finalists[0]) >= 0.5 + 0.05 * 7


def test_a_share_is_left_for_local_search() -> None:
    """However long the selection could go on, reordered or swapped sets are tried as well."""
    watched = run(greedy, make(**STATIC, pool=60), Allowance(6000, 100, True), by_number)
    sizes = [arm.shots for arm in watched.scores]
    assert len({frozenset(arm.demonstrations) for arm in watched.scores}) < len(set(watched.scores))
    assert {arm.template for arm in watched.scores} > {"t0"}
    assert max(sizes) <= 32


@pytest.mark.parametrize("shots", [(0, 1, 2, 4), (4,), (3, 6), (0, 50)])
def test_never_more_than_the_space_holds(shots: tuple[int, ...]) -> None:
    space = make(modes=("static",), shots=shots, templates=2)
    start = Candidate("Say.", "t0", demonstrations=tuple(range(space.most_shots)))
    watched = run(greedy, space, Allowance(5000, 60, True), by_number, anchors=[start])
    assert max(arm.shots for arm in watched.scores) == space.most_shots
    if 0 not in space.shots:
        assert min(arm.shots for arm in watched.scores) > 0


def test_the_pool_is_used_up() -> None:
    watched = run(greedy, make(pool=3, modes=("static",), templates=2), Allowance(9000, 60, True), by_number)
    assert max(arm.shots for arm in watched.scores) == 2  # the largest number that the space names and the pool has
    assert all(len(set(arm.demonstrations)) == arm.shots for arm in watched.scores)


def chooser_of(numbers: tuple[int, ...], asked: list[int]) -> SearchSpace:
    def choose(count: int, rng: np.random.Generator) -> tuple[int, ...]:
        asked.append(count)
        return numbers[:count]

    return make(**STATIC, pool=200, choosers={"mine": choose})


def test_selection_strategies_propose() -> None:
    """What only a strategy knows is found early."""
    asked: list[int] = []
    mine = (150, 151, 152, 153, 154, 155)
    watched = run(greedy, chooser_of(mine, asked), Allowance(4000, 60, True), by_number)
    assert asked
    assert min(asked) >= 1
    shown = {number for arm in watched.scores for number in arm.demonstrations}
    assert len(shown & set(mine)) >= 3


def test_what_did_well_is_proposed_again() -> None:
    """Examples that helped in an anchor's set are among those that are selected."""
    good = tuple(range(0, 40, 5))
    anchors = [
        ZERO,
        Candidate("Say.", "t0", demonstrations=good),
        Candidate("Say.", "t0", demonstrations=(7, 14, 21)),
    ]
    watched = run(greedy, make(**STATIC), Allowance(6000, 100, True), by_examples, anchors=anchors)
    assert by_examples(watched.finalists[0]) >= 0.85


def test_labels_take_turns_in_proposals() -> None:
    watched = run(
        greedy, make(**STATIC, labels=4, choosers={"first": first_ones}), Allowance(9000, 60, True), by_number
    )
    best = best_first({arm: watched.scores[arm] for arm in watched.finalists})[0]
    assert len({number % 4 for number in best.demonstrations}) >= 3


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_holding_up_is_its_slow_twin(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (np.array(column) for column in zip(*pairs, strict=True))
    differences = [a - b for a, b in pairs]
    mean = sum(differences) / len(pairs)
    spread = sum((each - mean) ** 2 for each in differences) / max(1, len(pairs) - 1)
    error = (spread / len(pairs)) ** 0.5 if len(pairs) > 1 else 0.0
    if abs(mean + error) > 1e-6:
        assert _holds_up(Scores(ours, ours), Scores(theirs, theirs)) == (mean >= -error)
    assert _holds_up(Scores(ours, ours), Scores(ours, ours))
