"""The kept speed of a machine: what is kept, and what counts now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptsearch import machine
from promptsearch.kept import keep, kept


class Engine:
    """Stands for an engine; its speed is told by the test."""

    fingerprint = "an engine"


@pytest.fixture
def speeds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[float]:
    """What the coming measurements find; the last one stays."""
    coming: list[float] = []

    def measured(_engine: Any, _generates: bool) -> float:
        return coming.pop(0) if len(coming) > 1 else coming[0]

    monkeypatch.setattr(machine, "_measure", measured)
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    return coming


def told(speeds: list[float], *found: float) -> float:
    speeds[:] = found
    return machine.model_speed(Engine(), generates=False)  # type: ignore[arg-type]


def test_the_same_machine_plans_the_same(speeds: list[float]) -> None:
    assert told(speeds, 400.0, 410.0) == 410.0  # the better of two, as other work only slows
    for now in (411.0, 300.0, 460.0, 210.0):
        assert told(speeds, now) == 410.0


def test_a_busy_machines_speed_is_kept_no_longer_than_it_is_busy(speeds: list[float]) -> None:
    assert told(speeds, 200.0) == 200.0
    assert told(speeds, 420.0, 430.0) == 430.0
    assert told(speeds, 425.0) == 430.0


def test_a_machine_that_is_busy_now_is_measured_for_now(speeds: list[float]) -> None:
    assert told(speeds, 400.0) == 400.0
    assert told(speeds, 100.0, 150.0) == 150.0
    assert told(speeds, 390.0) == 400.0


class Timed(Engine):
    """Decodes so many tokens in a second of the clock that is watched."""

    def __init__(self, tokens_a_second: float) -> None:
        self.tokens_a_second = tokens_a_second
        self.tokens_decoded = 0
        self.now = 0.0
        self.prompts: list[str] = []

    def score(self, prompts: list[str], continuations: list[str]) -> None:
        tokens = sum(len(prompt.split()) for prompt in prompts)
        self.prompts += prompts
        self.tokens_decoded += tokens
        self.now += tokens / self.tokens_a_second


@pytest.mark.parametrize(("tokens_a_second", "most_seconds"), [(20_000.0, 2.0), (20.0, 20.0)])
def test_a_slow_model_is_measured_on_little(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tokens_a_second: float, most_seconds: float
) -> None:
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path))
    engine = Timed(tokens_a_second)
    monkeypatch.setattr(machine.time, "perf_counter", lambda: engine.now)
    found = machine.model_speed(engine, generates=False)  # type: ignore[arg-type]
    assert found == pytest.approx(tokens_a_second)
    assert engine.now < most_seconds
    assert len(set(engine.prompts)) == len(engine.prompts)  # a cache knows none of them
    assert machine.model_speed(engine, generates=False) == found  # type: ignore[arg-type]
    assert len(set(engine.prompts)) == len(engine.prompts)


def test_a_folder_that_cannot_be_written_to_is_done_without(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "file"))
    keep("some.json", {"a": 1})
    assert kept("some.json") == {}
