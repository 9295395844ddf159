"""What is recorded stays, whenever the process dies, and belongs to one job."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptsearch.errors import ArtifactError
from promptsearch.store import Call, RunStore

JOB = {"task": "t1", "model": "m1", "seed": "0"}


def call(number: int = 0, **options: Any) -> Call:
    values: dict[str, Any] = {
        "key": f"key-{number}",
        "kind": "items",
        "reading": '{"a": "ü"}',
        "items": (1, 2, 3),
        "answers": ([-0.5, None], None, [0.1, -1e-300]),
        "tokens": 5,
        "elapsed": 0.1 + number,
    }
    return Call(**{**values, **options})


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """A process that runs ``code`` with an open store named ``store``; it has begun when this returns."""
    lines = (
        "import sys, time; from pathlib import Path; from promptsearch.store import Call, RunStore",
        f"store = RunStore(Path({str(folder)!r}), {JOB!r})",
        "print('open', flush=True)",
        textwrap.dedent(code),
    )
    command = [sys.executable, "-c", "\n".join(lines)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "open\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    with child:
        child.send_signal(signal.SIGKILL)


def test_a_call_is_there_after_reopening(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run", JOB)
    store.record(call(1))
    store.record(call(2, items=(), answers=()))
    store.close()
    store = RunStore(tmp_path / "run", JOB)
    assert store.find("key-1") == call(1)
    assert store.find("key-2") == call(2, items=(), answers=())
    assert store.find("key-3") is None
    assert len(store) == 2
    store.close()


@settings(max_examples=30)
@given(
    st.lists(
        st.none() | st.text() | st.lists(st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
        max_size=4,
    )
)
def test_answers_come_back_as_they_were(answers: list[Any]) -> None:
    store = RunStore(None, JOB)
    recorded = call(answers=tuple(answers), items=tuple(range(len(answers))))
    store.record(recorded)
    assert store.find(recorded.key) == recorded
    store.close()


def test_facts_stay_as_they_were_first(tmp_path: Path) -> None:
    store = RunStore(tmp_path, JOB)
    assert store.fact("plan") is None
    store.record_fact("plan", {"total": 5})
    store.record_fact("plan", {"total": 6})
    store.close()
    store = RunStore(tmp_path, JOB)
    assert store.fact("plan") == {"total": 5}
    store.close()


def test_what_a_file_does_not_say_yet_is_written_only_if_all_else_is_the_same(tmp_path: Path) -> None:
    store = RunStore(tmp_path, JOB)
    with pytest.raises(ArtifactError, match="its seed was"):
        store.require_same({"encoder": "small", "seed": "other"})
    store = RunStore(tmp_path, JOB)
    store.require_same({"encoder": "large"})
    with pytest.raises(ArtifactError, match="its encoder was 'large', now it is 'small'"):
        store.require_same({"encoder": "small"})


def test_long_texts_are_shown_where_they_differ(tmp_path: Path) -> None:
    begins = "Say whether the customer's message is about a delivery or "
    RunStore(tmp_path, {"instruction": begins + "a return."}).close()
    with pytest.raises(ArtifactError, match=r"delivery or a return.', now it is '.*delivery or a bill."):
        RunStore(tmp_path, {"instruction": begins + "a bill."})


@pytest.mark.parametrize(("name", "now"), [("task", "t2"), ("model", "m2"), ("seed", "1")])
def test_another_job_is_refused_and_told_what_differs(tmp_path: Path, name: str, now: str) -> None:
    store = RunStore(tmp_path, JOB)
    store.record(call())
    store.close()
    with pytest.raises(ArtifactError) as caught:
        RunStore(tmp_path, {**JOB, name: now})
    message = str(caught.value)
    assert "\n" not in message
    assert f"its {name} was {JOB[name]!r}, now it is {now!r}" in message
    again = RunStore(tmp_path, JOB)  # nothing was changed or left locked
    assert again.find("key-0") == call()
    again.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    child = start("sys.stdin.read()", tmp_path)
    try:
        with pytest.raises(ArtifactError, match="in use") as caught:
            RunStore(tmp_path, JOB)
        assert "\n" not in str(caught.value)
    finally:
        kill(child)
    RunStore(tmp_path, JOB).close()


def test_a_run_that_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.write_text("x")
    with pytest.raises(ArtifactError, match="is a file"):
        RunStore(path, JOB)
    with pytest.raises(ArtifactError, match="cannot be"):
        RunStore(path / "inside", JOB)


@pytest.mark.parametrize(
    "content", [b"no database at all, but long enough for a header" * 9, b"SQLite format 3\0junk" * 99]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / RunStore.FILE).write_bytes(content)
    with pytest.raises(ArtifactError, match="cannot be") as caught:
        RunStore(tmp_path, JOB)
    assert "\n" not in str(caught.value)
    assert (tmp_path / RunStore.FILE).read_bytes() == content


@pytest.mark.parametrize("keep", [0.2, 0.5, 0.9])
def test_a_database_cut_short(tmp_path: Path, keep: float) -> None:
    store = RunStore(tmp_path, JOB)
    for number in range(30):
        store.record(call(number, reading="x" * 1000))
    store.close()
    path = tmp_path / RunStore.FILE
    whole = path.read_bytes()
    path.write_bytes(whole[: int(keep * len(whole))])
    with pytest.raises(ArtifactError, match="cannot be read"):
        RunStore(tmp_path, JOB)


def test_a_database_of_something_else(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / RunStore.FILE) as connection:
        connection.execute("CREATE TABLE calls (person TEXT, number TEXT)")
        connection.execute("INSERT INTO calls VALUES ('a', 'b')")
    connection.close()
    with pytest.raises(ArtifactError, match="cannot be read"):
        RunStore(tmp_path, JOB)


RECORDING = """
number = 0
while True:
    answers = tuple([float(number + place), None] for place in range(50))
    store.record(Call(f"key-{number}", "items", "{}", tuple(range(50)), answers, number, float(number)))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.parametrize("calls", [1, 7, 40])
def test_what_was_recorded_survives_a_kill_and_is_whole(tmp_path: Path, calls: int) -> None:
    child = start(RECORDING, tmp_path)
    assert child.stdout is not None
    for _ in range(calls):
        last = int(child.stdout.readline())
    kill(child)
    store = RunStore(tmp_path, JOB)
    assert len(store) > last
    for number in range(len(store)):
        found = store.find(f"key-{number}")
        assert found is not None
        assert found.answers == tuple([float(number + place), None] for place in range(50))
        assert (found.tokens, found.elapsed) == (number, float(number))
    store.close()


def test_unfinished_work_is_absent_after_a_kill(tmp_path: Path) -> None:
    code = """
    store.record(Call("whole", "items", "{}", (1,), ("x",), 1, 1.0))
    store._connection.execute("INSERT INTO calls VALUES ('half', 'items', '{}', '[1]', '[1]', 1, 1.0)")
    print('written', flush=True)
    sys.stdin.read()
    """
    child = start(code, tmp_path)
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    kill(child)
    store = RunStore(tmp_path, JOB)
    assert store.find("whole") is not None
    assert store.find("half") is None
    store.close()


def test_the_file_holds_plain_json(tmp_path: Path) -> None:
    store = RunStore(tmp_path, JOB)
    store.record(call())
    store.close()
    connection = sqlite3.connect(tmp_path / RunStore.FILE)
    items, answers = connection.execute("SELECT items, answers FROM calls").fetchone()
    connection.close()
    assert json.loads(items) == [1, 2, 3]
    assert json.loads(answers) == [[-0.5, None], None, [0.1, -1e-300]]
