"""Writes files that appear whole or not at all; what stands beside a saved prompt, and what a file would replace."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

__all__ = ["index_beside", "indexes_beside", "prefix_beside", "saved_prefix_beside", "would_replace", "write_whole"]


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file through a neighbour that is renamed into place; folders are made. Text is UTF-8."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid4().hex[:12]}")
    try:
        with partial.open("xb") as stream:
            stream.write(content.encode("utf-8") if isinstance(content, str) else content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def index_beside(prompt: Path) -> Path:
    """The folder where a saved prompt's examples and vectors are written, if it needs them."""
    return _beside(prompt, "index")


def indexes_beside(prompt: Path) -> tuple[Path, Path]:
    """Every folder that a prompt saved by this or an earlier version may read."""
    return index_beside(prompt), _formerly_beside(prompt, "index")


def prefix_beside(prompt: Path) -> Path:
    """The file where what a model computed for a saved prompt's demonstrations is written."""
    return _beside(prompt, "prefix")


def saved_prefix_beside(prompt: Path) -> Path:
    """The same file to be read, under the name that an earlier version gave it where there is no other."""
    named, former = prefix_beside(prompt), _formerly_beside(prompt, "prefix")
    return former if former.exists() and not named.exists() else named


def _beside(prompt: Path, kind: str) -> Path:
    """No other ending than .json is cut off: "v1.0" and "v1.1" are two prompts, and so are "p.json" and "p.txt"."""
    return prompt.with_name(f"{prompt.name.removesuffix('.json')}.{kind}")


def _formerly_beside(prompt: Path, kind: str) -> Path:
    """The name without any ending, which prompts could share."""
    return prompt.with_name(f"{prompt.stem}.{kind}")


def would_replace(path: Path, kept: Path) -> bool:
    """Whether writing a file would change another one, or one in a folder; links and other spellings are seen."""
    target, place = Path(os.path.realpath(path)), Path(os.path.realpath(kept))
    if target == place or place in target.parents:
        return True
    return target.exists() and place.exists() and target.samefile(place)
