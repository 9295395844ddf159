"""What a program asks a model, as texts and chat messages that need neither DSPy nor this package.

Invariant: the text is the one that the program's own adapter would send.
Leaves out: what a model answers, and calibration, which no text can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import dspy
from dspy.adapters import ChatAdapter

from promptsearch.dspy.adapter import PlainAdapter
from promptsearch.dspy.predictor import Predict
from promptsearch.errors import DataError
from promptsearch.prompt import Prompt

__all__ = ["Exported", "export"]


@dataclass(frozen=True)
class Exported:
    """One prompt.

    Attributes:
        name: of its predictor in the program; ``"prompt"`` for a prompt of this package.
        text: the prompt as one text; the inputs stand as ``{name}`` where no values were given.
        messages: the prompt as chat messages.
    """

    name: str
    text: str
    messages: tuple[Mapping[str, str], ...]

    def __str__(self) -> str:
        return self.text


def export(program: Any, **inputs: Any) -> list[Exported]:
    """The prompts of a program.

    Args:
        program: a DSPy module, or a :class:`promptsearch.Prompt`.
        **inputs: values of input fields; those that lack stand as ``{name}``. A predictor that finds demonstrations
            for each query shows those for these values.

    Raises:
        DataError: the program has no predictor, or none that takes an input of such a name.
    """
    if isinstance(program, Prompt):
        item = program.with_options({name: str(inputs.get(name, f"{{{name}}}")) for name in program.task.inputs})
        return [Exported("prompt", str(program.render(item)), tuple(program.messages(item)))]
    if not isinstance(program, dspy.Module) or not program.named_predictors():
        raise DataError(f"a {type(program).__name__} has no predictors to export; give a DSPy program or a Prompt")
    known = {name for predictor in program.predictors() for name in predictor.signature.input_fields}
    unknown = sorted(set(inputs) - known)
    if unknown:
        raise DataError(f"no predictor takes the input {unknown[0]!r}; give some of {', '.join(sorted(known))}")
    return [_exported(name, predictor, inputs) for name, predictor in program.named_predictors()]


def _exported(name: str, predictor: Any, inputs: Mapping[str, Any]) -> Exported:
    signature = predictor.signature
    values = {field: inputs.get(field, f"{{{field}}}") for field in signature.input_fields}
    demos = list(predictor.demos)
    if isinstance(predictor, Predict) and predictor.library is not None:
        demos = predictor.library.find(values)
    plain = isinstance(predictor, Predict) and predictor.adapter == "plain"
    adapter = (
        PlainAdapter(style=predictor.style, titles=predictor.titles)
        if plain
        else dspy.settings.adapter or ChatAdapter()
    )
    messages = tuple(adapter.format(signature, demos, values))
    text = (
        messages[0]["content"] if plain else "\n\n".join(f"[{each['role']}]\n{each['content']}" for each in messages)
    )
    return Exported(name, text, messages)
