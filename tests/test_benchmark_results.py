"""Results of a benchmark: kept cell by cell, with the machine that each was measured on."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks import common, coverage
from benchmarks.common import Results, model_setting

COMMITTED = Path(common.__file__).parent / "results"
WRITTEN_BY = {
    "accuracy": "accuracy",
    "commonsense_qa": "accuracy",
    "ensembles": "accuracy",
    "few_rows": "accuracy",
    "optimism": "optimism",
    "null": "null",
    "prior": "prior",
    "prior_further": "prior",
    "one_by_one": "one_by_one",
    "search": "search.__main__",
    "modes": "search.__main__",
    "search_strategies": "search.__main__",
    "dspy_demo_search": "dspy_programs",
    "webquestions": "reasoning",
}
OTHER_SETTINGS = [
    ("accuracy", "--budget", "1k tokens"),
    ("accuracy", "--test-rows", "7"),
    ("accuracy", "--model", "folder/other.gguf"),
    ("optimism", "--budget", "1k tokens"),
    ("optimism", "--rows", "70"),
    ("optimism", "--test-rows", "7"),
    ("optimism", "--model", "hf:owner/other:Q8_0"),
    ("null", "--budget", "1k tokens"),
    ("null", "--rows", "70"),
    ("null", "--test-rows", "7"),
    ("null", "--sample", "1"),
    ("null", "--model", "other.gguf"),
    ("prior", "--test-rows", "7"),
    ("one_by_one", "--count", "2"),
    ("one_by_one", "--weights", "F16"),
    ("search", "--rows", "70"),
    ("search", "--test-rows", "7"),
    ("search", "--model", "other.gguf"),
    ("dspy_demo_search", "--model", "other.gguf"),
    ("webquestions", "--model", "other.gguf"),
]


def test_a_file_says_where_each_cell_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "results.json"
    for machine, keys in (("fast", ("a", "b")), ("slow", ("c",)), ("fast", ("d",))):
        monkeypatch.setattr(common, "machine", lambda name=machine: {"processor": name})
        results = Results(path, {})
        for key in keys:
            assert key not in results
            results.add(key, {"value": key})
    kept = json.loads(path.read_text("utf-8"))
    assert kept["machines"] == [{"processor": "fast"}, {"processor": "slow"}]
    assert kept["measured_on"] == {"a": 0, "b": 0, "c": 1, "d": 0}
    assert kept["cells"] == {key: {"value": key} for key in "abcd"}


def test_this_machine_is_described() -> None:
    described = common.machine()
    assert described["processor"]
    assert described["cores"] >= 1
    assert json.loads(json.dumps(described)) == described


class BegunError(Exception):
    """A benchmark began to measure."""


def begun(*_arguments: object) -> None:
    raise BegunError


def begin(monkeypatch: pytest.MonkeyPatch, kept: Path, *further: str) -> ModuleType:
    """The benchmark that wrote a committed file, with the command that it holds; further arguments come last."""
    module = importlib.import_module(f"benchmarks.{WRITTEN_BY[kept.stem]}")
    for name in ("open_engine", "resolve_encoder", "read_dataset"):
        if hasattr(module, name):
            monkeypatch.setattr(module, name, begun)
    command = json.loads(kept.read_text("utf-8"))["command"].replace("FILE", str(kept))
    words = [word for option in re.split(" (?=--)", command) for word in option.split(" ", 1)]
    monkeypatch.setattr(sys, "argv", ["benchmark", *words, *further])
    return module


def copied(name: str, folder: Path) -> Path:
    path = folder / f"{name}.json"
    path.write_bytes((COMMITTED / path.name).read_bytes())
    return path


@pytest.mark.parametrize("name", sorted(WRITTEN_BY))
def test_the_command_in_a_file_goes_on_with_it_and_may_take_more_seeds(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for further in ((), () if name == "one_by_one" else ("--seeds", "12")):
        module = begin(monkeypatch, copied(name, tmp_path), *further)
        with pytest.raises(BegunError):
            module.main()


@pytest.mark.parametrize(("name", "option", "value"), OTHER_SETTINGS)
def test_other_settings_are_refused_before_anything_is_opened(
    name: str, option: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = copied(name, tmp_path)
    before = path.read_bytes()
    module = begin(monkeypatch, path, option, value)
    with pytest.raises(SystemExit, match=r"holds results of other settings \(.*\); give another --json"):
        module.main()
    assert path.read_bytes() == before


def test_counts_of_other_samples_are_refused_and_further_searches_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps({"settings": {"repeats": 8, "seed": 0}, "cells": {}}))
    monkeypatch.setattr(coverage, "cells", begun)
    words = ["benchmark", "--json", str(path), "--searches", "3", "--repeats"]
    monkeypatch.setattr(sys, "argv", [*words, "9"])
    with pytest.raises(SystemExit, match="repeats: 8 instead of 9"):
        coverage.main()
    monkeypatch.setattr(sys, "argv", [*words, "8"])
    with pytest.raises(BegunError):
        coverage.main()


def test_a_file_is_shown_whatever_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = begin(monkeypatch, copied("search", tmp_path), "--show", "--rows", "7", "--model", "other.gguf")
    module.main()
    assert "halving" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("model", "setting"),
    [
        (None, {}),
        ("SmolLM2-135M", {}),
        ("folder/other.gguf", {"model": "other.gguf"}),
        ("hf:owner/other:Q8_0", {"model": "hf:owner/other:Q8_0"}),
        ("http://127.0.0.1:8080/v1", {"model": "http://127.0.0.1:8080/v1"}),
    ],
)
def test_a_model_is_told_by_its_name_and_never_by_its_folder(model: str | None, setting: dict[str, str]) -> None:
    assert model_setting(model) == setting
