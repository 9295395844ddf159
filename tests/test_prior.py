"""What labelled examples say: formulas against slow twins, fits against what made the data, and real vectors."""

from __future__ import annotations

import base64
import json
import math
import re
import unicodedata
from collections import Counter
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from sklearn.utils import murmurhash3_32

from promptsearch import linear as linear_module
from promptsearch.embed.base import unit_vectors
from promptsearch.embed.cache import CachedEncoder
from promptsearch.embed.transformer import TransformerEncoder
from promptsearch.errors import DataError
from promptsearch.examples import example_task
from promptsearch.lm.base import FloatArray
from promptsearch.pool import Pool
from promptsearch.prior import (
    Labelled,
    LabelPrior,
    LinearClassifier,
    NeighbourLabels,
    NeighbourVote,
    NgramClassifier,
    fit_label_prior,
    fit_linear,
    fit_neighbour_vote,
    fit_ngram_classifier,
)
from promptsearch.prior import combined as combined_module
from promptsearch.prior import ngrams as ngrams_module
from promptsearch.prior.ngrams import NgramFeatures

# -- the vote ---------------------------------------------------------------------------------------------


def slow_vote(vote: NeighbourVote, similarities: list[float], labels: list[int], label_count: int) -> list[float]:
    votes = [vote.smoothing / label_count] * label_count
    for similarity, label in list(zip(similarities, labels, strict=True))[: vote.count]:
        votes[label] += math.exp((similarity - similarities[0]) / vote.temperature)
    return [math.log(share / math.fsum(votes)) for share in votes]


@given(st.data())
def test_the_vote_is_its_slow_twin(data: st.DataObject) -> None:
    items, near, labels = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 10)), data.draw(st.integers(2, 4))
    similarities = data.draw(arrays.arrays(np.float64, (items, near), elements=st.floats(-1, 1)))
    similarities = -np.sort(-similarities, axis=1)
    given = data.draw(arrays.arrays(np.int64, (items, near), elements=st.integers(0, labels - 1)))
    vote = NeighbourVote(data.draw(st.integers(1, 12)), data.draw(st.sampled_from([0.02, 0.1, 0.5])))
    found = vote.log_probabilities(NeighbourLabels(similarities, given), labels)
    expected = [
        slow_vote(vote, near_by, words, labels)
        for near_by, words in zip(similarities.tolist(), given.tolist(), strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-9)
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0)


def test_without_neighbours_all_labels_are_equal() -> None:
    found = NeighbourVote().log_probabilities(NeighbourLabels(np.empty((2, 0)), np.empty((2, 0), dtype=np.int64)), 4)
    np.testing.assert_allclose(found, math.log(0.25))


def vote_data(right_first: int, count: int = 300) -> tuple[FloatArray, Any, Any]:
    """Neighbours of which the first ``right_first`` have the item's label and the others any."""
    rng = np.random.default_rng(3)
    golds = rng.integers(3, size=count)
    labels = rng.integers(3, size=(count, 32))
    labels[:, :right_first] = golds[:, None]
    return np.tile(np.linspace(0.9, 0.8, 32), (count, 1)), labels, golds


def test_few_neighbours_vote_where_labels_are_local() -> None:
    similarities, labels, golds = vote_data(2)
    assert fit_neighbour_vote(NeighbourLabels(similarities, labels), golds, 3).count <= 4


def test_many_neighbours_vote_where_each_says_little() -> None:
    rng = np.random.default_rng(4)
    golds = rng.integers(2, size=300)
    labels = np.where(rng.random((300, 32)) < 0.6, golds[:, None], 1 - golds[:, None])
    found = fit_neighbour_vote(NeighbourLabels(np.full((300, 32), 0.5), labels), golds, 2)
    assert found.count == 32


def test_the_fitted_vote_is_the_likeliest_of_all() -> None:
    similarities, labels, golds = vote_data(3, 60)
    found = fit_neighbour_vote(NeighbourLabels(similarities, labels), golds, 3)

    def likelihood(vote: NeighbourVote) -> float:
        rows = zip(similarities.tolist(), labels.tolist(), golds.tolist(), strict=True)
        return math.fsum(slow_vote(vote, near, words, 3)[gold] for near, words, gold in rows)

    options = [NeighbourVote(count, t) for count, t in product((1, 2, 4, 8, 16, 32), (0.02, 0.05, 0.1, 0.2))]
    assert likelihood(found) == pytest.approx(max(map(likelihood, options)))


