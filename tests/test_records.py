import datetime
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptsearch.data.records import WRITTEN_SUFFIXES, declared_labels, read_rows, write_rows
from promptsearch.data.text import (
    _normalised_anything,
    _normalised_once,
    as_text,
    is_missing,
    listed,
    normalised,
    quoted,
)
from promptsearch.errors import DataError

ROWS = [{"text": "good", "label": "NA"}, {"text": "it said null", "label": "None"}]

# Lone surrogates cannot be in a UTF-8 file; everything else can.
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
# NUL and carriage returns inside fields are outside what CSV readers agree on.
csv_texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1)
same_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def message_of(data, **options):
    with pytest.raises(DataError) as caught:
        read_rows(data, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.fixture
def files(tmp_path):
    """The same rows in every form a file can have."""
    lines = "\n".join(map(json.dumps, ROWS))
    frame = pandas.DataFrame(ROWS)
    frame.to_parquet(tmp_path / "rows.parquet")
    return [
        write(tmp_path / "rows.jsonl", lines),
        write(tmp_path / "rows.NDJSON", lines.replace("\n", "\r\n\r\n")),
        write(tmp_path / "rows.json", json.dumps(ROWS, indent=1)),
        write(tmp_path / "lines.json", lines),
        write(tmp_path / "rows.csv", "\ufefftext,label\ngood,NA\nit said null,None\n"),
        write(tmp_path / "rows.tsv", frame.to_csv(sep="\t", index=False)),
        tmp_path / "rows.parquet",
    ]


def test_every_file_type_gives_the_same_rows(files):
    for path in files:
        assert read_rows(path) == ROWS
        assert read_rows(str(path)) == ROWS


@pytest.mark.parametrize(
    "make", [list, tuple, iter, pandas.DataFrame, datasets.Dataset.from_list], ids=lambda make: make.__name__
)
def test_every_object_gives_the_same_rows(make):
    assert read_rows(make(ROWS)) == ROWS


@same_file
@given(rows=st.lists(st.fixed_dictionaries({"text": texts, "label": texts}), min_size=1, max_size=5))
def test_unicode_rows_survive_jsonl(tmp_path, rows):
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    assert read_rows(write(tmp_path / "rows.jsonl", lines)) == rows


@same_file
@given(
    rows=st.lists(st.fixed_dictionaries({"text": csv_texts, "label": csv_texts}), min_size=1, max_size=5),
    form=st.sampled_from([(".csv", ","), (".tsv", "\t")]),
)
def test_unicode_rows_survive_tables(tmp_path, rows, form):
    suffix, delimiter = form
    path = tmp_path / f"rows{suffix}"
    pandas.DataFrame(rows).to_csv(path, sep=delimiter, index=False, quoting=1)
    assert read_rows(path) == rows


@same_file
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".jsonl", ".json", ".csv", ".tsv", ".parquet"]))
def test_any_bytes_give_rows_or_one_clear_line(tmp_path, content, suffix):
    path = write(tmp_path / f"any{suffix}", content)
    try:
        outcome = read_rows(path)
    except DataError as error:
        outcome = str(error)
    if isinstance(outcome, str):
        assert len(outcome.splitlines()) == 1
        assert path.name in outcome
    else:
        assert outcome
        assert all(isinstance(row, dict) for row in outcome)


def test_separators_inside_json_strings_are_no_line_ends(tmp_path):
    rows = [{"text": "a\u2028b\x85c"}]
    assert read_rows(write(tmp_path / "rows.jsonl", json.dumps(rows[0], ensure_ascii=False))) == rows


def test_a_missing_file_is_named(tmp_path):
    message = message_of(tmp_path / "reviews.csv", name="validation")
    assert "validation" in message
    assert "reviews.csv" in message
    assert "no such file" in message


def test_content_in_place_of_a_path_is_no_file():
    assert "no such file" in message_of("text,label\n" + "good,yes\n" * 5000)


def test_a_directory_is_no_file(tmp_path):
    assert "directory" in message_of(tmp_path)


def test_an_unknown_suffix_names_those_that_can_be_read(tmp_path):
    message = message_of(write(tmp_path / "rows.xlsx", "x"))
    assert "'.xlsx'" in message
    assert ".parquet" in message


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", ""),
        ("a.json", "[]"),
        ("a.json", " "),
        ("a.csv", ""),
        ("a.csv", "text,label\n"),
        ("a.tsv", "\n"),
    ],
)
def test_an_empty_file_holds_no_rows(tmp_path, name, content):
    message = message_of(write(tmp_path / name, content))
    assert "holds no rows" in message
    assert name in message


