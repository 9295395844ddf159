"""The search space: whatever is drawn or changed, over many seeds, is a candidate that fits."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.candidate import Candidate
from promptsearch.errors import UserError
from promptsearch.run.workbench import require_candidates
from promptsearch.search.drawing import (
    draw,
    draw_any,
    draw_demonstrations,
    draw_reasoned,
    draw_retrieved,
    draw_routed,
    retrieved_counts,
)
from promptsearch.search.mutation import mutate, recombine
from promptsearch.search.space import Clusters, Lengths, Rationales, SearchSpace, Space

TEMPLATES = ("fields", "arrow", "bare")
INSTRUCTIONS = ("Say which.", "", "Decide with care between all of them.")


def make(
    *,
    pool: int = 12,
    labels: int = 2,
    context: int = 400,
    longest: int = 30,
    instructions: tuple[str, ...] = INSTRUCTIONS,
    templates: tuple[str, ...] = TEMPLATES,
    **space: Any,
) -> SearchSpace:
    """A space over ids 100, 101, ... whose demonstrations have 10, 11, ... tokens."""
    ids = list(range(100, 100 + pool))
    clusters = {
        count: Clusters(np.arange(60) % count, tuple(tuple(ids[cluster::count]) for cluster in range(count)))
        for count in (2, 3)
        if count <= pool
    }
    return SearchSpace(
        Space(**{"clusters": (2, 3), **space}),
        templates=templates,
        instructions=instructions,
        pool=ids,
        labels=[number % labels for number in ids],
        clusters=clusters,
        lengths=Lengths(
            instructions={text: len(text.split()) for text in instructions},
            demonstrations={number: number - 90 for number in ids},
            query=20.0,
            long_query=longest,
            context=context,
        ),
    )


spaces = st.builds(
    make,
    pool=st.integers(2, 40),
    labels=st.integers(1, 5),
    context=st.integers(40, 600),
    shots=st.sampled_from([(0,), (0, 1, 2, 4, 8, 16, 32), (4,), (1, 3), (0, 50)]),
    modes=st.sampled_from([("static", "retrieved"), ("static",), ("retrieved",)]),
)
seeds = st.integers(0, 2**32 - 1)


def require_candidate(space: SearchSpace, candidate: Candidate) -> None:
    """It fits, holds distinct examples of the pool, and names what there is."""
    assert space.fits(candidate)
    tokens = space.prefix_tokens(candidate) + space.lengths.long_query
    assert tokens <= space.lengths.context or candidate.mode == "retrieved"
    assert len(set(candidate.demonstrations)) == len(candidate.demonstrations)
    assert set(candidate.demonstrations) <= set(space.pool.tolist())
    assert all(type(number) is int for number in candidate.demonstrations)
    assert candidate.template in space.templates
    assert candidate.instruction in space.instructions
    assert candidate.shots <= max(space.shots, default=0)
    if candidate.shots:
        assert candidate.mode in space.space.modes
    assert Candidate.from_dict(candidate.to_dict()) == candidate


@given(spaces, seeds)
def test_draws(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(10):
        candidate = draw(space, rng)
        require_candidate(space, candidate)
        assert candidate.mode == "static"
        retrieved = draw_retrieved(space, rng)
        if retrieved is not None:
            require_candidate(space, retrieved)
            assert (retrieved.mode, retrieved.demonstrations) == ("retrieved", ())
            assert retrieved.count in space.shots
            assert retrieved.count > 0


@given(spaces, seeds)
def test_routed_draws(space: SearchSpace, seed: int) -> None:
    """Each cluster shows examples of its own."""
    rng = np.random.default_rng(seed)
    for _ in range(10):
        candidate = draw_routed(space, rng)
        if candidate is not None:
            require_candidate(space, candidate)
            require_own_members(space, candidate)
        assert draw_any(space, rng).mode in ("static", *space.space.modes)


def reasoning(space: SearchSpace, gold: int, own: int) -> SearchSpace:
    """The space with so many examples that have written reasoning, and so many that have the model's own."""
    ids = space.pool.tolist()
    space.reasons = True
    for kind, count in (("gold", gold), ("self", own)):
        kept = ids[:count] if kind == "gold" else ids[::-1][:count]
        doubt = {number: number % 3 / 2 for number in kept} if kind == "self" else {}
        space.rationales[kind] = Rationales(dict.fromkeys(kept, 9), {number: number % 5 for number in kept}, doubt)
    return space


