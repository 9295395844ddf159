"""Log-probabilities to decisions: formulas against slow twins, and fits against what made the data."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy.optimize import minimize

from promptsearch.calibration import Weighing, batch_offsets, contextual_offsets, fit_weighing
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import normalized, softmax

numbers = st.floats(-700, 0) | st.just(-np.inf)
tables = st.tuples(st.integers(1, 6), st.integers(2, 5)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=numbers)
)
finite_tables = st.tuples(st.integers(1, 6), st.integers(2, 5)).flatmap(
    lambda shape: arrays.arrays(np.float64, shape, elements=st.floats(-50, 0))
)


def slow_log_share(row: list[float]) -> list[float]:
    """One row's log-probabilities, made to sum to one, by the definition."""
    peak = max(row)
    if peak == -math.inf:
        return row
    total = math.fsum(math.exp(value - peak) for value in row)
    return [value - peak - math.log(total) for value in row]


def synthetic(
    count: int, sharpness: float, prior_weight: float, offsets: list[float], seed: int = 0
) -> tuple[FloatArray, FloatArray, np.ndarray[Any, np.dtype[np.int64]]]:
    """Model and neighbours' log-probabilities, and labels drawn from what they say together."""
    rng = np.random.default_rng(seed)
    labels = len(offsets)
    model = normalized(rng.normal(0, 2.0, (count, labels)))
    prior = normalized(rng.normal(0, 1.5, (count, labels)))
    shares = softmax(sharpness * (model - np.array(offsets)) + prior_weight * prior)
    golds = np.array([rng.choice(labels, p=row) for row in shares], dtype=np.int64)
    return model, prior, golds


# -- normalizing --------------------------------------------------------------------------------------------


@given(tables)
def test_normalized_is_its_slow_twin(table: FloatArray) -> None:
    expected = [slow_log_share(row) for row in table.tolist()]
    np.testing.assert_allclose(normalized(table), expected, rtol=1e-9, atol=1e-9)


@given(tables)
def test_softmax_sums_to_one(table: FloatArray) -> None:
    shares = softmax(table)
    np.testing.assert_allclose(shares.sum(axis=1), 1.0)
    for row, share in zip(table.tolist(), shares, strict=True):
        if max(row) == -math.inf:
            assert share.tolist() == [1 / len(row)] * len(row)
        else:
            np.testing.assert_allclose(share, np.exp(slow_log_share(row)), atol=1e-12)


def test_rows_that_could_not_be_read_stay_so() -> None:
    table = np.array([[-np.inf, -np.inf], [0.0, -np.inf], [-1e300, -1e300], [-1.0, -1.0]])
    expected = [[-np.inf, -np.inf], [0.0, -np.inf], [math.log(0.5)] * 2, [math.log(0.5)] * 2]
    np.testing.assert_allclose(normalized(table), expected)


# -- offsets ------------------------------------------------------------------------------------------------


@given(tables)
def test_batch_offsets_are_means_over_readable_rows(table: FloatArray) -> None:
    rows = [row for row in table.tolist() if all(map(math.isfinite, row))]
    means = [math.fsum(column) / len(rows) for column in zip(*rows, strict=True)] if rows else [0.0] * table.shape[1]
    np.testing.assert_allclose(batch_offsets(table), means, atol=1e-9)


@given(finite_tables)
def test_batch_calibration_leaves_no_label_ahead_on_average(table: FloatArray) -> None:
    logs = normalized(table)
    weighing = Weighing("batch", tuple(batch_offsets(logs)))
    np.testing.assert_allclose(weighing.scores(table).mean(axis=0), 0.0, atol=1e-9)


@given(finite_tables)
def test_contextual_offsets_are_logs_of_mean_shares(table: FloatArray) -> None:
    logs = normalized(table)
    count = len(logs)
    means = [math.fsum(math.exp(value) for value in column) / count for column in logs.T.tolist()]
    expected = [math.log(max(mean, 1e-12)) for mean in means]
    np.testing.assert_allclose(contextual_offsets(logs), expected, atol=1e-9)


