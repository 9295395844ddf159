"""Language models without a model, for tests: instant, deterministic, and as right as they are told to be.

Invariant: every number derives from a stable hash of its arguments, so it is the same in every process and on
every machine, and does not depend on what else is asked in the same call.
Leaves out: language. Tokens are words.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from promptsearch.errors import ContextError
from promptsearch.lm.base import Completion, FloatArray, GenerationParams
from promptsearch.lm.wrapped import DEFAULT_CONTEXT, EstimatingEngine, GeneratedChoice, refuse

__all__ = ["FakeLM", "ScriptedLM"]

Answer = Mapping[str, str] | Callable[[str], str | None]
"""A table from a text in the prompt to the right label, or a function of the prompt."""


class _WordEngine(EstimatingEngine):
    """Counts words as tokens, and refuses what exceeds the context as a real engine does."""

    def count_tokens(self, prompts: Sequence[str]) -> list[int]:
        """Number of words of each prompt."""
        return [len(prompt.split()) for prompt in prompts]

    def _admit_requests(self, prompts: Sequence[str], params: GenerationParams) -> None:
        """Count the prompts of a call to generate, whose parameters must be those that words can follow."""
        refuse(params, self.name, "grammar", "json_schema", "log_probabilities")
        params.require_seeds(len(prompts))
        self._admit(prompts, params.max_tokens)

    def _admit(self, prompts: Sequence[str], room: int) -> None:
        """Count the prompts, all of which must fit with ``room`` tokens of answer."""
        self._require_open()
        counts = self.count_tokens(prompts)
        longest = max(counts, default=0)
        if longest + room > self.context_tokens:
            raise ContextError(
                f"a prompt of {longest} tokens and an answer of {room} do not fit the model's "
                f"{self.context_tokens} tokens; shorten it"
            )
        self._count_decoded(sum(counts))


class FakeLM(_WordEngine):
    """A classifier of adjustable reliability.

    The continuation that equals the right answer scores between -0.5 and 0, or, where the model errs, between
    -7 and -6; every other one between -5 and -1. Whether it errs is a property of the prompt.

    Args:
        answer: the right label of a prompt: a function of it, or a table from texts to labels, of which the
            text that occurs last in the prompt counts. None, or no label found: only the hash speaks.
        reliability: share of prompts answered rightly, in [0, 1]; a function of the prompt makes some
            prompts better than others.
        seed: another seed errs on other prompts.
        name: what the model is called.
        context_tokens: words that prompt and answer may take together.
    """

    def __init__(
        self,
        answer: Answer | None = None,
        *,
        reliability: float | Callable[[str], float] = 1.0,
        seed: int = 0,
        name: str = "fake",
        context_tokens: int = DEFAULT_CONTEXT,
    ) -> None:
        super().__init__(name=name, fingerprint=f"fake:{name}:{seed}", context_tokens=context_tokens)
        self._answer = answer
        self._reliability = reliability
        self._seed = seed

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> FloatArray:
        """Log-probability of each continuation after each prompt, shape (prompts, continuations)."""
        self.check_continuations(continuations)
        self._admit(prompts, max(self.count_tokens(continuations), default=0))
        scores = np.zeros((len(prompts), len(continuations)))
        for row, prompt in enumerate(prompts):
            answer = self._right_answer(prompt)
            right = self._is_right(prompt, "")
            for column, text in enumerate(continuations):
                noise = self._uniform("score", prompt, text)
                if answer is None or text.strip() != answer:
                    scores[row, column] = -1.0 - 4.0 * noise
                else:
                    scores[row, column] = -0.5 * noise if right else -6.0 - noise
        return scores

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """The right answer where the model does not err, and a made-up word where it does.

        Above temperature 0, whether it errs also depends on the seed and on the request's number.
        """
        self._admit_requests(prompts, params)
        completions = []
        for number, prompt in enumerate(prompts):
            draw = "{}:{}".format(*params.seed_of(number)) if params.temperature > 0 else ""
            answer = self._right_answer(prompt)
            if answer is None or not self._is_right(prompt, draw):
                answer = f"word-{int(self._uniform('word', prompt, draw) * 1e6)}"
            completions.append(_completion(" " + answer, params))
        self._count_decoded(sum(completion.tokens for completion in completions))
        return completions

    def _right_answer(self, prompt: str) -> str | None:
        if self._answer is None:
            return None
        if callable(self._answer):
            found = self._answer(prompt)
            return None if found is None else found.strip()
        ends = {text: prompt.rfind(text) + len(text) for text in self._answer if text in prompt}
        if not ends:
            return None
        return self._answer[max(ends, key=lambda text: (ends[text], len(text)))].strip()

    def _is_right(self, prompt: str, draw: str) -> bool:
        share = self._reliability(prompt) if callable(self._reliability) else self._reliability
        return self._uniform("right", prompt, draw) < share

    def _uniform(self, *parts: str) -> float:
        """A number in [0, 1) that these texts determine."""
        text = "\x1f".join((str(self._seed), *parts))
        digest = hashlib.blake2b(text.encode("utf-8", errors="surrogatepass"), digest_size=6).digest()
        return int.from_bytes(digest, "big") / 2**48


class ScriptedLM(GeneratedChoice, _WordEngine):
    """Replies as a function says; labels are scored by the one that the reply names.

    Args:
        reply: from a prompt to the text that the model writes after it.
        name: what the model is called.
        context_tokens: words that prompt and answer may take together.

    Attributes:
        prompts: every prompt that was answered, in order.
    """

    def __init__(
        self, reply: Callable[[str], str], *, name: str = "scripted", context_tokens: int = DEFAULT_CONTEXT
    ) -> None:
        super().__init__(name=name, fingerprint=f"scripted:{name}", context_tokens=context_tokens)
        self._reply = reply
        self.prompts: list[str] = []

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """What the function replies, cut at stop strings and at ``max_tokens`` words."""
        self._admit_requests(prompts, params)
        self.prompts += prompts
        completions = [_completion(self._reply(prompt), params) for prompt in prompts]
        self._count_decoded(sum(completion.tokens for completion in completions))
        return completions


def _completion(text: str, params: GenerationParams) -> Completion:
    """A text as a model would have written it under ``params``, whose tokens are words."""
    finish = "stop"
    ends = _word_ends(text)
    if len(ends) > params.max_tokens:
        finish = "length"
        text = text[: ends[params.max_tokens - 1]]
    stops = [text.find(stop) for stop in params.stop if stop in text]
    if stops:
        text, finish = text[: min(stops)], "stop"
    if params.until is not None:
        answered = next((end for end in ends if end <= len(text) and params.until(text[:end])), None)
        if answered is not None:
            text, finish = text[:answered], "until"
    return Completion(text=text, tokens=max(1, len(text.split())), finish=finish)


def _word_ends(text: str) -> list[int]:
    """Where each word of a text ends."""
    ends: list[int] = []
    for word in text.split():
        ends.append(text.index(word, ends[-1] if ends else 0) + len(word))
    return ends
