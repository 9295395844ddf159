"""Strategies on a made-up objective whose truth is known: what they find, and what they ask for."""

from __future__ import annotations

import functools
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import ZERO, Watched, by_examples, by_template, clustered, first_ones, make, run

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Request, Scores, Strategy, best_first, rank_key
from promptsearch.search.greedy import greedy
from promptsearch.search.halving import halving
from promptsearch.search.log_knowledge import conditional_accuracy
from promptsearch.search.race import Race, rungs_for
from promptsearch.search.random_search import random_search
from promptsearch.search.space import Clusters, SearchSpace
from promptsearch.search.tpe import tpe

EVERY = {"halving": halving, "random": random_search, "greedy": greedy, "tpe": tpe}
STRATEGIES = pytest.mark.parametrize("strategy", EVERY.values(), ids=EVERY)


# -- what they find -----------------------------------------------------------------------------------------


@STRATEGIES
def test_a_near_best_arm_is_found(strategy: Strategy) -> None:
    space = make(shots=(0,))
    found = [
        by_template(run(strategy, space, Allowance(4000, 200, True), by_template, seed=seed).finalists[0])
        for seed in range(8)
    ]
    assert sum(quality >= 0.5 + 0.05 * 8 - 0.06 for quality in found) >= 7


@functools.cache
def mean_quality(strategy: Strategy) -> float:
    """Of the first finalist, where each example helps or harms."""
    space, allowance = make(templates=2), Allowance(6000, 200, True)
    found = [run(strategy, space, allowance, by_examples, seed=seed).finalists[0] for seed in range(12)]
    return float(np.mean([by_examples(each) for each in found]))


@pytest.mark.parametrize("strategy", [halving, greedy, tpe])
def test_random_search_is_beaten_at_equal_allowance(strategy: Strategy) -> None:
    assert mean_quality(strategy) > mean_quality(random_search) + 0.02
    assert mean_quality(strategy) > 0.82


@STRATEGIES
def test_the_best_finalist_comes_first(strategy: Strategy) -> None:
    watched = run(strategy, make(), Allowance(5000, 150, True), by_examples)
    keys = [rank_key(watched.scores[each]) for each in watched.finalists]
    assert keys == sorted(keys, reverse=True)
    assert {watched.scores[each].items for each in watched.finalists} == {150}
    assert len(set(watched.finalists)) == len(watched.finalists)
    assert 3 <= len(watched.finalists) <= 5


# -- what they ask for --------------------------------------------------------------------------------------


@STRATEGIES
@pytest.mark.parametrize("by_evaluations", [True, False])
@pytest.mark.parametrize("items", [30, 72, 200])
@pytest.mark.parametrize("seed", range(3))
def test_no_more_than_the_allowance(strategy: Strategy, by_evaluations: bool, items: int, seed: int) -> None:
    total = 3000.0 if by_evaluations else 90_000.0
    watched = run(strategy, make(), Allowance(total, items, by_evaluations), by_examples, seed=seed)
    assert 0.6 * total <= watched.spent <= 1.1 * total


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    total=st.floats(1, 30_000),
    items=st.integers(24, 240),
    order=st.permutations(range(3)),
)
def test_small_allowances_are_not_overspent(seed: int, total: float, items: int, order: list[int]) -> None:
    """Halving looks at one anchor whatever that costs, and asks for nothing else that is not paid for."""
    space = make(modes=("static", "retrieved"))
    anchors = [ZERO, Candidate("", "t1", demonstrations=(1, 2)), Candidate("", "t0", mode="retrieved", count=8)]
    anchors = [anchors[place] for place in order]
    watched = run(halving, space, Allowance(total, items), by_examples, seed=seed, anchors=anchors)
    assert watched.spent <= max(total, space.price(anchors[0], min(24, items) if items >= 32 else items)) + 1e-6


@STRATEGIES
@settings(max_examples=25)
@given(seed=st.integers(0, 2**32 - 1), rounds=st.floats(0, 25), items=st.integers(1, 120), pool=st.integers(1, 30))
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
    if strategy is halving:  # which adds the best of those that were seen longest to leaders that are few
        assert watched.scores[watched.finalists[0]].items >= min(96, most)
        assert len(watched.finalists) >= min(3, len(watched.scores))
    else:
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


def asked(seed: int) -> dict[str, list[list[str]]]:
    """For each strategy, the keys of what it asked for in a space of all modes."""
    space = make(clusters=clustered(40, 60, 2, 4), choosers={"first": first_ones}, clusters_tried=(2, 4))
    return {
        name: [
            [candidate.key for candidate in request.candidates]
            for request in run(strategy, space, Allowance(2500, 60, True), by_examples, seed=seed).requests
        ]
        for name, strategy in EVERY.items()
    }


SCRIPT = """
import json, sys
sys.path.insert(0, {tests!r})
from test_strategies import asked
print(json.dumps(asked(3)))
"""


def test_another_process_asks_the_same() -> None:
    script = SCRIPT.format(tests=str(Path(__file__).parent))
    environment = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == asked(3)