def test_contextual_calibration_makes_an_empty_input_undecided() -> None:
    free = normalized(np.array([[-0.1, -3.0]]))
    scores = Weighing("contextual", tuple(contextual_offsets(free))).scores(free)
    np.testing.assert_allclose(scores, [[0.0, 0.0]], atol=1e-12)


# -- weighing -----------------------------------------------------------------------------------------------


@given(finite_tables, st.data())
def test_scores_are_the_formula(table: FloatArray, data: st.DataObject) -> None:
    labels = table.shape[1]
    offsets = data.draw(st.lists(st.floats(-5, 5), min_size=labels, max_size=labels))
    prior = data.draw(arrays.arrays(np.float64, table.shape, elements=st.floats(-9, 0)))
    sharpness, weight = data.draw(st.floats(0.1, 5)), data.draw(st.floats(0, 5))
    weighing = Weighing("fitted", tuple(offsets), sharpness, weight)
    logs = [slow_log_share(row) for row in table.tolist()]
    expected = [
        [sharpness * (log - offset) + weight * other for log, offset, other in zip(row, offsets, others, strict=True)]
        for row, others in zip(logs, prior.tolist(), strict=True)
    ]
    np.testing.assert_allclose(weighing.scores(table, prior), expected, atol=1e-6)


@given(tables, st.data())
def test_one_item_alone_is_the_same_as_in_a_batch(table: FloatArray, data: st.DataObject) -> None:
    prior = data.draw(arrays.arrays(np.float64, table.shape, elements=st.floats(-9, 0)))
    weighing = Weighing("batch", tuple(np.linspace(-1, 1, table.shape[1]).tolist()), 0.7, 1.3)
    together = weighing.scores(table, prior)
    alone = [weighing.scores(table[at : at + 1], prior[at : at + 1])[0] for at in range(len(table))]
    assert together.tolist() == [row.tolist() for row in alone]


def test_neighbours_do_not_answer_for_what_could_not_be_read() -> None:
    unread = np.full((1, 2), -np.inf)
    scores = Weighing("none", (0.0, 0.0), prior_weight=2.0).scores(unread, np.log([[0.9, 0.1]]))
    assert np.isneginf(scores).all()


def test_without_prior() -> None:
    weighing = Weighing("batch", (1.0, 2.0), 0.5, 3.0)
    assert weighing.without_prior() == Weighing("batch", (1.0, 2.0), 0.5, 0.0)


@given(
    st.builds(
        Weighing,
        st.sampled_from(["batch", "none"]),
        st.lists(st.floats(-9, 9), max_size=4).map(tuple),
        st.floats(0.01, 9),
        st.floats(0, 9),
    )
)
def test_weighing_round_trip(weighing: Weighing) -> None:
    assert Weighing.from_dict(json.loads(json.dumps(weighing.to_dict()))) == weighing


# -- fitting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sharpness", "prior_weight"), [(0.3, 0.0), (1.0, 0.5), (2.0, 2.0)])
def test_the_fit_finds_what_made_the_labels(sharpness: float, prior_weight: float) -> None:
    model, prior, golds = synthetic(4000, sharpness, prior_weight, [0.0, 0.0, 0.0])
    found = fit_weighing("none", np.zeros(3), model, prior, golds)
    assert found.sharpness == pytest.approx(sharpness, rel=0.1)
    assert found.prior_weight == pytest.approx(prior_weight, abs=0.12)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["batch", "fitted", "matrix"]), st.booleans())
@settings(max_examples=20)
def test_an_item_of_weight_two_counts_like_two_of_it(seed: int, calibration: str, with_prior: bool) -> None:
    model, prior, golds = synthetic(30, 1.0, 0.5, [0.3, 0.0, -0.3], seed % 1000)
    times = np.random.default_rng(seed).integers(1, 4, size=30)
    repeated = np.repeat(np.arange(30), times)
    given_prior = prior if with_prior else None
    offsets = batch_offsets(model)
    weighted = fit_weighing(calibration, offsets, model, given_prior, golds, times.astype(np.float64))
    slow = fit_weighing(
        calibration, offsets, model[repeated], prior[repeated] if with_prior else None, golds[repeated]
    )
    found, expected = (each.scores(model, given_prior) for each in (weighted, slow))
    np.testing.assert_allclose(normalized(found), normalized(expected), atol=0.01)  # as near as the steps come


