"""Other work on the processor is noticed and said once; nothing here reads a clock."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import write_model

from promptsearch.budget import Budget
from promptsearch.lm.llamacpp import context as context_module
from promptsearch.lm.llamacpp.busy import QUIET_SHARE, BusyMeter
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.run.notes import processor_notes


def run(meter: BusyMeter, share: float, batches: int = 10, wall: float = 0.5) -> list[str]:
    """What a meter says to batches of which each got this share of its threads' time."""
    said = [meter.add(wall, share * wall * meter.threads) for _ in range(batches)]
    return [line for line in said if line is not None]


def test_a_quiet_machine() -> None:
    meter = BusyMeter(4)
    assert meter.share == 1.0
    assert run(meter, 0.95) == []
    assert meter.share == pytest.approx(0.95)


def test_a_busy_machine_is_said_once() -> None:
    meter = BusyMeter(2)
    assert run(meter, 0.45) == [
        "another process uses the processor: the model gets 45% of 2 cores; speeds and time budgets suffer"
    ]
    assert run(meter, 0.30) == []
    assert meter.share == pytest.approx(0.30)


def test_a_machine_that_becomes_quiet_again() -> None:
    meter = BusyMeter(1)
    assert "1 core;" in run(meter, 0.5)[0]
    run(meter, 1.0)
    assert meter.share == 1.0
    assert not meter.is_busy


def test_nothing_is_said_before_a_full_window() -> None:
    meter = BusyMeter(2)
    assert run(meter, 0.1, batches=3) == []
    assert meter.share == 1.0
    assert len(run(meter, 0.1, batches=1)) == 1


def test_short_batches_count_for_nothing() -> None:
    meter = BusyMeter(2)
    assert run(meter, 0.5, batches=1000, wall=0.02) == []
    assert meter.share == 1.0


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100))), st.integers(1, 64))
def test_a_share_is_a_share(batches: list[tuple[float, float]], threads: int) -> None:
    meter = BusyMeter(threads)
    for wall, processor in batches:
        meter.add(wall, processor)
        assert 0 <= meter.share <= 1


class Clock:
    """Half a second passes while a batch runs, of which one thread got a part."""

    def __init__(self, share: float) -> None:
        self.wall = self.processor = 0.0
        self.share = share

    def perf_counter(self) -> float:
        self.wall += 0.5
        return self.wall

    def process_time(self) -> float:
        self.processor += 0.5 * self.share
        return self.processor


def test_an_engine_says_what_it_got(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(context_module, "time", Clock(share=0.5))
    with (
        caplog.at_level(logging.WARNING, logger="promptsearch.llamacpp"),
        LlamaEngine(write_model(tmp_path, "llama"), name="x", fingerprint="x", threads=1) as engine,
    ):
        assert engine.processor_share == 1.0
        for _ in range(8):
            engine.score(["It was"], ["a", "b"])
        assert engine.processor_share == pytest.approx(0.5)
    assert len([record for record in caplog.records if "50% of 1 core" in record.message]) == 1


@pytest.mark.parametrize("share", [QUIET_SHARE, 1.0])
def test_no_note_for_a_quiet_machine(share: float) -> None:
    engine: Any = SimpleNamespace(processor_share=share)
    assert processor_notes(engine, Budget(seconds=60)) == ()


def test_no_note_for_an_engine_that_runs_elsewhere() -> None:
    engine: Any = SimpleNamespace()
    assert processor_notes(engine, Budget(seconds=60)) == ()


def test_a_note_for_a_busy_machine() -> None:
    engine: Any = SimpleNamespace(processor_share=0.42)
    (note,) = processor_notes(engine, Budget(seconds=60))
    assert "42%" in note
    assert "budget in tokens" in note
    (note,) = processor_notes(engine, Budget(tokens=1000))
    assert "42%" in note
    assert "budget" not in note
