"""Imports point down only, and heavy packages stay in their leaves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import promptsearch

ROOT = Path(promptsearch.__file__).parent

LAYERS = (
    ("errors", "version"),
    ("optional", "files", "paths", "lm.base", "data.text", "data.answers", "data.duplicates", "lm"),
    (
        "data",
        "seen",
        "data.records",
        "data.labels",
        "data.splits",
        "answer_form",
        "metrics",
        "multiple_choice",
        "candidate",
        "measurement",
        "embed",
        "embed.base",
        "folds",
        "kept",
        "probabilities",
    ),
    (
        "task",
        "linear",
        "template",
        "pool",
        "events",
        "store",
        "budget",
        "embed.cache",
        "embed.transformer",
        "embed.child",
        "embed.untrusted",
    ),
    ("row_limits", "select", "select.base", "readout"),
    ("machine",),
    ("select.drawn", "select.nearest", "select.lexical", "select.representative"),
    ("select.coverage",),
    ("select.registry",),
    (
        "calibration",
        "prompting",
        "routing",
        "lm.plan",
        "lm.plan_singly",
        "lm.hub",
        "lm.wrapped",
        "lm.llamacpp",
        "lm.llamacpp.busy",
        "lm.llamacpp.drafting",
        "lm.llamacpp.growing_text",
        "lm.llamacpp.json_schema",
        "lm.llamacpp.processors",
        "lm.llamacpp.repacking",
        "lm.llamacpp.sampling",
    ),
    ("lm.fake", "lm.endpoint", "lm.dspy_lm", "lm.llamacpp.library", "prior.ngrams", "prior.vote"),
    ("prior.combined",),
    ("prior",),
    (
        "lm.llamacpp.context",
        "lm.llamacpp.opening",
        "lm.llamacpp.prefix",
        "lm.llamacpp.reading_order",
        "lm.llamacpp.traits",
        "lm.llamacpp.vocabulary",
    ),
    ("lm.llamacpp.grammar", "lm.llamacpp.sequences", "lm.llamacpp.stem", "lm.llamacpp.token_paths"),
    ("lm.llamacpp.batching",),
    ("lm.llamacpp.engine", "lm.llamacpp.hashes"),
    ("lm.llamacpp.speed", "lm.llamacpp.agreement", "lm.llamacpp.conversion"),
    ("lm.llamacpp.weights",),
    ("lm.resolve", "inventory"),
    (
        "search",
        "search.attention",
        "search.confidence_sequence",
        "search.front",
        "search.order",
        "search.rank_correlation",
    ),
    ("search.space",),
    ("search.base", "search.drawing"),
    ("search.assembly", "search.effects", "search.elimination", "search.log_knowledge", "search.mutation"),
    ("search.race",),
    ("search.datamodel", "search.parameters", "search.random_search", "search.surrogate"),
    ("search.greedy", "search.insights", "search.proposals", "search.tpe"),
    ("search.halving",),
    ("search.registry",),
    ("reranking", "reasoning"),
    ("evaluation",),
    ("scoring", "rationales"),
    ("matching",),
    ("parts", "run", "run.finalists", "run.phases", "run.workbench"),
    ("run.study",),
    ("run.nominating", "run.racing", "run.reading"),
    ("run.confirming",),
    ("run.searching",),
    ("artifact", "by_hand", "prediction"),
    ("evaluated_rows",),
    ("answering",),
    ("prompt",),
    ("result", "loading", "dspy.module", "examples", "run.job"),
    ("run.anchors", "run.final_measurement", "run.notes", "run.reasoning_space"),
    ("run.preparation",),
    ("optimizer", "report", "terminal"),
    ("dspy.batching", "dspy.fields", "dspy.calibrating", "dspy.joint", "dspy.requests", "dspy.streams"),
    ("dspy.checking", "dspy.engine", "dspy.rows", "dspy.tasks"),
    ("dspy.adapter", "dspy.library"),
    ("dspy.predictor", "dspy.running"),
    ("dspy.bootstrapping", "dspy.exporting"),
    ("dspy.compiling",),
    ("dspy.racing",),
    ("dspy.demo_search",),
    ("dspy",),
    ("",),
    ("cli.items", "cli.options", "cli.printing"),
    ("cli.models", "cli.optimizing", "cli.using"),
    ("cli.program",),
    ("cli",),
    ("__main__",),
)
"""From the lowest; the nameless one is the package itself."""

LATE = {
    ("embed.child", "embed.transformer"): "the child process runs what the parent asks for",
    ("result", "report"): "a result shows itself",
    ("prompt", "dspy.module"): "a prompt turns itself into a program",
    ("task", "dspy.tasks"): "a task is made of a program's examples",
}
"""Imports that point up, inside a function, on purpose."""

LEAVES = {
    "torch": {"embed.transformer"},
    "sentence_transformers": {"embed.transformer"},
    "transformers": {"embed.transformer"},
    "faiss": {"pool"},
    "bm25s": {"select.lexical"},
    "llama_cpp": {"lm.llamacpp.library"},
    "dspy": {"lm.dspy_lm", "dspy"},
    "typer": {"cli"},
    "rich": {"terminal"},
    "httpx": {"lm.endpoint"},
    "optuna": {"search.tpe"},
    "jinja2": {"template", "report"},
}


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}


def inside(name: str) -> str:
    """``promptsearch.lm.base`` as ``lm.base``."""
    return name.removeprefix("promptsearch").removeprefix(".")


def imported(node: ast.AST) -> list[str]:
    """Full names that a statement, or a call of ``require``, imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        below = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if inside(name) in MODULES else str(node.module) for name in below]
    called = node.func if isinstance(node, ast.Call) else None
    name = getattr(called, "id", getattr(called, "attr", ""))
    if isinstance(node, ast.Call) and name in ("require", "import_module", "__import__") and node.args:
        first = node.args[0]
        return [first.value] if isinstance(first, ast.Constant) and isinstance(first.value, str) else []
    return []