def test_a_useless_prior_gets_next_to_no_weight() -> None:
    model, _, golds = synthetic(4000, 1.0, 0.0, [0.0, 0.0])
    noise = normalized(np.random.default_rng(9).normal(0, 1.5, (4000, 2)))
    assert fit_weighing("none", np.zeros(2), model, noise, golds).prior_weight < 0.1


@pytest.mark.parametrize("count", [20, 60, 200])
@pytest.mark.parametrize("calibration", ["batch", "fitted"])
def test_a_model_that_only_makes_noise_leaves_the_prior_what_it_is(count: int, calibration: str) -> None:
    """However few rows there are to see it by."""
    kept, lost = [], []
    for seed in range(8):
        _, prior, golds = synthetic(count + 4000, 0.0, 1.0, [0.0] * 4, seed)
        noise = normalized(np.random.default_rng([seed, 1]).normal(0, 2.0, prior.shape))
        offsets = batch_offsets(noise[:count])
        found = fit_weighing(calibration, offsets, noise[:count], prior[:count], golds[:count])
        alone = normalized(prior[count:])
        both = normalized(found.scores(noise[count:], prior[count:]))
        right = golds[count:]
        kept.append((both.argmax(1) == right).mean() - (alone.argmax(1) == right).mean())
        lost.append(float((alone - both)[np.arange(4000), right].mean()))
    assert np.mean(kept) > -0.015
    assert np.mean(lost) < 0.06


def test_a_model_that_knows_more_than_the_prior_is_heard() -> None:
    _, prior, golds = synthetic(4100, 0.0, 0.3, [0.0] * 3)
    model = normalized(np.eye(3)[golds] * 3.0 + np.random.default_rng(5).normal(0, 1.0, (4100, 3)))
    found = fit_weighing("batch", batch_offsets(model[:100]), model[:100], prior[:100], golds[:100])
    right = found.scores(model[100:], prior[100:]).argmax(1) == golds[100:]
    assert right.mean() > (model[100:].argmax(1) == golds[100:]).mean() - 0.02
    assert right.mean() > (prior[100:].argmax(1) == golds[100:]).mean() + 0.2


def test_a_prior_that_knows_all_decides() -> None:
    rng = np.random.default_rng(1)
    golds = rng.integers(2, size=200)
    prior = np.where(np.eye(2)[golds] > 0, -0.05, -3.0)
    found = fit_weighing("none", np.zeros(2), normalized(rng.normal(0, 1, (200, 2))), prior, golds)
    decided = found.scores(rng.normal(0, 1, (200, 2)), prior).argmax(axis=1)
    assert found.prior_weight > 1.0
    assert (decided == golds).mean() > 0.95


def test_no_prior_no_weight() -> None:
    model, _, golds = synthetic(100, 1.0, 0.0, [0.0, 0.0])
    assert fit_weighing("batch", np.zeros(2), model, None, golds).prior_weight == 0.0


def penalised_loss(
    weights: FloatArray, model: FloatArray, prior: FloatArray, golds: np.ndarray[Any, np.dtype[np.int64]]
) -> float:
    """What the fit minimises, item by item; weights are sharpness, prior weight, offsets, and the mixing if any."""
    total = 0.0
    labels = model.shape[1]
    moved, mixing = weights[2 : 2 + labels], weights[2 + labels :]
    mixed = mixing.reshape(labels, labels) if len(mixing) else np.zeros((labels, labels))
    for row, others, gold in zip(model.tolist(), prior.tolist(), golds.tolist(), strict=True):
        scores = [
            weights[0] * row[label]
            + sum(row[other] * mixed[other, label] for other in range(labels))
            + weights[1] * others[label]
            - moved[label]
            for label in range(labels)
        ]
        total -= slow_log_share(scores)[gold]
    apart = [log - sum(row) / len(row) for row in model.tolist() for log in row]
    spread = math.fsum(each**2 for each in apart) / len(apart)
    pulled = 2.0 * spread * weights[0] ** 2 + 4.0 * (weights[1] - 1) ** 2 + 2.0 * (moved**2).sum()
    return total + 0.5 * float(pulled + 4.0 * spread * (mixed**2).sum())