@pytest.mark.parametrize("near", [0, 1, 3])
def test_a_small_pool_has_few_voters(near: int) -> None:
    similarities, labels, golds = vote_data(1, 20)
    assert fit_neighbour_vote(NeighbourLabels(similarities[:, :near], labels[:, :near]), golds, 3).count <= max(
        1, near
    )


def test_vote_round_trip() -> None:
    vote = NeighbourVote(4, 0.05, 0.2)
    assert NeighbourVote.from_dict(json.loads(json.dumps(vote.to_dict()))) == vote


@pytest.mark.parametrize(
    "values",
    [
        {"count": 0, "temperature": 0.1, "smoothing": 0.1},
        {"count": 4, "temperature": 0.0, "smoothing": 0.1},
        {"count": 4, "temperature": math.nan, "smoothing": 0.1},
        {"count": 4, "temperature": 0.1, "smoothing": 0.0},
        {"count": math.inf, "temperature": 0.1, "smoothing": 0.1},
    ],
)
def test_no_vote(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"vote|convert"):
        NeighbourVote.from_dict(values)


# -- the linear classifier ---------------------------------------------------------------------------------


def blobs(count: int, labels: int = 3, dimension: int = 8, seed: int = 0, noise: float = 0.6) -> tuple[Any, Any]:
    """Unit vectors around one direction a label."""
    rng = np.random.default_rng(seed)
    golds = rng.integers(labels, size=count)
    vectors = np.eye(labels, dimension)[golds] + rng.normal(0, noise, (count, dimension))
    return unit_vectors(vectors), golds.astype(np.int64)


def neighbours_in(pool: Pool, golds: NDArray[np.int64], vectors: Any, exclude: Any = None) -> NeighbourLabels:
    near = pool.nearest(vectors, 32, exclude=exclude)
    return NeighbourLabels(near.similarities.astype(np.float64), golds[near.ids])


def fitted(vectors: Any, golds: NDArray[np.int64], labels: int, texts: list[str] | None = None) -> LabelPrior:
    """On texts that say nothing, if there are no others."""
    pool = Pool(range(len(vectors)), vectors)
    near = neighbours_in(pool, golds, vectors, list(range(len(vectors))))
    return fit_label_prior(texts or ["same"] * len(vectors), vectors, golds, near, labels)


def slow_linear(classifier: LinearClassifier, vector: list[float], labels: int) -> list[float]:
    scores = [
        math.fsum(w * x for w, x in zip(row, vector, strict=True)) + intercept
        for row, intercept in zip(classifier.weights.tolist(), classifier.intercepts.tolist(), strict=True)
    ]
    total = math.fsum(math.exp(score - max(scores)) for score in scores)
    shares = [0.0] * labels
    for label, score in zip(classifier.labels, scores, strict=True):
        shares[label] = math.exp(score - max(scores)) / total
    return [math.log((classifier.rows * share + 1 / labels) / (classifier.rows + 1)) for share in shares]


def drawn_classifier(data: st.DataObject, labels: int) -> LinearClassifier:
    known = sorted(data.draw(st.sets(st.integers(0, labels - 1), min_size=2)))
    dimension = data.draw(st.integers(1, 5))
    weights = data.draw(arrays.arrays(np.float32, (len(known), dimension), elements=st.floats(-50, 50, width=32)))
    intercepts = np.array(data.draw(st.lists(st.floats(-50, 50), min_size=len(known), max_size=len(known))))
    return LinearClassifier(tuple(known), weights, intercepts, data.draw(st.integers(1, 9000)))


