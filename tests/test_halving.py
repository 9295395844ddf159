"""Strategies on a made-up objective whose truth is known: what they find, and what they ask for."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, Strategy, best_first, rank_key
from promptsearch.search.halving import halving
from promptsearch.search.log_knowledge import conditional_accuracy
from promptsearch.search.race import Race, rungs_for
from promptsearch.search.random_search import random_search
from promptsearch.search.space import Lengths, SearchSpace, Space

ZERO = Candidate("Say.", "t0")
STRATEGIES = pytest.mark.parametrize("strategy", [halving, random_search], ids=["halving", "random"])


def share(*parts: object) -> float:
    """A number in [0, 1) that these values determine."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "big") / 2**48


def make(*, pool: int = 40, templates: int = 9, **space: object) -> SearchSpace:
    ids = list(range(pool))
    return SearchSpace(
        Space(**space),  # type: ignore[arg-type]
        templates=[f"t{number}" for number in range(templates)],
        instructions=("Say.", ""),
        pool=ids,
        labels=[number % 2 for number in ids],
        lengths=Lengths({"Say.": 2, "": 0}, dict.fromkeys(ids, 25), 20.0, 40, 2000),
    )


def by_template(candidate: Candidate) -> float:
    """One template is best, and the instruction helps a little."""
    return 0.5 + 0.05 * int(candidate.template[1:]) + (0.03 if candidate.instruction else 0.0)


def by_examples(candidate: Candidate) -> float:
    """Every fifth example of the pool helps, every seventh harms."""
    return float(
        np.clip(0.55 + sum(0.08 * (n % 5 == 0) - 0.08 * (n % 7 == 0) for n in candidate.demonstrations), 0.1, 0.95)
    )


@dataclass
class Watched:
    """What a strategy asked for, what that cost, and what it returned."""

    requests: list[Request]
    spent: float
    finalists: list[Candidate]
    scores: dict[Candidate, Scores]


def run(
    strategy: Strategy,
    space: SearchSpace,
    allowance: Allowance,
    quality: Callable[[Candidate], float],
    *,
    seed: int = 0,
    anchors: Sequence[Candidate] = (ZERO,),
    most_requests: int = 2000,
) -> Watched:
    """Answer a strategy's requests with coin tosses of a candidate's quality."""
    race = strategy(space, anchors, allowance, np.random.default_rng(seed))
    watched = Watched([], 0.0, [], {})
    try:
        request = next(race)
        while True:
            watched.requests.append(request)
            assert len(watched.requests) <= most_requests, "a strategy that never ends"
            assert 1 <= request.items <= allowance.items
            for candidate in request.candidates:
                before = watched.scores[candidate].items if candidate in watched.scores else 0
                new = max(0, request.items - before)
                watched.spent += allowance.price(space, candidate, new, begun=before > 0)
                tosses = np.array([share(candidate.key, item, seed) for item in range(request.items)])
                right = quality(candidate)
                watched.scores[candidate] = Scores((tosses < right) * 1.0, 0.5 * (tosses < right) + 0.5 * right)
            request = race.send({candidate: watched.scores[candidate] for candidate in request.candidates})
    except StopIteration as finished:
        watched.finalists = finished.value
    return watched


# -- what they find -----------------------------------------------------------------------------------------


def test_halving_finds_a_near_best_arm() -> None:
    space = make(shots=(0,))
    found = [
        by_template(run(halving, space, Allowance(4000, 200, True), by_template, seed=seed).finalists[0])
        for seed in range(20)
    ]
    assert sum(quality >= 0.5 + 0.05 * 8 - 0.06 for quality in found) >= 16


def test_halving_beats_random_search_at_equal_allowance() -> None:
    space, allowance = make(templates=2), Allowance(6000, 200, True)

    def mean_quality(strategy: Strategy) -> float:
        found = [run(strategy, space, allowance, by_examples, seed=seed).finalists[0] for seed in range(20)]
        return float(np.mean([by_examples(each) for each in found]))

    halved, random = mean_quality(halving), mean_quality(random_search)
    assert halved > random + 0.01
    assert halved > 0.85


