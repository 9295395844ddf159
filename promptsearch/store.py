"""The record of a run: every answer of the model is written here before it counts.

One SQLite file. A call's answers are one transaction, so a call is there as a whole or not at all, whenever the
process dies. Running the same search again finds them and asks the model only for what is missing.
Invariant: a file belongs to one job (task, model, seed, settings); opening it for another is an error.
Leaves out: what the answers mean.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptsearch.errors import ArtifactError

__all__ = ["Call", "RunStore"]

_SCHEMA = 3
_TABLES = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS calls (
    key TEXT PRIMARY KEY, kind TEXT NOT NULL, reading TEXT NOT NULL, items TEXT NOT NULL,
    answers TEXT NOT NULL, tokens INTEGER NOT NULL, elapsed REAL NOT NULL
);
"""


@dataclass(frozen=True)
class Call:
    """One call of the model.

    Attributes:
        key: content hash of what was asked.
        kind: ``"items"``, ``"content-free"``, ``"next tokens"``, or ``"rationales"`` and which attempt.
        reading: the candidate, as JSON text.
        items: ids of the items asked about.
        answers: one JSON value for each item.
        tokens: tokens that it cost.
        elapsed: the run's clock, in seconds, when it ended.
    """

    key: str
    kind: str
    reading: str
    items: tuple[int, ...]
    answers: tuple[Any, ...]
    tokens: int
    elapsed: float


class RunStore:
    """The calls and facts of one run.

    Args:
        path: folder of the run, made if it does not exist; None keeps the record in memory.
        job: what the run belongs to, by name.

    Raises:
        ArtifactError: the folder holds another job's run, is in use, or cannot be read.
    """

    FILE = "run.sqlite"

    def __init__(self, path: Path | None, job: Mapping[str, str]) -> None:
        self.path = path
        self._connection = self._connect(path)
        self.require_same({"schema": str(_SCHEMA), **job})
        self._known = self._read_calls()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> Call | None:
        """The recorded call with this key."""
        row = self._known.get(key)
        if row is None:
            return None
        key, kind, reading, items, answers, tokens, elapsed = row
        return Call(key, kind, reading, tuple(json.loads(items)), tuple(json.loads(answers)), tokens, elapsed)

    def calls(self) -> Iterator[Call]:
        """All recorded calls, in the order of their recording."""
        for key in self._known:
            call = self.find(key)
            if call is not None:
                yield call

    def record(self, call: Call) -> None:
        """Write a call; when this returns it survives the process."""
        row = (
            call.key,
            call.kind,
            call.reading,
            json.dumps(call.items),
            json.dumps(call.answers),
            call.tokens,
            call.elapsed,
        )
        with self._connection:
            self._connection.execute("INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        self._known[call.key] = row

    def fact(self, name: str) -> Any:
        """A recorded fact, None where there is none."""
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def record_fact(self, name: str, value: Any) -> None:
        """Write a fact once; a fact that is there stays."""
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def require_same(self, job: Mapping[str, str]) -> None:
        """Compare with what the file belongs to; what it does not say yet is written, if all else is the same.

        Raises:
            ArtifactError: naming what differs; nothing is written, and the file is closed.
        """
        for name, value in job.items():
            kept = self.fact(f"job: {name}")
            if kept not in (None, value):
                self._connection.close()
                was, now = _apart(str(kept), value)
                raise ArtifactError(
                    f"run={str(self.path)!r} belongs to another job: its {name} was {was!r}, now it is {now!r}; "
                    "repeat the first call, or give another folder"
                )
        for name, value in job.items():
            self.record_fact(f"job: {name}", value)

    def close(self) -> None:
        """Release the file."""
        self._connection.close()

    def _connect(self, path: Path | None) -> sqlite3.Connection:
        if path is None:
            connection = sqlite3.connect(":memory:")
            connection.executescript(_TABLES)
            return connection
        if path.is_file():
            raise ArtifactError(f"run={str(path)!r} is a file; give a folder, which is made where it lacks")
        try:
            path.mkdir(parents=True, exist_ok=True)
            connection = sqlite3.connect(path / self.FILE, timeout=1.0)
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")  # two writers would double every cost
            connection.execute("BEGIN EXCLUSIVE")
            connection.commit()
            connection.executescript(_TABLES)
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise ArtifactError(
                    f"run={str(path)!r} is in use by another process; wait for it or give another folder"
                ) from error
            raise ArtifactError(f"run={str(path)!r} cannot be written ({error}); give another folder") from error
        except (sqlite3.DatabaseError, OSError) as error:
            raise ArtifactError(f"run={str(path)!r} cannot be read ({error}); give another folder") from error
        return connection

    def _read_calls(self) -> dict[str, tuple[Any, ...]]:
        columns = "key, kind, reading, items, answers, tokens, elapsed"
        try:
            return {row[0]: row for row in self._connection.execute(f"SELECT {columns} FROM calls ORDER BY rowid")}
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise ArtifactError(f"run={str(self.path)!r} cannot be read ({error}); give another folder") from error


def _apart(kept: str, given: str) -> tuple[str, str]:
    """Two different texts, cut to where they differ."""
    start = next((at for at, (left, right) in enumerate(zip(kept, given, strict=False)) if left != right), 0)
    start = max(0, start - 20) if start > 30 else 0

    def cut(text: str) -> str:
        shown = text[start : start + 40]
        return f"{'...' * (start > 0)}{shown}{'...' * (len(text) > start + 40)}"

    return cut(kept), cut(given)