@STRATEGIES
@pytest.mark.parametrize(
    "space",
    [
        make(pool=1),
        make(pool=2),
        make(labels=1),
        make(shots=(0,)),
        make(shots=(0,), templates=1),
        make(shots=(0,), templates=1, modes=("static",)),
        make(pool=2, shots=(1,), modes=("retrieved",)),
        make(pool=2, modes=("routed",)),
        make(pool=4, shots=(1, 2), clusters=clustered(4, 60, 2), clusters_tried=(2,), modes=("routed",)),
        make(pool=6, shots=(3,), templates=1, modes=("static",), choosers={"first": first_ones}),
        make(pool=3, shots=(64,)),
    ],
    ids=[
        "one example",
        "two examples",
        "free text",
        "no demonstrations",
        "next to nothing",
        "two candidates",
        "retrieving only",
        "routed without clusters",
        "routed only",
        "one size",
        "more demonstrations than there are",
    ],
)
@pytest.mark.parametrize("total", [1.0, 100.0, 6000.0])
def test_small_spaces_come_to_an_end(strategy: Strategy, space: SearchSpace, total: float) -> None:
    watched = run(strategy, space, Allowance(total, 60, True), by_template)
    assert 1 <= len(watched.finalists) <= 5
    assert all(space.fits(candidate) for candidate in watched.scores)
    assert {candidate.mode for candidate in watched.scores if candidate.shots} <= set(space.space.modes)


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
    race = next(race for race in races(watched) if len(race) > 2)[:3]
    assert [request.items for request in race] == [24, 48, 96]
    for before, after in itertools.pairwise(race):
        assert len(after.candidates) <= (len(before.candidates) + 1) // 2
        ranked = best_first({arm: watched.scores[arm].upto(before.items) for arm in before.candidates})
        assert list(after.candidates) == ranked[: len(after.candidates)]


def test_leaders_meet_on_all_items() -> None:
    watched = run(halving, make(), Allowance(8000, 200, True), by_examples)
    assert {watched.scores[arm].items for arm in watched.finalists[:2]} == {200}
    assert watched.requests[-1].items == 200


def stopped_race(items: int, worth: dict[str, np.ndarray]) -> tuple[Race, dict[str, Candidate]]:
    """A race in which candidates were scored once."""
    race = Race(make(), Allowance(1e9, items, True))
    arms = {name: Candidate(name) for name in worth}
    for name, values in worth.items():
        race.scores[arms[name]] = Scores(values, values)
    return race, arms


@given(st.integers(0, 10**6), st.integers(2, 60), st.integers(2, 60))
def test_an_arm_is_behind_by_more_than_its_standard_error(seed: int, mine: int, theirs: int) -> None:
    rng = np.random.default_rng(seed)
    worth = {"arm": rng.random(mine), "leader": rng.random(theirs)}
    race, arms = stopped_race(60, worth)
    common = min(mine, theirs)
    gaps = [float(b - a) for a, b in zip(worth["arm"][:common], worth["leader"][:common], strict=True)]
    mean = sum(gaps) / common
    error = (sum((gap - mean) ** 2 for gap in gaps) / (common - 1) / common) ** 0.5
    if abs(mean - error) > 1e-6:
        assert race.is_behind(arms["arm"], arms["leader"], mine) == (mean > error)
    assert not race.is_behind(arms["arm"], None, mine)


def test_a_newcomer_meets_the_leader_as_it_was_on_as_many_items() -> None:
    """More items fit calibrations better: by its later scores of the same items a leader would look ahead."""
    race = Race(make(), Allowance(1e9, 96, True))
    leader, newcomer = Candidate("leader"), Candidate("newcomer")
    early, late = np.array([0.0, 1.0] * 12), np.array([1.0, 1.0] * 48)

    def score(arm: Candidate, values: np.ndarray) -> None:
        asked = race.score([arm], len(values))
        next(asked)
        with pytest.raises(StopIteration):
            asked.send({arm: Scores(values, values)})

    score(leader, early)
    score(leader, late)
    score(newcomer, early)
    assert race.scores[leader].items == 96
    assert not race.is_behind(newcomer, leader, 24)


def test_a_lucky_short_look_does_not_lead() -> None:
    """Nobody leads who was seen on fewer items than can be trusted, once others were."""
    race, arms = stopped_race(
        200,
        {"lucky": np.ones(24), "good": np.repeat([1.0, 0.0], [160, 40]), "fair": np.repeat([1.0, 0.0], [120, 80])},
    )
    assert race.leaders(5) == [arms["good"], arms["fair"]]


def test_a_leader_that_is_too_dear_for_all_items_stays_a_finalist() -> None:
    """Cheaper ones behind it that are scored whole do not put it out."""
    space = make(modes=("static", "retrieved"), templates=2)

    def retrieving_is_best(candidate: Candidate) -> float:
        return 0.9 if candidate.mode == "retrieved" else 0.5

    anchors = (ZERO, Candidate("", "t0", mode="retrieved", count=8))
    for total in range(50_000, 90_000, 5_000):
        watched = run(halving, space, Allowance(float(total), 200), retrieving_is_best, anchors=anchors)
        assert watched.finalists[0].mode == "retrieved"


@given(st.lists(st.sampled_from([24, 48, 96, 200]), min_size=1, max_size=12), st.integers(0, 99))
def test_there_are_finalists_even_where_few_can_be_trusted(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    race, arms = stopped_race(200, {str(at): rng.random(length) for at, length in enumerate(lengths)})
    found = race.finalists(5, 3)
    assert len(found) == len(set(found)) >= min(3, len(arms))
    trusted = race.leaders(5)
    assert found[: len(trusted)] == trusted
    rest = [race.seen(arm) for arm in found[len(trusted) :]]
    assert rest == sorted(rest, reverse=True)


def test_a_route_is_begun_with_the_first_of_its_items() -> None:
    clusters = {2: Clusters(np.repeat([0, 1], 48), ((0, 2), (1, 3)))}
    race = Race(make(clusters=clusters, clusters_tried=(2,)), Allowance(1e9, 96))
    arm = Candidate("", "t0", mode="routed", routes=((0, 2), (1, 3)))
    for stops in ((24, 48, 96), (48, 72, 96), (96,)):
        parts = [race.price(arm, start, stop) for start, stop in itertools.pairwise((0, *stops))]
        assert sum(parts) == race.price(arm, 0, 96)


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
