"""What answers are worth: metrics, failures that count as wrong, and cross-validation against a slow twin."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from promptsearch.calibration import Weighing
from promptsearch.evaluation import Answers
from promptsearch.lm.base import FloatArray
from promptsearch.measurement import Measurement, measure
from promptsearch.metrics import METRICS, Metric, resolve_metric
from promptsearch.probabilities import softmax
from promptsearch.scoring import Asked, Judge, resampled_macro_f1
from promptsearch.task import Example

LABELS = ("bad", "fine", "good")
PLAIN = Weighing("none", (0.0, 0.0, 0.0))


def examples(golds: Sequence[str]) -> list[Example]:
    return [Example(number, (("text", f"t{number}"),), gold, gold) for number, gold in enumerate(golds)]


def classifier(golds: Sequence[str], metric: str = "accuracy", priors: dict[int, FloatArray] | None = None) -> Judge:
    return Judge(examples(golds), LABELS, METRICS[metric], priors or {})


def answers(rows: Any, fits: Sequence[bool] | None = None) -> Answers:
    table = np.array(rows, dtype=np.float64)
    return Answers(table, (), np.ones(len(table), dtype=bool) if fits is None else np.array(fits))


def random_case(seed: int, count: int) -> tuple[Judge, Answers, list[int]]:
    rng = np.random.default_rng(seed)
    golds = [LABELS[number] for number in rng.integers(3, size=count)]
    priors = {number: np.log(rng.dirichlet(np.ones(3))) for number in range(count)}
    return classifier(golds, priors=priors), answers(rng.normal(-2, 1, (count, 3))), list(range(count))


def test_accuracy() -> None:
    judged = classifier(["bad", "good", "good"]).judge(
        [0, 1, 2], answers([[-0.1, -3, -3], [-0.1, -3, -3], [-9, -8, -7]]), PLAIN
    )
    assert judged.predictions == ("bad", "bad", "good")
    assert judged.scores.tolist() == [1.0, 0.0, 1.0]
    assert judged.failures == {}


def test_items_are_looked_up_by_id() -> None:
    judge = classifier(["bad", "good", "fine"])
    judged = judge.judge([2, 0], answers([[-3, -0.1, -3], [-0.1, -3, -3]]), PLAIN)
    assert judged.scores.tolist() == [1.0, 1.0]
    assert judge.golds([2, 0]).tolist() == [1, 0]


@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_confidence_is_the_share_of_the_right_label(seed: int, count: int) -> None:
    judge, given, items = random_case(seed, count)
    judged = judge.judge(items, given, PLAIN)
    shares = softmax(given.log_probabilities)
    assert judged.confidence.tolist() == pytest.approx([shares[i, g] for i, g in enumerate(judge.golds(items))])


def test_what_cannot_be_read_or_does_not_fit_is_wrong_and_counted() -> None:
    unread = [-np.inf] * 3
    judge = classifier(["bad"] * 4)
    given = answers([unread, unread, [-0.1, -9, -9], [-9, -np.inf, -np.inf]], [True, False, True, True])
    judged = judge.judge([0, 1, 2, 3], given, PLAIN)
    assert judged.predictions == ("", "", "bad", "bad")
    assert judged.scores.tolist() == [0.0, 0.0, 1.0, 1.0]
    assert judged.failures == {"too long": 1, "not understood": 1}
    assert judged.confidence[0] == judged.confidence[1] == pytest.approx(1 / 3)
    measured = judge.measure([0, 1, 2, 3], judged)
    assert (measured.value, measured.n) == (0.5, 4)
    assert dict(measured.failures) == {"too long": 1, "not understood": 1}


def test_a_prior_does_not_answer_for_what_could_not_be_read() -> None:
    judge = classifier(["bad"], priors={0: np.log([0.98, 0.01, 0.01])})
    judged = judge.judge([0], answers([[-np.inf] * 3]), Weighing("none", (0.0,) * 3, 1.0, 2.0))
    assert judged.scores.tolist() == [0.0]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1"])
def test_everything_failed(metric: str) -> None:
    judge = classifier(["bad", "good"], metric)
    judged = judge.judge([0, 1], answers([[-np.inf] * 3] * 2, [False, True]), PLAIN)
    assert judge.measure([0, 1], judged).value == 0.0


def slow_macro_f1(golds: Sequence[str], predictions: Sequence[str]) -> float:
    values = []
    for label in set(golds):
        hits = sum(g == p == label for g, p in zip(golds, predictions, strict=True))
        values.append(2 * hits / (golds.count(label) + list(predictions).count(label)))
    return math.fsum(values) / len(values)


@pytest.mark.parametrize(("seed", "count"), [(0, 2), (1, 9), (2, 30)])
def test_macro_f1(seed: int, count: int) -> None:
    judge, given, items = random_case(seed, count)
    judge = classifier([judge._examples[item].output for item in items], "macro_f1")
    given.log_probabilities[0] = -np.inf
    judged = judge.judge(items, given, PLAIN)
    measured = judge.measure(items, judged)
    golds = [judge._examples[item].output for item in items]
    assert measured.value == pytest.approx(slow_macro_f1(golds, judged.predictions))
    assert measured.interval == "bootstrap 95 %"
    assert measured.low <= measured.high
    assert measured.n == count


@given(st.lists(st.sampled_from(LABELS), min_size=1, max_size=60))
def test_where_labels_count_alike_rare_ones_weigh_more(golds: list[str]) -> None:
    judge, items = classifier(golds, "macro_f1"), list(range(len(golds)))
    weights = judge.weights(items)
    assert weights.mean() == pytest.approx(1.0)
    for one, other in product(items, items):
        ratio = golds.count(golds[other]) / golds.count(golds[one])
        assert weights[one] / weights[other] == pytest.approx(math.sqrt(ratio))
    some = items[: max(1, len(items) // 2)]  # what a label's rows count together does not depend on how many are seen
    totals = {gold: sum(judge.weights(some)[at] for at in some if golds[at] == gold) for gold in golds}
    seen = {golds[at] for at in some}
    for one_label, other_label in product(seen, seen):
        expected = math.sqrt(golds.count(one_label) / golds.count(other_label))
        assert totals[one_label] / totals[other_label] == pytest.approx(expected)
    assert classifier(golds).weights(items).tolist() == [1.0] * len(golds)


@pytest.mark.parametrize("right", [True, False])
def test_macro_f1_of_rows_that_are_all_alike_is_as_sure_as_the_rarest_label_allows(right: bool) -> None:
    def measured(golds: list[str]) -> Measurement:
        judge, other = classifier(golds, "macro_f1"), {"bad": "good", "good": "fine", "fine": "bad"}
        said = [gold if right else other[gold] for gold in golds]
        logs = [[0.0 if label == word else -9.0 for label in LABELS] for word in said]
        items = range(len(golds))
        return judge.measure(items, judge.judge(items, answers(logs), PLAIN))

    even, uneven = measured(["bad", "good", "fine"] * 20), measured(["bad"] * 56 + ["good"] * 2 + ["fine"] * 2)
    rows = measure([float(right)] * 60)
    assert (even.value, even.n, even.interval) == (float(right), 60, "Wilson 95 %")
    assert (even.low, even.high) == pytest.approx((rows.low, rows.high))
    width = uneven.high - uneven.low
    assert 0.2 < width < 0.5
    assert width > 3 * (even.high - even.low)


def test_test_rows_do_not_say_how_frequent_labels_are() -> None:
    """Neither by their number nor by a label that no other row has."""
    golds = ["bad"] * 8 + ["good"] * 2
    expected = classifier(golds, "macro_f1").weights(range(10)).tolist()
    for tested in (["good"] * 50, ["bad"] * 50, ["fine"] * 50, []):
        judge = Judge(examples(golds + tested), LABELS, METRICS["macro_f1"], {}, counted=range(10))
        assert judge.weights(range(10)).tolist() == expected
        assert judge.without_prior().weights(range(10)).tolist() == expected


def test_a_rare_label_is_named_where_labels_count_alike() -> None:
    """Little evidence and one common label: likelihood alone hardly ever says the other."""
    values: dict[str, list[float]] = {"accuracy": [], "macro_f1": []}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        golds = ["bad"] * 180 + ["good"] * 20
        logs = rng.normal(0, 1, (200, 3)) + np.array([0.0, -9.0, 0.0])
        logs[np.arange(200), [LABELS.index(gold) for gold in golds]] += 0.7
        for metric, found in values.items():
            judge, items = classifier(golds, metric), list(range(200))
            judged = judge.judge(items, answers(logs), judge.fit("fitted", Asked(items, answers(logs))))
            found.append(slow_macro_f1(golds, judged.predictions))
    assert np.mean(values["macro_f1"]) > np.mean(values["accuracy"]) + 0.02


@given(st.lists(st.tuples(*[st.sampled_from(LABELS)] * 3), min_size=1, max_size=40))
def test_resamples_of_macro_f1_are_those_of_items(rows: list[tuple[str, str, str]]) -> None:
    """Against resampling the items one by one: the same distribution, and the same resample for both predictions."""
    golds, ours, theirs = map(list, zip(*rows, strict=True))
    one, other = resampled_macro_f1(golds, [ours, theirs])
    assert resampled_macro_f1(golds, [ours, ours])[1] == pytest.approx(resampled_macro_f1(golds, [ours, ours])[0])
    rng = np.random.default_rng(1)
    draws = rng.integers(len(rows), size=(300, len(rows)))
    slow = [
        slow_macro_f1([golds[at] for at in draw], [ours[at] for at in draw])
        - slow_macro_f1([golds[at] for at in draw], [theirs[at] for at in draw])
        for draw in draws
    ]
    error = np.std(slow) / math.sqrt(300) + np.std(one - other) / math.sqrt(1000)
    assert abs(np.mean(one - other) - np.mean(slow)) <= 5 * error + 1e-9


def test_macro_f1_has_an_interval_around_it() -> None:
    judge, given, items = random_case(1, 60)
    judge = classifier([judge._examples[item].output for item in items], "macro_f1")
    measured = judge.measure(items, judge.judge(items, given, PLAIN))
    assert measured.low < measured.value < measured.high


# -- fitting ------------------------------------------------------------------------------------------------


def slow_folds(judge: Judge, items: list[int]) -> list[int]:
    """Items dealt out to five folds, one label after the other."""
    golds = judge.golds(items).tolist()
    dealt = [place for label in sorted(set(golds)) for place in range(len(items)) if golds[place] == label]
    return [dealt.index(place) % 5 for place in range(len(items))]


def slow_likelihood(judge: Judge, calibration: str, items: list[int], given: Answers) -> float:
    """Every item judged by a weighing that was fitted without its fold."""
    total = 0.0
    folds = slow_folds(judge, items)
    for place, item in enumerate(items):
        inside = [other for other in range(len(items)) if folds[other] != folds[place]]
        weighing = judge.fit(
            calibration, Asked([items[at] for at in inside], given.take(np.array(inside, dtype=np.int64)))
        )
        alone = judge.judge([item], given.take(np.array([place])), weighing)
        total += math.log(max(float(alone.confidence[0]), 1e-9))
    return total / len(items)


@pytest.mark.parametrize("calibration", ["none", "batch", "fitted", "matrix"])
@pytest.mark.parametrize("count", [3, 11, 30])
def test_likelihood_is_its_slow_twin(calibration: str, count: int) -> None:
    judge, given, items = random_case(2, count)
    assert judge.likelihoods(calibration, Asked(items, given)).mean() == pytest.approx(
        slow_likelihood(judge, calibration, items, given), abs=1e-9
    )


def test_every_item_is_judged_by_a_fit_without_it() -> None:
    judge, given, items = random_case(4, 23)
    given.log_probabilities[3] = -np.inf
    judged = judge.cross_fitted("fitted", Asked(items, given))
    folds = slow_folds(judge, items)
    for place, item in enumerate(items):
        inside = [other for other in range(len(items)) if folds[other] != folds[place]]
        weighing = judge.fit(
            "fitted", Asked([items[at] for at in inside], given.take(np.array(inside, dtype=np.int64)))
        )
        alone = judge.judge([item], given.take(np.array([place])), weighing)
        assert judged.predictions[place] == alone.predictions[0]
        assert judged.scores[place] == alone.scores[0]
        assert judged.confidence[place] == pytest.approx(alone.confidence[0])
    assert sum(judged.failures.values()) == 1


@pytest.mark.parametrize("with_prior", [True, False])
def test_a_single_item_has_a_likelihood(with_prior: bool) -> None:
    judge, given, _ = random_case(3, 1)
    judge = judge if with_prior else classifier(["bad"])
    assert judge.likelihoods("batch", Asked([0], given)).mean() < 0


def test_likelihood_prefers_calibration_where_a_label_is_favoured() -> None:
    rng = np.random.default_rng(4)
    golds = rng.integers(3, size=120)
    rows = np.eye(3)[golds] * 1.5 + rng.normal(0, 0.7, (120, 3)) + [3.0, 0.0, 0.0]
    judge = classifier([LABELS[gold] for gold in golds])
    items = list(range(120))
    assert (
        judge.likelihoods("batch", Asked(items, answers(rows))).mean()
        > judge.likelihoods("none", Asked(items, answers(rows))).mean() + 0.05
    )


def test_contextual_offsets_come_from_inputs_without_content() -> None:
    judge, given, items = random_case(5, 20)
    free = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]))
    weighing = judge.fit("contextual", Asked(items, given, free))
    assert weighing.offsets == pytest.approx(np.log([0.6, 0.3, 0.1]))


@pytest.mark.parametrize("calibration", ["none", "batch", "fitted", "matrix"])
def test_no_item_helps_itself_in_a_race(calibration: str) -> None:
    judge, given, items = random_case(6, 40)
    raced = judge.scores_for_race(items, given, calibration)
    if calibration in ("fitted", "matrix"):
        judged = judge.cross_fitted(calibration, Asked(items, given))
    else:
        judged = judge.judge(items, given, judge.fit(calibration, Asked(items, given)))
    assert raced.values.tolist() == judged.scores.tolist()
    assert raced.confidence.tolist() == judged.confidence.tolist()


@settings(max_examples=40)
@given(st.integers(1, 8), st.data())
def test_any_answers_are_judged(count: int, data: st.DataObject) -> None:
    table = data.draw(arrays.arrays(np.float64, (count, 3), elements=st.floats(-50, 0) | st.just(-np.inf)))
    fits = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    table[~np.array(fits)] = -np.inf
    judge = classifier([data.draw(st.sampled_from(LABELS)) for _ in range(count)])
    items, given = list(range(count)), Answers(table, (), np.array(fits))
    for calibration in ("none", "batch", "fitted", "matrix"):
        assert math.isfinite(judge.likelihoods(calibration, Asked(items, given)).mean())
        judged = judge.judge(items, given, judge.fit(calibration, Asked(items, given)))
        unread = [not np.isfinite(row).any() for row in table]
        assert [not prediction for prediction in judged.predictions] == unread
        assert sum(judged.failures.values()) == sum(unread)
        assert not judged.scores[unread].any()
        assert json.dumps(judge.measure(items, judged).to_dict())


# -- free text, and without a model -------------------------------------------------------------------------


def free_text(golds: Sequence[str], metric: Metric = METRICS["exact_match"]) -> Judge:
    return Judge(examples(golds), None, metric, {})


def text_answers(texts: Sequence[str], fits: Sequence[bool]) -> Answers:
    return Answers(np.empty((len(texts), 0)), tuple(texts), np.array(fits))


def test_free_text() -> None:
    judge = free_text(["Paris", "Rome", "Oslo", "Bern"])
    given = text_answers(["the paris.", "Milan", "", ""], [True, True, False, True])
    judged = judge.judge([0, 1, 2, 3], given, None)
    assert judged.scores.tolist() == judged.confidence.tolist() == [1.0, 0.0, 0.0, 0.0]
    measured = judge.measure([0, 1, 2, 3], judged)
    assert dict(measured.failures) == {"empty answer": 1, "too long": 1}
    assert json.loads(json.dumps(measured.to_dict()))["failures"] == {"empty answer": 1, "too long": 1}


def test_an_empty_answer_is_wrong_whatever_the_metric_says() -> None:
    generous = resolve_metric(lambda example, prediction: 1.0, is_classification=False, golds=["x"])
    judged = free_text(["x", "y"], generous).judge([0, 1], text_answers(["", "no"], [True, True]), None)
    assert judged.scores.tolist() == [0.0, 1.0]


def test_a_metric_of_ones_own_gives_fractions() -> None:
    halves = resolve_metric(lambda example, prediction: 0.5, is_classification=False, golds=["x"])
    judge = free_text(["x", "y"], halves)
    measured = judge.measure([0, 1], judge.judge([0, 1], text_answers(["a", "b"], [True, True]), None))
    assert measured.value == 0.5
    assert 0 < measured.low < 0.5 < measured.high < 1


def test_label_choices_without_a_model() -> None:
    judged = classifier(["good", "bad"]).judge_labels([1, 0], np.log([[0.8, 0.1, 0.1], [0.2, 0.2, 0.6]]))
    assert judged.predictions == ("bad", "good")
    assert judged.scores.tolist() == [1.0, 1.0]
