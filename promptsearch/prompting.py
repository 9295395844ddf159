"""From a candidate and an item to the exact prompt, with whatever does not fit decided before anything runs.

Invariant: a prompt that leaves here fits the model's context together with its answer. Retrieved demonstrations
that do not fit are left out from the farthest on; a static prompt that does not fit an item is no prompt at all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from promptsearch.answer_form import AnswerForm
from promptsearch.candidate import CONCLUDING_TOKENS, Candidate
from promptsearch.errors import UserError
from promptsearch.lm.base import Engine, Rendered, Segment
from promptsearch.multiple_choice import MultipleChoice
from promptsearch.template import TEMPLATES, ChatFormat, Demonstration, Renderer, Template

__all__ = ["Built", "PromptBuilder", "answer_room", "retrieved_order", "template_of"]


@dataclass(frozen=True)
class Built:
    """A prompt for one item.

    Attributes:
        prompt: the exact text; None where the item does not fit.
        demonstrations: numbers of the demonstrations in the order shown.
        options: the item's own answers, where these are scored: one for each label, as they follow the prompt.
        premise: the same prompt with no question, where options are scored.
        unlisted: whether there is no prompt because options are scored and the item lists none.
    """

    prompt: Rendered | None
    demonstrations: tuple[int, ...]
    options: tuple[str, ...] = ()
    premise: Rendered | None = None
    unlisted: bool = False


def retrieved_order(nearest_first: Sequence[int], order: str, outputs: Sequence[str] = ()) -> tuple[int, ...]:
    """Retrieved ids as they are shown.

    Args:
        nearest_first: ids, the best match first.
        order: one of :data:`promptsearch.candidate.ORDERS`.
        outputs: what each id answers, in the same order; needed for "interleaved", where equal answers stand as far
            apart as they can, each label's best match after its others.
    """
    if order == "nearest-first":
        return tuple(nearest_first)
    if order == "interleaved":
        turn: Counter[str] = Counter()
        turns = []
        for output in outputs:
            turns.append(turn[output])
            turn[output] += 1
        nearest_first = [nearest_first[at] for at in sorted(range(len(turns)), key=lambda at: (turns[at], at))]
    return tuple(reversed(nearest_first))


def template_of(candidate: Candidate) -> Template:
    """The template that a candidate names, with its names for input and output."""
    return TEMPLATES[candidate.template].named(candidate.input_name, candidate.output_name)


class PromptBuilder:
    """Builds prompts of one task for one model.

    Args:
        engine: the model that will read them.
        inputs: input columns.
        output: output column.
        demonstrations: demonstrations by number.
        answer_tokens: tokens to keep free for the answer.
        multiple_choice: how items list options; None where they do not, and templates that score options cannot be
            used.

    Attributes:
        own_rationales: reasoning that the model itself wrote, by number of the demonstration; whoever makes it puts
            it here, and candidates whose reasoning is "self" show it instead of the demonstrations' own.
    """

    def __init__(
        self,
        engine: Engine,
        inputs: Sequence[str],
        output: str,
        demonstrations: Mapping[int, Demonstration],
        answer_tokens: int,
        multiple_choice: MultipleChoice | None = None,
    ) -> None:
        self.engine = engine
        self.multiple_choice = multiple_choice
        source = engine.chat_template
        self.renderer = Renderer(inputs, output, ChatFormat(source, engine.text_marks) if source else None)
        self._demonstrations = demonstrations
        self._room = engine.context_tokens - answer_tokens
        self.own_rationales: dict[int, str] = {}

    def build(self, candidate: Candidate, inputs: Mapping[str, str], nearest: Sequence[int] = ()) -> Built:
        """The prompt for one item.

        Args:
            candidate: what to show; of a routed one, the item's route.
            inputs: the item's texts by column.
            nearest: numbers of its nearest demonstrations, nearest first (retrieving candidates only).
        """
        if template_of(candidate).scores_options and self._multiple_choice.find(inputs) is None:
            return Built(None, (), unlisted=True)
        if candidate.mode == "static":
            return self._built(candidate, candidate.demonstrations, inputs)
        for count in range(min(candidate.count, len(nearest)), -1, -1):
            outputs = [self._demonstrations[number].output for number in nearest[:count]]
            shown = retrieved_order(nearest[:count], candidate.order, outputs)
            built = self._built(candidate, shown, inputs)
            if built.prompt is not None:  # the next item shows others
                alone = None if built.premise is None else Rendered(built.premise.segments)
                return replace(built, prompt=Rendered(built.prompt.segments), premise=alone)
        return Built(None, ())

    def _built(self, candidate: Candidate, shown: tuple[int, ...], inputs: Mapping[str, str]) -> Built:
        """A prompt with given demonstrations; none where it does not fit together with its answer."""
        prompt = self.render(candidate, shown, inputs)
        template = template_of(candidate)
        if not template.scores_options:
            return Built(prompt if self.fits(prompt, candidate) else None, shown)
        listed = self._multiple_choice.require(inputs)
        options = tuple(self.renderer.continuation(template, option) for option in listed.options)
        if not self.fits(Rendered([*prompt.segments, Segment(max(options, key=_bytes))]), candidate):
            return Built(None, shown)
        premise = self._render(candidate, shown, dict.fromkeys(listed.inputs, ""))
        return Built(prompt, shown, options, premise)

    def render(self, candidate: Candidate, shown: Sequence[int], inputs: Mapping[str, str]) -> Rendered:
        """The text with given demonstrations, whether or not it fits; it asks a candidate that reasons to do so.

        Raises:
            DataError: its template scores options and the item does not list them.
        """
        if template_of(candidate).scores_options:
            inputs = self._multiple_choice.require(inputs).inputs
        return self._render(candidate, shown, inputs)

    @property
    def _multiple_choice(self) -> MultipleChoice:
        if self.multiple_choice is None:
            raise UserError("a template that scores options needs items that list them; use another template")
        return self.multiple_choice

    def _render(self, candidate: Candidate, shown: Sequence[int], inputs: Mapping[str, str]) -> Rendered:
        return self.renderer.render(
            template_of(candidate),
            candidate.instruction,
            [self._worked(candidate, number) for number in shown],
            inputs,
            candidate.thought,
        )

    def conclusion(self, candidate: Candidate) -> str:
        """What stands between reasoning and answer."""
        return self.renderer.conclusion(template_of(candidate))

    def concluded(self, candidate: Candidate, prompt: Rendered, written: str) -> Rendered:
        """What asks for the answer after the model has reasoned; ``written`` follows the prompt as it is given."""
        return self.renderer.concluded(template_of(candidate), prompt, written)

    def shown_by(self, candidate: Candidate) -> dict[int, Demonstration]:
        """All demonstrations, by number, with the reasoning that a candidate shows of them."""
        return {number: self._demonstration(candidate, number) for number in self._demonstrations}

    def _worked(self, candidate: Candidate, number: int) -> Demonstration:
        """A demonstration as a prompt shows it: where options are scored, the right one is its answer."""
        shown = self._demonstration(candidate, number)
        if not template_of(candidate).scores_options:
            return shown
        listed = self._multiple_choice.require(shown.inputs)
        right = listed.options[self._multiple_choice.labels.index(shown.output)]
        return replace(shown, inputs=listed.inputs, output=right)

    def _demonstration(self, candidate: Candidate, number: int) -> Demonstration:
        """A demonstration with the reasoning that a candidate shows of it."""
        shown = self._demonstrations[number]
        own = self.own_rationales.get(number) if candidate.reasoning == "self" else None
        return shown if own is None else replace(shown, rationale=own)

    def messages(self, candidate: Candidate, shown: Sequence[int], inputs: Mapping[str, str]) -> list[dict[str, str]]:
        """The same as chat messages."""
        if template_of(candidate).scores_options:
            inputs = self._multiple_choice.require(inputs).inputs
        return self.renderer.messages(
            template_of(candidate),
            candidate.instruction,
            [self._worked(candidate, number) for number in shown],
            inputs,
            candidate.thought,
        )

    def continuations(self, candidate: Candidate, labels: Sequence[str]) -> list[str]:
        """The labels as they follow the prompt."""
        template = template_of(candidate)
        return [self.renderer.continuation(template, label) for label in labels]

    def stops(self, candidate: Candidate, lines: bool = False) -> tuple[str, ...]:
        """Strings that end a free-text answer, which may have several lines."""
        return self.renderer.stops(template_of(candidate), lines)

    def ends(self, template: Template, outputs: Iterable[str]) -> bool:
        """Whether answers of several lines, such as some, can be told from the item that follows them."""
        boundary = self.renderer.boundary(template)
        return not boundary or not any(boundary in output for output in outputs)

    def fits(self, prompt: str, candidate: Candidate) -> bool:
        """Whether prompt, reasoning and answer fit the context."""
        room = self._room
        if candidate.reasons:  # no tokenizer makes more tokens than there are bytes
            conclusion = _bytes(self.conclusion(candidate))
            room -= candidate.thinking_tokens + max(CONCLUDING_TOKENS, conclusion)
        if _bytes(prompt) < room:
            return True  # no tokenizer makes more tokens than there are bytes, but for one that begins the text
        return self.engine.count_tokens([prompt])[0] <= room


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def answer_room(engine: Engine, labels: Sequence[str] | None, form: AnswerForm) -> int:
    """Tokens to keep free for an answer: a written one, or the longest label."""
    if labels is None:
        return form.tokens_within(engine.context_tokens)
    return max(engine.count_tokens([f" {label}" for label in labels])) + 2
