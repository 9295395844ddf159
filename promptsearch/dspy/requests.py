"""Requests of DSPy as prompts and settings: what is asked is read, and what cannot be done is refused with a reason.

Invariant: no field of a request is passed over; the text of messages is data, and only what the chat template writes
acts.
Leaves out: asking the model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from dspy import lm15

from promptsearch.errors import ModelError
from promptsearch.lm.base import Rendered, Segment
from promptsearch.template import ChatFormat

__all__ = [
    "TRANSCRIPT_STOP",
    "chat_prompt",
    "check_choices",
    "extensions_of",
    "json_schema_of",
    "plain_prompt",
    "refuse_what_cannot_be_done",
    "transcript_prompt",
    "turns_of",
]

_TRANSCRIPT_NAMES = {"user": "User", "assistant": "Assistant"}
TRANSCRIPT_STOP = "\n\nUser:"
"""What ends an answer where the messages are a transcript."""
_EXTENSIONS: dict[str, type | tuple[type, ...]] = {
    "plain": bool,
    "shared": int,
    "prefill": str,
    "choices": list,
    "grammar": str,
    "min_p": (int, float),
}
_SAMPLING = "it samples by temperature, top_p, top_k and min_p only"
_HERE = "the model runs in this process"
_NOT_HONOURED = {
    "tool_choice": "it calls no tools; let DSPy's adapters describe them in the prompt",
    "reasoning": "it has no dial for reasoning; ask for reasoning as an output field, as dspy.ChainOfThought does",
    "cache": "it keeps what prompts begin with by itself",
    "frequency_penalty": _SAMPLING,
    "presence_penalty": _SAMPLING,
    "service_tier": _HERE,
    "user_id": _HERE,
    "store": _HERE,
    "probabilities": "it measures none of a JSON answer; score its values with the extension 'choices'",
}


def _unsupported(feature: str, problem: str) -> lm15.UnsupportedFeatureError:
    return lm15.UnsupportedFeatureError(f"{feature} cannot be done by this engine: {problem}", feature=feature)


def refuse_what_cannot_be_done(request: lm15.Request, name: str, *, follows_schemas: bool) -> None:
    """Refuse fields of a request that would have to be passed over.

    Args:
        request: what is asked.
        name: what the model is called.
        follows_schemas: whether it can be held to a JSON Schema.

    Raises:
        lm15.UnsupportedFeatureError: one of them asks for something.
    """
    config = request.config
    if request.tools:
        raise _unsupported("tools", f"{_NOT_HONOURED['tool_choice']}, or leave them out")
    for field, reason in _NOT_HONOURED.items():
        if not _asks_for_nothing(getattr(config, field)):
            raise _unsupported(f"config.{field}", f"{reason}; leave it out")
    if config.logprobs:
        raise _unsupported(
            "config.logprobs", f"it tells no alternatives, and {config.logprobs} were asked for; give logprobs=0"
        )
    if config.response_format is not None and not follows_schemas:
        raise _unsupported(
            "config.response_format",
            f"{name!r} follows no JSON Schema; use a GGUF file, or leave it out",
        )


def _asks_for_nothing(value: Any) -> bool:
    """Whether leaving a field out would do the same."""
    return (
        not value or value == "off" or bool(getattr(value, "is_off", False)) or getattr(value, "mode", "") == "none"
    )


def extensions_of(config: lm15.Config) -> dict[str, Any]:
    """The extensions of a request, all of them known and of their types."""
    given: dict[str, Any] = dict(config.extensions or {})
    for name, value in given.items():
        kinds = _EXTENSIONS.get(name)
        if kinds is None:
            raise _unsupported(f"config.extensions.{name}", f"it knows {', '.join(_EXTENSIONS)}; leave it out")
        if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
            expected = kinds if isinstance(kinds, type) else kinds[-1]
            raise lm15.InvalidRequestError(f"the extension {name}={value!r} is no {expected.__name__}; give one")
    return given


def check_choices(choices: Sequence[Any], config: lm15.Config, given: Mapping[str, Any]) -> None:
    """Refuse choices that are no texts, and what has no meaning beside them."""
    if not choices or not all(isinstance(choice, str) for choice in choices):
        raise lm15.InvalidRequestError(
            f"the extension choices={list(choices)!r} must be a list of texts, at least one; give texts"
        )
    beside = {
        "temperature": config.temperature,
        "response_format": config.response_format,
        "grammar": given.get("grammar"),
        "logprobs": config.logprobs is not None,
    }
    for name, value in beside.items():
        if value:
            raise lm15.InvalidRequestError(
                f"{name} has no meaning beside the extension 'choices', which are scored, not written; leave one out"
            )


def json_schema_of(response_format: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """The JSON Schema that an answer is held to; any object where only JSON is asked for."""
    if response_format is None:
        return None
    schema: Mapping[str, Any] = response_format.get("schema", {"type": "object"})
    return schema


def turns_of(request: lm15.Request) -> list[dict[str, str]]:
    """The messages as a chat template takes them."""
    turns = []
    if request.system is not None:
        parts = request.system
        text = parts if isinstance(parts, str) else _text_of(parts, "system")
        turns.append({"role": "system", "content": text})
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        if message.role == "tool":
            raise _unsupported(where, "it calls no tools, so that no message can tell their results; leave it out")
        text = _text_of(message.parts, where)
        if message.role == "developer":  # as DSPy hands it to other models that know no such role
            turns.append({"role": "user", "content": f"[developer] {text}"})
        else:
            turns.append({"role": message.role, "content": text})
    return turns


def _text_of(parts: Sequence[Any], where: str) -> str:
    for number, part in enumerate(parts):
        if part.type != "text":
            raise _unsupported(f"{where}.parts[{number}]", f"it reads text, and this is {part.type}; leave it out")
    return "\n".join(part.text for part in parts)


def plain_prompt(turns: Sequence[Mapping[str, str]], given: Mapping[str, Any]) -> Rendered:
    """A lone user message as it stands."""
    if [turn["role"] for turn in turns] != ["user"]:
        raise lm15.InvalidRequestError(
            f"the extension 'plain' is for one user message, and there are {', '.join(t['role'] for t in turns)}; "
            "put the whole prompt in one"
        )
    if given.get("prefill"):
        raise lm15.InvalidRequestError(
            "the extension 'prefill' is for a chat, and the prompt is 'plain'; let the prompt itself end so"
        )
    text, shared = turns[0]["content"], given.get("shared", 0)
    if not 0 <= shared <= len(text):
        raise lm15.InvalidRequestError(
            f"the extension shared={shared} counts characters of a prompt of {len(text)}; give 0 to {len(text)}"
        )
    return Rendered([Segment(text)], shared=shared)


def chat_prompt(chat: ChatFormat, turns: Sequence[Mapping[str, str]], prefill: str) -> Rendered:
    """What the model's own template writes, and what the assistant's turn begins with.

    A system message goes into the first user message where the template takes none, and neighbouring turns of one
    speaker are joined where it refuses them.

    Args:
        chat: the template.
        turns: the messages.
        prefill: the beginning of the answer, as data.
    """
    prompt = _rendered(chat, turns)
    return Rendered([*prompt.segments, Segment(prefill)], shared=_before_last_message(prompt))


def _rendered(chat: ChatFormat, turns: Sequence[Mapping[str, str]]) -> Rendered:
    if turns[0]["role"] == "system" and not chat.keeps_system:
        first = {"role": "user", "content": turns[0]["content"]}
        turns = [*_joined([first, *turns[1:2]]), *turns[2:]]
    try:
        return chat.render(turns)
    except ModelError:
        joined = _joined(turns)
        if len(joined) == len(turns):
            raise
        return chat.render(joined)


def _joined(turns: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """Neighbouring turns of one role as one."""
    joined: list[dict[str, str]] = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            joined[-1]["content"] += f"\n\n{turn['content']}"
        else:
            joined.append(dict(turn))
    return joined


def _before_last_message(prompt: Rendered) -> int:
    """Characters before the last message, which other queries of the same program begin with as well."""
    ending = 0
    for segment in reversed(prompt.segments):
        ending += len(segment.text)
        if not segment.control:
            break
    return len(prompt) - ending


def transcript_prompt(turns: Sequence[Mapping[str, str]], prefill: str) -> Rendered:
    """The prompt of a model without chat template."""
    lines = [
        f"{_TRANSCRIPT_NAMES[turn['role']]}: {turn['content']}" if turn["role"] != "system" else turn["content"]
        for turn in turns
    ]
    own = len(lines[-1])
    text = "\n\n".join([*lines, f"{_TRANSCRIPT_NAMES['assistant']}:"])
    shared = len("\n\n".join(lines)) - own
    return Rendered([Segment(text + (f" {prefill}" if prefill else ""))], shared=shared)
