"""Routed candidates from the log: the best set of each cluster, by a slow twin."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from statistics import mean, stdev

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.candidate import Candidate
from promptsearch.search.assembly import assemble
from promptsearch.search.base import Scores
from promptsearch.search.space import Clusters, Lengths, SearchSpace, Space

ITEMS = 36


def make(clusters: int) -> SearchSpace:
    ids = list(range(12))
    groups = {
        clusters: Clusters(np.arange(ITEMS) % clusters, tuple(tuple(ids[at::clusters]) for at in range(clusters)))
    }
    return SearchSpace(
        Space(clusters=(clusters,)),
        templates=("fields", "bare"),
        instructions=("",),
        pool=ids,
        labels=[number % 2 for number in ids],
        lengths=Lengths({"": 0}, dict.fromkeys(ids, 10), 20.0, 40, 2000),
        clusters=groups,
    )


def scores_of(worth: list[float]) -> Scores:
    values = np.array(worth)
    return Scores(values, values)


def slow_choice(clusters: int, seen: dict[tuple[int, ...], list[float]]) -> tuple[tuple[int, ...], ...]:
    """Cluster by cluster, item by item."""

    def best(inside: Callable[[int], bool], least: int = 0) -> tuple[int, ...]:
        worth = {}
        for shown, values in seen.items():
            total, count = 0.0, 0
            for item, value in enumerate(values):
                if inside(item):
                    others = [each[item] for each in seen.values() if item < len(each)]
                    total += value - sum(others) / len(others)
                    count += 1
            if len(values) >= least:
                worth[shown] = round(total / (count + 8.0), 9)
        return max(worth, key=lambda shown: (worth[shown], shown))

    usual = best(lambda item: True, max(map(len, seen.values())))
    routes = []
    for cluster in range(clusters):
        own = best(lambda item, cluster=cluster: item % clusters == cluster)  # type: ignore[misc]
        pairs = list(enumerate(zip(seen[own], seen[usual], strict=False)))
        gains = [ours - theirs for item, (ours, theirs) in pairs if item % clusters == cluster]
        measurable = len(gains) >= 8 and mean(gains) > 2 * stdev(gains) / len(gains) ** 0.5 + 1e-9
        routes.append(own if measurable else usual)
    return tuple(routes)


sets = st.lists(st.integers(0, 11), min_size=1, max_size=3, unique=True).map(tuple)
values = st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=ITEMS)


@given(st.integers(2, 4), st.dictionaries(sets, values, min_size=1, max_size=5))
def test_the_best_set_of_each_cluster(clusters: int, seen: dict[tuple[int, ...], list[float]]) -> None:
    space = make(clusters)
    log = {Candidate(demonstrations=shown): scores_of(worth) for shown, worth in seen.items()}
    other_words = Candidate(template="bare", demonstrations=(11, 10))
    found = assemble(space, {**log, other_words: scores_of([1.0] * ITEMS)}, clusters, Candidate())
    expected = slow_choice(clusters, seen)
    if found is None:
        assert len(set(expected)) == 1
    else:
        assert (found.mode, found.routes) == ("routed", expected)


def test_routes_that_were_measured_count_like_static_ones() -> None:
    space = make(2)
    routed = Candidate(mode="routed", routes=((0,), (1,)))
    plain = Candidate(demonstrations=(2,))
    log = {routed: scores_of([1.0, 0.0] * 18), plain: scores_of([0.5, 0.5] * 18)}
    assert assemble(space, log, 2, Candidate()) == replace(routed, routes=((0,), (2,)))


def test_luck_on_a_handful_of_items_makes_no_route() -> None:
    """All sets are equally good; the best of many on each cluster would look far better."""
    space = make(4)
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(40):
        log = {
            Candidate(demonstrations=(a, b)): scores_of(rng.random(ITEMS).tolist()) for a in (0, 1) for b in (2, 3)
        }
        assembled = assemble(space, log, 4, Candidate())
        found += 0 if assembled is None else len(set(assembled.routes)) - 1
    assert found <= 30  # further routes, of 120 that there could be


def test_nothing_known_makes_nothing() -> None:
    assert assemble(make(2), {Candidate(): scores_of([1.0])}, 2, Candidate()) is None
