"""What importing loads: the package and its help stay light."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = (
    *("numpy", "torch", "faiss", "llama_cpp", "dspy", "pandas", "sklearn", "scipy", "sentence_transformers"),
    *("bm25s", "optuna", "sqlalchemy"),
)


def loaded_by(*arguments: str) -> set[str]:
    """Top-level packages that a fresh process imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *arguments], capture_output=True, text=True, check=True, timeout=120
    )
    names = (line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if "|" in line)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "import promptsearch"),
        ("-m", "promptsearch", "--help"),
        ("-m", "promptsearch", "optimize", "--help"),
        ("-m", "promptsearch", "--version"),
    ],
)
def test_light(arguments: tuple[str, ...]) -> None:
    loaded = loaded_by(*arguments)
    assert "promptsearch" in loaded
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


def test_public_names_load() -> None:
    import promptsearch

    assert promptsearch.__all__ == sorted(promptsearch.__all__)
    for name in promptsearch.__all__:
        assert getattr(promptsearch, name) is not None


def test_unknown_name() -> None:
    import promptsearch

    with pytest.raises(AttributeError, match="nothing"):
        _ = promptsearch.nothing
