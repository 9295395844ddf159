from collections import Counter
from string import ascii_letters

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.data.duplicates import DuplicateReport
from promptsearch.data.splits import (
    Parts,
    Splits,
    carve,
    in_turns,
    make_splits,
    remove_near_duplicates,
    without_near_texts,
)
from promptsearch.data.text import normalised
from promptsearch.errors import DataError

NAMES = ("pool", "search", "confirm", "test")


def split(train, validation=0, test=0, *, labels=2, seed=0, stratified=True):
    """Splits of rows that are all different."""
    total = train + validation + test
    parts = Parts(
        tuple(range(train)), tuple(range(train, train + validation)), tuple(range(train + validation, total))
    )
    outputs = [f"label {row % labels}" for row in range(total)]
    return make_splits(distinct(total), outputs, parts, seed=seed, stratified=stratified), outputs


def distinct(rows):
    return [f"text number {row}x" for row in range(rows)]


def message_of(*arguments, **options):
    with pytest.raises(DataError) as caught:
        make_splits(*arguments, **{"seed": 0, "stratified": True, **options})
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("given_rows", "sizes"),
    [
        ((20, 0, 0), (5, 5, 3, 7)),
        ((100, 0, 0), (25, 24, 16, 35)),
        ((1000, 0, 0), (350, 240, 160, 250)),
        ((10_000, 0, 0), (8500, 300, 200, 1000)),
        ((100, 0, 400), (50, 30, 20, 400)),
        ((5000, 0, 1500), (4500, 300, 200, 1500)),
        ((100, 50, 0), (65, 30, 20, 35)),
        ((100, 50, 60), (100, 30, 20, 60)),
    ],
)
def test_sizes(given_rows, sizes):
    splits, _ = split(*given_rows)
    assert splits.sizes == dict(zip(NAMES, sizes, strict=True))


row_counts = st.tuples(st.integers(20, 300), st.integers(0, 60), st.integers(0, 60)).filter(
    lambda counts: counts[1] != 1
)


@settings(deadline=None)
@given(counts=row_counts, labels=st.integers(1, 40), seed=st.integers(-5, 2**40), stratified=st.booleans())
def test_splits_are_disjoint_and_cover_everything(counts, labels, seed, stratified):
    splits, _ = split(*counts, labels=labels, seed=seed, stratified=stratified)
    rows = [row for name in NAMES for row in getattr(splits, name)]
    assert sorted(rows) == list(range(sum(counts)))
    assert all(splits.sizes.values())
    assert splits.report == DuplicateReport()


@settings(deadline=None)
@given(counts=row_counts, labels=st.integers(1, 5), seed=st.integers(0, 100))
def test_the_seed_decides(counts, labels, seed):
    assert split(*counts, labels=labels, seed=seed) == split(*counts, labels=labels, seed=seed)


def test_another_seed_gives_other_splits():
    assert split(100, seed=0)[0] != split(100, seed=1)[0]


@settings(deadline=None)
@given(shares=st.lists(st.integers(20, 60), min_size=2, max_size=6), seed=st.integers(0, 100))
def test_labels_keep_their_shares_within_rounding(shares, seed):
    outputs = [f"label {label}" for label, count in enumerate(shares) for _ in range(count)]
    parts = Parts(tuple(range(len(outputs))))
    splits = make_splits(distinct(len(outputs)), outputs, parts, seed=seed, stratified=True)
    for name in NAMES:
        rows = getattr(splits, name)
        counts = Counter(outputs[row] for row in rows)
        for label, count in enumerate(shares):
            # Each of the up to three draws that lead to a part rounds once.
            assert abs(counts[f"label {label}"] - count * len(rows) / len(outputs)) <= 3


@given(labels=st.lists(st.sampled_from("abc"), max_size=40), seed=st.integers(0, 100))
def test_labels_take_turns(labels, seed):
    rows = np.random.default_rng(seed).permutation(len(labels)).tolist()
    found = in_turns(rows, labels)
    assert sorted(found) == sorted(rows)
    for label in set(labels):
        assert [row for row in found if labels[row] == label] == [row for row in rows if labels[row] == label]
    for end in range(len(found)):
        seen, left = (Counter(labels[row] for row in part) for part in (found[:end], found[end:]))
        assert max((seen[label] for label in seen), default=0) <= min((seen[label] for label in left), default=0) + 1


def test_rare_labels_go_to_the_pool():
    outputs = ["a", "b"] * 20 + ["rare", "rarer", "rarer"]
    splits = make_splits(distinct(43), outputs, Parts(tuple(range(43))), seed=0, stratified=True)
    assert {40, 41, 42} <= set(splits.pool)


@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_nothing_but_rare_labels_still_splits(repeats):
    outputs = [f"label {row // repeats}" for row in range(60)]
    splits = make_splits(distinct(60), outputs, Parts(tuple(range(60))), seed=0, stratified=True)
    assert all(splits.sizes.values())


