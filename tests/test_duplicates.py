from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.data import duplicates
from promptsearch.data.duplicates import (
    DuplicateReport,
    near_duplicates,
    near_texts,
    unique_rows,
    united_answers,
    without_texts,
)


def unit(*angles):
    radians = np.radians(angles)
    return np.stack([np.cos(radians), np.sin(radians)], axis=1).astype(np.float32)


def test_the_first_of_equal_rows_stays():
    kept, report = unique_rows([0, 1, 2, 3], ["a", "b", "a", "a"], ["x", "x", "x", "x"])
    assert kept == (0, 1)
    assert report == DuplicateReport(repeated=2)


def test_rows_that_contradict_each_other_all_go():
    kept, report = unique_rows([0, 1, 2], ["a", "b", "a"], ["x", "x", "y"])
    assert kept == (1,)
    assert report == DuplicateReport(conflicting=2)


def test_only_the_rows_asked_about_count():
    assert unique_rows([1, 2], ["a", "b", "a"], ["x", "x", "y"]) == ((1, 2), DuplicateReport())


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"))))
def test_what_stays_and_what_is_counted_make_the_whole(rows):
    texts, outputs = [text for text, _ in rows], [output for _, output in rows]
    kept, report = unique_rows(range(len(rows)), texts, outputs)
    assert len(kept) + report.total == len(rows)
    assert len({texts[row] for row in kept}) == len(kept)
    assert unique_rows(kept, texts, outputs) == (kept, DuplicateReport())


def test_rows_with_other_answers_give_them_to_the_first():
    answers = [("x",), ("u",), ("y", "x"), ("u",), ("z",)]
    assert united_answers(["a", "b", "a", "b", "a"], answers) == {0: ("x", "y", "z"), 1: ("u",), 3: ("u",)}


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.lists(st.sampled_from("xyz"), min_size=1, unique=True))))
def test_united_answers_are_all_that_were_given(rows):
    texts, answers = [text for text, _ in rows], [tuple(given) for _, given in rows]
    united = united_answers(texts, answers)
    assert list(united) == sorted(united)
    for place, (text, own) in enumerate(zip(texts, answers, strict=True)):
        places = [other for other in united if texts[other] == text]
        assert texts.index(text) in places
        assert {answer for other in places for answer in united[other]} >= set(own)
        assert len({united[other] for other in places}) == 1
        assert place not in united or united[place][: len(own)] == own
    kept = [texts[place] for place in united]
    assert united_answers(kept, list(united.values())) == dict(enumerate(united.values()))


def test_rows_whose_text_is_taken_go():
    kept, report = without_texts([0, 1, 2], ["a", "b", "c", "a"], [3])
    assert kept == (1, 2)
    assert report == DuplicateReport(across=1)


def test_reports_add_up():
    assert DuplicateReport(1, 2, 3, 4) + DuplicateReport(1, 1, 1, 1) == DuplicateReport(2, 3, 4, 5)
    assert DuplicateReport(1, 2, 3, 4).total == 10


def test_small_angles_are_near():
    assert near_duplicates(unit(0, 10, 20, 180), unit(5), threshold=0.99).tolist() == [
        True,
        True,
        False,
        False,
    ]


def test_length_does_not_matter():
    assert near_duplicates(unit(0) * 1000, unit(1) / 1000, threshold=0.99).tolist() == [True]


def test_equal_vectors_reach_a_threshold_of_one():
    vectors = np.random.default_rng(0).normal(size=(50, 384)).astype(np.float32)
    assert near_duplicates(vectors, vectors[::-1], threshold=1.0).all()


def test_zero_vectors_are_similar_to_nothing():
    zeros = np.zeros((1, 2), dtype=np.float32)
    assert not near_duplicates(zeros, zeros, threshold=0.5).any()


def test_without_references_nothing_is_near():
    assert not near_duplicates(unit(0, 1), unit(0)[:0], threshold=0.5).any()
    assert near_duplicates(unit(0)[:0], unit(0), threshold=0.5).shape == (0,)


