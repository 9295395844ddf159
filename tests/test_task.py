import hashlib
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.by_hand import demonstrations_from
from promptsearch.errors import ArtifactError, DataError
from promptsearch.task import Example, Task, input_text

ROOT = Path(__file__).parents[1]


def rows(count=40, labels=("bad", "good")):
    return [{"text": f"review number {row}x", "label": labels[row % len(labels)]} for row in range(count)]


def make(data=None, **options):
    return Task(rows() if data is None else data, **{"inputs": "text", "output": "label", **options})


def message_of(function, *arguments, error=DataError, **options):
    with pytest.raises(error) as caught:
        function(*arguments, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def first_letter(example, prediction):
    return float(example.output[:1] == prediction[:1])


def test_a_classification_task():
    task = make(instruction=" Say it. ")
    assert task.inputs == ("text",)
    assert task.output == "label"
    assert task.instructions == ("Say it.",)
    assert task.labels == ("bad", "good")
    assert task.label_values == {"bad": "bad", "good": "good"}
    assert task.is_classification
    assert task.metric_name == "accuracy"
    assert task.metric(task.examples[1], "good") == 1.0
    assert task.examples[1] == Example(1, (("text", "review number 1x"),), "good", "good", None, ("good",))
    assert task.dropped == 0


def test_a_free_text_task():
    data = [
        {"question": f"what is {row} + 1", "answer": row + 1, "steps": f"count to {row + 1}"} for row in range(30)
    ]
    task = make(data, inputs=["question"], output="answer", rationale="steps")
    assert task.labels is None
    assert task.label_values == {}
    assert not task.is_classification
    assert task.metric_name == "numeric"
    assert task.examples[4].output == "5"
    assert task.examples[4].value == 5
    assert task.examples[4].rationale == "count to 5"


def test_several_inputs_make_lines():
    data = [{"premise": f"p{row}", "hypothesis": f"h{row}", "label": row % 2} for row in range(20)]
    task = make(data, inputs=["premise", "hypothesis"], labels={0: "no", 1: "yes"})
    example = task.examples[1]
    assert example.text == "premise: p1\nhypothesis: h1"
    assert example.fields == {"premise": "p1", "hypothesis": "h1"}
    assert (example.output, example.value) == ("yes", 1)
    assert task.label_values == {"no": 0, "yes": 1}


def test_one_input_is_the_text_itself():
    assert make().examples[0].text == "review number 0x"
    assert input_text({"text": "a"}) == "a"


def test_examples_can_be_hashed():
    data = [{"text": f"t{row}", "label": [f"a{row}", "b"]} for row in range(3)]
    assert len(set(make(data).examples)) == 3


def test_an_example_without_answers_accepts_its_output():
    assert Example(0, (("text", "a"),), "yes", "yes").answers == ("yes",)


@pytest.mark.parametrize("convert", [list, tuple, np.array], ids=["list", "tuple", "array"])
def test_a_list_of_answers_is_all_accepted(convert):
    data = [{"text": f"t{row}", "label": convert([f"a{row}", " b", f"a{row}"])} for row in range(3)]
    task = make(data)
    assert task.labels is None
    assert task.examples[0].output == task.examples[0].value == "a0"
    assert task.examples[0].answers == ("a0", "b")
    assert task.metric(task.examples[0], "B!") == 1.0


def references(inputs, offset=0):
    """Three answers to each text, in rows of their own."""
    return [{"text": f"say {row}x", "label": f"{row + offset} or {way}"} for way in range(3) for row in range(inputs)]


def test_rows_of_free_text_with_the_same_inputs_are_one_with_several_answers():
    task = make(references(30), test=references(40, offset=1)[30:50])
    assert (len(task.examples), task.united) == (30 + 20, 60)
    assert [example.id for example in task.examples] == list(range(50))
    assert task.examples[4].answers == ("4 or 0", "4 or 1", "4 or 2")
    assert (task.examples[4].output, task.examples[4].value) == ("4 or 0", "4 or 0")
    assert task.metric(task.examples[4], "4 or 2.") == 1.0
    assert task.row_name(49) == "row 20 of test"
    splits = make(references(30)).split()
    assert sum(splits.sizes.values()) == 30
    assert splits.report.total == 0


def test_answers_are_united_within_each_part_only():
    task = make(references(30), validation=references(12, offset=1), test=references(9, offset=2))
    assert list(map(len, (task.parts.train, task.parts.validation, task.parts.test))) == [30, 12, 9]
    assert task.parts.test == tuple(range(42, 51))
    assert [task.examples[number].answers[0] for number in (0, 30, 42)] == ["0 or 0", "1 or 0", "2 or 0"]
    assert all(len(example.answers) == 3 for example in task.examples)


def test_texts_that_differ_in_a_sign_and_repeated_rows_are_not_united():
    same = [{"text": "one more", "label": "a b"}] * 3
    task = make([*references(20), {"text": "Say 1x!", "label": "other"}, *same])
    assert len(task.examples) == 24
    assert task.united == 40
    assert task.split().report.repeated == 2
    assert task.split().report.conflicting == 2


def test_rows_with_labels_are_never_united():
    task = make([*rows(), {**rows()[0], "label": "good"}])
    assert (len(task.examples), task.united) == (41, 0)
    assert task.split().report.conflicting == 2


def test_rows_to_measure_are_united_and_demonstrations_are_not(caplog):
    task = make(references(30))
    pairs = task.rows_from(references(5), name="rows")
    assert [example.answers for example, _ in pairs] == [example.answers for example in task.examples[:5]]
    assert [row for _, row in pairs] == references(5)[:5]
    assert "10 of 15 rows of rows give further answers" in caplog.text
    caplog.clear()
    assert [example.id for example in task.examples_from(references(5), unite=False)] == list(range(15))
    assert len(demonstrations_from(task, references(5))) == 15
    assert not caplog.text


def test_lists_of_one_label_are_labels():
    data = [{"text": row["text"], "label": [row["label"], None]} for row in rows()]
    assert make(data).labels == ("bad", "good")


def test_every_form_of_input_makes_the_same_task(tmp_path):
    path = tmp_path / "rows.csv"
    pandas.DataFrame(rows()).to_csv(path, index=False)
    forms = [path, str(path), pandas.DataFrame(rows()), datasets.Dataset.from_list(rows()), iter(rows())]
    assert {make(form).fingerprint for form in forms} == {make().fingerprint}


def test_names_of_labels_come_from_the_dataset():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = [{"text": f"t{row}", "label": row % 2} for row in range(20)]
    task = make(datasets.Dataset.from_list(data, features=features))
    assert task.labels == ("no", "yes")
    assert task.label_values == {"no": 0, "yes": 1}


def test_answers_of_declared_labels_are_refused_and_those_that_look_like_labels_named(caplog):
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = [{"text": f"t{row}", "label": row % 2} for row in range(20)]
    with pytest.raises(DataError, match="declares its labels, 'no', 'yes'"):
        make(datasets.Dataset.from_list(data, features=features), answer=r"(\w+)")
    assert make(rows(), answer=r"(\w+)").labels is None
    assert "look like labels: 'bad', 'good'" in caplog.text
    caplog.clear()
    assert make([{"text": f"t{row}", "label": f"{row} is it"} for row in range(9)], answer=r"(\d+)").labels is None
    assert make(rows(), answer=r"(\w+)", labels=False).labels is None
    assert make([{"text": f"t{row}", "label": "it is 4"} for row in range(9)], answer=r"(\d+)").labels is None
    assert not caplog.text


def test_rows_that_are_left_out_are_told(caplog):
    task = make(rows())
    assert len(task.examples_from([*rows()[:3], {"text": " ", "label": "bad"}])) == 3
    assert "1 of 4 rows of data lack text in" in caplog.text


def test_a_missing_value_does_not_change_the_labels():
    data = pandas.DataFrame([{"text": f"t{row}", "label": row % 2} for row in range(20)] + [{"text": "x"}])
    task = make(data, labels={0: "no", 1: "yes"})
    assert task.labels == ("no", "yes")
    assert task.dropped == 1


@pytest.mark.parametrize("blank", [None, "", " \t", float("nan"), pandas.NA, []])
def test_rows_with_blanks_are_dropped_and_counted(blank):
    task = make([{"text": blank, "label": "good"}, *rows(), {"text": "x", "label": blank}, {"text": "y"}])
    assert task.dropped == 3
    assert len(task.examples) == 40
    assert [example.id for example in task.examples] == list(range(40))


def test_rows_that_are_all_blank_are_refused():
    message = message_of(make, [{"text": "", "label": "a"}, {"text": "b", "label": None}])
    assert "2 rows" in message
    assert "'text', 'label'" in message


@settings(deadline=None)
@given(st.lists(st.text().filter(str.strip), min_size=1, max_size=20))
def test_any_text_comes_in_stripped_and_whole(texts):
    task = make([{"text": text, "label": text} for text in texts], labels=False)
    assert [example.text for example in task.examples] == [text.strip() for text in texts]
    assert task.dropped == 0
    task.fingerprint.encode("ascii")


def test_lone_surrogates_do_not_break_anything():
    task = make([{"text": "a\ud800", "label": "b\udfff"}], labels=False)
    assert task.examples[0].text == "a\ufffd"
    assert len(task.fingerprint) == 64


def test_control_tokens_are_only_text():
    assert make([{"text": "<|im_end|>", "label": "x"}], labels=False).examples[0].text == "<|im_end|>"


def test_explicit_splits_follow_the_data():
    task = make(validation=rows(10), test=rows(6))
    assert task.parts.train == tuple(range(40))
    assert task.parts.validation == tuple(range(40, 50))
    assert task.parts.test == tuple(range(50, 56))
    task = make(test=[{"text": "unseen", "label": "good"}])
    assert (task.parts.validation, task.parts.test) == ((), (40,))


def test_labels_of_explicit_splits_count():
    with_new_label = [{"text": f"neutral {row}", "label": "so so"} for row in range(5)]
    assert make(test=with_new_label).labels == ("bad", "good", "so so")


def test_split_is_by_seed():
    task = make(rows(100))
    splits = task.split(seed=3)
    assert splits == task.split(seed=3) != task.split(seed=4)
    assert sum(splits.sizes.values()) == 100
    for part in (splits.pool, splits.search, splits.confirm, splits.test):
        good = sum(1 for row in part if task.examples[row].output == "good")
        assert abs(good - len(part) / 2) <= 1.5


def test_too_few_rows_are_refused_when_they_are_split():
    assert "12 row(s)" in message_of(make(rows(12)).split)


def test_test_rows_from_the_data_are_refused_when_they_are_split():
    assert "20 of 20 test rows" in message_of(make(test=rows(20)).split)


def test_a_missing_column_is_named_with_those_there_are():
    for options in ({"inputs": "txt"}, {"output": "txt"}, {"rationale": "txt"}):
        message = message_of(make, **options)
        assert "'txt'" in message
        assert "'text', 'label'" in message
    assert "test" in message_of(make, test=[{"text": "a"}])


def test_the_rationale_is_not_needed_in_explicit_splits():
    data = [{**row, "why": "because"} for row in rows()]
    task = make(data, rationale="why", test=rows(2))
    assert task.examples[0].rationale == "because"
    assert task.examples[-1].rationale is None


@pytest.mark.parametrize(
    "options",
    [
        {"inputs": []},
        {"inputs": ""},
        {"inputs": 5},
        {"inputs": ["text", 5]},
        {"inputs": ["text", "text"]},
        {"inputs": ["text", "label"]},
        {"output": ["label"]},
        {"output": "text"},
        {"rationale": 5},
        {"rationale": "label"},
        {"instruction": 5},
        {"instruction": ["a", None]},
        {"labels": ["good"]},
        {"labels": ["good", "excellent"]},
        {"metric": "acc"},
        {"metric": 5},
        {"validation": []},
        {"test": "nowhere.csv"},
    ],
    ids=str,
)
def test_arguments_that_cannot_be_used_are_refused(options):
    message_of(make, **options)


@pytest.mark.parametrize("value", [{"text": ["a"]}, b"bytes"])
def test_outputs_that_are_no_text_are_refused(value):
    message_of(make, [{"text": "a", "label": value}] * 30)


def test_one_label_is_refused():
    assert "'good'" in message_of(make, rows(labels=["good"]))


def test_instructions_are_cleaned():
    assert make(instruction=None).instructions == ()
    assert make(instruction="").instructions == ()
    assert make(instruction=["a", " b ", "a", ""]).instructions == ("a", "b")


@pytest.mark.parametrize("item", ["some text", {"text": " some text ", "label": "good"}])
def test_items_with_one_input_may_be_text_or_dict(item):
    assert make().example_from(item) == {"text": "some text"}


def test_an_example_is_an_item():
    task = make()
    assert task.example_from(task.examples[0]) == {"text": "review number 0x"}


@pytest.mark.parametrize("item", ["", " ", None, 5, {}, {"label": "good"}, {"text": None}, ["text"]])
def test_items_without_text_are_refused(item):
    assert "'text'" in message_of(make().example_from, item)


def test_items_with_several_inputs_must_be_dicts():
    data = [{"a": f"a{row}", "b": f"b{row}", "label": row % 2} for row in range(20)]
    task = make(data, inputs=["a", "b"])
    assert task.example_from({"b": 1, "a": "x"}) == {"a": "x", "b": "1"}
    assert list(task.example_from({"b": 1, "a": "x"})) == ["a", "b"]
    assert "'a', 'b'" in message_of(task.example_from, "text")
    assert "'b'" in message_of(task.example_from, {"a": "x"})


def test_examples_come_from_other_rows():
    task = make(labels={"bad": "negative", "good": "positive"})
    examples = task.examples_from([{"text": " new ", "label": "good"}, {"text": "", "label": "good"}])
    assert examples == (Example(0, (("text", "new"),), "positive", "good"),)
    assert task.examples_from(task.examples[:2]) == task.examples[:2]
    assert "'awful'" in message_of(task.examples_from, [{"text": "new", "label": "awful"}])


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from tests.test_task import make, first_letter;"
        "print(make(metric=first_letter).fingerprint);"
        "print(make(metric=lambda example, prediction: prediction in {'a', 'b', 'c'}).fingerprint)"
    )
    outputs = set()
    for string_hash in ("1", "2"):
        environment = {"PYTHONHASHSEED": string_hash, "PATH": ""}
        done = subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        outputs.add(done.stdout)
    assert len(outputs) == 1
    assert len(outputs.pop().split()[0]) == 64


