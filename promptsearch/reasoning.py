"""Lets the model reason before it answers, in two steps, and lets several pieces of reasoning vote.

In the first step the prompt ends with a thought ("Let's think step by step.") and the model goes on: to the end of
the line where demonstrations show reasoning on one, else to a blank line, the cue of the answer or the next item. In
the second one, prompt, reasoning and the cue of the answer stand before the model, and the answer is scored or
generated as it is without reasoning (Kojima et al. 2022, arXiv 2205.11916). With demonstrations that show reasoning
this is chain-of-thought prompting (Wei et al. 2022, arXiv 2201.11903). Self-consistency samples several pieces of
reasoning and takes what most of them come to (Wang et al. 2022, arXiv 2203.11171), and stops asking about an item
once no further sample could change that.
Invariant: what is sampled for an item depends on its prompt and on nothing else that is asked with it.
Leaves out: where the reasoning of demonstrations comes from.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from promptsearch.candidate import CONCLUDING_TOKENS, Candidate
from promptsearch.data.answers import answer_text
from promptsearch.lm.base import Completion, Engine, FollowUp, GenerationParams, Rendered, write_on
from promptsearch.probabilities import normalized
from promptsearch.prompting import PromptBuilder

__all__ = [
    "SAMPLING_TEMPERATURE",
    "THINKING_TOKENS",
    "Reasoner",
    "Verdict",
    "ends_of",
    "has_ended",
    "in_the_prompt",
    "is_settled",
    "merged",
    "one_line",
    "sentences",
]

_LINE_END = re.compile(r"\n")
_BLANK_LINE = re.compile(r"\n[^\S\n]*\n")
SAMPLING_TEMPERATURE = 0.7  # as Wang et al. sample
THINKING_TOKENS = 96  # of a piece of reasoning, where nobody says
Answer = list[float | None] | str
"""Log-probabilities of labels, None for an impossible one; or a text."""
Read = Callable[[str], str]
"""What counts of a written answer."""


@dataclass
class Verdict:
    """What the model said about one item.

    Attributes:
        rationales: one piece of reasoning for each sample.
        answers: the answer that each came to.
    """

    rationales: list[str] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    def to_json(self, read: Read) -> dict[str, object]:
        """Plain values: the answer of all samples together, and the first reasoning that led to it."""
        answer = merged(self.answers, read)
        chosen = _choice(answer, read)
        agreeing = [
            said for said, each in zip(self.rationales, self.answers, strict=True) if _choice(each, read) == chosen
        ]
        return {"answer": answer, "rationale": (agreeing or self.rationales)[0], "samples": len(self.answers)}


class Reasoner:
    """Asks a model in two steps.

    Args:
        engine: the model.
        builder: makes the second step's prompts.
        answer: what asks for answers once the reasoning stands in the prompts.
        read: what counts of a written answer.
        writing: how answers are written; None where labels are scored.
    """

    def __init__(
        self,
        engine: Engine,
        builder: PromptBuilder,
        answer: Callable[[Candidate, Sequence[Rendered]], Sequence[Answer]],
        read: Read = str,
        writing: Callable[[Candidate], GenerationParams] | None = None,
    ) -> None:
        self._engine = engine
        self._builder = builder
        self._answer = answer
        self.read = read
        self._writing = writing

    def ask(self, reading: Candidate, prompts: Sequence[Rendered]) -> list[Verdict]:
        """What the model says about each item.

        Args:
            reading: a candidate that reasons.
            prompts: what asks for reasoning, of each item.
        """
        verdicts = [Verdict() for _ in prompts]
        for sample in range(reading.samples):
            open_ones = [
                at
                for at, verdict in enumerate(verdicts)
                if not is_settled(verdict.answers, reading.samples, self.read)
            ]
            if not open_ones:
                break
            asked = [prompts[at] for at in open_ones]
            for at, (thought, answer) in zip(open_ones, self.reason(reading, asked, asked, sample), strict=True):
                verdicts[at].rationales.append(thought.text)
                verdicts[at].answers.append(answer)
        return verdicts

    def reason(
        self, reading: Candidate, prompts: Sequence[Rendered], concluding: Sequence[Rendered], sample: int = 0
    ) -> list[tuple[Completion, Answer]]:
        """One piece of reasoning for each prompt, and the answer that it comes to.

        The reasoning is given on one line; the answer comes from it as :func:`in_the_prompt` shows it.

        Args:
            reading: a candidate that reasons.
            prompts: what asks for reasoning.
            concluding: what stands before the reasoning when it asks for the answer.
            sample: which of several pieces, where they are sampled; else it is the likeliest one.
        """
        params = self._thinking(reading, prompts, sample)
        if self._writing is None:
            completions = self._engine.generate(prompts, params)
            asked = [
                self._builder.concluded(reading, prompt, in_the_prompt(reading, said.text))
                for prompt, said in zip(concluding, completions, strict=True)
            ]
            answers = self._answer(reading, asked)
            return [(_thought(reading, said), answer) for said, answer in zip(completions, answers, strict=True)]

        def following(number: int, said: Completion) -> str:
            return self._builder.concluded(reading, concluding[number], in_the_prompt(reading, said.text))

        then = FollowUp(following, self._writing(reading), CONCLUDING_TOKENS)
        written = write_on(self._engine, prompts, params, then)
        return [(_thought(reading, said), answer.text.strip()) for said, answer in written]

    def _thinking(self, reading: Candidate, prompts: Sequence[Rendered], sample: int) -> GenerationParams:
        """How reasoning is written. A model that begins with line ends, as small ones do, has not ended yet."""
        sampled = reading.samples > 1
        return GenerationParams(
            max_tokens=reading.thinking_tokens,
            temperature=SAMPLING_TEMPERATURE if sampled else 0.0,
            seeds=tuple(_seed(prompt, sample) for prompt in prompts) if sampled else (),
            stop=ends_of(self._builder, reading),
            until=lambda text: has_ended(reading, text),
        )


def ends_of(builder: PromptBuilder, reading: Candidate) -> tuple[str, ...]:
    """Texts that end reasoning and are no part of it: the cue of the answer, and what the next item begins with."""
    following = (text for text in builder.stops(reading, lines=True) if text.strip())
    return (builder.conclusion(reading), *following)


def has_ended(reading: Candidate, text: str) -> bool:
    """Whether the reasoning at the beginning of a text has ended there: at a blank line, or that of its only line."""
    return _own(reading, text)[1]


def in_the_prompt(reading: Candidate, text: str) -> str:
    """What a model wrote as the prompt that asks for the answer shows it, with the blank before it.

    Where demonstrations show reasoning on one line, this is on one too; else it stands as it was written (z in Kojima
    et al. 2022, section 3.1), so that a model that goes on from it reads nothing again.
    """
    own, _ = _own(reading, text)
    if not own:
        return ""
    if reading.reasoning != "cue":
        return f" {one_line(own)}"
    return (text[: len(text) - len(text.lstrip())] or " ") + own


def _thought(reading: Candidate, said: Completion) -> Completion:
    """A piece of reasoning on one line; a server does not ask ``until``, and writes on to its last token."""
    own, ended = _own(reading, said.text)
    return replace(said, text=one_line(own), finish="until" if ended else said.finish)


def _own(reading: Candidate, text: str) -> tuple[str, bool]:
    """The reasoning at the beginning of a text, without the white space around it; and whether it has ended."""
    begun = text.lstrip()
    end = (_BLANK_LINE if reading.reasoning == "cue" else _LINE_END).search(begun)
    return begun[: end.start() if end else None].rstrip(), end is not None


def one_line(text: str) -> str:
    """A text with all white space as single blanks: a line's end is where reasoning ends."""
    return " ".join(text.split())


