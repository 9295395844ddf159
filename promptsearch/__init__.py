"""promptsearch finds the best prompt for a model by searching demonstrations.

    import promptsearch as ps

    task = ps.Task("reviews.csv", inputs="text", output="label")
    result = ps.optimize(task, budget="2m")
    print(result)
    result.prompt("What a film!").output
    result.prompt.save("prompt.json")

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from promptsearch.version import __version__

if TYPE_CHECKING:
    from promptsearch import dspy as dspy
    from promptsearch.budget import Budget as Budget
    from promptsearch.dspy.exporting import export as export
    from promptsearch.errors import BackendError as BackendError
    from promptsearch.errors import PromptsearchError as PromptsearchError
    from promptsearch.errors import UserError as UserError
    from promptsearch.measurement import Difference as Difference
    from promptsearch.measurement import Measurement as Measurement
    from promptsearch.optimizer import optimize as optimize
    from promptsearch.prediction import Prediction as Prediction
    from promptsearch.prompt import Prompt as Prompt
    from promptsearch.result import Result as Result
    from promptsearch.search.space import Space as Space
    from promptsearch.task import Example as Example
    from promptsearch.task import Task as Task

_HOMES = {
    "BackendError": "errors",
    "Budget": "budget",
    "Difference": "measurement",
    "Example": "task",
    "Measurement": "measurement",
    "Prediction": "prediction",
    "Prompt": "prompt",
    "PromptsearchError": "errors",
    "Result": "result",
    "Space": "search.space",
    "Task": "task",
    "UserError": "errors",
    "example_task": "examples",
    "export": "dspy.exporting",
    "load": "loading",
    "optimize": "optimizer",
}

__all__ = [
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


def __getattr__(name: str) -> Any:
    if name == "dspy":
        return import_module("promptsearch.dspy")
    if name not in _HOMES:
        raise AttributeError(f"module 'promptsearch' has no attribute {name!r}")
    value = getattr(import_module(f"promptsearch.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
