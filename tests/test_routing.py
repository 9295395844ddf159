"""Routers: clusters by the nearest centre, alone or together, in another process, and from a file."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.calibration import route_shifts
from promptsearch.routing import Router, fit_router


def unit(rng: np.random.Generator, count: int, dimension: int = 6) -> np.ndarray:
    vectors = rng.normal(size=(count, dimension))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 20))
def test_clusters_by_loops(seed: int, clusters: int, queries: int) -> None:
    rng = np.random.default_rng(seed)
    router = Router(unit(rng, clusters))
    vectors = unit(rng, queries)
    found = router.clusters(vectors)
    for place, vector in enumerate(vectors):
        worth = [sum(float(a) * float(b) for a, b in zip(vector, centre, strict=True)) for centre in router.centres]
        assert worth[found[place]] == pytest.approx(max(worth), abs=1e-9)
        assert router.clusters(vector[None]).tolist() == [found[place]]


def test_members_are_sorted_by_nearness_and_complete() -> None:
    rng = np.random.default_rng(0)
    vectors, ids = unit(rng, 40), list(range(100, 140))
    router = fit_router(vectors, 4, seed=3)
    assert router is not None
    groups = router.members(ids, vectors)
    assert sorted(number for group in groups for number in group) == ids
    for cluster, group in enumerate(groups):
        assert group
        near = router.similarities(vectors[[number - 100 for number in group]])[:, cluster]
        assert (np.diff(near) <= 0).all()


def test_the_same_seed_fits_the_same_router() -> None:
    vectors = unit(np.random.default_rng(1), 200)
    one, other = fit_router(vectors, 8, seed=5 + 2**32), fit_router(vectors, 8, seed=5 + 2**32)
    assert one is not None
    assert other is not None
    assert np.array_equal(one.centres, other.centres)


def test_separated_groups_are_found() -> None:
    rng = np.random.default_rng(2)
    middles = np.eye(6, dtype=np.float32)[:3]
    vectors = np.concatenate([middles[at] + 0.05 * rng.normal(size=(10, 6)) for at in range(3)])
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    router = fit_router(vectors, 3, seed=0)
    assert router is not None
    found = router.clusters(vectors).reshape(3, 10)
    assert all(len(set(row)) == 1 for row in found.tolist())
    assert len({int(row[0]) for row in found}) == 3


@pytest.mark.parametrize("vectors", [np.ones((5, 1), np.float32), np.eye(3, dtype=np.float32)])
def test_too_few_different_examples_make_no_router(vectors: np.ndarray) -> None:
    assert fit_router(vectors, 4, seed=0) is None


def test_a_file_gives_back_the_very_centres() -> None:
    router = Router(unit(np.random.default_rng(4), 5))
    again = Router.from_list(json.loads(json.dumps(router.to_list())))
    assert np.array_equal(again.centres, router.centres)


@pytest.mark.parametrize("values", [[], [1.0], [[]], [[float("nan")]], "x", [[1.0], [1.0, 2.0]], None])
def test_what_is_no_router(values: object) -> None:
    with pytest.raises((TypeError, ValueError)):
        Router.from_list(values)


def test_shifts_tell_a_route_s_bias_from_its_queries_labels() -> None:
    """Two routes of one bias each, whose queries have mostly one label each: a plain mean would mix them up."""
    rng = np.random.default_rng(0)
    routes = rng.integers(2, size=4000)
    golds = np.where(rng.random(4000) < 0.9, routes, 1 - routes)
    bias = np.array([[0.8, -0.8], [-0.5, 0.5]])
    logs = 2.0 * np.eye(2)[golds] + bias[routes] + rng.normal(0, 0.5, (4000, 2))
    found = route_shifts(logs, routes, golds, 2)
    assert found[0] - found[1] == pytest.approx(bias[0] - bias[1], abs=0.15)


@given(st.integers(0, 10**6))
def test_shifts_are_the_least_squares_solution(seed: int) -> None:
    """By the normal equations of the whole design, with the pull of four further items on each route."""
    rng = np.random.default_rng(seed)
    routes, golds = rng.integers(3, size=60), rng.integers(2, size=60)
    logs = rng.normal(size=(60, 2))
    found = route_shifts(logs, routes, golds, 3)
    design = np.concatenate([np.eye(3)[routes], np.eye(2)[golds]], axis=1)
    pull = np.diag([4.0, 4.0, 4.0, 0.0, 0.0])
    solved = np.linalg.solve(design.T @ design + pull, design.T @ logs)
    assert found == pytest.approx(solved[:3], abs=1e-9)


def test_a_route_without_items_has_no_shift() -> None:
    logs = np.random.default_rng(0).normal(size=(10, 2))
    found = route_shifts(logs, np.zeros(10, dtype=np.int64), np.arange(10) % 2, 3)
    assert found[1:] == pytest.approx(np.zeros((2, 2)), abs=1e-9)