def test_the_best_finalist_comes_first() -> None:
    watched = run(halving, make(), Allowance(5000, 150, True), by_examples)
    keys = [rank_key(watched.scores[each]) for each in watched.finalists]
    assert keys == sorted(keys, reverse=True)
    assert {watched.scores[each].items for each in watched.finalists} == {150}
    assert len(set(watched.finalists)) == len(watched.finalists) == 5


# -- what they ask for --------------------------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize("by_evaluations", [True, False])
@pytest.mark.parametrize("items", [30, 72, 200])
@pytest.mark.parametrize("seed", range(3))
def test_no_more_than_the_allowance(strategy: Strategy, by_evaluations: bool, items: int, seed: int) -> None:
    total = 3000.0 if by_evaluations else 90_000.0
    watched = run(strategy, make(), Allowance(total, items, by_evaluations), by_examples, seed=seed)
    assert 0.6 * total <= watched.spent <= 1.1 * total


@STRATEGIES
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), rounds=st.floats(0, 25), items=st.integers(1, 120), pool=st.integers(2, 30))
def test_any_allowance(strategy: Strategy, seed: int, rounds: float, items: int, pool: int) -> None:
    """Requests are whole, anchors are tried where they can be paid, and there is always a finalist."""
    anchors = (ZERO, Candidate("", "t0"), Candidate("Say.", "t0", mode="retrieved", count=1))
    space = make(pool=pool)
    allowance = Allowance(max(1.0, rounds * items), items, True)
    watched = run(strategy, space, allowance, by_examples, seed=seed, anchors=anchors)
    assert watched.requests
    for request in watched.requests:
        assert request.candidates
        assert len(set(request.candidates)) == len(request.candidates)
        assert all(space.fits(candidate) for candidate in request.candidates)
    assert watched.finalists
    assert set(watched.finalists) <= set(watched.scores)
    most = max(scores.items for scores in watched.scores.values())
    assert all(watched.scores[each].items == most for each in watched.finalists)
    if strategy is halving and rounds > 12:
        assert set(anchors) <= set(watched.scores)
    assert ZERO in watched.scores


@STRATEGIES
def test_the_same_seed_asks_the_same(strategy: Strategy) -> None:
    def watch(seed: int) -> Watched:
        return run(strategy, make(), Allowance(3000, 100, True), by_examples, seed=seed)

    assert watch(4).requests == watch(4).requests
    assert watch(4).requests != watch(5).requests


@STRATEGIES
@pytest.mark.parametrize(
    "space",
    [
        make(pool=2),
        make(shots=(0,)),
        make(shots=(0,), templates=1),
        make(shots=(0,), templates=1, modes=("static",)),
        make(pool=2, shots=(1,), modes=("retrieved",)),
    ],
    ids=["two examples", "no demonstrations", "next to nothing", "two candidates", "retrieving only"],
)
@pytest.mark.parametrize("total", [1.0, 100.0, 50_000.0])
def test_small_spaces_come_to_an_end(strategy: Strategy, space: SearchSpace, total: float) -> None:
    watched = run(strategy, space, Allowance(total, 60, True), by_template)
    assert 1 <= len(watched.finalists) <= 5


def races(watched: Watched) -> list[list[Request]]:
    """Requests of each race: items grow within one."""
    found: list[list[Request]] = []
    for request in watched.requests:
        if not found or request.items <= found[-1][-1].items:
            found.append([])
        found[-1].append(request)
    return found


