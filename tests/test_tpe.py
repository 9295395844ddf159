"""TPE: what its parameters can say, which trials go on, and that Optuna keeps to itself."""

from __future__ import annotations

import io
import itertools
import logging
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import ZERO, by_examples, by_template, clustered, first_ones, make, run

from promptsearch.candidate import Candidate
from promptsearch.search.base import Allowance, Scores, rank_key
from promptsearch.search.parameters import Ordering, Parameters, draw_orderings
from promptsearch.search.space import SearchSpace
from promptsearch.search.tpe import _Ladder, _quiet_optuna, tpe

ALL_MODES = ("static", "retrieved", "routed")


def whole(pool: int = 40, labels: int = 2, **space: object) -> SearchSpace:
    """A space with all modes, clusters and a selection strategy."""
    return make(
        pool=pool,
        labels=labels,
        templates=3,
        clusters=clustered(pool, 60, 2, 4),
        clusters_tried=(2, 4),
        choosers={"first": first_ones},
        **space,
    )


class Levels:
    """Chooses at random and remembers."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.chosen: dict[str, int] = {}
        self.of: dict[str, int] = {}

    def __call__(self, name: str, levels: int, *, ranked: bool = False) -> int:
        assert name not in self.chosen
        assert levels > 0
        self.of[name] = levels
        self.chosen[name] = int(self.rng.integers(levels))
        return self.chosen[name]


def parameters_of(space: SearchSpace, seed: int = 0, anchors: tuple[Candidate, ...] = ()) -> Parameters:
    return Parameters(space, draw_orderings(space, anchors, 9, np.random.default_rng(seed)))


# -- parameters ---------------------------------------------------------------------------------------------

spaces = st.builds(
    whole,
    pool=st.integers(4, 40),
    labels=st.integers(1, 4),
    shots=st.sampled_from([(0,), (0, 1, 2, 4, 8, 16, 32), (4,), (1, 3), (0, 50)]),
    modes=st.sets(st.sampled_from(ALL_MODES), min_size=1).map(lambda modes: tuple(sorted(modes))),
)


@given(spaces, st.integers(0, 1000))
def test_levels_say_a_candidate_and_the_reverse(space: SearchSpace, seed: int) -> None:
    parameters = parameters_of(space, seed)
    choose = Levels(seed)
    candidate = parameters.candidate(choose)
    assert candidate.mode in parameters.modes
    assert candidate.template in space.templates
    assert candidate.calibration == space.calibration
    assert set(candidate.shown) <= set(space.pool.tolist())
    assert len(set(candidate.demonstrations)) == len(candidate.demonstrations)
    if candidate.shots:
        assert candidate.mode in space.space.modes
        assert candidate.shots <= space.most_shots
    levels = parameters.levels(candidate)
    assert levels is not None
    assert parameters.candidate(lambda name, _, ranked=False: levels[name]) == candidate
    if candidate.mode == "retrieved":
        assert levels == choose.chosen


def test_every_choice_of_the_space_is_a_level() -> None:
    parameters = parameters_of(whole())
    drawn = [parameters.candidate(Levels(seed)) for seed in range(800)]
    space = parameters.space
    assert {each.mode for each in drawn} == set(ALL_MODES)
    assert {each.template for each in drawn} == set(space.templates)
    assert {each.instruction for each in drawn} == set(space.instructions)
    assert {each.shots for each in drawn if each.mode == "static"} == set(space.shots)
    assert {each.count for each in drawn if each.mode == "retrieved"} == {1, 2, 4, 8}
    assert {each.retriever for each in drawn if each.mode == "retrieved"} == set(space.space.retrievers)
    assert {len(each.routes) for each in drawn if each.mode == "routed"} == {2, 4}
    assert len({each.demonstrations for each in drawn if each.shots == 4}) >= 8  # of the nine orderings


def test_routes_show_members_of_their_cluster() -> None:
    parameters = parameters_of(whole())
    routed = [each for seed in range(200) if (each := parameters.candidate(Levels(seed))).mode == "routed"]
    for candidate in routed:
        for cluster, route in enumerate(candidate.routes):
            assert {number % len(candidate.routes) for number in route} == {cluster}
            assert len(route) == candidate.shots or len(route) == len(
                parameters.space.members(len(candidate.routes), cluster)
            )


def test_anchors_have_levels() -> None:
    """The usual ones do; what no parameter says has none."""
    space = whole()
    many = replace(ZERO, demonstrations=(7, 3, 30, 12, 5, 4, 1, 39))
    anchors = (
        ZERO,
        many,
        replace(ZERO, mode="retrieved", count=4),
        replace(ZERO, demonstrations=many.demonstrations[:4], template="t2"),
        replace(ZERO, instruction=""),
    )
    parameters = parameters_of(space, anchors=anchors)
    for anchor in anchors:
        levels = parameters.levels(anchor)
        assert levels is not None
        assert parameters.candidate(lambda name, _, ranked=False, levels=levels: levels[name]) == anchor
    others = (
        replace(ZERO, demonstrations=(1, 2, 3)),
        replace(ZERO, demonstrations=(39, 1)),
        replace(ZERO, template="t8"),
        replace(ZERO, mode="retrieved", count=4, among=(1, 2, 3)),
        replace(ZERO, mode="retrieved", count=5),
        replace(ZERO, mode="routed", routes=((1,), (2,), (3,))),
        replace(ZERO, calibration="none"),
    )
    assert [parameters.levels(other) for other in others] == [None] * len(others)


@given(st.permutations(list(range(12))), st.integers(1, 5), st.booleans())
def test_larger_counts_begin_with_smaller_ones(ids: list[int], labels: int, balanced: bool) -> None:
    ordering = Ordering(tuple(ids), balanced)
    label_of = {number: number % labels for number in ids}.__getitem__
    sets = [ordering.first(count, ids, label_of) for count in range(14)]
    assert [len(each) for each in sets] == [*range(13), 12]
    assert all(longer[: len(shorter)] == shorter for shorter, longer in itertools.pairwise(sets))
    if balanced:
        for shown in sets[: 12 // labels * labels]:
            counts = np.bincount([label_of(number) for number in shown], minlength=labels)
            available = np.bincount([label_of(number) for number in ids], minlength=labels)
            assert counts[counts < available].max(initial=0) - counts[counts < available].min(initial=99) <= 1
    else:
        assert sets[-1] == tuple(ids)


def test_orderings_of_every_kind() -> None:
    orderings = parameters_of(whole(), anchors=(replace(ZERO, demonstrations=(9, 8)),)).orderings
    assert orderings[0].ids[:2] == (9, 8)
    assert {ordering.balanced for ordering in orderings} == {True, False}
    assert any(set(ordering.ids[:32]) == set(range(32)) for ordering in orderings)  # what the chooser chose
    assert all(sorted(ordering.ids) == list(range(40)) for ordering in orderings)


# -- trials -------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.sampled_from([24, 48, 96, 200]), st.floats(0, 1)), min_size=1, max_size=30))
def test_promising_is_being_in_the_better_half(arrivals: list[tuple[int, float]]) -> None:
    """Slow twin: count those of the same rung that are better."""
    rungs = (24, 48, 96, 200)
    ladder = _Ladder(rungs)
    seen: dict[int, list[float]] = {items: [] for items in rungs}
    for items, value in arrivals:
        scores = Scores(np.full(items, value), np.full(items, value))
        for rung in rungs:
            ladder.add(scores, rung)
            if rung <= items:
                seen[rung].append(rank_key(scores.upto(rung)))
        better = sum(other > rank_key(scores) for other in seen[items])
        assert ladder.promising(scores) == (better < len(seen[items]) / 2)


def test_trials_climb_the_rungs_one_by_one() -> None:
    watched = run(tpe, make(), Allowance(6000, 200, True), by_examples)
    climbed: dict[Candidate, list[int]] = {}
    for request in watched.requests:
        for arm in request.candidates:
            climbed.setdefault(arm, []).append(request.items)
    for items in climbed.values():
        assert sorted(set(items)) == [24, 48, 96, 200][: len(set(items))]
    ended = [items[-1] for items in climbed.values()]
    assert ended.count(24) > ended.count(200) / 2
    assert ended.count(200) >= 5


def test_the_sampler_learns() -> None:
    """What it proposes is better than the random candidates before, and does not get worse with time."""
    early, middle, late = [], [], []
    for seed in range(6):
        watched = run(tpe, make(pool=60), Allowance(4000, 100, True), by_template, seed=seed)
        tried = [by_template(arm) for arm in watched.scores]
        early += tried[:11]  # the anchor, and ten at random
        middle += tried[11:30]
        late += tried[30:]
    assert np.mean(middle) > np.mean(early) + 0.05
    assert np.mean(late) > np.mean(early) + 0.05


def test_it_learns_which_mode_is_best() -> None:
    def by_mode(candidate: Candidate) -> float:
        return {"static": 0.5, "retrieved": 0.6, "routed": 0.8}[candidate.mode]

    watched = run(tpe, whole(), Allowance(4000, 60, True), by_mode)
    assert watched.finalists[0].mode == "routed"
    later = [arm.mode for arm in watched.scores][20:]
    assert later.count("routed") > len(later) / 2


def test_a_small_space_is_searched_whole() -> None:
    watched = run(tpe, make(shots=(0,), modes=("static",)), Allowance(20_000, 60, True), by_template)
    assert len(watched.scores) == 18


@settings(max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(50, 2000))
def test_nothing_is_begun_that_cannot_be_paid(seed: int, total: int) -> None:
    """Beside the anchors, of which one is scored whatever it costs."""
    watched = run(tpe, make(), Allowance(float(total), 48, True), by_examples, seed=seed)
    assert watched.spent <= max(total, 48)


def test_dear_candidates_are_left_alone() -> None:
    """A reranked query costs so much that a few first looks would take the allowance."""
    space = make(rerankers=("none", "mdl"), modes=("retrieved", "static"))
    watched = run(tpe, space, Allowance(60_000, 60), by_template)
    first = {arm: space.price(arm, 24) for arm in watched.scores}
    assert max(first.values()) <= 0.05 * 60_000
    assert {arm.mode for arm in first} == {"retrieved", "static"}


# -- Optuna -------------------------------------------------------------------------------------------------


def test_optuna_says_nothing_and_its_logger_stays_as_it_was() -> None:
    import optuna

    logger, told = logging.getLogger("optuna"), io.StringIO()
    handler, level = logging.StreamHandler(told), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)  # other libraries silence it when they are used
    try:
        before = (logger.level, logger.propagate, list(logger.handlers), logging.getLogger().level)
        search = tpe(make(), [ZERO], Allowance(3000, 60, True), np.random.default_rng(0))
        request = next(search)
        for _ in range(60):
            assert (logger.level, logger.propagate, list(logger.handlers), logging.getLogger().level) == before
            even = np.full(request.items, 0.5)
            request = search.send({arm: Scores(even, even) for arm in request.candidates})
        search.close()
        assert told.getvalue() == ""
        optuna.create_study()
        assert "created in memory" in told.getvalue()  # a user's own studies still tell
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


def test_the_level_comes_back_after_an_error() -> None:
    logger = logging.getLogger("optuna")
    before = logger.level
    with pytest.raises(ZeroDivisionError), _quiet_optuna():
        _ = 1 // int(logger.isEnabledFor(logging.WARNING))
    assert logger.level == before


def test_optuna_is_imported_by_a_search_alone() -> None:
    code = "import sys, promptsearch.search.tpe, promptsearch.search.parameters; print('optuna' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
