"""The packaged example data and its task."""

from __future__ import annotations

import json
from collections import Counter
from importlib.resources import files

import promptsearch as ps

FOLDER = files("promptsearch.examples")
ABOUT = json.loads(FOLDER.joinpath("support_messages.meta.json").read_text("utf-8"))
ROWS = [json.loads(line) for line in FOLDER.joinpath("support_messages.jsonl").read_text("utf-8").splitlines()]


def test_counts() -> None:
    assert len(ROWS) == 656
    assert Counter(row["split"] for row in ROWS) == {"train": 455, "test": 201}
    assert {frozenset(row) for row in ROWS} == {frozenset({"text", "team", "split"})}


def test_labels_are_those_of_the_meta_file() -> None:
    assert {row["team"] for row in ROWS} == set(ABOUT["labels"])
    for split in ("train", "test"):
        assert min(Counter(row["team"] for row in ROWS if row["split"] == split).values()) >= 27


def test_license_is_the_projects() -> None:
    assert ABOUT["license"] == "Apache-2.0"
    assert "**Licence.** Apache-2.0" in FOLDER.joinpath("README.md").read_text("utf-8")


def test_task_holds_the_packaged_split() -> None:
    task = ps.example_task()
    assert task.inputs == ("text",)
    assert task.output == "team"
    assert task.labels is not None
    assert set(task.labels) == set(ABOUT["labels"])
    assert task.instructions == (ABOUT["instruction"],)
    assert len(task.examples) == 656
    assert task.dropped == 0
    expected = [row["text"] for split in ("train", "test") for row in ROWS if row["split"] == split]
    assert [example.text for example in task.examples] == expected


def test_test_rows_are_never_searched() -> None:
    task = ps.example_task()
    splits = task.split(seed=3)
    held_out = {row["text"] for row in ROWS if row["split"] == "test"}
    assert {task.examples[number].text for number in splits.test} == held_out
    used = [*splits.pool, *splits.search, *splits.confirm]
    assert held_out.isdisjoint(task.examples[number].text for number in used)
