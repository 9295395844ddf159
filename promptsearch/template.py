"""How instruction, demonstrations and query become the text that a model reads.

Templates are plain text or chat turns. Chat turns are written by the model's own chat template, a Jinja text
from its file, which runs in a sandbox.
Invariant: a user's text goes in unchanged and as data; only what the chat template itself wrote may hold control
tokens.
Leaves out: which demonstrations, and whether the result fits a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from promptsearch.errors import ModelError
from promptsearch.lm.base import Rendered, Segment

__all__ = [
    "CHAT_TEMPLATES",
    "OPTION_TEMPLATES",
    "PLAIN_TEMPLATES",
    "TEMPLATES",
    "ChatFormat",
    "Demonstration",
    "Renderer",
    "Template",
    "title",
]


_MARK = "\ue000"


@dataclass(frozen=True)
class Template:
    """The form of a prompt.

    Attributes:
        name: how candidates refer to it.
        field: an input column: ``{name}`` and ``{text}``.
        cue: what stands before the answer: ``{output}`` is the output column's name.
        separator: between instruction, demonstrations and query.
        chat: ``""`` for plain text, ``"turns"`` for a chat turn each, ``"user"`` for one user message.
        premise_weight: of templates for items that list options, which are not shown; their texts are scored instead.
            From an option's log-probability after the question this share of the one after the premise, the same
            prompt with no question, is subtracted; at 1 that is domain-conditional PMI (Holtzman et al. 2021, arXiv
            2104.08315, section 3). None for templates that show items as they are and score labels.
    """

    name: str
    field: str = "{name}: {text}"
    cue: str = "{output}:"
    separator: str = "\n\n"
    chat: str = ""
    premise_weight: float | None = None

    @property
    def scores_options(self) -> bool:
        """Whether the options' own texts are scored instead of labels."""
        return self.premise_weight is not None

    @property
    def takes_reasoning(self) -> bool:
        """Whether reasoning has a place in it: not in chat turns, and not before options that are compared."""
        return not self.chat and not self.scores_options

    def named(self, input_name: str, output_name: str) -> Template:
        """The same with other names for input and output; an empty one keeps the column's."""
        field, cue = self.field, self.cue
        if input_name:
            field = field.replace("{name}", _literal(input_name))
        if output_name:
            cue = cue.replace("{output}", _literal(output_name))
        return replace(self, field=field, cue=cue)

    def form(self, names: tuple[str, str], inputs: Sequence[str], output: str) -> tuple[str, ...]:
        """What tells this template with some names from others: equal ones give equal prompts.

        Args:
            names: for input and output, as in :meth:`named`.
            inputs: the input columns.
            output: the output column.
        """
        named = self.named(*names)
        field = "" if len(inputs) > 1 else named.field.format(name=title(inputs[0]), text="{text}")
        return field, named.cue.format(output=title(output)), named.separator, named.chat, str(named.premise_weight)

    @property
    def joint(self) -> str:
        """Between the inputs and the cue: a new line, or a space where the cue is an arrow."""
        return " " if self.cue.startswith("=") else "\n"


PLAIN_TEMPLATES = (
    Template("fields"),
    Template("answer", cue="Answer:"),
    Template("bare", field="{text}"),
    Template("label", field="Input: {text}", cue="Label:"),
    Template("category", field="{text}", cue="Category:"),
    Template("question", field="Q: {text}", cue="A:"),
    Template("arrow", field="{text}", cue="=>", separator="\n"),
    Template("lines", separator="\n"),
    Template("rules", separator="\n###\n"),
)
CHAT_TEMPLATES = (
    Template("chat-turns", chat="turns"),
    Template("chat-user", chat="user"),
)
OPTION_TEMPLATES = (
    Template("options", premise_weight=0.5),
    Template("options-question", field="Question: {text}", cue="Answer:", premise_weight=1.0),
    Template("options-short", field="Q: {text}", cue="A:", premise_weight=0.5),
    Template("options-bare", field="{text}", cue="Answer:", premise_weight=0.5),
)
TEMPLATES: dict[str, Template] = {
    template.name: template for template in (*PLAIN_TEMPLATES, *CHAT_TEMPLATES, *OPTION_TEMPLATES)
}


