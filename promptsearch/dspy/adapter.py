"""The adapter for small models: a prompt of plain lines, which the model goes on with.

``Text: …`` and ``Label:``, an empty line between demonstrations, no system message, no section markers, JSON for
lists and objects only; the turns of a ``dspy.History`` stand before the item that goes on from them, like
demonstrations. With an engine of this package each output field is asked for by itself: one of few values is
chosen by the log-probabilities of all of them, any other is written to the end of its line, held to its type's JSON
Schema where it is no text and a grammar can hold it. So little is left that could not be read: JSON that
``max_tokens`` cuts, and types with rules beyond a grammar. With any other language model the same text is one user
message, and its lines are read.
Invariant: demonstrations stand in the order given, and none shows a placeholder for a field that it lacks.
Leaves out: which demonstrations; calibration is given as numbers.
"""

from __future__ import annotations

import asyncio
import contextvars
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import dspy
import numpy as np
from dspy.adapters import Adapter
from dspy.utils.exceptions import AdapterParseError, LMUnsupportedFeatureError

from promptsearch.calibration import Weighing
from promptsearch.dspy.engine import LocalEngine
from promptsearch.dspy.fields import Choices, Shape, choices_of, given, read_json, read_value, shape_of, written
from promptsearch.errors import DataError, UserError
from promptsearch.lm.base import FloatArray
from promptsearch.probabilities import softmax
from promptsearch.template import title

__all__ = ["ANSWERED", "STYLES", "PlainAdapter", "ScoredAnswer"]


@dataclass(frozen=True)
class Style:
    """The words around the fields.

    Attributes:
        instructs: whether the prompt begins with the signature's instructions and what the user says of fields.
        lists: whether it names the choices of output fields.
        separator: between instructions, demonstrations and query.
    """

    instructs: bool = True
    lists: bool = True
    separator: str = "\n\n"


STYLES = {
    "listed": Style(),
    "instructed": Style(lists=False),
    "bare": Style(instructs=False, lists=False),
    "close": Style(lists=False, separator="\n"),
}
"""Styles by name, the usual one first."""

_SEPARATOR = "\n\n"
_MOST_LISTED = 20  # choices that the prompt names; more would be longer than the demonstrations
_NUMBER_TOKENS = 24
_KINDS = {"integer": "a whole number", "number": "a number", "array": "a JSON list", "object": "a JSON object"}
_NUMBERS = ("integer", "number", "boolean")
_UNREADABLE = ("Audio", "File", "Image")
_OPTIONS = ("max_tokens", "temperature", "top_p", "top_k", "stop", "seed", "cache", "rollout_id", "n")
_AT_ONCE = 64  # asynchronous answers in progress; more at once gain little


@dataclass(frozen=True)
class ScoredAnswer:
    """A field that was chosen by log-probabilities.

    Attributes:
        owner: the predictor that asked; None where the adapter was configured by hand.
        field: name of the output field.
        texts: its choices.
        log_probabilities: of each choice, before calibration, shape (choices,).
    """

    owner: Any
    field: str
    texts: tuple[str, ...]
    log_probabilities: FloatArray


ANSWERED: ContextVar[list[ScoredAnswer] | None] = ContextVar("promptsearch_answered", default=None)
"""Where scored answers are noted for whoever wants to calibrate by them; None where nobody does."""


