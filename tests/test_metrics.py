import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score

from promptsearch.answer_form import AnswerForm
from promptsearch.data.answers import answer_text, number_in
from promptsearch.errors import DataError
from promptsearch.evaluation import answer_grammar
from promptsearch.metrics import METRICS, Metric, resolve_metric
from promptsearch.task import Example, Task


def example(*answers):
    return Example(id=0, inputs=(("text", "x"),), output=answers[0], value=answers[0], answers=answers)


def score(name, prediction, *answers):
    return METRICS[name](example(*answers), prediction)


def message_of(spec, *, is_classification=True, golds=("a", "b")):
    with pytest.raises(DataError) as caught:
        resolve_metric(spec, is_classification, golds)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("prediction", "expected"), [("yes", 1.0), (" yes\n", 1.0), ("Yes", 0.0), ("no", 0.0), ("", 0.0)]
)
def test_accuracy_is_equality_of_labels(prediction, expected):
    assert score("accuracy", prediction, "yes") == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("The Eiffel Tower.", 1.0), ("eiffel   tower", 1.0), ("Tour Eiffel", 1.0), ("Eiffel", 0.0), ("", 0.0)],
)
def test_exact_match_passes_over_form_and_takes_any_answer(prediction, expected):
    assert score("exact_match", prediction, "the Eiffel tower", "Tour Eiffel") == expected


def test_answers_made_of_what_is_removed_keep_themselves():
    assert score("exact_match", "", "!") == 0.0
    assert score("exact_match", "?", "!") == 0.0
    assert score("exact_match", "The", "the") == 1.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("3.5 kg", "35 kg"),
        (".5", "5"),
        ("-5 degrees", "5 degrees"),
        ("-$5", "$5"),
        ("x > 3", "x < 3"),
        ("C++", "C"),
        ("C#", "C"),
        ("a=-1", "a=1"),
        ("10-3", "103"),
        ("10:30", "1030"),
        ("1,5", "15"),
        ("0,125", "125"),
        ("2*3", "2/3"),
        ("x^2", "x2"),
        ("A&T", "AT"),
        ("a/b", "b"),
        ("Q&A", "Q"),
    ],
)
def test_answers_of_other_meanings_differ(one, other):
    assert answer_text(one) != answer_text(other)
    assert score("exact_match", one, other) == 0.0


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("$5", "5"),
        ("$1,234,567.50", "1234567.50"),
        ("-5", "−5"),
        ("1990–1995", "1990-1995"),
        ("x>=3", "x >= 3"),
        ("50 %", "50％"),
        ("50%", "50"),
        ("C++.", "c++"),
        ("> Paris", "+ Paris"),
        ("> Paris", "Paris"),
        ("a / b", "a/b"),
        ("Q & A", "q&a"),
        ("well-known", "wellknown"),
        ("COVID-19", "covid19"),
        ("(5)", '"5"'),
        ("... 5", "…5!"),
        ("...5", "5"),
        ("No.5", "no5"),
        ("**The Hague**", "Hague"),
        ("#### 18", "18."),
        ("* item", "- item"),
        ("`x`", "_x_"),
        ("U.S.A.", "usa"),
        ("Answer: 5", "answer 5"),
        ("it's 5, 6", "its 5 6"),
    ],
)
def test_answers_of_one_meaning_are_the_same(one, other):
    assert answer_text(one) == answer_text(other)


def number_pattern() -> str:
    """The grammar that numbers are written by as a regular expression."""
    grammar = answer_grammar(METRICS["numeric"], AnswerForm())
    assert grammar is not None
    rules = dict(line.split(" ::= ", 1) for line in grammar.strip().splitlines())
    pattern = rules.pop("root")
    while any(re.search(rf"\b{name}\b", pattern) for name in rules):
        for name, rule in rules.items():
            pattern = re.sub(rf"\b{name}\b", lambda _, rule=rule: f"({rule})", pattern)
    pattern = re.sub(r'"([^"]*)"', lambda found: f"({re.escape(found[1])})", pattern)
    return re.sub(r"(?<!\[) ", "", pattern)


@pytest.mark.parametrize(
    "text",
    [
        "7",
        "-3.5",
        "$5",
        "1,234",
        "1,234,567.50",
        ".5",
        "1,5",
        "0,125",
        "1.065,01",
        "12.345.678,9",
        "3/4",
        "2e-3",
        "100",
    ],
)
def test_numbers_that_are_read_can_be_written(text):
    assert number_in(text) is not None
    assert re.fullmatch(number_pattern(), text)


def test_f1_takes_what_a_sign_joins_for_one_word():
    assert score("f1", "x>3 here", "there x > 3") == pytest.approx(0.5)
    assert score("f1", "3.5 kg", "35 kg") == pytest.approx(0.5)