@pytest.mark.parametrize("seed", range(3))
def test_the_fit_is_the_optimum(seed: int) -> None:
    model, prior, golds = synthetic(60, 0.8, 0.7, [0.6, 0.0, -0.6], seed)
    offsets = batch_offsets(model)
    found = fit_weighing("fitted", offsets, model, prior, golds)
    moved = (np.array(found.offsets) - offsets) * found.sharpness
    at = np.array([found.sharpness, found.prior_weight, *moved])
    value = penalised_loss(at, model - offsets, prior, golds)
    twin = minimize(
        penalised_loss,
        np.array([1.0, 1.0, 0.1, 0.1, 0.1]),
        args=(model - offsets, prior, golds),
        method="Nelder-Mead",
        bounds=[(0.01, 10), (0, 8), *[(-20, 20)] * 3],
        options={"maxiter": 4000, "maxfev": 4000, "xatol": 1e-6, "fatol": 1e-9},
    )
    assert value == pytest.approx(twin.fun, abs=1e-3)
    np.testing.assert_allclose(at, twin.x, atol=0.02)


@pytest.mark.parametrize("seed", range(2))
def test_the_fit_of_a_matrix_is_the_optimum(seed: int) -> None:
    model, prior, golds = synthetic(50, 0.8, 0.7, [0.6, 0.0], seed)
    offsets = batch_offsets(model)
    found = fit_weighing("matrix", offsets, model, prior, golds)
    mixed = np.array(found.mixing)
    moved = (np.array(found.offsets) - offsets) * found.sharpness - offsets @ mixed
    at = np.array([found.sharpness, found.prior_weight, *moved, *mixed.ravel()])
    twin = minimize(
        penalised_loss,
        np.array([0.5, 1.0, *[0.01] * 6]),
        args=(model - offsets, prior, golds),
        method="Powell",
        bounds=[(0.01, 10), (0, 8), *[(-20, 20)] * 2, *[(-5, 5)] * 4],
        options={"maxiter": 200, "xtol": 1e-7, "ftol": 1e-11},
    )
    assert penalised_loss(at, model - offsets, prior, golds) == pytest.approx(twin.fun, abs=1e-3)
    np.testing.assert_allclose(at, twin.x, atol=0.03)
    # The stored offsets stand for what the fit subtracted before it mixed.
    by_hand = found.sharpness * (model - offsets) + (model - offsets) @ mixed + found.prior_weight * prior - moved
    np.testing.assert_allclose(found.scores(model, prior), by_hand, atol=1e-9)


def test_a_matrix_learns_that_one_label_is_said_for_another() -> None:
    """The model says "third" for the second label too, only a little more surely: no offset can part them."""
    rng = np.random.default_rng(3)
    golds = rng.integers(3, size=700)
    said = np.array([[2.0, 0.0, 0.0], [0.0, 0.0, 2.0], [0.0, 1.5, 2.0]])[golds]
    model = normalized(said + rng.normal(0, 0.5, (700, 3)))
    here, there = slice(0, 200), slice(200, 700)
    offsets = batch_offsets(model[here])
    right = {
        name: fit_weighing(name, offsets, model[here], None, golds[here]).scores(model[there]).argmax(1)
        == golds[there]
        for name in ("batch", "fitted", "matrix")
    }
    assert right["matrix"].mean() > max(right["batch"].mean(), right["fitted"].mean()) + 0.02


def test_a_matrix_finds_nothing_in_noise() -> None:
    rng = np.random.default_rng(4)
    golds = rng.integers(4, size=60)
    found = fit_weighing("matrix", np.zeros(4), normalized(rng.normal(0, 2.0, (60, 4))), None, golds)
    assert np.abs(found.mixing).max() < 0.2