def sentences(text: str) -> list[str]:
    """The sentences of a text on one line; one at least."""
    found = [part.strip() for part in re.split(r"(?<=[.!?。！？])\s+", text.strip()) if part.strip()]
    return found or [text]


def is_settled(answers: Sequence[Answer], samples: int, read: Read = str) -> bool:
    """Whether what most of ``samples`` texts say is certain after the first few of them.

    Label probabilities are averaged, so that every further sample may change what they come to.
    """
    if any(not isinstance(answer, str) for answer in answers):
        return len(answers) >= samples
    counts = [count for _, count in Counter(_choice(answer, read) for answer in answers).most_common(2)]
    lead = counts[0] - sum(counts[1:]) if counts else 0
    return lead > samples - len(answers)


def merged(answers: Sequence[Answer], read: Read = str) -> Answer:
    """One answer of several: the mean probability of each label, or the first text of those that most agree on."""
    tables = [answer for answer in answers if isinstance(answer, list)]
    if tables:
        logs = normalized(np.array([[-np.inf if cell is None else cell for cell in row] for row in tables]))
        if len(logs) == 1:
            return tables[0]
        with np.errstate(divide="ignore"):
            mean = np.log(np.exp(logs).mean(axis=0))
        return [float(value) if np.isfinite(value) else None for value in mean]
    chosen = Counter(_choice(answer, read) for answer in answers).most_common(1)[0][0]  # of equals the first
    return next(answer for answer in answers if _choice(answer, read) == chosen)


def _choice(answer: Answer, read: Read) -> object:
    """What an answer comes to: the likeliest label's place, or a text as it is compared; None for neither."""
    if isinstance(answer, str):
        return answer_text(read(answer))
    if all(cell is None for cell in answer):
        return None
    return int(np.argmax([-np.inf if cell is None else cell for cell in answer]))


def _seed(prompt: str, sample: int) -> int:
    """A number that a prompt and a sample's number determine."""
    text = f"{sample}|{prompt}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "big")
