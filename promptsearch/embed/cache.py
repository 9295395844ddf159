"""Keeps vectors on disk, so that no text is encoded twice by the same encoder.

One SQLite file: (encoder's fingerprint, SHA-256 of the text) to a raw float32 vector; no pickle. Several
processes may use it at once; where two encode the same text, the first vector written is what both return.
Invariants: texts are encoded in chunks that depend only on which texts are missing, and each chunk is on disk
before the next begins, so a killed call, called again, gives bit for bit what an undisturbed call gives. The
cache is a convenience: a damaged file is set aside, an unwritable one is done without, and both are logged.
Left out: limits on size and age; the folder can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from promptsearch.embed.base import (
    Encoder,
    encode_checked,
    encoder_name,
    length_sorted_chunks,
    well_formed,
)
from promptsearch.paths import cache_dir

__all__ = ["CachedEncoder"]

_LOGGER = logging.getLogger(__name__)

FILE_NAME = "vectors-2.sqlite3"
"""The number is that of the table's layout and of the encoder's arithmetic: others take another file."""

_BUSY_SECONDS = 30.0
_KEYS_A_QUERY = 500  # SQLite's oldest limit on parameters is 999
_UNIT_TOLERANCE = 1e-3


class CachedEncoder:
    """An encoder that remembers. Safe to share between threads and to use from several processes.

    Args:
        encoder: what encodes the texts that are not yet known.
        path: the SQLite file; None: ``vectors-2.sqlite3`` under ``cache_dir()``.

    Attributes:
        encoder: the encoder given.
        hits: distinct texts of each call that were found on disk, added up.
        misses: distinct texts of each call that had to be encoded, added up.
    """

    def __init__(self, encoder: Encoder, path: str | os.PathLike[str] | None = None) -> None:
        self.encoder = encoder
        self.hits = 0
        self.misses = 0
        self._store = _Store(None if path is None else Path(path))
        self._fingerprint: str | None = None
        self._dimension: int | None = None
        self._lock = threading.RLock()

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the encoder inside."""
        with self._lock:
            if self._fingerprint is None:
                self._fingerprint = encoder_name(self.encoder)
            return self._fingerprint

    @property
    def dimension(self) -> int:
        """Components of one vector; encodes one short text where none is known yet."""
        if self._dimension is None:
            self._dimension = self.encode(["a"]).shape[1]
        return self._dimension

    def encode(
        self, texts: Sequence[str], /, progress: Callable[[int, int], None] | None = None
    ) -> NDArray[np.float32]:
        """Unit vectors of ``texts``, shape (len(texts), d), float32.

        Args:
            texts: any texts; repeated ones are encoded once.
            progress: called with (distinct texts done, distinct texts in all), first with those on disk and
                then after each chunk.

        Raises:
            BackendError: the encoder fails, or answers with something that is no vector for each text.
            UserError: whatever else the encoder raises when it cannot be loaded.
        """
        if not texts:
            return np.empty((0, self.dimension), dtype=np.float32)
        clean = [well_formed(text) for text in texts]
        with self._lock:
            known = self._known_vectors(list(dict.fromkeys(clean)), progress or _silent)
            vectors = np.stack([known[text] for text in clean])
            self._dimension = vectors.shape[1]
        return vectors

    def unknown(self, texts: Sequence[str], /) -> list[str]:
        """The distinct texts among these whose vectors are not kept, in their order."""
        clean = list(dict.fromkeys(well_formed(text) for text in texts))
        with self._lock:
            found = self._store.read(self.fingerprint, clean)
        return [text for text in clean if text not in found]

    def _known_vectors(
        self, distinct: list[str], progress: Callable[[int, int], None]
    ) -> dict[str, NDArray[np.float32]]:
        known = self._store.read(self.fingerprint, distinct)
        missing = [text for text in distinct if text not in known]
        self.hits += len(known)
        progress(len(known), len(distinct))
        for chunk in length_sorted_chunks(missing):
            part = [missing[position] for position in chunk]
            fresh = dict(zip(part, encode_checked(self.encoder, part), strict=True))
            self._store.write(self.fingerprint, fresh)
            # Another process may have been first; its vectors are what any later call will read.
            known.update({**fresh, **self._store.read(self.fingerprint, part)})
            self.misses += len(part)
            progress(len(known), len(distinct))
        return known


