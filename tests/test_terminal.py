"""The progress display."""

from __future__ import annotations

import io
import sys

import pytest

from promptsearch.events import Note, Progress, silent
from promptsearch.measurement import Measurement
from promptsearch.terminal import progress_display

BEST = Measurement(0.75, 0.6, 0.85, 40, "Wilson 95 %")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def opened(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Standard error as a terminal; no fixture, since pytest sets its own stream before each test's body."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return stream


def test_silent_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_display() as listen:
        assert listen is silent
        listen(Note("a note"))
        listen(Progress("search", 0.5, 3, 9, BEST, 1200.0, 0.4))
    assert capsys.readouterr() == ("", "")


def test_silent_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = opened(monkeypatch)
    monkeypatch.setenv("TERM", "dumb")
    with progress_display() as listen:
        listen(Note("a note"))
    assert terminal.getvalue() == ""


def test_shows_where_the_job_stands(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = opened(monkeypatch)
    with progress_display() as listen:
        listen(Note("model: [bold]x[/bold] \x1b[2Jwiped"))
        listen(Progress("search", 0.5, 3, 1009, BEST, 1200.0, 0.4))
    shown = terminal.getvalue()
    for part in ("searching", "50%", "3 alive, 1,009 tried", str(BEST), "1,200 tokens/s", "budget left 40%"):
        assert part in shown
    assert "[bold]x[/bold]" in shown
    assert "\x1b[2Jwiped" not in shown
    assert capsys.readouterr().out == ""


def test_later_phases_keep_what_the_search_left(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = opened(monkeypatch)
    with progress_display() as listen:
        listen(Progress("search", 1.0, 3, 9, BEST, 1200.0, 0.4))
        listen(Progress("test", 0.25))
    last = terminal.getvalue().rsplit("measuring on the test rows", 1)[1]
    assert "25%" in last
    assert str(BEST) in last
    assert "budget left 40%" in last


def test_the_best_is_named_where_it_is_not_the_metric(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = opened(monkeypatch)
    with progress_display() as listen:
        listen(Progress("search", 1.0, 3, 9, BEST, 1200.0, 0.4, best_is="accuracy"))
        listen(Progress("test", 0.25))
    last = terminal.getvalue().rsplit("measuring on the test rows", 1)[1]
    assert f"best accuracy {BEST}" in last


def test_cursor_comes_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = opened(monkeypatch)

    def work() -> None:
        with progress_display() as listen:
            listen(Progress("search", 0.1))
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        work()
    assert terminal.getvalue().rfind("\x1b[?25h") > terminal.getvalue().rfind("\x1b[?25l")
