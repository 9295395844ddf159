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
from promptsearch.dspy.module import PromptModule
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
        retrieved: demonstrations that are found for each query, or for its kind where a prompt has routes; the text
            shows those for the values that were given. 0 where all queries are shown the same.
        calibrated: whether answers are chosen by calibrated log-probabilities, which no text can hold.
    """

    name: str
    text: str
    messages: tuple[Mapping[str, str], ...]
    retrieved: int = 0
    calibrated: bool = False

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
        return [_exported_prompt("prompt", program, inputs)]
    parts = _parts(program)
    if not parts:
        raise DataError(f"a {type(program).__name__} has no predictors to export; give a DSPy program or a Prompt")
    known = {name for _, part in parts for name in _inputs_of(part)}
    unknown = sorted(set(inputs) - known)
    if unknown:
        raise DataError(f"no predictor takes the input {unknown[0]!r}; give some of {', '.join(sorted(known))}")
    return [
        _exported_prompt(name, part.prompt, inputs)
        if isinstance(part, PromptModule)
        else _exported(name, part, inputs)
        for name, part in parts
    ]


def _parts(program: Any) -> list[tuple[str, Any]]:
    """What a program asks with, by name: predictors, and prompts that stand in it."""
    if isinstance(program, PromptModule):
        return [("prompt", program)]
    if not isinstance(program, dspy.Module):
        return []
    return [
        (name, part) for name, part in program.named_parameters() if isinstance(part, (dspy.Predict, PromptModule))
    ]


def _inputs_of(part: Any) -> list[str]:
    return list(part.prompt.task.inputs if isinstance(part, PromptModule) else part.signature.input_fields)


def _exported_prompt(name: str, prompt: Prompt, inputs: Mapping[str, Any]) -> Exported:
    item = prompt.with_options({column: str(inputs.get(column, f"{{{column}}}")) for column in prompt.task.inputs})
    retrieved = 0 if prompt.mode == "static" else prompt.candidate.shots
    calibrated = prompt.weighing is not None
    return Exported(name, str(prompt.render(item)), tuple(prompt.messages(item)), retrieved, calibrated)


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
    retrieves = isinstance(predictor, Predict) and predictor.library is not None
    calibrated = isinstance(predictor, Predict) and bool(predictor.weighings)
    return Exported(name, text, messages, len(demos) if retrieves else 0, calibrated)