def _silent(done: int, total: int) -> None:
    """Shows nothing."""


class _DamagedError(Exception):
    """The file is SQLite's, but not ours."""


class _Store:
    """The file. A connection lives for one read or one write: none is ever shared by threads or a fork."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._usable = True

    def read(self, encoder: str, texts: Sequence[str]) -> dict[str, NDArray[np.float32]]:
        """The vectors on disk, by text; a row that holds no unit vector is deleted and missing."""
        by_key = {_key(text): text for text in texts}
        found: dict[str, NDArray[np.float32]] = {}

        def query(connection: sqlite3.Connection) -> None:
            rows = list(_rows(connection, encoder, list(by_key)))
            vectors = {key: _vector(blob) for key, blob in rows}
            bad = [(encoder, key) for key, vector in vectors.items() if vector is None]
            connection.executemany("DELETE FROM vectors WHERE encoder = ? AND text = ?", bad)
            found.update({by_key[key]: vector for key, vector in vectors.items() if vector is not None})

        self._attempt(query)
        return found

    def write(self, encoder: str, vectors: dict[str, NDArray[np.float32]]) -> None:
        """Adds what is not there yet, all in one transaction."""
        rows = [
            (encoder, _key(text), np.ascontiguousarray(vector, dtype="<f4").tobytes())
            for text, vector in vectors.items()
        ]
        self._attempt(
            lambda connection: connection.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?, ?)", rows)
        )

    def _attempt(self, action: Callable[[sqlite3.Connection], object]) -> None:
        """Runs ``action`` in a transaction; once more on a new file where this one is damaged."""
        for last in (False, True):
            if not self._usable:
                return
            try:
                self._run(action)
                return
            except (OSError, sqlite3.OperationalError) as error:  # full, read-only, locked for too long
                self._give_up(error)
            except (sqlite3.DatabaseError, _DamagedError) as error:
                if last:
                    self._give_up(error)
                else:
                    self._set_aside(error)

    def _run(self, action: Callable[[sqlite3.Connection], object]) -> None:
        if self._path is None:
            self._path = cache_dir() / FILE_NAME
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.closing(sqlite3.connect(self._path, timeout=_BUSY_SECONDS)) as connection:
            _prepare(connection)
            with connection:
                action(connection)

    def _set_aside(self, error: Exception) -> None:
        assert self._path is not None
        aside = self._path.with_name(f"{self._path.name}.damaged-{os.getpid()}")
        _LOGGER.warning("vector cache %s is damaged (%s); it is kept as %s", self._path, error, aside.name)
        for suffix in ("", "-wal", "-shm"):
            # Another process may have moved it already.
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{self._path}{suffix}", f"{aside}{suffix}")

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        _LOGGER.warning("vector cache %s cannot be used (%s); going on without it", self._path, error)


def _prepare(connection: sqlite3.Connection) -> None:
    # A writer then never blocks a reader, and a killed process never leaves half a transaction.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS vectors "
        "(encoder TEXT NOT NULL, text BLOB NOT NULL, vector BLOB NOT NULL, PRIMARY KEY (encoder, text))"
    )
    columns = [row[1] for row in connection.execute("PRAGMA table_info(vectors)")]
    if columns != ["encoder", "text", "vector"]:
        raise _DamagedError(f"its table has the columns {columns}")


def _rows(connection: sqlite3.Connection, encoder: str, keys: list[bytes]) -> Iterator[tuple[bytes, object]]:
    for start in range(0, len(keys), _KEYS_A_QUERY):
        part = keys[start : start + _KEYS_A_QUERY]
        marks = ", ".join("?" * len(part))
        query = f"SELECT text, vector FROM vectors WHERE encoder = ? AND text IN ({marks})"
        yield from connection.execute(query, (encoder, *part))


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8")).digest()


def _vector(blob: object) -> NDArray[np.float32] | None:
    if not isinstance(blob, bytes) or not blob or len(blob) % 4:
        return None
    vector = np.frombuffer(blob, dtype="<f4").astype(np.float32)
    length = float(np.linalg.norm(vector.astype(np.float64)))
    is_unit = abs(length - 1.0) <= _UNIT_TOLERANCE or not vector.any()
    return vector if is_unit else None