def test_a_race_halves_its_arms_and_doubles_the_items() -> None:
    watched = run(halving, make(), Allowance(8000, 200, True), by_examples)
    whole = [race for race in races(watched) if race[-1].items == 200]
    assert whole
    for race in whole:
        assert [request.items for request in race] == [24, 48, 96, 200]
        for before, after in itertools.pairwise(race):
            assert len(after.candidates) <= (len(before.candidates) + 1) // 2
            ranked = best_first({arm: watched.scores[arm].upto(before.items) for arm in before.candidates})
            assert list(after.candidates) == ranked[: len(after.candidates)]


def test_newcomers_go_on_only_while_not_behind() -> None:
    watched = run(halving, make(), Allowance(8000, 200, True), by_examples)
    every = races(watched)
    first = next(place for place, race in enumerate(every) if race[-1].items == 200)
    known = {arm for race in every[: first + 1] for request in race for arm in request.candidates}
    against = best_first({arm: watched.scores[arm] for arm in every[first][-1].candidates})[0]
    second = every[first + 1]
    assert known.isdisjoint(second[0].candidates)
    for before, after in itertools.pairwise(second):
        for arm in after.candidates:
            ours = rank_key(watched.scores[arm].upto(before.items))
            assert ours >= rank_key(watched.scores[against].upto(before.items)) - 1e-9


# -- parts --------------------------------------------------------------------------------------------------


@given(st.integers(1, 5000))
def test_rungs(items: int) -> None:
    rungs = rungs_for(items)
    assert rungs[-1] == items
    assert list(rungs) == sorted(set(rungs))
    assert rungs[0] == min(24, items) or (len(rungs) == 1 and items < 32)
    assert all(1.3 <= after / before <= 2.6 for before, after in itertools.pairwise(rungs))


@pytest.mark.parametrize("arms", [1, 2, 7, 16])
def test_the_price_of_a_race_is_what_halving_costs(arms: int) -> None:
    race = Race(make(), Allowance(1e9, 200, True))
    total, alive, start = 0, arms, 0
    for stop in (24, 48, 96, 200):
        total += alive * (stop - start)
        alive, start = -(-alive // 2), stop
    estimate = race.price_of_race([ZERO] * arms)
    assert 0.7 * total <= estimate <= 1.01 * total


def test_the_price_in_tokens_counts_a_prefix_at_the_first_rung() -> None:
    space = make()
    race = Race(space, Allowance(1e9, 48))
    arm = Candidate("Say.", "t0", demonstrations=(1, 2, 3))
    assert race.price_of_race([arm]) == space.price(arm, 48)


def test_conditional_accuracy_tells_good_examples_from_bad() -> None:
    watched = run(halving, make(), Allowance(20_000, 100, True), by_examples)
    weights = conditional_accuracy(watched.scores)
    good = np.mean([weights[n] for n in weights if n % 5 == 0 and n % 7])
    bad = np.mean([weights[n] for n in weights if n % 7 == 0 and n % 5])
    assert good > bad + 0.02


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=30))
def test_rank_key_is_between_score_and_confidence(pairs: list[tuple[float, float]]) -> None:
    values, confidence = (np.array(column) for column in zip(*pairs, strict=True))
    key = rank_key(Scores(values, confidence))
    low, high = sorted((values.mean(), confidence.mean()))
    assert low - 1e-9 <= key <= high + 1e-9


def test_confidence_matters_less_the_more_items_there_are() -> None:
    def gain(items: int) -> float:
        same = np.full(items, 0.5)
        return rank_key(Scores(same, np.full(items, 0.9))) - rank_key(Scores(same, same))

    assert gain(1) > gain(24) > gain(200) > 0
    assert rank_key(Scores(np.empty(0), np.empty(0))) == 0.0


def test_equals_are_ordered_by_content_alone() -> None:
    scores = {Candidate(demonstrations=(n,)): Scores(np.ones(3), np.ones(3)) for n in range(9)}
    backwards = dict(reversed(scores.items()))
    assert best_first(scores) == best_first(backwards) == sorted(scores, key=lambda each: each.key)