def test_what_is_drawn_from_ordered_rows_is_in_random_order():
    outputs = ["a"] * 500 + ["b"] * 500
    splits = make_splits(distinct(1000), outputs, Parts(tuple(range(1000))), seed=0, stratified=True)
    for name in ("search", "confirm", "test"):
        beginning = Counter(outputs[row] for row in getattr(splits, name)[:40])
        assert 8 <= beginning["a"] <= 32


def test_explicit_parts_are_used_whole():
    splits, _ = split(100, 50, 60)
    assert splits.pool == tuple(range(100))
    assert sorted(splits.search + splits.confirm) == list(range(100, 150))
    assert sorted(splits.test) == list(range(150, 210))


def test_any_first_part_of_a_sorted_test_file_is_a_fair_sample():
    outputs = ["a", "b"] * 50 + ["a"] * 100 + ["b"] * 100
    splits = make_splits(
        distinct(300), outputs, Parts(tuple(range(100)), (), tuple(range(100, 300))), seed=0, stratified=True
    )
    beginning = Counter(outputs[row] for row in splits.test[:40])
    assert 8 <= beginning["a"] <= 32


def test_a_text_never_stands_in_two_splits():
    texts = distinct(120)
    texts[100] = texts[0].upper() + "!"  # a test row in the data
    texts[101] = texts[60]  # a test row in validation
    texts[61] = texts[1] + " ."  # a validation row in the data
    texts[3] = texts[2]  # the data repeats itself
    texts[5] = texts[4]  # the data contradicts itself
    outputs = ["a", "b"] * 60
    outputs[3], outputs[5] = outputs[2], "b" if outputs[4] == "a" else "a"
    parts = Parts(tuple(range(60)), tuple(range(60, 100)), tuple(range(100, 120)))
    splits = make_splits(texts, outputs, parts, seed=0, stratified=True)
    assert splits.report == DuplicateReport(repeated=1, conflicting=2, across=3)
    assert not {0, 1, 3, 4, 5} & set(splits.pool)
    assert 60 not in splits.search + splits.confirm
    assert sorted(splits.test) == list(range(100, 120))


@settings(deadline=None)
@given(
    texts=st.lists(st.sampled_from([f"text {letter}" for letter in ascii_letters]), min_size=60, max_size=120),
    seed=st.integers(0, 10),
)
def test_repeated_texts_stay_apart(texts, seed):
    third = len(texts) // 3
    parts = Parts(tuple(range(third)), tuple(range(third, 2 * third)), tuple(range(2 * third, len(texts))))
    outputs = [text[-1].lower() for text in texts]
    try:
        splits = make_splits(texts, outputs, parts, seed=seed, stratified=False)
    except DataError:
        return
    keys = [{normalised(texts[row]) for row in getattr(splits, name)} for name in NAMES]
    assert sum(map(len, keys)) == len(set().union(*keys))
    assert sum(splits.sizes.values()) + splits.report.total == len(texts)


def test_validation_that_repeats_itself_is_not_in_search_and_confirm():
    texts = distinct(140)
    texts[100:120] = texts[120:140]
    parts = Parts(tuple(range(100)), tuple(range(100, 140)))
    splits = make_splits(texts, ["a", "b"] * 70, parts, seed=0, stratified=True)
    assert not {texts[row] for row in splits.search} & {texts[row] for row in splits.confirm}
    assert splits.report.across > 0


def test_too_few_rows_name_the_rule():
    message = message_of(distinct(19), ["a"] * 19, Parts(tuple(range(19))))
    assert "19 row(s)" in message
    assert "20" in message


def test_too_few_different_rows_name_the_rule():
    message = message_of(["same", "other"] * 50, ["a", "b"] * 50, Parts(tuple(range(100))))
    assert "2 row(s)" in message
    assert "duplicates" in message


def test_texts_with_several_outputs_that_leave_too_few_rows_are_named():
    texts = [*distinct(15), *["what {is} it?"] * 30]
    message = message_of(texts, [*["a"] * 15, *["b", "c", "b"] * 10], Parts(tuple(range(45))))
    assert "15 row(s) left" in message
    assert "30 rows are left out" in message
    assert "'what {is} it?' with 'b' and 'c'" in message
    assert "left out" not in message_of(["same", "other"] * 50, ["a", "b"] * 50, Parts(tuple(range(100))))
    parts = Parts(tuple(range(20)), tuple(range(20, 40)), tuple(range(40, 60)))
    message = message_of([*["same"] * 20, *distinct(40)], ["a", "b"] * 30, parts)
    assert "20 rows of texts that have several outputs" in message


def test_a_test_split_that_is_training_data_is_refused():
    texts = distinct(100) + distinct(100)[:30] + distinct(149)[100:]
    parts = Parts(tuple(range(100)), (), tuple(range(100, 150)))
    message = message_of(texts[:150], ["a", "b"] * 75, parts)
    assert "30 of 50 test rows" in message


def test_a_test_split_that_is_half_training_data_is_cleaned():
    texts = distinct(100) + distinct(100)[:25] + distinct(200)[100:125]
    parts = Parts(tuple(range(100)), (), tuple(range(100, 150)))
    splits = make_splits(texts, ["a", "b"] * 75, parts, seed=0, stratified=True)
    assert splits.report.across == 25
    assert not set(range(25)) & {*splits.pool, *splits.search, *splits.confirm}