def changed_tasks():
    """Tasks that differ from `make()` in one thing each."""
    other_text, other_label = rows(), rows()
    other_text[5]["text"] += "!"
    other_label[5]["label"] = "bad"
    yield from (make(other_text), make(other_label), make(rows()[:-1]), make(rows()[::-1]))
    yield from (make(instruction="a"), make(instruction=["a", "b"]), make(labels=False))
    yield from (make(labels=["good", "bad"]), make(labels={"good": "+", "bad": "-"}))
    yield from (
        make(metric="macro_f1"),
        make(metric=first_letter),
        make(metric=lambda example, prediction: 1.0),
    )
    yield from (make(metric=lambda example, prediction: 0.0), make(test=rows(2)), make(validation=rows(2)))
    yield from (make(metric=scored(0.25)), make(metric=scored(0.75)))
    yield make(rows()[:-2], test=rows()[-2:])
    yield make([{**row, "why": "so"} for row in rows()], rationale="why")


def scored(value):
    return lambda example, prediction: value


def test_the_fingerprint_knows_everything_that_defines_the_task():
    fingerprints = [make().fingerprint, *(task.fingerprint for task in changed_tasks())]
    assert len(set(fingerprints)) == len(fingerprints)
    assert make().fingerprint == fingerprints[0]


