"""How DSPy's programs show the task to the model, and what of its answers cannot be read.

Three adapters: DSPy's own default (``chat``), its JSON one with decoding held to the answer's schema (``json``), and
a plain form that a small model continues by itself (``plain``): lines of "Text: ..." and "Label: ...", no markers.
Invariant: only answers to the task count as parse failures. What an optimizer itself asks the model (to propose
instructions) goes through a form of the chat adapter that takes any text for an answer, whichever adapter the task
has: otherwise small models would end the optimizer before it begins.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import dspy
from dspy.adapters import Adapter, ChatAdapter, JSONAdapter
from dspy.utils.exceptions import AdapterParseError

__all__ = ["PlainAdapter", "TaskAdapter", "first_label", "task_adapter", "task_signature"]

_LISTED_LABELS = 20
_MARKER = re.compile(r"\[\[ ## \w+ ## \]\]")


def task_signature(instruction: str, labels: Sequence[str]) -> Any:
    """The shortest signature of the task: a text in, one of the labels out."""
    choice: Any = Literal  # whose values are data here
    fields = {"text": (str, dspy.InputField()), "label": (choice[tuple(labels)], dspy.OutputField())}
    return dspy.Signature(fields, instruction)


def task_adapter(name: str, labels: Sequence[str]) -> TaskAdapter:
    """One of :data:`benchmarks.rivals.methods.ADAPTERS` for the task, beside the lenient one for everything else."""
    own = {"chat": ChatAdapter, "json": JSONAdapter}
    return TaskAdapter(PlainAdapter(labels) if name == "plain" else own[name]())


def first_label(text: str, labels: Sequence[str]) -> str | None:
    """The label that a text begins with, else the one that it mentions first as whole words; the longest of several.

    Case does not count. None where there is no label in it.
    """
    lowered = text.strip().lower()
    longest_first = sorted(labels, key=len, reverse=True)
    for label in longest_first:
        if lowered.startswith(label.lower()):
            return label
    found: list[tuple[int, str]] = []
    for label in longest_first:
        match = re.search(rf"(?<!\w){re.escape(label.lower())}(?!\w)", lowered)
        if match:
            found.append((match.start(), label))
    return min(found, key=lambda place: place[0])[1] if found else None


class PlainAdapter(Adapter):  # type: ignore[misc]  # dspy has no types
    """One text to be continued, as the only message; the answer is the first label in what follows.

    Args:
        labels: what to choose from; listed after the instruction where they are few.
    """

    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self._labels = tuple(labels)

    def format(self, signature: Any, demos: Sequence[Mapping[str, Any]], inputs: Mapping[str, Any]) -> Any:
        """The prompt."""
        listed = f" Labels: {', '.join(self._labels)}." if len(self._labels) <= _LISTED_LABELS else ""
        parts = [signature.instructions.strip() + listed]
        parts += [f"{_query(demo)} {demo['label']}" for demo in demos if demo.get("label") is not None]
        parts.append(_query(inputs))
        return [{"role": "user", "content": "\n\n".join(parts)}]

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The label.

        Raises:
            AdapterParseError: the answer holds none.
        """
        label = first_label(completion, self._labels)
        if label is None:
            raise AdapterParseError(adapter_name="PlainAdapter", signature=signature, lm_response=completion)
        return {"label": label}


def _query(fields: Mapping[str, Any]) -> str:
    return f"Text: {' '.join(str(fields['text']).split())}\nLabel:"


class TaskAdapter(Adapter):  # type: ignore[misc]  # dspy has no types
    """Sends the task to its adapter and everything else to a lenient one.

    Args:
        own: the task's adapter.

    Attributes:
        failures: answers to the task that could not be read, a retry's among them only if it failed as well.
    """

    def __init__(self, own: Adapter) -> None:
        super().__init__()
        self._own = own
        self._others = _LenientChat()
        self.failures = 0

    def __call__(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Ask the model and read its answer, as DSPy's adapters do."""
        if set(signature.output_fields) != {"label"}:
            return list(self._others(lm, lm_kwargs, signature, demos, inputs))
        try:
            return list(self._own(lm, lm_kwargs, signature, demos, inputs))
        except AdapterParseError:
            self.failures += 1
            raise


class _LenientChat(ChatAdapter):  # type: ignore[misc]  # dspy has no types
    """The chat adapter, taking the whole text as the answer where the markers lack."""

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The fields of an answer.

        Raises:
            AdapterParseError: several fields were asked for and their markers lack.
        """
        try:
            return dict(super().parse(signature, completion))
        except AdapterParseError:
            names = list(signature.output_fields)
            if len(names) != 1:
                raise
            return {names[0]: _MARKER.sub("", completion).strip()}