def test_empty_objects_hold_no_rows():
    for empty in ([], pandas.DataFrame({"text": []}), iter(())):
        assert "holds no rows" in message_of(empty)


def test_a_broken_json_line_is_named_by_number(tmp_path):
    message = message_of(write(tmp_path / "rows.jsonl", '{"text": "a"}\n\n{"text": \n'))
    assert "line 3" in message
    assert "rows.jsonl" in message


def test_json_nested_too_deep_is_refused(tmp_path):
    message_of(write(tmp_path / "rows.jsonl", "[" * 200_000))


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", '{"t": 1}\n[1, 2]'), ("a.json", '[{"t": 1}, [1, 2]]')])
def test_a_row_that_is_no_dict_is_named(tmp_path, name, content):
    message = message_of(write(tmp_path / name, content))
    assert "[1, 2]" in message
    assert "2 of" in message


def test_one_json_object_is_no_table(tmp_path):
    assert "holds one dict" in message_of(write(tmp_path / "rows.json", '{"rows": [{"text": "a"}]}'))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv"])
def test_undecodable_bytes_are_named(tmp_path, name):
    message = message_of(write(tmp_path / name, b'{"text": "caf\xe9"}'))
    assert "not UTF-8" in message
    assert name in message


@pytest.mark.parametrize("content", ["a,b\n1,2\n1,2,3\n", "a,b\n1,2,3\n", 'a,b\n1,"2\n3,4\n'])
def test_a_broken_table_is_refused_instead_of_cut(tmp_path, content):
    assert "broken table" in message_of(write(tmp_path / "rows.csv", content))


def test_a_field_that_a_short_row_lacks_is_missing(tmp_path):
    rows = read_rows(write(tmp_path / "rows.csv", "a,b\n1\n"))
    assert rows[0]["a"] == "1"
    assert is_missing(rows[0]["b"])


def test_a_truncated_parquet_file_is_refused(tmp_path):
    path = tmp_path / "rows.parquet"
    pandas.DataFrame(ROWS).to_parquet(path)
    write(path, path.read_bytes()[:-20])
    assert "Parquet" in message_of(path)


def test_columns_of_the_same_name_are_refused():
    assert "'a'" in message_of(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_a_dict_of_splits_asks_for_one_of_them():
    splits = datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS))
    assert "'train'" in message_of(splits)


@pytest.mark.parametrize("data", [5, None, [1, 2], ["text"], b"ab"])
def test_objects_that_hold_no_rows_are_named(data):
    message_of(data)


def test_labels_declared_by_a_dataset_are_found():
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a"], "label": [1]}, features=features)
    assert declared_labels(data, "label") == {0: "no", 1: "yes"}
    assert declared_labels(data, "text") is None
    assert declared_labels(ROWS, "label") is None


@settings(deadline=None)
@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


@settings(deadline=None)
@given(st.text(st.characters(max_codepoint=127)))
def test_ascii_is_normalised_as_any_text_is(text):
    assert _normalised_once(text) == _normalised_anything(text)


@settings(deadline=None)
@given(st.text(min_size=1).filter(str.strip))
def test_no_text_normalises_to_nothing(text):
    assert normalised(text)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Good  movie!", "good movie"),
        ("ＡＢＣ", "abc"),
        ("“Well,” he said", '"well" he said'),
        ("Straße", "STRASSE"),
        ("a\u200bb", "ab"),
        ("It's", "Its"),
    ],
)
def test_the_same_text_written_otherwise_is_the_same(one, other):
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [("?", "!"), ("2-3", "2+3"), ("1.5", "15"), ("is -5 odd", "is 5 odd"), ("C#", "C"), ("a/b", "ab")],
)
def test_punctuation_that_carries_meaning_stays(one, other):
    assert normalised(one) != normalised(other)


@settings(deadline=None)
@given(st.text())
def test_text_can_always_be_encoded(text):
    assert as_text(text).encode("utf-8").decode("utf-8") == as_text(text)


def test_lone_surrogates_are_replaced():
    assert as_text(json.loads('"a\\ud800b"')) == "a\ufffdb"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (1.5, "1.5"),
        (True, "True"),
        (np.int64(3), "3"),
        (np.float32(2), "2"),
        (" a\n", "a"),
        (["é", 1], '["é", 1]'),
        ({"a": np.array([1])}, '{"a": [1]}'),
    ],
)
def test_values_become_text(value, text):
    assert as_text(value) == text


def test_bytes_are_no_text():
    with pytest.raises(DataError, match="bytes"):
        as_text(b"abc")