def test_a_part_that_is_left_empty_is_named():
    texts = [*distinct(40)[20:], *distinct(40)[20:], *distinct(20)]
    parts = Parts(tuple(range(20)), tuple(range(20, 40)), tuple(range(40, 60)))
    message = message_of(texts, ["a", "b"] * 30, parts)
    assert "pool" in message
    assert "20 duplicates" in message


def test_near_duplicates_give_way_to_the_later_part():
    splits = Splits((0, 1, 2, 3), (4, 5), (6, 7), (8, 9), DuplicateReport(repeated=1))
    vectors = np.eye(10, dtype=np.float32)
    vectors[0] = vectors[8]  # pool gives way to test
    vectors[1] = vectors[4]  # pool to search
    vectors[5] = vectors[6]  # search to confirm
    vectors[3] = vectors[2]  # within the pool nothing is removed
    cleaned = remove_near_duplicates(splits, vectors, 0.95)
    assert cleaned == Splits((2, 3), (4,), (6, 7), (8, 9), DuplicateReport(repeated=1, near=3))
    assert remove_near_duplicates(cleaned, vectors, 0.95) == cleaned


@pytest.mark.parametrize("rare", [1, 2])
def test_a_lone_label_leaves_the_others_their_shares(rare):
    """A label with one row is drawn with the most frequent one, as what cannot be divided; two of them together."""
    strata = ["a"] * 40 + ["b"] * 20 + [f"rare {number}" for number in range(rare)]
    for seed in range(8):
        drawn, rest = carve(tuple(range(len(strata))), 30, strata, seed)
        assert sorted((*drawn, *rest)) == list(range(len(strata)))
        counts = Counter(strata[row] for row in drawn)
        assert 19 <= counts["a"] <= 21
        assert 9 <= counts["b"] <= 10


def test_further_rows_give_way_to_all_that_are_asked_about():
    texts = ["The soup was cold.", "My parcel is lost again.", "Who wrote this novel?", "Rain until Tuesday night."]
    texts += [f"{text}!" for text in texts] + ["Nothing of the kind."]
    whole = Splits((0,), (1,), (2,), (3,), DuplicateReport(repeated=1), further=(4, 5, 6, 7, 8))
    found = without_near_texts(whole, texts)
    assert found.further == (4, 8)  # one like a row of the pool may stay, as within the pool
    assert found.report == DuplicateReport(repeated=1, near=3)
    assert set(found.searched) == {0, 1, 2, 4, 8}
    assert found.sizes == whole.sizes


def test_texts_alike_with_other_outputs_are_no_duplicates_where_outputs_count():
    splits = Splits(pool=(0, 1), search=(2,), confirm=(3,), test=(4,))
    vectors = np.array([[1, 0], [1, 0], [0, 1], [1, 1], [1, 0]], dtype=np.float32)
    outputs = ["12", "7", "3", "4", "7"]
    assert remove_near_duplicates(splits, vectors, 0.95, outputs).pool == (0,)
    alike = np.ones((5, 2), dtype=np.float32)
    found = remove_near_duplicates(splits, alike, 0.95, outputs)
    assert (found.pool, found.search, found.confirm) == ((0,), (2,), (3,))
    assert found.report.near == 1


def test_near_vectors_of_other_texts_make_no_duplicates_where_texts_count():
    splits = Splits(pool=(0, 1), search=(2,), confirm=(3,), test=(4,))
    texts = ["ab cd ef", "gh ij kl", "mn op qr", "st uv wx", "gh ij kl."]
    alike = np.ones((5, 2), dtype=np.float32)
    found = remove_near_duplicates(splits, alike, 0.95, texts=texts)
    assert (found.pool, found.search, found.confirm, found.report.near) == ((0,), (2,), (3,), 1)
    assert remove_near_duplicates(splits, alike, 0.95, list("ababa"), texts).pool == (0, 1)


def test_near_duplicates_that_leave_nothing_are_refused():
    splits = Splits(pool=(0,), search=(1,), confirm=(2,), test=(3,))
    with pytest.raises(DataError, match="pool and search and confirm"):
        remove_near_duplicates(splits, np.ones((4, 2), dtype=np.float32))


@settings(deadline=None)
@given(st.integers(0, 50), st.floats(0.3, 1.0))
def test_after_cleaning_no_two_parts_are_near(seed, threshold):
    vectors = np.random.default_rng(seed).normal(size=(40, 3)).astype(np.float32)
    splits = Splits(tuple(range(10)), tuple(range(10, 20)), tuple(range(20, 30)), tuple(range(30, 40)))
    try:
        cleaned = remove_near_duplicates(splits, vectors, threshold)
    except DataError:
        return
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    part_of = {row: name for name in NAMES for row in getattr(cleaned, name)}
    for one, first in part_of.items():
        for other, second in part_of.items():
            assert first == second or unit[one] @ unit[other] < threshold + 1e-5
    assert cleaned.report.near == 40 - len(part_of)