def require_reasoning(space: SearchSpace, candidate: Candidate) -> None:
    """All that it shows has reasoning of its kind, and there is room for more."""
    require_candidate(space, candidate)
    assert space.allows(candidate)
    assert candidate.reasoning in space.reasonings
    assert candidate.template in space.plain_templates
    assert candidate.thought
    assert candidate.thinking_tokens in space.space.thinking_tokens
    assert candidate.samples in space.space.samples
    assert (candidate.shots == 0) == (candidate.reasoning == "cue")
    if candidate.mode == "static":
        tokens = space.prefix_tokens(candidate) + space.lengths.long_query + candidate.thinking_tokens
        assert tokens < space.lengths.context
    if candidate.reasoning in ("gold", "self"):
        shown = candidate.demonstrations or candidate.among or tuple(space.pool.tolist())
        assert set(shown) <= set(space.rationales[candidate.reasoning].ids)
    bare = candidate.without_reasoning()
    assert space.query_tokens(candidate) >= space.query_tokens(bare) + 2 * candidate.thinking_tokens


@given(spaces, st.integers(0, 40), st.integers(0, 40), seeds)
def test_reasoned_draws_and_their_changes(space: SearchSpace, gold: int, own: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    assert draw_reasoned(space, rng) is None  # until somebody says that it may
    reasoning(space, gold, own)
    for _ in range(6):
        candidate = draw_reasoned(space, rng)
        if candidate is None:
            continue
        require_reasoning(space, candidate)
        for _ in range(10):
            changed = mutate(space, candidate, {}, rng)
            if changed is not None:
                assert changed != candidate
                require_candidate(space, changed)
                if not changed.reasons:
                    break
                require_reasoning(space, changed)
                candidate = changed


def test_reasoning_is_searched_only_where_there_is_some() -> None:
    assert reasoning(make(), 0, 0).reasonings == ("cue",)
    assert reasoning(make(), 3, 0).reasonings == ("cue", "gold")
    assert reasoning(make(reasoning=("none", "self")), 3, 3).reasonings == ("self",)
    assert reasoning(make(shots=(4,)), 5, 5).reasonings == ("gold", "self")
    space = reasoning(make(reasoning=("gold",)), 4, 4)
    assert not space.allows(Candidate(INSTRUCTIONS[0], demonstrations=(100,)))
    drawn = [draw_any(space, np.random.default_rng(seed)) for seed in range(40)]
    assert any(each.reasons for each in drawn)


def require_own_members(space: SearchSpace, candidate: Candidate) -> None:
    assert len(candidate.routes) in space.clusters
    for cluster, route in enumerate(candidate.routes):
        assert route
        assert set(route) <= set(space.members(len(candidate.routes), cluster))


@given(spaces, seeds, st.booleans())
def test_mutations(space: SearchSpace, seed: int, guided: bool) -> None:
    """A walk of many steps never leaves the space."""
    rng = np.random.default_rng(seed)
    weights = {int(number): float(rng.normal()) for number in space.pool[::2]} if guided else {}
    plain = Candidate(INSTRUCTIONS[0], "fields")
    for start in (draw(space, rng), draw_retrieved(space, rng), draw_routed(space, rng), plain):
        candidate = start
        for _ in range(25):
            changed = None if candidate is None else mutate(space, candidate, weights, rng)
            if changed is not None:
                assert changed != candidate
                assert changed.calibration == candidate.calibration
                require_candidate(space, changed)
                if changed.mode == "routed":
                    require_own_members(space, changed)
                candidate = changed


@given(spaces, seeds)
def test_recombinations(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    for _ in range(10):
        left, right = draw(space, rng), draw(space, rng)
        child = recombine(space, left, right, rng)
        if child is None:
            continue
        require_candidate(space, child)
        assert set(child.demonstrations) <= {*left.demonstrations, *right.demonstrations}
        assert set(child.demonstrations) & (set(right.demonstrations) - set(left.demonstrations))
        assert len(child.demonstrations) <= len(left.demonstrations)
        assert (child.template, child.instruction) == (left.template, left.instruction)


@given(seeds)
def test_routes_are_recombined_whole(seed: int) -> None:
    space, rng = make(pool=20), np.random.default_rng(seed)
    left, right = draw_routed(space, rng), draw_routed(space, rng)
    assert left is not None
    assert right is not None
    child = recombine(space, left, right, rng)
    if child is not None:
        pairs = zip(child.routes, left.routes, right.routes, strict=True)
        assert all(route in (ours, theirs) for route, ours, theirs in pairs)


def test_recombining_needs_two_that_differ() -> None:
    space, rng = make(), np.random.default_rng(0)
    one = Candidate(demonstrations=(100, 101))
    assert recombine(space, one, one, rng) is None
    assert recombine(space, Candidate(), one, rng) is None
    assert recombine(space, one, Candidate(mode="retrieved", count=2), rng) is None


@given(seeds)
def test_the_same_seed_draws_the_same(seed: int) -> None:
    def walk() -> list[Candidate | None]:
        space, rng = make(), np.random.default_rng(seed)
        found = [draw(space, rng), draw_retrieved(space, rng), draw(space, rng)]
        return [*found, *(mutate(space, each, {101: 0.5}, rng) for each in found if each)]

    assert walk() == walk()


def test_everything_is_drawn_and_every_change_happens() -> None:
    space, rng = make(), np.random.default_rng(0)
    drawn = [draw(space, rng) for _ in range(600)]
    assert {each.template for each in drawn} == set(TEMPLATES)
    assert {each.instruction for each in drawn} == set(INSTRUCTIONS)
    assert {each.shots for each in drawn} == {count for count in space.shots if count}
    assert {number for each in drawn for number in each.demonstrations} == set(space.pool.tolist())
    start = Candidate("Say which.", "fields", demonstrations=(100, 101, 102, 103))
    changed = [each for _ in range(400) if (each := mutate(space, start, {}, rng)) is not None]
    assert {each.shots for each in changed} == {3, 4, 5}
    assert {each.template for each in changed} == set(TEMPLATES)
    assert {each.instruction for each in changed} == set(INSTRUCTIONS)
    assert any(sorted(each.demonstrations) == [100, 101, 102, 103] != list(each.demonstrations) for each in changed)


def test_retrieved_counts_change_within_those_that_are_drawn() -> None:
    space, rng = make(), np.random.default_rng(0)
    start = Candidate("Say which.", "fields", mode="retrieved", count=2)
    changed = [each for _ in range(400) if (each := mutate(space, start, {}, rng)) is not None]
    assert {each.count for each in changed} == set(retrieved_counts(space)) < set(space.shots)


def test_mostly_as_many_of_each_label() -> None:
    space, rng = make(pool=40, labels=4), np.random.default_rng(0)
    balanced = 0
    for _ in range(200):
        label_of = dict(zip(space.pool.tolist(), space.labels.tolist(), strict=True))
        counts = Counter(label_of[number] for number in draw_demonstrations(space, 8, rng))
        balanced += set(counts.values()) == {2}
    assert 140 <= balanced < 200


def test_good_examples_are_drawn_more_often() -> None:
    space, rng = make(pool=30, labels=1), np.random.default_rng(0)
    weights = {105: 0.3, 106: -0.3}
    start = Candidate("", "fields", demonstrations=(100, 101))
    seen: Counter[int] = Counter()
    for _ in range(600):
        changed = mutate(space, start, weights, rng)
        seen.update(set(changed.demonstrations) - {100, 101} if changed else ())
    assert seen[105] > 5 * seen[106]


@settings(max_examples=50)
@given(spaces, seeds, st.integers(0, 500))
def test_prices(space: SearchSpace, seed: int, items: int) -> None:
    """A static prefix is paid once, retrieved demonstrations by each query."""
    rng = np.random.default_rng(seed)
    static, retrieved, routed = draw(space, rng), draw_retrieved(space, rng), draw_routed(space, rng)
    prefix = space.lengths.instructions[static.instruction]
    prefix += sum(space.lengths.demonstrations[number] for number in static.demonstrations)
    assert space.prefix_tokens(static) == prefix
    assert space.price(static, items) == (prefix + 20.0 * items if items else 0.0)
    assert space.price(static, items, begun=True) == 20.0 * items
    assert space.query_tokens(static) == 20.0
    if retrieved is not None:
        mean = np.mean(list(space.lengths.demonstrations.values()))
        each = 20.0 + space.lengths.instructions[retrieved.instruction] + retrieved.count * mean
        assert space.price(retrieved, items) == pytest.approx(each * items)
        among_thirty = replace(retrieved, reranker="cone")
        assert space.query_tokens(among_thirty) == pytest.approx(each + 30 * (mean + 20.0))
        of_ten_sets = replace(retrieved, reranker="mdl")
        assert space.query_tokens(of_ten_sets) == pytest.approx(11 * each)
    if routed is not None:
        openings = sum(space.prefix_tokens(route) for route in space.routes(routed))
        assert space.price(routed, items) == pytest.approx(openings + 20.0 * items if items else 0.0)
        assert space.query_tokens(routed) == 20.0


def test_a_curated_pool_holds_the_best_of_each_label() -> None:
    space = make(pool=60, labels=2)
    weights = {number: float(-number) for number in range(100, 160)}
    assert space.curated(weights) == tuple(range(100, 124))
    assert space.curated({101: 1.0}) == ()


@pytest.mark.parametrize(
    ("space", "why"),
    [
        (make(pool=2), "a pool of two"),
        (make(shots=(0,)), "no demonstrations"),
        (make(context=31), "room for the query only"),
        (make(shots=(64,)), "more demonstrations than the pool has"),
        (make(instructions=("Say.",), templates=("fields",), modes=("retrieved",)), "little to vary"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_small_spaces(space: SearchSpace, why: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        candidate = draw(space, rng)
        require_candidate(space, candidate) if why != "room for the query only" else None
        mutate(space, candidate, {}, rng)
        draw_retrieved(space, rng)


@pytest.mark.parametrize(
    "given",
    [
        {"shots": ()},
        {"shots": (-1,)},
        {"shots": (1.5,)},
        {"reasoning": ("magic",)},
        {"reasoning": "cue"},
        {"thinking_tokens": (0,)},
        {"samples": (0,)},
        {"samples": ()},
        {"modes": ("guessed",)},
        {"modes": ()},
        {"calibrations": ("magic",)},
        {"calibrations": ()},
        {"modes": "static"},
        {"clusters": (1,)},
        {"retrievers": ("guessed",)},
        {"rerankers": ()},
        {"shots": {0, 2, 4}},
        {"modes": {"static", "routed"}},
        {"retrievers": frozenset({"mmr", "nearest"})},
        {"clusters": dict.fromkeys((4, 8))},
        {"shots": b"ab"},
        {"templates": {"fields", "arrow"}},
        {"templates": ("fields", 3)},
        {"templates": "fields"},
        {"names": {("Review", "Sentiment")}},
        {"names": ("Review", "Sentiment")},
        {"names": ("ab",)},
        {"names": (("Review",),)},
        {"names": (("Review", 3),)},
        {"names": ({"Review", "Sentiment"},)},
        {"names": 3},
        {"prior": 1},
        {"prior": None},
        {"instructions": "no"},
    ],
)
def test_a_space_that_is_none(given: dict[str, Any]) -> None:
    with pytest.raises(UserError) as caught:
        Space(**given)
    assert "\n" not in str(caught.value)
    assert next(iter(given)) in str(caught.value)


def test_a_space_given_as_lists() -> None:
    lists = {"shots": [0, 2], "modes": ["static"], "templates": ["fields"], "names": [["Review", "Sentiment"]]}
    tuples = {"shots": (0, 2), "modes": ("static",), "templates": ("fields",), "names": (("Review", "Sentiment"),)}
    assert repr(Space(**lists)) == repr(Space(**tuples))  # type: ignore[arg-type]
    assert Space(names=[]).names == ()  # type: ignore[arg-type]


# -- spaces that hold nothing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("space", "clustered", "says"),
    [
        ({"shots": (0,), "modes": ("retrieved",)}, False, "shots"),
        ({"shots": (0,), "modes": ("retrieved", "routed")}, False, "shots"),
        ({"shots": (0, 12), "modes": ("routed",)}, False, "shots"),
        ({"shots": (13, 40)}, False, "shots"),
        ({"clusters": (5, 7), "modes": ("routed",)}, True, "clusters"),
    ],
)
def test_a_space_without_candidates_is_refused(space: dict[str, Any], clustered: bool, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        require_candidates(make(**space), clustered=clustered)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("space", "clustered"),
    [
        ({"shots": (0,)}, True),
        ({"shots": (0, 12), "modes": ("retrieved",)}, True),
        ({"clusters": (5, 2), "modes": ("routed",)}, True),
        ({"clusters": (5, 7), "modes": ("routed",)}, False),
        ({"clusters": (5, 7), "modes": ("routed", "retrieved")}, True),
    ],
)
def test_a_space_with_any_candidate_is_kept(space: dict[str, Any], clustered: bool) -> None:
    made = make(**space)
    require_candidates(made, clustered=clustered)
    rng = np.random.default_rng(0)
    assert not clustered or any(made.allows(draw_any(made, rng)) for _ in range(20))
