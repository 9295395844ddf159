"""The record of a run: every answer of the model is written here before it counts.

One SQLite file. A call's answers are one transaction, so a call is there as a whole or not at all, whenever the
process dies. Running the same search again finds them and asks the model only for what is missing. So does a search
with another budget: answers are the job's, what was decided with a budget is that budget's.
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

_SCHEMA = 1
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
        budget: whose facts are read and written.

    Raises:
        ArtifactError: the folder holds another job's run, is in use, or cannot be read.
    """

    FILE = "run.sqlite"

    def __init__(self, path: Path | None, job: Mapping[str, str], budget: str = "") -> None:
        self.path = path
        self._connection = self._connect(path)
        self._budget = budget
        for name, value in {"schema": str(_SCHEMA), **job}.items():
            self.require_same(name, value)
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
        """A recorded fact of this budget, None where there is none."""
        return self._fact(f"{self._budget}: {name}")

    def record_fact(self, name: str, value: Any) -> None:
        """Write a fact once; a fact that is there stays."""
        self._record(f"{self._budget}: {name}", value)

    def require_same(self, name: str, value: str) -> None:
        """Compare with what the file belongs to, whatever the budget, or say so in a new file.

        Raises:
            ArtifactError: naming both.
        """
        self._record(f"job: {name}", value)
        kept = self._fact(f"job: {name}")
        if kept != value:
            self._connection.close()
            raise ArtifactError(
                f"run={str(self.path)!r} belongs to another job: its {name} was {_short(kept)}, now it is "
                f"{_short(value)}; repeat the first call, or give another folder"
            )

    def _fact(self, name: str) -> Any:
        row = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return None if row is None else json.loads(row[0])

    def _record(self, name: str, value: Any) -> None:
        with self._connection:
            self._connection.execute("INSERT OR IGNORE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

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


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:40] + "...")