@dataclass(frozen=True)
class Demonstration:
    """A worked example.

    Attributes:
        inputs: input texts by column.
        output: the answer.
        rationale: reasoning that leads to the answer, on one line; empty where there is none.
    """

    inputs: Mapping[str, str]
    output: str
    rationale: str = ""


class ChatFormat:
    """A model's chat template, run in a sandbox.

    Args:
        source: the Jinja text from the model's file.
        marks: what begins and what ends a text for this model, where the template asks for it.
    """

    def __init__(self, source: str, marks: tuple[str, str] = ("", "")) -> None:
        self.source = source
        self.marks = marks

    def render(self, messages: Sequence[Mapping[str, str]]) -> Rendered:
        """The prompt that asks for the next assistant message.

        The template sees a mark in place of every content; the contents are put back as data afterwards, so
        that control tokens in them do not act.

        Raises:
            ModelError: the template cannot be run or refuses these messages.
        """
        contents = [message["content"] for message in messages]
        marked = [{"role": message["role"], "content": _mark(number)} for number, message in enumerate(messages)]
        text = self._run(marked)
        segments: list[Segment] = []
        for number, content in enumerate(contents):
            before, found, text = text.partition(_mark(number))
            if not found:
                raise ModelError(f"the model's chat template drops {messages[number]['role']} messages")
            segments += [Segment(before, control=True), Segment(content)]
        segments.append(Segment(text, control=True))
        if any(_MARK in segment.text for segment in segments if segment.control):
            raise ModelError("the model's chat template says a message twice; use a plain template")
        return Rendered(segment for segment in segments if segment.text)

    @cached_property
    def keeps_system(self) -> bool:
        """Whether the template accepts a system message."""
        try:
            self.render([{"role": "system", "content": "s"}, {"role": "user", "content": "u"}])
        except ModelError:
            return False
        return True

    @cached_property
    def usable(self) -> bool:
        """Whether the template can be run on turns of user and assistant."""
        roles = ("user", "assistant", "user")
        try:
            self.render([{"role": role, "content": "x"} for role in roles])
        except ModelError:
            return False
        return True

    def _run(self, messages: Sequence[Mapping[str, str]]) -> str:
        try:
            text: str = self._template.render(
                messages=messages,
                add_generation_prompt=True,
                bos_token=self.marks[0],
                eos_token=self.marks[1],
                tools=None,
                documents=None,
            )
            return text
        except ModelError:
            raise
        except Exception as error:  # the template is code from a file: it can fail in any way
            raise ModelError(f"the model's chat template cannot be used: {_one_line(error)}") from error

    @cached_property
    def _template(self) -> Any:
        from jinja2.exceptions import TemplateError, TemplateSyntaxError
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        def refuse(message: str) -> None:
            raise TemplateError(message)

        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = refuse
        environment.globals["strftime_now"] = lambda form: datetime(2024, 7, 26).strftime(form)
        try:
            return environment.from_string(self.source)
        except TemplateSyntaxError as error:
            raise ModelError(f"the model's chat template is broken: {_one_line(error)}") from error