@settings(deadline=None, max_examples=1000)
@given(st.one_of(st.text(), st.text("aéA是1٣0 \n.,:-–−+<>=*#%&/@\\^$€£_'(!．－＊＃，"), st.text("the 10.,-*#+")))
def test_the_form_of_an_answer_is_stable(text):
    assert answer_text(answer_text(text)) == answer_text(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("42", 42.0),
        ("The answer is 42.", 42.0),
        ("3 + 4 = 7 apples", 7.0),
        ("so it costs $1,234.50.", 1234.5),
        ("-$5", -5.0),
        ("$-5", -5.0),
        ("−3 °C", -3.0),
        ("10-3", 3.0),
        ("x=-3", -3.0),
        ("答案是-3", -3.0),
        ("50%", 50.0),
        ("5km", 5.0),
        (".5", 0.5),
        ("1e-3", 0.001),
        ("\\boxed{12}", 12.0),
        ("3/4", 0.75),
        ("it is 1/2.", 0.5),
        ("1/0", None),
        ("1,2,3", 3.0),
        ("1, 2, 3", 3.0),
        ("1.5,2.5", 2.5),
        ("1,2.5", 2.5),
        ("1/2,1/3", 1 / 3),
        ("1,5", 1.5),
        ("-3,75 kg.", -3.75),
        ("12,75, so", 12.75),
        ("(1,2)", 1.2),
        ("0,125", 0.125),
        ("1000,125", 1000.125),
        ("12,345", 12345.0),
        ("1,234.50", 1234.5),
        ("1.234,50 €", 1234.5),
        ("1.234.567,89", 1234567.89),
        ("1,5e3", 1500.0),
        ("12,345,678", 12345678.0),
        ("٣", 3.0),
        ("none at all", None),
        ("", None),
        ("9" * 400, None),
    ],
)
def test_the_last_number_is_found(text, number):
    assert number_in(text) == number


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_read_back(value):
    assert number_in(f"the result is {value!r} units") == value


@settings(deadline=None)
@given(st.integers(-(10**15), 10**15))
def test_every_integer_with_separators_is_read_back(value):
    assert number_in(f"{value:,}") == value


@settings(deadline=None)
@given(st.integers(-(10**9), 10**9), st.sampled_from([1, 2, 4]))
def test_every_decimal_comma_is_read_back(value, places):
    number = value / 10**places
    english = f"{number:,.{places}f}"
    assert number_in(f"{number:.{places}f}".replace(".", ",")) == number
    assert number_in(english.translate(str.maketrans(",.", ".,"))) == number_in(english) == number


def slow_number_in_list(text):
    """The last number of digits and commas alone, said in another way."""
    groups = text.split(",")
    if len(groups) == 2 and not (len(groups[1]) == 3 and len(groups[0]) <= 3 and groups[0][0] != "0"):
        return float(".".join(groups))
    if groups[0][0] != "0" and len(groups[0]) <= 3 and all(len(group) == 3 for group in groups[1:]):
        return float("".join(groups))
    return None if any(len(group) == 3 for group in groups) else float(groups[-1])


@settings(deadline=None)
@given(st.lists(st.text("0123456789", min_size=1, max_size=5), min_size=1, max_size=5).map(",".join))
def test_commas_between_digits_are_read_as_by_its_slow_twin(text):
    expected = slow_number_in_list(text)
    assert expected is None or number_in(text) == expected


@pytest.mark.parametrize(
    "piece",
    ["1", "1,", "1,111,", ",111", "111.", "1.111", "1,1", "1,1111,", "-", ",", "1/", "1e", ".,", "-.", "*", "#"],
)
def test_long_texts_are_read_in_one_pass(piece):
    """By the square of their lengths, each of these would take minutes."""
    text = piece * (100_000 // len(piece))
    for end in ("x", ",5.", "-5"):
        number_in(text + end)
        answer_text(text + end)


@settings(deadline=None)
@given(st.text())
def test_any_text_holds_a_finite_number_or_none(text):
    value = number_in(text)
    assert value is None or math.isfinite(value)


@pytest.mark.parametrize(
    ("prediction", "answer", "expected"),
    [
        ("It is $1,000", "1000", 1.0),
        ("0.3333333333", "1/3", 1.0),
        ("0.33", "1/3", 0.0),
        ("1234567", "1234568", 0.0),
        ("no idea", "5", 0.0),
        ("5", "five", 0.0),
    ],
)
def test_numeric_compares_values(prediction, answer, expected):
    assert score("numeric", prediction, answer) == expected


def test_f1_is_the_best_overlap_of_words():
    assert score("f1", "the cat sat", "cat sat down", "dog") == pytest.approx(0.8)
    assert score("f1", "bird", "cat sat down", "dog") == 0.0
    assert score("f1", "Dog!", "cat", "dog") == 1.0


@settings(deadline=None)
@given(st.sampled_from(sorted(METRICS)), st.text(), st.lists(st.text(min_size=1), min_size=1))
def test_scores_of_any_text_are_between_zero_and_one(name, prediction, answers):
    assert 0.0 <= score(name, prediction, *answers) <= 1.0


@settings(deadline=None)
@given(st.sampled_from(["accuracy", "exact_match", "f1"]), st.text(min_size=1).map(str.strip).filter(bool))
def test_the_expected_output_is_right(name, text):
    assert score(name, text, text) == 1.0


def test_the_value_of_a_set_is_the_mean():
    assert METRICS["accuracy"].aggregate([1.0, 0.0, 1.0, 1.0], list("abcd"), list("axcd")) == 0.75


def test_macro_f1_weighs_labels_alike():
    golds, predictions = ["a"] * 8 + ["b"] * 2, ["a"] * 10
    scores = [float(gold == prediction) for gold, prediction in zip(golds, predictions, strict=True)]
    # a: precision 0.8 and recall 1 give 8/9; b is never found.
    assert METRICS["macro_f1"].aggregate(scores, golds, predictions) == pytest.approx(4 / 9)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["a", "b", "c", "", " a "])), min_size=1))
