"""Writes files that appear whole or not at all; what stands beside a saved prompt, and what a file would replace."""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

__all__ = ["index_beside", "prefix_beside", "would_replace", "write_whole"]


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
    """The folder of examples and vectors that a saved prompt may need."""
    return prompt.with_name(f"{prompt.stem}.index")


def prefix_beside(prompt: Path) -> Path:
    """The file of what a model computed for a saved prompt's demonstrations."""
    return prompt.with_name(f"{prompt.stem}.prefix")


def would_replace(path: Path, kept: Path) -> bool:
    """Whether writing a file would change another one, or one in a folder; links and other spellings are seen."""
    target, place = Path(os.path.realpath(path)), Path(os.path.realpath(kept))
    if target == place or place in target.parents:
        return True
    return target.exists() and place.exists() and target.samefile(place)