@settings(max_examples=30)
@given(tables)
def test_mixing_treats_each_item_alone(table: FloatArray) -> None:
    labels = table.shape[1]
    rng = np.random.default_rng(0)
    mixing = tuple(tuple(row) for row in rng.normal(0, 1, (labels, labels)).tolist())
    weighing = Weighing("matrix", (0.3,) * labels, 0.8, mixing=mixing)
    together = weighing.scores(table)
    assert together.tolist() == [weighing.scores(table[at : at + 1])[0].tolist() for at in range(len(table))]
    for row, scores in zip(normalized(table), together, strict=True):
        assert np.isfinite(scores).tolist() == np.isfinite(row).tolist()
    assert Weighing.from_dict(json.loads(json.dumps(weighing.to_dict()))) == weighing


def test_fitted_offsets_beat_batch_where_labels_are_skewed() -> None:
    """Batch calibration takes the labels for evenly spread."""
    rng = np.random.default_rng(2)
    golds = (rng.random(600) < 0.12).astype(np.int64)
    model = normalized(np.eye(2)[golds] * 1.5 + rng.normal(0, 1.0, (600, 2)))
    here, there = slice(0, 300), slice(300, 600)
    offsets = batch_offsets(model[here])
    right = {
        name: (
            fit_weighing(name, offsets, model[here], None, golds[here]).scores(model[there]).argmax(1) == golds[there]
        )
        for name in ("batch", "fitted")
    }
    assert right["fitted"].mean() > right["batch"].mean() + 0.05


def test_unreadable_rows_do_not_count() -> None:
    model, prior, golds = synthetic(80, 1.0, 1.0, [0.0, 0.0])
    rows = np.concatenate([model, np.full((20, 2), -np.inf)])
    found = fit_weighing(
        "batch", np.zeros(2), rows, np.concatenate([prior, prior[:20]]), np.concatenate([golds, golds[:20]])
    )
    assert found == fit_weighing("batch", np.zeros(2), model, prior, golds)


@pytest.mark.parametrize("readable", [0, 1])
def test_next_to_nothing_readable_fits_nothing(readable: int) -> None:
    rows = np.full((5, 2), -np.inf)
    rows[:readable] = -0.7
    found = fit_weighing(
        "batch", np.array([0.5, -0.5]), rows, np.log(np.full((5, 2), 0.5)), np.zeros(5, dtype=np.int64)
    )
    assert found == Weighing("batch", (0.5, -0.5))


@settings(max_examples=60)
@given(tables, st.data())
def test_any_answers_give_a_usable_weighing(table: FloatArray, data: st.DataObject) -> None:
    labels = table.shape[1]
    golds = np.array(data.draw(st.lists(st.integers(0, labels - 1), min_size=len(table), max_size=len(table))))
    prior = data.draw(st.none() | arrays.arrays(np.float64, table.shape, elements=st.floats(-9, 0)))
    calibration = data.draw(st.sampled_from(["none", "batch", "fitted", "matrix"]))
    offsets = np.zeros(labels) if calibration == "none" else batch_offsets(normalized(table))
    found = fit_weighing(calibration, offsets, table, prior, golds)
    assert np.isfinite(found.offsets).all()
    assert 0.01 <= found.sharpness <= 10
    assert 0 <= found.prior_weight <= 8


@pytest.mark.parametrize(
    "change",
    [
        {"sharpness": math.nan},
        {"sharpness": 0.0},
        {"sharpness": "x"},
        {"offsets": [0.0, math.inf]},
        {"prior_weight": -1.0},
        {"prior_weight": math.inf},
        {"calibration": "magic"},
        {"calibration": 5},
        {"mixing": [[0.0, 1.0]]},
        {"mixing": [[0.0, 1.0], [0.0]]},
        {"mixing": [[0.0, 1.0], [0.0, math.nan]]},
    ],
)
def test_no_weighing(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"weighing|convert"):
        Weighing.from_dict({**Weighing("batch", (0.0, 1.0)).to_dict(), **change})