@given(st.integers(2, 6), st.data())
def test_the_classifier_is_its_slow_twin_and_survives(labels: int, data: st.DataObject) -> None:
    classifier = drawn_classifier(data, labels)
    shape = (data.draw(st.integers(0, 5)), classifier.weights.shape[1])
    vectors = data.draw(arrays.arrays(np.float32, shape, elements=st.floats(-1, 1, width=32)))
    found = classifier.log_probabilities(vectors, labels)
    expected = [slow_linear(classifier, vector, labels) for vector in vectors.tolist()]
    np.testing.assert_allclose(found, np.reshape(expected, (len(vectors), labels)), atol=1e-9)
    again = LinearClassifier.from_dict(json.loads(json.dumps(classifier.to_dict())), labels)
    assert again.log_probabilities(vectors, labels).tolist() == found.tolist()


@pytest.mark.parametrize(("count", "labels", "dimension"), [(1, 2, 384), (7, 2, 384), (50, 77, 384), (64, 3, 5)])
def test_a_query_alone_is_as_among_others(count: int, labels: int, dimension: int) -> None:
    rng = np.random.default_rng(count)
    classifier = LinearClassifier(
        tuple(range(labels)), rng.normal(0, 5, (labels, dimension)).astype(np.float32), np.zeros(labels), 100
    )
    vectors = unit_vectors(rng.normal(size=(count, dimension)))
    together = classifier.log_probabilities(vectors, labels)
    alone = [classifier.log_probabilities(vectors[at : at + 1], labels)[0].tolist() for at in range(count)]
    assert together.tolist() == alone


def test_vectors_of_another_encoder_are_refused() -> None:
    with pytest.raises(DataError, match="encoder"):
        LinearClassifier((0, 1), np.zeros((2, 4), np.float32), np.zeros(2), 5).log_probabilities(
            np.zeros((1, 3), np.float32), 2
        )


def test_held_out_predictions_are_those_of_classifiers_without_the_fold() -> None:
    from sklearn.linear_model import LogisticRegression

    vectors, golds = blobs(60)
    found = fit_linear(vectors, golds, 3)
    assert found is not None
    order = sorted(range(60), key=lambda row: (golds[row], row))
    fold_of = {row: place % 5 for place, row in enumerate(order)}
    tried = {}
    for penalty in linear_module._DENSE.penalties:
        logs = np.empty((60, 3))
        for row in range(60):
            others = [each for each in range(60) if fold_of[each] != fold_of[row]]
            model = LogisticRegression(C=penalty, tol=1e-3, max_iter=100).fit(vectors[others], golds[others])
            share = model.predict_proba(vectors[row : row + 1])[0]
            logs[row] = np.log((len(others) * share + 1 / 3) / (len(others) + 1))
        tried[penalty] = logs
    best = max(tried, key=lambda penalty: tried[penalty][np.arange(60), golds].sum())
    np.testing.assert_allclose(found.held_out, tried[best], atol=1e-4)
    whole = LogisticRegression(C=best, tol=1e-3, max_iter=100).fit(vectors, golds)
    assert found.classifier.log_probabilities(vectors, 3).argmax(1).tolist() == whole.predict(vectors).tolist()


def test_a_large_pool_is_sampled_label_by_label(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, golds = blobs(400, labels=4)
    whole = fit_linear(vectors, golds, 4)
    monkeypatch.setattr(linear_module, "_DENSE", replace(linear_module._DENSE, most_work=1, fewest_rows=100))
    part = fit_linear(vectors, golds, 4)
    assert whole is not None
    assert part is not None
    assert len(whole.rows) == 400
    assert len(part.rows) == len(part.held_out) == part.classifier.rows == 100
    assert np.unique(part.rows).tolist() == part.rows.tolist()
    np.testing.assert_allclose(np.bincount(golds[part.rows]) / 100, np.bincount(golds) / 400, atol=0.02)


# -- characters ----------------------------------------------------------------------------------------------

HASHED = [1927, 7064, 9473, 10068, 11777, 12346, 14341, 16978, 17206, 17255, 17558, 21748, 22922, 29199, 32394]
SENTIMENTS = (
    [f"A {word} film, take {n}" for n in range(12) for word in ("lovely", "charming", "WARM")],
    [f"A {word} film, take {n}" for n in range(12) for word in ("dreary", "clumsy", "COLD")],
)


def sentiments() -> tuple[list[str], NDArray[np.int64]]:
    bad, good = SENTIMENTS
    return [*bad, *good], np.repeat([0, 1], [len(bad), len(good)]).astype(np.int64)


def slow_ngrams(text: str) -> Counter[str]:
    """All n-grams of one to five characters; case, width and how long white space is do not count."""
    if len(text) > 1000:
        text = text[:500] + " " + text[-500:]
    text = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).lower()).strip()
    return Counter(text[at : at + length] for length in range(1, 6) for at in range(len(text) - length + 1))