@pytest.mark.parametrize("block_rows", [1, 3, 1000])
def test_blocks_do_not_change_the_answer(monkeypatch, block_rows):
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block_rows)
    angles = np.arange(0, 90, 7)
    found = near_duplicates(unit(*angles), unit(20, 60), threshold=float(np.cos(np.radians(5))))
    expected = [min(abs(angle - 20), abs(angle - 60)) <= 5 for angle in angles]
    assert found.tolist() == expected


def test_texts_that_an_encoder_takes_for_the_same_need_common_characters(monkeypatch):
    texts = ["ร้านนี้อาหารอร่อยมาก", "บริการช้าและไม่สุภาพเลย", "ร้านนี้อาหารอร่อยมากครับ"]
    vectors = np.ones((3, 2), dtype=np.float32)
    assert near_duplicates(vectors, vectors[:1], 0.95).tolist() == [True, True, True]
    for block_rows in (1, 2, 1000):
        monkeypatch.setattr(duplicates, "_BLOCK_ROWS", block_rows)
        assert near_duplicates(vectors, vectors[:1], 0.95, (texts, texts[:1])).tolist() == [True, False, True]
        assert near_duplicates(vectors, vectors[:2], 0.95, (texts, texts[:2])).tolist() == [True, True, True]
        assert not near_duplicates(-vectors, vectors[:1], 0.95, (texts, texts[:1])).any()


def test_a_pair_that_is_near_and_a_pair_with_common_characters_make_no_duplicate():
    sentence, other = "my parcel is lost", "who wrote this novel"
    found = near_duplicates(unit(0, 90), unit(90, 0), 0.99, ([sentence, sentence], [sentence, other]))
    assert found.tolist() == [False, True]


# -- texts --------------------------------------------------------------------------------------------------

SENTENCE = "The delivery came two days late and the box was open when I got it."


@pytest.mark.parametrize(
    ("text", "near"),
    [
        (SENTENCE, True),
        (SENTENCE.replace("two", "three"), True),
        (SENTENCE.upper(), True),
        (f"{SENTENCE} Thanks.", True),
        ("When I got it the parcel had been opened, and it was late.", False),
        ("The delivery man was friendly and called me two days before.", False),
        ("", False),
        ("The", False),
    ],
)
def test_texts_that_were_changed_a_little_are_near(text, near):
    assert near_texts([text, "other"], ["something else", SENTENCE]).tolist() == [near, False]


def slow_near(text, reference):
    runs = [Counter(each.lower()[at : at + 5] for at in range(len(each) - 4)) for each in (text, reference)]
    lengths = [sum(count**2 for count in each.values()) ** 0.5 for each in runs]
    shared = sum(count * runs[1][run] for run, count in runs[0].items())
    return shared / (lengths[0] * lengths[1]) if all(lengths) else 0.0


words = st.lists(st.sampled_from(["ab", "c", "def", "ghij", "好的"]), max_size=8).map(" ".join)


@settings(deadline=None)
@given(st.lists(words, min_size=1, max_size=6), st.lists(words, max_size=4))
def test_near_texts_is_its_slow_twin(texts, references):
    best = [max((slow_near(text, reference) for reference in references), default=0.0) for text in texts]
    for found, similarity in zip(near_texts(texts, references).tolist(), best, strict=True):
        assert found == (similarity >= 0.8) or abs(similarity - 0.8) < 1e-5


def test_blocks_do_not_change_which_texts_are_near(monkeypatch):
    texts = [f"{SENTENCE} {number}" if number % 3 else f"{number}" for number in range(20)]
    whole = near_texts(texts, [SENTENCE])
    monkeypatch.setattr(duplicates, "_BLOCK_ROWS", 3)
    assert near_texts(texts, [SENTENCE]).tolist() == whole.tolist() == [bool(number % 3) for number in range(20)]