def test_the_fingerprint_of_a_callable_object_has_no_address():
    class Scorer:
        def __call__(self, example, prediction):
            return 1.0

    assert make(metric=Scorer()).fingerprint == make(metric=Scorer()).fingerprint


@pytest.mark.parametrize(
    "options",
    [
        {"labels": {"bad": "negative", "good": "positive"}, "instruction": ["a", "b"], "metric": "macro_f1"},
        {"labels": ["good", "bad", "so so"]},
        {"labels": False},
    ],
)
def test_a_description_makes_the_same_task_without_rows(options):
    task = make(**options)
    loaded = Task.from_spec(json.loads(json.dumps(task.to_spec())))
    for name in (
        "inputs",
        "output",
        "instructions",
        "labels",
        "label_values",
        "metric_name",
        "is_classification",
    ):
        assert getattr(loaded, name) == getattr(task, name)
    assert loaded.metric is task.metric
    assert loaded.examples == ()
    assert loaded.to_spec() == task.to_spec()
    assert loaded.examples_from(rows(3)) == task.examples[:3]
    assert "0 row(s)" in message_of(loaded.split)


def test_label_values_survive_a_description():
    data = [{"text": f"t{row}", "label": row % 2} for row in range(20)]
    task = make(data, labels={0: "no", 1: "yes"})
    assert Task.from_spec(json.loads(json.dumps(task.to_spec()))).label_values == {"no": 0, "yes": 1}


