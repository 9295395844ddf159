"""Matches: what a query is shown does not depend on other queries, and is never the query itself."""

from __future__ import annotations

import numpy as np
import pytest
from fakes import WordEncoder

from promptsearch.candidate import RETRIEVERS, Candidate
from promptsearch.matching import ItemMatcher, Matching, wanted_matches
from promptsearch.pool import Pool
from promptsearch.routing import fit_router
from promptsearch.select.base import Queries
from promptsearch.select.registry import selector

WORDS = ("red", "blue", "warm", "cold", "old", "new", "fast", "slow")
TEXTS = [f"{WORDS[n % 8]} {WORDS[(3 * n) % 8]} {WORDS[(5 * n + 1) % 8]} thing {n}" for n in range(60)]
VECTORS = np.asarray(WordEncoder().encode(TEXTS), dtype=np.float32)
POOL = list(range(40))
USABLE = [name for name in RETRIEVERS if name != "coverage"]  # the word encoder has no token vectors


def matching() -> Matching:
    pool = Pool(POOL, VECTORS[POOL])
    router = fit_router(pool.vectors, 3, seed=0)
    assert router is not None
    texts = {number: TEXTS[number] for number in POOL}
    return Matching(pool, texts, {number: number % 2 for number in POOL}, WordEncoder(), {3: router})


def retrieving(**options: object) -> Candidate:
    return Candidate(mode="retrieved", **{"count": 4, **options})  # type: ignore[arg-type]


@pytest.mark.parametrize("retriever", USABLE)
def test_alone_is_as_together(retriever: str) -> None:
    reading = retrieving(retriever=retriever)
    items = list(range(40, 60))
    together = matching().matches(reading, VECTORS[items], [TEXTS[item] for item in items])
    for item, found in zip(items, together, strict=True):
        assert matching().matches(reading, VECTORS[item : item + 1], [TEXTS[item]]) == [found]
        assert len(set(found)) == 4


@pytest.mark.parametrize("retriever", USABLE)
def test_they_are_what_the_strategy_selects(retriever: str) -> None:
    chosen = selector(retriever, matching().examples())
    reading = retrieving(retriever=retriever)
    for item in range(40, 50):
        query = Queries(VECTORS[item : item + 1], (TEXTS[item],))
        wanted = chosen.select(query, 4, np.random.default_rng(0))
        assert matching().matches(reading, VECTORS[item : item + 1], [TEXTS[item]]) == [wanted]


@pytest.mark.parametrize("retriever", USABLE)
def test_an_excluded_example_is_never_shown(retriever: str) -> None:
    reading = retrieving(retriever=retriever)
    found = matching().matches(reading, VECTORS[:10], TEXTS[:10], list(range(10)))
    assert all(item not in shown for item, shown in enumerate(found))
    assert all(len(shown) == 4 for shown in found)


def test_only_curated_examples_are_shown() -> None:
    among = tuple(range(0, 40, 5))
    for retriever in USABLE:
        found = matching().matches(retrieving(retriever=retriever, among=among), VECTORS[40:50], TEXTS[40:50])
        assert all(set(shown) <= set(among) for shown in found)


def test_a_reranker_has_thirty_to_choose_from() -> None:
    assert wanted_matches(retrieving()) == 4
    assert wanted_matches(retrieving(reranker="cone")) == 30


def test_items_are_matched_once_and_the_same() -> None:
    plain, items = matching(), list(range(40, 60))
    matcher = ItemMatcher(plain, VECTORS, TEXTS)
    for retriever in USABLE:
        reading = retrieving(retriever=retriever)
        found = matcher.matches(reading, items)
        assert found == plain.matches(reading, VECTORS[items], [TEXTS[item] for item in items])
        assert matcher.matches(reading, items[5:9]) == found[5:9]
    routed = Candidate(mode="routed", routes=((1,), (2,), (3,)))
    assert matcher.clusters(routed, items).tolist() == plain.clusters(routed, VECTORS[items]).tolist()
