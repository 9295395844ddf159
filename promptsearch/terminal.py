"""Shows a long job on a terminal while it works: notes as lines, and below them where the job stands.

Invariant: nothing but standard error is written to, and nothing at all where that is no terminal.
Leaves out: results, which the caller prints.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from promptsearch.events import Event, Listener, Note, Progress, silent

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.spinner import Spinner
    from rich.text import Text

__all__ = ["progress_display"]

_PHASES = {
    "load": "loading the model",
    "weights": "measuring weights",
    "embed": "embedding the rows",
    "rationales": "writing reasoning",
    "bootstrap": "making demonstrations",
    "search": "searching",
    "confirm": "confirming the finalists",
    "read": "reading more rows with the winner",
    "test": "measuring on the test rows",
}
_REFRESHES_PER_SECOND = 5


@contextmanager
def progress_display() -> Iterator[Listener]:
    """Listen to a job, and show it on standard error where that is a terminal.

    Yields:
        What hears the job's events.
    """
    console = _console()
    if console is None:
        yield silent
        return
    from rich.live import Live

    status = _Status()
    # What other code prints goes above the display, unless standard output leads elsewhere.
    live = Live(
        status,
        console=console,
        transient=True,
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=sys.stdout.isatty(),
    )

    def listen(event: Event) -> None:
        if isinstance(event, Note):
            console.print(_note(event.text))
        else:
            status.update(event)

    with live:
        yield listen


def _console() -> Console | None:
    """A console on standard error, None where that shows nothing or cannot move its cursor."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    return None if console.is_dumb_terminal else console


class _Status:
    """The lines that change. Rendered from another thread, which sees one whole event or the next."""

    def __init__(self) -> None:
        self._current: Progress | None = None
        self._spinner: Spinner | None = None

    def update(self, event: Progress) -> None:
        """Take in an event; what later phases do not tell stays as the search left it."""
        known = self._current
        if known is not None:
            event = replace(
                event,
                alive=event.alive or known.alive,
                tried=event.tried or known.tried,
                best=event.best or known.best,
                tokens_per_second=event.tokens_per_second or known.tokens_per_second,
                left=min(event.left, known.left),  # a budget never grows
                best_is=known.best_is if event.best is None else event.best_is,
            )
        self._current = event

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from rich.progress_bar import ProgressBar
        from rich.spinner import Spinner
        from rich.table import Table

        if self._spinner is None:
            self._spinner = Spinner("dots", style="cyan")
        current = self._current
        head = Table.grid(padding=(0, 1))
        if current is None:
            head.add_row(self._spinner, _PHASES["load"])
            yield head
            return
        done = min(1.0, max(0.0, current.done))
        bar = ProgressBar(total=1.0, completed=done, width=24)
        head.add_row(
            self._spinner,
            _PHASES.get(current.phase, current.phase),
            bar,
            f"{done:.0%}",
            "" if current.phase == "weights" else f"budget left {current.left:.0%}",
        )
        yield head
        if current.tried:
            yield _figures(current)


def _figures(current: Progress) -> Text:
    """Candidates, the best so far and speed, in one line of 80 columns; what is not known yet is left out."""
    from rich.text import Text

    parts = [(f"{current.alive:,} alive, {current.tried:,} tried", "")]
    if current.best is not None:
        parts.append((" ".join(filter(None, ("best", current.best_is, str(current.best)))), "bold"))
    if current.tokens_per_second:
        parts.append((f"{current.tokens_per_second:,.0f} tokens/s", ""))
    line = Text("  ", no_wrap=True, overflow="ellipsis")
    for place, (text, style) in enumerate(parts):
        line.append(" · " if place else "", style="dim")
        line.append(text, style=style)
    return line


def _note(text: str) -> Text:
    """A note as a line; characters that would act on a terminal are blanked."""
    from rich.text import Text

    shown = "".join(character if character.isprintable() else " " for character in text)
    return Text.assemble(("· ", "cyan"), (shown, "dim"))