class PlainAdapter(Adapter):  # type: ignore[misc]  # dspy has no types
    """Shows the task as plain lines.

    A prediction with chosen fields also has ``probabilities``: of each choice, or, where several fields are chosen,
    that for each field. DSPy's history shows the likeliest choice as the model told it, before any weighing.

    Args:
        scored: whether one of few values is chosen by log-probabilities where the engine can; False has the model
            write it.
        weighings: for output fields that are chosen, how their log-probabilities become scores; fields without one
            take the likeliest choice. Each has one offset for each choice, in the order of the annotation.
        style: name of the words around the fields, one of :data:`STYLES`.
        titles: what the prompt calls fields, by name; others are called by their own name.
        owner: the predictor that answers are noted for.

    Raises:
        UserError: the style is unknown.
    """

    def __init__(
        self,
        *,
        scored: bool = True,
        weighings: Mapping[str, Weighing] | None = None,
        style: str = "listed",
        titles: Mapping[str, str] | None = None,
        owner: Any = None,
    ) -> None:
        super().__init__()
        if style not in STYLES:
            raise UserError(f"style={style!r} is unknown; give one of {', '.join(STYLES)}")
        self.scored = scored
        self.weighings = dict(weighings or {})
        self.style = style
        self.titles = dict(titles or {})
        self.owner = owner

    def _title(self, name: str) -> str:
        return self.titles.get(name) or title(name)

    def __call__(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """Ask a language model and read its answers, as DSPy's adapters do.

        Raises:
            AdapterParseError: an answer is none of its field's type.
        """
        if not isinstance(getattr(lm, "engine", None), LocalEngine):
            return list(super().__call__(lm, lm_kwargs, signature, demos, inputs))
        options = {**lm.kwargs, **lm_kwargs}
        count = options.pop("n", None) or 1
        return [self._answered(lm, options, signature, demos, inputs, number) for number in range(count)]

    async def acall(
        self, lm: Any, lm_kwargs: dict[str, Any], signature: Any, demos: list[Any], inputs: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """The same without blocking the event loop."""
        if not isinstance(getattr(lm, "engine", None), LocalEngine):
            return list(await super().acall(lm, lm_kwargs, signature, demos, inputs))
        answering = partial(contextvars.copy_context().run, self, lm, lm_kwargs, signature, demos, inputs)
        return await asyncio.get_running_loop().run_in_executor(_threads(), answering)

    # -- the prompt -----------------------------------------------------------------------------------------

    def format(self, signature: Any, demos: Sequence[Any], inputs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The prompt as one user message."""
        return [{"role": "user", "content": self.text(signature, demos, inputs)}]

    def text(self, signature: Any, demos: Sequence[Any], inputs: Mapping[str, Any]) -> str:
        """The prompt, up to the cue of the first output field."""
        return "".join(self._parts(signature, demos, inputs))

    def _parts(self, signature: Any, demos: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[str, str]:
        """The prompt in two parts: what the prompts for other inputs begin with as well, and the query."""
        before, earlier = _with_turns(signature, demos), _turns(signature, inputs)
        shown = [self._opening(signature), *(self._demonstration(signature, demo) for demo in before)]
        first = next(iter(signature.output_fields))
        query = "\n".join([*self._lines(signature.input_fields, inputs, given), f"{self._title(first)}:"])
        own = [*(self._demonstration(signature, turn) for turn in earlier), query]
        separator = STYLES[self.style].separator
        if _have_several_lines([*before, *earlier], signature.fields):
            separator = _SEPARATOR  # texts of several lines would run into each other
        return "".join(part + separator for part in shown if part), separator.join(own)

    def _opening(self, signature: Any) -> str:
        """Instructions, what the user says of fields, and the choices of the output fields, as the style has them."""
        style = STYLES[self.style]
        lines = [signature.instructions.strip()] if style.instructs else []
        for name, field in signature.fields.items():
            said = str((field.json_schema_extra or {}).get("desc", ""))
            if style.instructs and said and said != f"${{{name}}}":
                lines.append(f"{self._title(name)}: {said}")
            if style.lists and name in signature.output_fields and (kind := _kind(field)):
                lines.append(f"{self._title(name)} is {kind}.")
        return "\n".join(lines)

    def _demonstration(self, signature: Any, demo: Any) -> str:
        asked = self._lines(signature.input_fields, demo, given)
        return "\n".join([*asked, *self._lines(signature.output_fields, demo, written)])

    def _lines(self, fields: Mapping[str, Any], values: Mapping[str, Any], show: Callable[[Any], str]) -> list[str]:
        known = [
            (name, values[name])
            for name, field in fields.items()
            if field.annotation is not dspy.History and values.get(name) is not None
        ]
        for name, value in known:
            if type(value).__name__ in _UNREADABLE and isinstance(value, dspy.Type):
                raise DataError(
                    f"the field {name!r} holds a dspy.{type(value).__name__}, and the prompt is text; give text"
                )
        return [f"{self._title(name)}: {show(value)}" for name, value in known]

    def format_user_message_content(
        self,
        signature: Any,
        inputs: Mapping[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """A query's inputs, as DSPy's modules show them outside a prompt."""
        lines = self._lines(signature.input_fields, inputs, given)
        return "\n".join(part for part in (prefix, *lines, suffix) if part)

    def format_assistant_message_content(
        self, signature: Any, outputs: Mapping[str, Any], missing_field_message: str | None = None
    ) -> str:
        """An answer's fields, as DSPy's modules show them outside a prompt; missing ones are left out."""
        return "\n".join(self._lines(signature.output_fields, outputs, written))

    # -- answers --------------------------------------------------------------------------------------------

    def parse(self, signature: Any, completion: str) -> dict[str, Any]:
        """The output fields from lines of ``Title: value``; the first one's title may lack.

        Raises:
            AdapterParseError: a field is missing or none of its type.
        """
        texts = _read_lines({name: self._title(name) for name in signature.output_fields}, completion)
        return {name: self._read(signature, name, texts.get(name), completion) for name in signature.output_fields}

    def _read(self, signature: Any, name: str, text: str | None, completion: str, *, json: bool = False) -> Any:
        try:
            if text is None:
                raise ValueError(f"the field {name!r} is missing")
            return (read_json if json else read_value)(text, signature.output_fields[name])
        except Exception as error:  # whatever DSPy and pydantic raise on a text of another type
            raise AdapterParseError(
                adapter_name=type(self).__name__,
                signature=signature,
                lm_response=completion,
                message=f"{name}: {' '.join(str(error).split())[:200]}",
            ) from error

    def _answered(
        self,
        lm: Any,
        options: Mapping[str, Any],
        signature: Any,
        demos: Sequence[Any],
        inputs: Mapping[str, Any],
        number: int,
    ) -> dict[str, Any]:
        """One answer, field by field."""
        shared, query = self._parts(signature, demos, inputs)
        asking = _Asking(lm, options, len(shared), number)
        prompt = shared + query
        known = [*_with_turns(signature, demos), *_turns(signature, inputs)]
        several = _have_several_lines(known, signature.output_fields)
        ends = [f"\n{self._title(name)}:" for name in signature.fields]
        stop = (_SEPARATOR, *ends) if several else ("\n",)
        answer: dict[str, Any] = {}
        probabilities: dict[str, dict[str, float]] = {}
        names = list(signature.output_fields)
        for place, name in enumerate(names):
            field = signature.output_fields[name]
            choices = choices_of(field) if self.scored else None
            if choices is not None:
                chosen, probabilities[name] = self._chosen(asking, name, choices, prompt)
                answer[name], text = choices.values[chosen], choices.texts[chosen]
            else:
                shape = shape_of(field) if lm.engine.supports_response_schema else None
                text = asking.written(prompt, stop, shape)
                answer[name] = self._read(signature, name, text, text, json=shape is not None)
            if place + 1 < len(names):
                prompt += f" {text}\n{self._title(names[place + 1])}:"
        if probabilities and "probabilities" not in signature.fields:
            alone = len(probabilities) == 1
            answer["probabilities"] = next(iter(probabilities.values())) if alone else probabilities
        return answer

    def _chosen(self, asking: _Asking, name: str, choices: Choices, prompt: str) -> tuple[int, dict[str, float]]:
        """The index of the best choice after a prompt, and the probability of each."""
        logs = asking.scored(prompt, choices.texts)
        noted = ANSWERED.get()
        if noted is not None:
            noted.append(ScoredAnswer(self.owner, name, choices.texts, logs))
        weighing = self.weighings.get(name)
        shares = softmax(logs[None] if weighing is None else weighing.scores(logs[None]))[0]
        return int(shares.argmax()), dict(zip(choices.texts, shares.tolist(), strict=True))


@dataclass(frozen=True)
class _Asking:
    """How one query's requests are made; DSPy caches, counts and remembers each.

    Attributes:
        lm: the language model.
        options: its settings and the call's.
        shared: leading characters of the prompt that other queries' prompts begin with too.
        number: which of several answers to one query this is.
    """

    lm: Any
    options: Mapping[str, Any]
    shared: int
    number: int

    def scored(self, prompt: str, texts: Sequence[str]) -> FloatArray:
        """Log-probability of each text after a prompt, shape (texts,)."""
        extensions = {"plain": True, "shared": self.shared, "choices": [f" {text}" for text in texts]}
        response = self._ask(prompt, {"temperature": 0.0, "extensions": extensions}, {})
        return np.array(response.provider_data["promptsearch"]["log_probabilities"], dtype=np.float64)

    def written(self, prompt: str, stop: Sequence[str], shape: Shape | None) -> str:
        """What the model writes after a prompt, up to one of ``stop``, in a shape where there is one."""
        unknown = [name for name, value in self.options.items() if value is not None and name not in _OPTIONS]
        if unknown:
            raise LMUnsupportedFeatureError(
                f"PlainAdapter passes on {', '.join(_OPTIONS)}, and {unknown[0]} was given; leave it out",
                model=self.lm.model,
            )
        most = self.options.get("max_tokens")
        ends = self.options.get("stop") or ()
        if shape is not None and shape.kind in _NUMBERS:
            most = min(most or _NUMBER_TOKENS, _NUMBER_TOKENS)  # a small model may not find the end of one
        settings: dict[str, Any] = {
            "max_tokens": most,
            "temperature": self.options.get("temperature"),
            "stop": (*stop, *((ends,) if isinstance(ends, str) else ends)),
            "extensions": {"plain": True, "shared": self.shared},
            **{name: self.options[name] for name in ("top_p", "top_k", "seed") if self.options.get(name) is not None},
        }
        if shape is not None:
            settings["extensions"]["grammar"] = shape.grammar
        # Another number asks for another text, which DSPy's cache must not take for the first.
        rollout = {"rollout_id": f"{self.options.get('rollout_id') or ''}:{self.number}"} if self.number else {}
        return (self._ask(prompt, settings, rollout).text or "").strip()

    def _ask(self, prompt: str, settings: Mapping[str, Any], controls: Mapping[str, Any]) -> Any:
        request = dspy.lm15.Request(
            model=self.lm.model,
            messages=(dspy.lm15.Message.user(prompt),),
            config=dspy.lm15.Config(**settings),
        )
        usual = {name: self.options[name] for name in ("cache", "rollout_id") if self.options.get(name) is not None}
        return self.lm(request, **{**usual, **controls})


def _turns(signature: Any, values: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Earlier turns of a conversation, as fields by name: what an input of type ``dspy.History`` holds."""
    found: list[Mapping[str, Any]] = []
    for name, field in signature.input_fields.items():
        if field.annotation is dspy.History and values.get(name) is not None:
            history = values[name]
            found += history["messages"] if isinstance(history, Mapping) else history.messages
    return found


def _with_turns(signature: Any, demos: Sequence[Any]) -> list[Any]:
    """Demonstrations, each after the turns that it goes on from."""
    return [shown for demo in demos for shown in (*_turns(signature, demo), demo)]


def _have_several_lines(shown: Sequence[Any], fields: Iterable[str]) -> bool:
    """Whether a text among some fields of what is shown has several lines."""
    names = list(fields)
    return any("\n" in written(values.get(name) or "") for values in shown for name in names)


def _kind(field: Any) -> str:
    """What an output field holds, in words; empty for a text, and for more choices than a prompt should name."""
    choices = choices_of(field)
    if choices is not None:
        return f"one of: {', '.join(choices.texts)}" if len(choices.texts) <= _MOST_LISTED else ""
    shape = shape_of(field)
    return "" if shape is None else _KINDS.get(shape.kind, "JSON")


@cache
def _threads() -> ThreadPoolExecutor:
    """Threads for asynchronous answers: asyncio's own are few on small machines, and batches would be as small."""
    return ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="promptsearch adapter")


def _read_lines(names: Mapping[str, str], completion: str) -> dict[str, str]:
    """The text of each field from ``Title: text``; the first title may lack, and a text may have several lines."""
    titles = {title.lower(): name for name, title in names.items()}
    pattern = re.compile(
        rf"^[ \t]*({'|'.join(re.escape(title) for title in sorted(titles, key=len, reverse=True))})[ \t]*:",
        re.IGNORECASE | re.MULTILINE,
    )
    found: dict[str, str] = {}
    current, start = next(iter(names)), 0
    for match in pattern.finditer(completion):
        found.setdefault(current, completion[start : match.start()].strip())
        name = titles[match[1].lower()]
        if not found.get(name):
            found.pop(name, None)
        current, start = name, match.end()
    found.setdefault(current, completion[start:].partition(_SEPARATOR)[0].strip())
    return {name: text for name, text in found.items() if text}
