"""What the package offers, by name."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from types import ModuleType

import pytest

import promptsearch

NAMES = [
    "BackendError",
    "Budget",
    "Difference",
    "Example",
    "Measurement",
    "Prediction",
    "Prompt",
    "PromptsearchError",
    "Result",
    "Space",
    "Task",
    "UserError",
    "__version__",
    "dspy",
    "example_task",
    "export",
    "load",
    "optimize",
]
ROOT = Path(promptsearch.__file__).parent


def test_the_package_offers_exactly_this() -> None:
    assert promptsearch.__all__ == NAMES
    assert dir(promptsearch) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there(name: str) -> None:
    value = getattr(promptsearch, name)
    assert value is not None
    if name not in ("__version__", "dspy"):
        assert value.__name__ == name
        assert value.__module__.startswith("promptsearch.")
        assert value.__doc__


def test_optimize_is_the_function_whatever_was_imported_before() -> None:
    """A module of that name would take its place in the package as soon as it is imported."""
    for path in ROOT.glob("*.py"):
        if path.stem not in ("__init__", "__main__"):
            importlib.import_module(f"promptsearch.{path.stem}")
    assert [name for name in NAMES if isinstance(getattr(promptsearch, name), ModuleType)] == ["dspy"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: path.stem)
def test_modules_name_what_they_offer(path: Path) -> None:
    """Every ``__all__`` is sorted as ruff sorts it, without repetition, and every name in it is defined."""
    tree = ast.parse(path.read_text("utf-8"))
    given = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
    ]
    if not given or path.name in ("__init__.py", "__main__.py"):
        return
    defined = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            defined.add(node.name)
        elif isinstance(node, ast.Assign):
            defined.update(getattr(target, "id", "") for target in node.targets)
        elif isinstance(node, ast.AnnAssign):
            defined.add(getattr(node.target, "id", ""))
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            defined.update(alias.asname or alias.name for alias in node.names)
    assert len(given[0]) == len(set(given[0]))
    assert set(given[0]) <= defined
