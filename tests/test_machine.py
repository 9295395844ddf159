"""The kept speed of a machine: what is kept, and what counts now."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptsearch import machine


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