def bucket_of(gram: str, buckets: int) -> int:
    return abs(murmurhash3_32(gram.encode())) % buckets


@given(st.lists(st.text(alphabet="aB é漢\t\n1Ａ", max_size=12), min_size=1, max_size=5), st.booleans())
def test_vectors_of_texts_are_tf_idf(texts: list[str], long: bool) -> None:
    buckets = 2**13
    if long:
        texts = [texts[0] * 300, *texts[1:]]
    features, vectors = NgramFeatures.fit(texts, buckets)
    counted = []
    for text in texts:
        counts: Counter[int] = Counter()
        for gram, times in slow_ngrams(text).items():
            counts[bucket_of(gram, buckets)] += times
        counted.append(counts)
    for row, counts in enumerate(counted):
        values = {}
        for bucket, times in counts.items():
            known = sum(bucket in others for others in counted)
            inverse = float(np.float16(1 + math.log((1 + len(texts)) / (1 + known))))
            values[bucket] = (1 + math.log(times)) * inverse
        length = math.sqrt(math.fsum(value**2 for value in values.values()))
        found = dict(zip(vectors[row].indices.tolist(), vectors[row].data.tolist(), strict=True))
        assert found == pytest.approx({bucket: value / length for bucket, value in values.items()}, rel=1e-5)
    again = features.vectors(texts)
    assert (again != vectors).nnz == 0


def test_hashes_are_those_of_saved_classifiers() -> None:
    """Should another version of scikit-learn hash otherwise, this is where it shows."""
    vectors = NgramFeatures(np.ones(2**15, np.float32)).vectors(["née 漢"])
    assert sorted(vectors.indices.tolist()) == HASHED


def test_characters_tell_labels_apart_and_survive() -> None:
    texts, golds = sentiments()
    found = fit_ngram_classifier(texts, golds, 2)
    assert found is not None
    assert (found.held_out.argmax(1) == golds).mean() > 0.9
    queries = ["a charming take", "clumsy take", "", "lone \ud800 surrogate", "x" * 50_000, "Ａ　lovely"]
    said = found.classifier.log_probabilities(queries, 2)
    assert said[:2].argmax(1).tolist() == [0, 1]
    assert np.isfinite(said).all()
    assert found.classifier.log_probabilities([], 2).shape == (0, 2)
    one_by_one = [found.classifier.log_probabilities([query], 2)[0].tolist() for query in queries]
    assert said.tolist() == one_by_one
    document = json.dumps(found.classifier.to_dict())
    assert "charming" not in document
    again = NgramClassifier.from_dict(json.loads(document), 2)
    assert again.log_probabilities(queries, 2).tolist() == said.tolist()


def test_sparse_vectors_are_fitted_as_dense_ones() -> None:
    """With the same penalty and as many steps; buckets without n-grams change nothing."""
    texts, golds = sentiments()
    features, vectors = NgramFeatures.fit(texts, 2**15)
    found = fit_ngram_classifier(texts, golds, 2)
    whole = fit_linear(vectors, golds, 2)
    assert found is not None
    assert whole is not None
    np.testing.assert_allclose(found.held_out, whole.held_out, atol=1e-3)
    effort = linear_module._SPARSE
    slow = linear_module._fitted(vectors.toarray(), golds, effort.penalties[0], effort)
    np.testing.assert_allclose(slow.weights, whole.classifier.weights, atol=1e-3)
    dense = slow.log_probabilities(vectors.toarray(), 2)
    np.testing.assert_allclose(slow.log_probabilities(vectors, 2), dense, atol=1e-9)
    assert features.inverses.min() >= 1