@pytest.mark.parametrize(("name", "content"), [("a.csv", 'text,"text",label\na,b,c\n'), ("a.tsv", "x\tx\n1\t2\n")])
def test_a_header_that_names_a_column_twice_is_refused(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError, match=r"a\.[ct]sv.* has several columns named '(text|x)'"):
        read_rows(path)


def test_columns_without_a_name_may_be_several(tmp_path):
    (tmp_path / "a.csv").write_text("text,label,,\na,b,,\n")
    assert {"text": "a", "label": "b"}.items() <= read_rows(tmp_path / "a.csv")[0].items()


@pytest.mark.parametrize(
    ("name", "content", "hint"),
    [
        ("rows.csv", "text;label\na, b;c\nd;e\n", "divided by ';': save it with ',' instead"),
        ("rows.csv", "text\tlabel\na, b\tc\nd\te\n", "name it .tsv"),
        ("rows.tsv", "text,label\na\tb\tc\n", "name it .csv"),
    ],
)
def test_another_delimiter_is_named(tmp_path, name, content, hint):
    assert hint in message_of(write(tmp_path / name, content))


def test_a_single_column_may_hold_any_mark(tmp_path):
    assert read_rows(write(tmp_path / "rows.csv", "Text; raw\na; b\n"), name="data") == [{"Text; raw": "a; b"}]


@pytest.mark.parametrize("value", [None, "", " \n", float("nan"), np.nan, pandas.NA, pandas.NaT, [], ["", None]])
def test_missing_values_are_recognised(value):
    assert is_missing(value)


@pytest.mark.parametrize("value", ["NA", "null", 0, False, 0.0, ["a", None]])
def test_values_that_say_something_are_not_missing(value):
    assert not is_missing(value)


@settings(deadline=None)
@given(st.text())
def test_quoting_makes_one_short_line(text):
    assert len(quoted(text).splitlines()) == 1
    assert len(quoted(text)) <= 61


def test_long_lists_are_cut():
    assert listed(range(6)) == "0, 1, 2, 3 and 2 more"


def test_reading_imports_nothing_heavy():
    code = (
        "import sys, promptsearch.task;"
        "print({'pandas','pyarrow','torch','faiss','llama_cpp','dspy','sklearn','scipy'} & set(sys.modules))"
    )
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("text\na\n\nb\n \n\n", ["a", "", "b", " "]),
        ("text\n\na\n", ["", "a"]),
        ('text\n"a, b"\n\nc\n', ["a, b", "", "c"]),
    ],
)
def test_a_blank_line_of_a_table_of_one_column_is_a_row(tmp_path, text, expected):
    path = tmp_path / "rows.csv"
    path.write_text(text, encoding="utf-8")
    assert [row["text"] for row in read_rows(path)] == expected
    path.write_text("text,label\na,x\n\nb,y\n\n", encoding="utf-8")
    assert [row["text"] for row in read_rows(path)] == ["a", "b"]


@same_file
@given(
    rows=st.lists(st.fixed_dictionaries({"text": csv_texts, "a, b": csv_texts}), min_size=1, max_size=5),
    suffix=st.sampled_from(WRITTEN_SUFFIXES),
)
def test_what_is_written_is_read_back(tmp_path, rows, suffix):
    path = tmp_path / f"rows{suffix}"
    write_rows(path, rows)
    assert read_rows(path) == rows


@pytest.mark.parametrize("suffix", WRITTEN_SUFFIXES)
def test_rows_of_any_values_are_written(tmp_path, suffix):
    rows = [
        {"text": " a ", "count": np.int64(3), "tags": ["x", float("nan")], "gone": float("nan"), "raw": b"\x89PNG"},
        {"text": "lone \ud800", "more": "one\rtwo\nthree", "gone": pandas.NaT, "deep": {"a": [1, {"\udc00": "b"}]}},
        {"text": "", "when": datetime.date(2024, 1, 2)},
    ]
    path = tmp_path / "folder" / f"rows{suffix}"
    write_rows(path, rows)
    back = read_rows(path)
    assert [row["text"] for row in back] == [" a ", "lone \ufffd", ""]
    assert str(back[0]["count"]) == "3"
    assert back[0]["tags"] in (["x", None], '["x", null]')
    assert back[0]["raw"] == "iVBORw=="
    assert back[1]["more"] == "one\rtwo\nthree"
    assert back[1]["deep"] in ({"a": [1, {"\ufffd": "b"}]}, '{"a": [1, {"\ufffd": "b"}]}')
    assert back[2]["when"] == "2024-01-02"
    assert all(is_missing(row.get("gone")) for row in back)


def test_other_types_are_not_written(tmp_path):
    with pytest.raises(DataError, match=r"parquet.*\.csv"):
        write_rows(tmp_path / "rows.parquet", [{"a": 1}])