class Renderer:
    """Renders prompts of one task for one model.

    Args:
        inputs: names of the input columns, in order.
        output: name of the output column.
        chat: the model's chat format, None where it has none.
    """

    def __init__(self, inputs: Sequence[str], output: str, chat: ChatFormat | None) -> None:
        self._names = {column: title(column) for column in inputs}
        self._output = title(output)
        self.chat = chat

    def render(
        self,
        template: Template,
        instruction: str,
        demonstrations: Sequence[Demonstration],
        inputs: Mapping[str, str],
        thought: str = "",
    ) -> Rendered:
        """The exact prompt for one query.

        Args:
            template: the form.
            instruction: text before the demonstrations; empty for none.
            demonstrations: in the order shown; their rationales are shown where there is a thought.
            inputs: the query's texts by column.
            thought: what reasoning begins with, for a prompt that asks for reasoning instead of an answer; empty for
                one that asks for the answer. Plain templates only.
        """
        own = len(self._query(template, inputs, thought)) - len(self._opening(template))  # from the item's text on
        if template.chat:
            rendered = self._chat_format().render(self.messages(template, instruction, demonstrations, inputs))
            last = rendered.segments[-1]
            below = len(last.text) if last.control else 0  # what the chat template writes after the message
            return Rendered(rendered.segments, shared=len(rendered) - below - own)
        text = self._plain(template, instruction, demonstrations, inputs, thought)
        return Rendered([Segment(text)], shared=len(text) - own)

    def concluded(self, template: Template, prompt: Rendered, written: str) -> Rendered:
        """A prompt that asks for the answer.

        Args:
            template: the form.
            prompt: one that asked for reasoning.
            written: the reasoning as it follows the prompt, with the blank before it.
        """
        segments = [*prompt.segments, Segment(written + self.conclusion(template))]
        return Rendered(segments, shared=prompt.shared, continued=len(prompt))

    def conclusion(self, template: Template) -> str:
        """What stands between reasoning and answer."""
        return f"\n{self._cue(template)}"

    def messages(
        self,
        template: Template,
        instruction: str,
        demonstrations: Sequence[Demonstration],
        inputs: Mapping[str, str],
        thought: str = "",
    ) -> list[dict[str, str]]:
        """The prompt as chat messages; a plain template is one user message."""
        if template.chat != "turns":
            return [_message("user", self._plain(template, instruction, demonstrations, inputs, thought))]
        messages = []
        for demonstration in demonstrations:
            messages.append(_message("user", self._query(template, demonstration.inputs)))
            messages.append(_message("assistant", demonstration.output))
        messages.append(_message("user", self._query(template, inputs)))
        if instruction:
            if self.chat is None or self.chat.keeps_system:
                messages.insert(0, _message("system", instruction))
            else:
                messages[0]["content"] = instruction + template.separator + messages[0]["content"]
        return messages

    def continuation(self, template: Template, answer: str) -> str:
        """An answer as it follows the prompt."""
        return answer if template.chat else " " + answer

    def stops(self, template: Template, lines: bool = False) -> tuple[str, ...]:
        """Strings that end a free-text answer.

        Args:
            template: the form; chat turns end by themselves.
            lines: whether answers have several lines, and end where the next item would begin.
        """
        if template.chat:
            return ()
        return (self.boundary(template),) if lines else ("\n",)

    def boundary(self, template: Template) -> str:
        """What stands between a demonstration's answer and the text of the next item; empty between chat turns."""
        return "" if template.chat else template.separator + self._opening(template).rstrip()

    def _chat_format(self) -> ChatFormat:
        if self.chat is None:
            raise ModelError("this model has no chat template; use a plain template")
        return self.chat

    def _plain(
        self,
        template: Template,
        instruction: str,
        demonstrations: Sequence[Demonstration],
        inputs: Mapping[str, str],
        thought: str = "",
    ) -> str:
        parts = [instruction] if instruction else []
        parts += [self._worked(template, shown, thought) for shown in demonstrations]
        parts.append(self._query(template, inputs, thought))
        return template.separator.join(parts)

    def _worked(self, template: Template, shown: Demonstration, thought: str) -> str:
        """A demonstration with its answer, and its reasoning where there is a thought."""
        query = self._query(template, shown.inputs, thought)
        if thought:
            query += f" {shown.rationale}{self.conclusion(template)}"
        return f"{query} {shown.output}"

    def _opening(self, template: Template) -> str:
        """What stands before a query's first text."""
        name = next(iter(self._names.values()), "")
        return self._field(template).format(name=name, text=_MARK).partition(_MARK)[0]

    def _field(self, template: Template) -> str:
        """The form of an input column. Several columns are always told apart by name."""
        return "{name}: {text}" if len(self._names) > 1 else template.field

    def _query(self, template: Template, inputs: Mapping[str, str], thought: str = "") -> str:
        """One item up to the cue, or up to the thought."""
        form = self._field(template)
        lines = [
            form.format(name=name, text=inputs[column]) for column, name in self._names.items() if column in inputs
        ]
        return "\n".join(lines) + (f"\n{thought}" if thought else template.joint + self._cue(template))

    def _cue(self, template: Template) -> str:
        """What stands before the answer."""
        return template.cue.format(output=self._output)


def _mark(number: int) -> str:
    """A string that no text holds by accident: private-use characters around a number."""
    return f"{_MARK}{number}\ue001"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _literal(name: str) -> str:
    """A name that a format string takes as it is."""
    return name.replace("{", "{{").replace("}", "}}")


def _message(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def title(column: str) -> str:
    """A column's name as people write it: ``customer_text`` becomes ``Customer text``."""
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]