def test_macro_f1_is_that_of_scikit_learn(pairs):
    golds, predictions = (list(each) for each in zip(*pairs, strict=True))
    expected = f1_score(
        golds, [each.strip() for each in predictions], labels=sorted(set(golds)), average="macro", zero_division=0
    )
    assert METRICS["macro_f1"].aggregate([0.0] * len(golds), golds, predictions) == pytest.approx(expected)


def test_macro_f1_makes_no_class_of_answers_that_are_no_label():
    assert METRICS["macro_f1"].aggregate([1.0, 0.0], ["a", "b"], ["a", ""]) == pytest.approx(0.5)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_a_set_without_items_has_no_value(name):
    with pytest.raises(DataError, match="0 items"):
        METRICS[name].aggregate([], [], [])


@pytest.mark.parametrize(
    ("is_classification", "golds", "name"),
    [
        (True, ["1", "2"], "accuracy"),
        (False, ["12", "$1,000", "50%", "-3.5"], "numeric"),
        (False, ["1,5", "2,75 %"], "exact_match"),  # or pairs
        (False, ["12", "Paris"], "exact_match"),
        (False, ["on 5 May"], "exact_match"),
        (False, [], "exact_match"),
    ],
)
def test_the_kind_of_task_picks_the_metric(is_classification, golds, name):
    assert resolve_metric(None, is_classification, golds).name == name


def test_a_name_or_a_metric_picks_itself():
    assert resolve_metric("f1", False, ["a"]) is METRICS["f1"]
    own = Metric("own", lambda example, prediction: 1.0)
    assert resolve_metric(own, True, []) is own


def test_an_unknown_metric_names_those_there_are():
    message = message_of("acuracy")
    assert "'acuracy'" in message
    assert "macro_f1" in message
    assert "5" in message_of(5)


def test_metrics_that_do_not_suit_the_task_are_refused():
    assert "macro_f1" in message_of("macro_f1", is_classification=False)
    assert "'Paris'" in message_of("numeric", is_classification=False, golds=["Paris", "Rome"])


def same_length(example, prediction):
    return len(example.output) == len(prediction)


@dataclass
class Constant:
    value: object

    def __call__(self, example, prediction):
        return self.value


def test_a_callable_scores_and_gives_its_name():
    metric = resolve_metric(same_length, True, [])
    assert metric.name == "same_length"
    assert metric.is_custom
    assert metric(example("abc"), "xyz") == 1.0
    assert metric.aggregate([1.0, 0.5], [], []) == 0.75


@pytest.mark.parametrize("value", [0, 1, True, 0.5, np.float32(0.5), np.bool_(True)])
def test_numbers_from_zero_to_one_are_scores(value):
    assert resolve_metric(Constant(value), True, [])(example("a"), "a") == float(value)


@pytest.mark.parametrize("value", [1.01, -0.1, math.nan, math.inf, None, "0.5", [1.0], 1j])
def test_other_results_of_a_callable_are_refused(value):
    metric = resolve_metric(Constant(value), True, [])
    with pytest.raises(DataError, match="Constant") as caught:
        metric(example("a"), "a")
    assert len(str(caught.value).splitlines()) == 1


def test_a_metric_that_fails_is_told_how_it_is_called():
    def wrong(example, prediction):
        return float(example.answer == prediction)

    with pytest.raises(DataError, match=r"wrong' failed with AttributeError: .*\.output and \.fields"):
        Task([{"q": "a", "a": "b"}] * 3, inputs="q", output="a", labels=False, metric=wrong)
    with pytest.raises(DataError, match="TypeError"):
        Task([{"q": "a", "a": "b"}] * 3, inputs="q", output="a", labels=False, metric=lambda one: 1.0)
