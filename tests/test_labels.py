import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.data.labels import resolve_labels
from promptsearch.data.text import as_text
from promptsearch.errors import DataError


def message_of(spec, values):
    with pytest.raises(DataError) as caught:
        resolve_labels(spec, values)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def words(spec, values):
    space = resolve_labels(spec, values)
    return None if space is None else space.words


def test_few_repeated_outputs_are_labels_in_sorted_order():
    assert words(None, ["b", "a", "b", "a", "b", "a"]) == ("a", "b")
    assert words(None, [f"intent {number % 77:02}" for number in range(300)]) == tuple(
        f"intent {number:02}" for number in range(77)
    )


@settings(deadline=None)
@given(st.permutations(["x", "y", "z"] * 4))
def test_order_of_rows_does_not_change_the_labels(values):
    assert words(None, values) == ("x", "y", "z")


def test_mostly_distinct_outputs_are_free_text():
    assert words(None, [f"answer {number}" for number in range(50)]) is None
    assert words(None, ["yes", "no"]) is None


def test_long_repeated_outputs_are_free_text():
    assert words(None, ["please restart the router and call again " * 3, "thank you for waiting " * 5] * 20) is None


def test_outputs_mostly_seen_once_are_free_text():
    assert words(None, ["unknown"] * 60 + [f"name {number}" for number in range(10)]) is None


def test_results_of_arithmetic_are_free_text():
    generator = random.Random(0)
    results = [str(generator.choice([2, 3, 4, 5, 7, 8, 12, 15, 20, 36, 100, 250])) for _ in range(500)]
    assert words(None, results) is None
    assert words(None, ["$1,000", "2.5%", "none", *results]) is None


def test_codes_and_grades_are_labels():
    assert words(None, [0, 1] * 10) == ("0", "1")
    assert words(None, [0.0, 0.5, 1.0] * 10) == ("0", "0.5", "1")
    assert len(words(None, list(range(20)) * 5)) == 20


def test_values_keep_their_type():
    space = resolve_labels(None, [1, 0] * 5)
    assert space.values == (0, 1)
    assert space.words_for(1) == "1"


def test_several_answers_to_a_row_are_free_text():
    assert words(None, ["a", "b", ["a", "b"]] * 10) is None


def test_false_is_free_text_whatever_the_outputs():
    assert words(False, ["a", "b"] * 10) is None
    assert words(False, ["a"] * 10) is None


def test_a_list_fixes_words_and_order():
    assert words(["no", "yes", "maybe"], ["yes", "no"]) == ("no", "yes", "maybe")


def test_a_set_is_sorted():
    assert words({"no", "yes", "maybe"}, ["yes", "no"]) == ("maybe", "no", "yes")


@pytest.mark.parametrize("values", [[0, 1], ["0", "1"], [0.0, 1.0], [" 0", "1 "]])
def test_a_dict_gives_the_words_whatever_the_file_made_of_the_values(values):
    for spec in ({0: "negative", 1: "positive"}, {"0": "negative", "1": "positive"}):
        space = resolve_labels(spec, values)
        assert space.words == ("negative", "positive")
        assert [space.words_for(value) for value in values] == ["negative", "positive"]


def test_booleans_match_their_text():
    space = resolve_labels({True: "entailed", False: "not entailed"}, ["True", False])
    assert space.words_for("False") == "not entailed"
    assert space.values == (True, False)


@pytest.mark.parametrize("order", [1, -1])
def test_integers_that_a_file_has_as_fractions_are_the_same_labels(order):
    space = resolve_labels(None, (["0", "1"] * 10 + ["0.0", "1.00"] * 4)[::order])
    assert space.words == space.values == ("0", "1")
    assert [space.words_for(value) for value in ("0", "0.0", "1.00", 1, 1.0)] == ["0", "0", "1", "1", "1"]
    assert words(None, ["-1", "1", "-1.0", "1.0"] * 3) == ("-1", "1")


@pytest.mark.parametrize("spec", [[0, 1], ["0", "1"], {0: "no", 1: "yes"}])
def test_declared_integers_match_fractions_that_are_none(spec):
    space = resolve_labels(spec, ["0.0", "1.0", "1"])
    assert space.words_for("1.0") == space.words_for("1.00") == space.words[1]
    assert space.words_for("1.5") is None
    assert "'1.5'" in message_of(spec, ["0", "1.5"])


def test_versions_are_labels_of_their_own():
    assert words(None, ["1.0", "1.10", "1.1"] * 5) == ("1.0", "1.1", "1.10")
    assert words(None, ["1.0", "2.0"] * 5) == ("1.0", "2.0")
    assert words(["1", "1.0", "1.10"], ["1", "1.0"]) == ("1", "1.0", "1.10")
    assert resolve_labels(["1", "1.0"], ["1", "1.0"]).words_for("1.0") == "1.0"
    assert resolve_labels(["1.0", "2.0"], ["1.0", "2.0"]).words_for("1") is None


def test_one_integer_in_two_forms_is_one_label():
    assert "'1'" in message_of(None, ["1", "1.0"] * 5)


def slow_words(values):
    """Each text, or its integer where that is a text too."""
    texts = set(map(as_text, values))
    integers = {text: text.rstrip("0")[:-1] for text in texts if text.rstrip("0").endswith(".")}
    return {integers[text] if integers.get(text) in texts else text for text in texts}


@settings(deadline=None)
@given(st.lists(st.sampled_from(["0", "0.0", "1", "1.0", "1.00", "10", "10.0", "1.10", "-1.0", "v1.0", 1, 1.0])))
def test_inferred_labels_are_those_of_the_slow_twin(values):
    values = [*values, "x", "y"] * 3
    space = resolve_labels(None, values)
    assert set(space.words) == slow_words(values)
    assert all(space.words_for(value) in space.words for value in values)


def test_outputs_outside_the_space_are_listed_and_counted():
    message = message_of(["yes", "no"], ["yes", "no", "maybe", "maybe", "perhaps\n"])
    assert "3 row(s)" in message
    assert "'maybe', 'perhaps'" in message
    assert "'yes', 'no'" in message


def test_one_label_in_the_data_is_refused():
    assert "'spam'" in message_of(None, ["spam"] * 30)
    assert "'spam'" in message_of(["spam", "ham"], ["spam"] * 30)


@pytest.mark.parametrize(
    "spec",
    [
        "yes",
        True,
        5,
        [],
        ["yes"],
        ["yes", "yes"],
        ["1", 1],
        {0: "same", 1: "same"},
        {0: "no", "0": "yes"},
        ["yes", ""],
        {0: None, 1: "yes"},
    ],
)
def test_specifications_that_cannot_be_used_are_refused(spec):
    assert "labels" in message_of(spec, ["yes", "no"])


@settings(deadline=None)
@given(st.lists(st.one_of(st.text(min_size=1).filter(str.strip), st.integers(), st.booleans()), min_size=1))
def test_any_outputs_give_a_space_that_knows_them_all_or_free_text(values):
    if len(slow_words(values)) == 1:
        message_of(None, values)
        return
    space = resolve_labels(None, values)
    assert space is None or all(space.words_for(value) in space.words for value in values)