def imports(module: str) -> Iterator[tuple[str, bool]]:
    """Every import of a module, and whether it is inside a function or for type checkers only."""

    def walk(node: ast.AST, late: bool) -> Iterator[tuple[str, bool]]:
        yield from ((name, late) for name in imported(node))
        typing_only = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        deeper = late or typing_only or isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            yield from walk(child, deeper)

    yield from walk(ast.parse(MODULES[module].read_text("utf-8")), False)


def internal(module: str) -> list[tuple[str, bool]]:
    return [(inside(name), late) for name, late in imports(module) if name.split(".")[0] == "promptsearch"]


LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}


def test_every_module_has_one_layer() -> None:
    named = [module for layer in LAYERS for module in layer]
    assert sorted(named) == sorted(MODULES)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    for other, late in internal(module):
        beside = LEVEL[other] == LEVEL[module] and other != module
        assert LEVEL[other] < LEVEL[module] or beside or (late and (module, other) in LATE), (module, other)


def test_no_circles() -> None:
    """Also among neighbours of one layer: what is imported at the top of modules is a tree."""
    above = {module: {other for other, late in internal(module) if not late} for module in MODULES}
    while above:
        free = [module for module, others in above.items() if not others & above.keys() - {module}]
        assert free, sorted(above)
        above = {module: others for module, others in above.items() if module not in free}


def test_what_points_up_is_there() -> None:
    """An exception that no module needs any more has to go."""
    every = {(module, other) for module in MODULES for other, late in internal(module) if late}
    assert set(LATE) <= every


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "search"])
def test_strategies_see_no_model_text_or_file(module: str) -> None:
    allowed = {"candidate", "errors", "lm.base", "measurement", "probabilities"}
    outside = {other for other, _ in internal(module) if other.split(".")[0] != "search"}
    assert outside <= allowed
    of_models = [
        alias.name
        for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "promptsearch.lm.base"
        for alias in node.names
    ]
    assert set(of_models) <= {"FloatArray"}


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "select"])
def test_selectors_see_numbers_and_texts_only(module: str) -> None:
    allowed = {"errors", "optional", "embed.base"}
    assert {other for other, _ in internal(module) if other.split(".")[0] != "select"} <= allowed


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "lm"])
def test_models_know_nothing_of_tasks(module: str) -> None:
    low = ("errors", "optional", "files", "paths", "kept", "lm")
    assert {other.split(".")[0] for other, _ in internal(module)} <= set(low)


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] in ("data", "embed")])
def test_data_and_vectors_know_nothing_of_models(module: str) -> None:
    low = ("errors", "optional", "files", "paths", module.split(".")[0])
    assert {other.split(".")[0] for other, _ in internal(module)} <= {*low, ""}


@pytest.mark.parametrize("module", MODULES)
def test_heavy_packages_stay_in_their_leaves(module: str) -> None:
    outside = {name.split(".")[0] for name, _ in imports(module)}
    for package in outside & LEAVES.keys():
        assert {module, module.split(".")[0]} & LEAVES[package], (module, package)