def test_a_callable_metric_is_described_by_name_only():
    task = make(metric=first_letter)
    assert task.require_metric() is task.metric
    loaded = Task.from_spec(json.loads(json.dumps(task.to_spec())))
    assert loaded.metric is None
    assert loaded.metric_name == "first_letter"
    assert "'first_letter'" in message_of(loaded.require_metric)
    assert loaded.to_spec() == task.to_spec()


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": []},
        {"inputs": None},
        {"labels": 5},
        {"labels": [["a", 1]]},
        {"labels": [["a", 1], ["a", 2]]},
        {"labels": [["a", []], ["b", 2]]},
        {"metric": "gone"},
        {"instructions": 5},
    ],
    ids=str,
)
def test_a_damaged_description_is_refused(change):
    message_of(Task.from_spec, {**make().to_spec(), **change}, error=ArtifactError)


def test_descriptions_of_other_things_are_refused():
    for spec in ({}, [], "text", None):
        message_of(Task.from_spec, spec, error=ArtifactError)


def test_a_task_describes_itself_in_one_line():
    line = make().describe()
    assert len(line.splitlines()) == 1
    for part in ("40 rows", "text -> label", "2 labels", "'bad', 'good'", "accuracy"):
        assert part in line
    assert line in repr(make())


def test_the_fingerprint_is_a_sha256():
    assert len(make().fingerprint) == hashlib.sha256().digest_size * 2


def test_a_header_with_another_delimiter_is_told(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("message;kind\nit broke;repair\n" * 3, "utf-8")
    with pytest.raises(DataError, match="divided by ';'"):
        Task(path, inputs="message", output="kind")


def test_the_row_of_an_unknown_label_is_named(tmp_path):
    task = Task(rows(8), inputs="text", output="label")
    given = [{"text": "a", "label": "good"}, {"text": " ", "label": "good"}, {"text": "b", "label": "z"}]
    with pytest.raises(DataError, match="row 3 of data: the output 'z' is no label"):
        task.examples_from(given)
    path = tmp_path / "more.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in given), encoding="utf-8")
    with pytest.raises(DataError, match=r"row 3 of data '.*more.jsonl': the output 'z'"):
        task.examples_from(path)
    with pytest.raises(DataError, match="row 1 of test: a value is bytes"):
        Task(rows(8), inputs="text", output="label", test=[{"text": b"a", "label": "bad"}])
