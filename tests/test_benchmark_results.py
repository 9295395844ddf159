"""Results of a benchmark: kept cell by cell, with the machine that each was measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import Results


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
