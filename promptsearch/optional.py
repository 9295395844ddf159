"""Loads packages that only one leaf needs, and says what to install where they lack."""

from __future__ import annotations

import importlib
from types import ModuleType

from promptsearch.errors import MissingExtraError

__all__ = ["require"]


def require(module: str, *, install: str) -> ModuleType:
    """Import ``module``, or say how to get it.

    Args:
        module: dotted import name, such as ``"faiss"``.
        install: what pip installs, such as ``"faiss-cpu"`` or ``"promptsearch[local]"``.

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"{module.split('.')[0]!r} is needed here and is not installed; install it with: pip install '{install}'"
        ) from error
