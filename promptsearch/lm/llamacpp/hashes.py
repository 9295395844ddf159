"""The sha256 of large files, computed once for each state of a file.

Invariant: a remembered hash counts only while path, size, times of change and inode are those of the file that was
read. A file that changed moments ago is read again the next time, because a clock may not tell two such changes
apart. Deleting or damaging the memory costs a reading, never a wrong hash.
Leaves out: what the hash is used for.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path
from typing import Any

from promptsearch.kept import keep, kept

__all__ = ["file_hash"]

_FILE = "hashes.json"
_SETTLED_NANOSECONDS = 2_000_000_000  # the coarsest clock of a common file system ticks every two seconds


def file_hash(path: Path) -> str:
    """The sha256 of a file, as 64 hexadecimal digits.

    Raises:
        OSError: the file cannot be read.
    """
    place, state = str(path.resolve()), _state(path)
    known = _known()
    if known.get(place, {}).get("state") == state:
        return str(known[place]["sha256"])
    digest = _digest(path)
    settled = time.time_ns() - path.stat().st_mtime_ns > _SETTLED_NANOSECONDS
    if settled and _state(path) == state:
        _keep(known, place, {"state": state, "sha256": digest})
    return digest


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def _state(path: Path) -> list[int]:
    """What changes with a file's content, or with the file that a path names."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev]


def _known() -> dict[str, dict[str, Any]]:
    """Entries that hold together; what is damaged is computed again."""
    return {place: entry for place, entry in kept(_FILE).items() if _whole(entry)}


def _whole(entry: Any) -> bool:
    digest = entry.get("sha256") if isinstance(entry, dict) else None
    return isinstance(digest, str) and len(digest) == 64 and set(digest) <= set("0123456789abcdef")


def _keep(known: dict[str, dict[str, Any]], place: str, entry: dict[str, Any]) -> None:
    """Remember one more file, and forget those that are gone."""
    there = {name: value for name, value in known.items() if os.path.exists(name)}
    keep(_FILE, {**there, place: entry})
