"""For DSPy programs: a language model in this process, an optimizer of demonstrations, an adapter for small models.

    import dspy
    import promptsearch as ps

    dspy.configure(lm=ps.dspy.lm("smollm2-135m"))
    optimizer = ps.dspy.DemoSearch(metric=metric)
    program = optimizer.compile(student, trainset=trainset, valset=valset)

Invariant: DSPy is imported when one of these names is first used, and in this package and ``lm/dspy_lm.py`` only.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptsearch.dspy.adapter import PlainAdapter as PlainAdapter
    from promptsearch.dspy.demo_search import DemoSearch as DemoSearch
    from promptsearch.dspy.engine import AsyncLocalEngine as AsyncLocalEngine
    from promptsearch.dspy.engine import LocalEngine as LocalEngine
    from promptsearch.dspy.engine import lm as lm
    from promptsearch.dspy.exporting import Exported as Exported
    from promptsearch.dspy.exporting import export as export
    from promptsearch.dspy.predictor import Predict as Predict
    from promptsearch.dspy.predictor import load as load

_HOMES = {
    "AsyncLocalEngine": "engine",
    "DemoSearch": "demo_search",
    "Exported": "exporting",
    "LocalEngine": "engine",
    "PlainAdapter": "adapter",
    "Predict": "predictor",
    "export": "exporting",
    "lm": "engine",
    "load": "predictor",
}

__all__ = [
    "AsyncLocalEngine",
    "DemoSearch",
    "Exported",
    "LocalEngine",
    "PlainAdapter",
    "Predict",
    "export",
    "lm",
    "load",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptsearch.dspy' has no attribute {name!r}")
    value = getattr(import_module(f"promptsearch.dspy.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
