"""The benchmark of DSPy programs: its made-up program, and that a cell counts what it says."""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import re
import sys
from pathlib import Path

import pytest
from tiny_models import write_model

pytest.importorskip("dspy")

from benchmarks import dspy_programs, throughput_processes
from benchmarks.dspy_programs import gain, measured, table
from benchmarks.dspy_server import served
from benchmarks.dspy_serving import _served, serving_cell
from benchmarks.dspy_tasks import LookUp, look_up
from promptsearch.lm.fake import ScriptedLM
from promptsearch.lm.resolve import open_engine

OPTIONS = argparse.Namespace(data="none", rows=12, test_rows=8, max_tokens=8, threads=8)


def test_every_question_has_its_note() -> None:
    work = look_up(Path("none"), 0, 20, 20)
    program = work.make()
    assert isinstance(program, LookUp)
    for example in [*work.train, *work.validation, *work.test]:
        asking, asked = re.findall(r"[A-Z][a-z]+", example.question)
        note = program.notes.best(asked)
        assert note.startswith(asked)
        assert example.answer in note
        assert asking != asked
    again = look_up(Path("none"), 0, 20, 20)
    facts = [
        {each.question.split(" asks: ")[1] for each in part} for part in (work.train + work.validation, work.test)
    ]
    assert not facts[0] & facts[1]
    assert len({each.question for part in (work.train, work.validation, work.test) for each in part}) == 60
    assert [each.question for each in again.train] == [each.question for each in work.train]


def reply(prompt: str) -> str:
    """Searches for the right person once it is shown how; reads the note."""
    question = prompt.rpartition("Question: ")[2]
    asking, asked = re.findall(r"[A-Z][a-z]+", question)[:2]
    if prompt.endswith("Search words:"):
        return f" {asked if prompt.count('Search words:') > 1 or asking < 'C' else asking}"
    note = prompt.rpartition("Note: ")[2]
    found = re.search(r"a (\w+) from (\w+) and has a (\w+)", note)
    assert found is not None
    job, city, colour = found.groups()
    return f" {job if 'job' in question else city if 'city' in question else colour}"


@pytest.mark.parametrize("way", ["one by one", "concurrent"])
def test_evaluations_are_counted_apart(way: str) -> None:
    """Every candidate answers all validation rows, by two requests a row; the rest bootstraps."""
    work = look_up(Path("none"), 0, 12, 1)
    cell = serving_cell(way, work, open_engine(ScriptedLM(in_chat_form)), 64)
    assert cell["evaluating_calls"] == 2 * len(work.validation) * len(cell["scores"])
    assert cell["calls"] > cell["evaluating_calls"]
    assert 0 < cell["evaluating_seconds"] < cell["seconds"]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="says what a process was started with")
def test_the_server_has_the_models_own_file_in_a_process_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(throughput_processes, "USERS_OWN", {"OMP_WAIT_POLICY": "passive"})
    monkeypatch.setenv("GOMP_SPINCOUNT", "set by the library here")
    opened = open_engine(write_model(tmp_path, "llama"), "as-is")
    before = set(multiprocessing.active_children())
    with _served(opened, 4) as lm:
        (process,) = set(multiprocessing.active_children()) - before
        environment = Path(f"/proc/{process.pid}/environ").read_text().split("\0")
        assert "OMP_WAIT_POLICY=passive" in environment
        assert not any(each.startswith("GOMP_SPINCOUNT=") for each in environment)
        assert isinstance(lm("Hello")[0], str)
        assert lm.history[0]["response"].model == str(tmp_path / "llama.gguf")
    opened.engine.close()
    assert not process.is_alive()


def test_connections_to_the_server_are_kept_and_end_with_it(tmp_path: Path) -> None:
    asked = json.dumps({"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2})
    with served(write_model(tmp_path, "llama"), "as-is") as address:
        connection = http.client.HTTPConnection(address.removeprefix("http://").removesuffix("/v1"))
        sockets = []
        for _ in range(2):
            connection.request("POST", "/v1/chat/completions", asked)
            answer = connection.getresponse()
            assert (answer.status, answer.version) == (200, 11)
            assert "message" in json.loads(answer.read())["choices"][0]
            sockets.append(connection.sock)
        assert sockets[0] is sockets[1] is not None
    connection.close()
    with pytest.raises(ConnectionRefusedError):
        connection.connect()


def test_a_model_without_a_file_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "results.json"
    words = ["x", "--data", "none", "--engine", "--model", "http://127.0.0.1:9/v1", "--json", str(path)]
    monkeypatch.setattr(sys, "argv", words)
    monkeypatch.setattr(dspy_programs, "open_engine", lambda model: open_engine(ScriptedLM(in_chat_form)))
    with pytest.raises(SystemExit, match="give --model a GGUF file, or leave it out"):
        dspy_programs.main()
    assert not path.exists()


def in_chat_form(prompt: str) -> str:
    """All fields of DSPy's own form, whatever is asked."""
    return "[[ ## search_words ## ]]\nAnna\n\n[[ ## answer ## ]]\nred\n\n[[ ## completed ## ]]"


def test_cells_and_their_table() -> None:
    opened = open_engine(ScriptedLM(reply))
    cells = {
        f"look up|{optimizer}|plain|0": measured("look up", optimizer, "plain", 0, opened, OPTIONS)
        for optimizer in ("none", "labeled", "demo search")
    }
    for cell in cells.values():
        assert len(cell["scores"]) == OPTIONS.test_rows
        assert cell["test"]["value"] == pytest.approx(sum(cell["scores"]) / OPTIONS.test_rows)
        assert cell["seconds"] >= 0
    assert cells["look up|none|plain|0"]["demonstrations"] == [0, 0]
    assert cells["look up|demo search|plain|0"]["test"]["value"] >= cells["look up|none|plain|0"]["test"]["value"]
    assert gain(cells, "look up|none|plain|0") == ""
    assert gain(cells, "look up|demo search|plain|0").startswith("over unoptimized +")
    cells["look up|gepa|plain|0"] = {"failed": "ValueError: no", "seconds": 1.0}
    shown = table(cells)
    assert len(shown.splitlines()) == 1 + len(cells)
    assert "ValueError: no" in shown