def test_many_labels_have_fewer_buckets() -> None:
    texts = [f"text {n}" for n in range(40)]
    sizes = []
    for labels in (2, 8, 9, 40, 300):
        found = fit_ngram_classifier(texts, np.arange(40) % labels, labels)
        sizes.append(0 if found is None else len(found.classifier.features.inverses))
    assert sizes == [2**15, 2**15, 2**14, 2**12, 0]


def test_of_many_characters_a_part_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, golds = sentiments()
    monkeypatch.setattr(ngrams_module, "_MOST_CHARACTERS", sum(map(len, texts)) // 2)
    found = fit_ngram_classifier(texts, golds, 2)
    assert found is not None
    assert len(found.rows) == len(found.held_out) == len(texts) // 2
    assert np.bincount(golds[found.rows]).tolist() == [18, 18]
    assert (found.held_out.argmax(1) == golds[found.rows]).mean() > 0.8


def test_a_hundred_and_fifty_labels_are_told_apart() -> None:
    """Their gradients are small from the start, and a fit must not stop there."""
    labels, rows = 150, 900
    golds = np.arange(rows) % labels
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghij"), 6)) for _ in range(labels)]
    texts = [f"{names[gold]} was said {number}" for number, gold in enumerate(golds)]
    directions = unit_vectors(rng.normal(size=(labels, 64)))
    dense = fit_linear(unit_vectors(directions[golds] + rng.normal(0, 0.05, (rows, 64))), golds, labels)
    sparse = fit_ngram_classifier(texts, golds, labels)
    assert dense is not None
    assert sparse is not None
    assert (dense.held_out.argmax(1) == golds).mean() > 0.95
    assert (sparse.held_out.argmax(1) == golds).mean() > 0.95


def test_without_texts_there_is_no_classifier() -> None:
    assert fit_ngram_classifier([], [], 2) is None
    assert fit_ngram_classifier(["a", "b"], [0, 0], 2) is None
    assert fit_ngram_classifier(["", " \n"] * 20, [0, 1] * 20, 2) is None


# -- all together ------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(st.data())
def test_any_pool_gives_a_usable_prior(data: st.DataObject) -> None:
    """Duplicated and zero vectors, labels of one row, labels without any, one label only."""
    count, labels = data.draw(st.integers(1, 14)), data.draw(st.integers(2, 5))
    few = np.concatenate([np.zeros((1, 4)), np.eye(4), np.random.default_rng(0).normal(size=(6, 4))])
    vectors = unit_vectors(few)[data.draw(st.lists(st.integers(0, 10), min_size=count, max_size=count))]
    golds = np.array(data.draw(st.lists(st.integers(0, labels - 1), min_size=count, max_size=count)))
    prior = fitted(vectors, golds, labels, data.draw(st.lists(st.text(max_size=8), min_size=count, max_size=count)))
    pool = Pool(range(count), vectors)
    queries = unit_vectors(few)
    near = neighbours_in(pool, golds, queries) if prior.neighbours else None
    texts = data.draw(st.lists(st.text(max_size=8), min_size=len(queries), max_size=len(queries)))
    found = prior.log_probabilities(texts, queries, near, labels)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(np.exp(found).sum(axis=1), 1.0)
    assert prior.vote_weight > 0 or prior.linear_weight > 0 or prior.ngrams_weight > 0
    again = LabelPrior.from_dict(json.loads(json.dumps(prior.to_dict())), labels)
    assert again.log_probabilities(texts, queries, near, labels).tolist() == found.tolist()
    assert prior.description


def test_one_label_leaves_the_vote_alone() -> None:
    prior = fitted(blobs(12)[0], np.array([0] * 11 + [1]), 2)
    assert prior.linear is None
    assert prior.ngrams is None
    assert (prior.vote_weight, prior.linear_weight, prior.ngrams_weight) == (1.0, 0.0, 0.0)


def test_the_vote_goes_where_the_classifier_knows_all_of_it() -> None:
    """Labels differ along one direction; neighbours are near in all the others."""
    rng = np.random.default_rng(0)
    golds = rng.integers(2, size=400).astype(np.int64)
    vectors = rng.normal(0, 1, (400, 40))
    vectors[:, 0] = np.where(golds > 0, 2.0, -2.0)
    prior = fitted(unit_vectors(vectors), golds, 2)
    assert (prior.vote_weight, prior.neighbours) == (0.0, 0)
    assert prior.linear_weight > 0


def test_the_classifier_goes_where_only_neighbours_know() -> None:
    """Many small groups in a plane, their labels drawn by chance: no direction tells them apart."""
    rng = np.random.default_rng(1)
    groups = rng.normal(size=(120, 2))
    labels = rng.integers(2, size=120)
    which = np.repeat(np.arange(120), 6)
    angles = np.linspace(0, 2 * np.pi, 120, endpoint=False)[which] + rng.normal(0, 0.002, len(which))
    assert len(groups) == 120
    vectors = unit_vectors(np.stack([np.cos(angles), np.sin(angles)], axis=1))
    golds = labels[which].astype(np.int64)
    prior = fitted(vectors, golds, 2)
    assert prior.vote_weight > 0.5
    assert prior.linear_weight < prior.vote_weight / 2


def test_where_only_characters_tell_no_vector_is_needed() -> None:
    texts, golds = sentiments()
    rng = np.random.default_rng(3)
    prior = fitted(unit_vectors(rng.normal(size=(len(texts), 8))), golds, 2, texts)
    assert prior.ngrams_weight > 0
    assert not prior.needs_vectors
    assert prior.log_probabilities(["charming", "dreary"], None, None, 2).argmax(1).tolist() == [0, 1]
    assert prior.description.endswith("linear classifier of characters")
    with pytest.raises(ValueError, match="vectors"):
        LabelPrior.from_dict(GOOD | {"vote_weight": 0.0}, 3).log_probabilities(["a"], None, None, 3)


def test_further_rows_teach_the_classifier_of_characters_alone() -> None:
    """They judge nothing, and need no vector."""
    texts, golds = sentiments()
    few = [0, 1, 40, 41] * 3  # two of six words
    vectors = unit_vectors(np.random.default_rng(3).normal(size=(len(few), 8)))
    near = neighbours_in(Pool(range(len(few)), vectors), golds[few], vectors)
    shown = [texts[row] for row in few]
    without = fit_label_prior(shown, vectors, golds[few], near, 2)
    assert without == fit_label_prior(shown, vectors, golds[few], near, 2, Labelled())
    taught = fit_label_prior(shown, vectors, golds[few], near, 2, Labelled(texts, golds))
    whole = fit_ngram_classifier([*shown, *texts], np.append(golds[few], golds), 2)
    assert taught.ngrams is not None
    assert whole is not None
    np.testing.assert_array_equal(taught.ngrams.linear.weights, whole.classifier.linear.weights)
    assert taught.ngrams.linear.rows == len(few) + len(texts)
    assert taught.ngrams.log_probabilities(["WARM", "COLD"], 2).argmax(1).tolist() == [0, 1]


def test_rows_that_judge_are_the_smaller_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that two samples share by chance."""
    texts, golds = sentiments()
    judging = []
    slow = combined_module._chosen_weights

    def watched(parts: FloatArray, right: NDArray[np.int64]) -> list[float]:
        judging.append(np.bincount(right).tolist())
        return slow(parts, right)

    monkeypatch.setattr(combined_module, "_chosen_weights", watched)
    monkeypatch.setattr(linear_module, "_DENSE", replace(linear_module._DENSE, most_work=1, fewest_rows=48))
    monkeypatch.setattr(ngrams_module, "_MOST_CHARACTERS", 20 * len(texts[0]))
    vectors = unit_vectors(np.eye(2, 8)[golds] + np.random.default_rng(0).normal(0, 0.5, (len(texts), 8)))
    fitted(vectors, golds, 2, texts)
    assert judging == [[10, 10]]


def test_a_part_that_cannot_be_fitted_leaves_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, golds = blobs(90)
    without_texts = fitted(vectors, golds, 3, [""] * 90)
    assert without_texts.linear_weight > 0
    assert without_texts.ngrams is None
    texts, golds = sentiments()
    monkeypatch.setattr(combined_module, "fit_linear", lambda *arguments: None)
    without_vectors = fitted(blobs(len(texts))[0], golds, 2, texts)
    assert without_vectors.ngrams_weight > 0
    assert without_vectors.linear is None


def mean_likelihood(logs: FloatArray, golds: NDArray[np.int64]) -> float:
    return float(logs[np.arange(len(golds)), golds].mean())


def test_real_vectors(encoder: TransformerEncoder) -> None:
    """On rows that no fit saw, all together are as likely as the best of them, at least."""
    task = example_task()
    index = {word: number for number, word in enumerate(task.labels or ())}
    rows = [task.examples[number] for number in range(0, 240, 2)], [task.examples[n] for n in range(1, 240, 2)]
    pool_texts, texts = ([row.text for row in part] for part in rows)
    golds, right = (np.array([index[row.output] for row in part], dtype=np.int64) for part in rows)
    pool_vectors, vectors = (CachedEncoder(encoder).encode(part) for part in (pool_texts, texts))
    prior = fitted(pool_vectors, golds, len(index), pool_texts)
    near = neighbours_in(Pool(range(len(golds)), pool_vectors), golds, vectors)
    linear = fit_linear(pool_vectors, golds, len(index))
    ngrams = fit_ngram_classifier(pool_texts, golds, len(index))
    assert linear is not None
    assert ngrams is not None
    parts = [
        prior.vote.log_probabilities(near, len(index)),
        linear.classifier.log_probabilities(vectors, len(index)),
        ngrams.classifier.log_probabilities(texts, len(index)),
    ]
    together = mean_likelihood(prior.log_probabilities(texts, vectors, near, len(index)), right)
    assert together > max(mean_likelihood(part, right) for part in parts) - 0.05
    assert together > -math.log(len(index)) + 0.5


GOOD = LabelPrior(
    NeighbourVote(4),
    vote_weight=0.5,
    linear=LinearClassifier((0, 2), np.ones((2, 3), np.float32), np.zeros(2), 9),
    linear_weight=0.5,
    ngrams=NgramClassifier(
        NgramFeatures(np.ones(3, np.float32)), LinearClassifier((0, 2), np.ones((2, 3)), np.zeros(2), 9)
    ),
    ngrams_weight=0.5,
).to_dict()


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("", {"vote_weight": -1.0}),
        ("", {"linear_weight": math.nan}),
        ("", {"linear": None}),
        ("", {"ngrams_weight": 5.0}),
        ("", {"ngrams": None}),
        ("ngrams", {"inverses": ""}),
        ("ngrams", {"inverses": base64.b64encode(np.array([1, np.nan, 1], "<f2").tobytes()).decode()}),
        ("ngrams", {"inverses": base64.b64encode(np.array([1, 100, 1], "<f2").tobytes()).decode()}),
        ("ngrams", {"inverses": base64.b64encode(np.ones(4, "<f2").tobytes()).decode()}),
        ("linear", {"numbers": "<f8"}),
        ("linear", {"labels": [0, 3]}),
        ("linear", {"labels": [2, 0]}),
        ("linear", {"labels": [0]}),
        ("linear", {"rows": 0}),
        ("linear", {"rows": 10**30}),
        ("linear", {"intercepts": [0.0, math.nan]}),
        ("linear", {"intercepts": [0.0]}),
        ("linear", {"weights": []}),
        ("linear", {"weights": ["AAAA", "AAAA"]}),
        ("linear", {"weights": ["", ""]}),
        ("linear", {"weights": ["no base64", "AAAAAA=="]}),
        (
            "linear",
            {"weights": [base64.b64encode(np.array([value], "<f4").tobytes()).decode() for value in (1, np.nan)]},
        ),
    ],
)
def test_no_prior(part: str, change: dict[str, Any]) -> None:
    values = json.loads(json.dumps(GOOD))
    (values[part] if part else values).update(change)
    with pytest.raises((ValueError, TypeError)):
        LabelPrior.from_dict(values, 3)
