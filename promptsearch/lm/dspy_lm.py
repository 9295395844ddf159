"""Any ``dspy.LM`` as an engine.

Labels are scored by the one that the model writes, since a ``dspy.LM`` does not score given texts. Cache,
retries and history stay DSPy's own.

Invariant: only canonical requests are made, which every engine behind a ``dspy.LM`` understands.
Leaves out: chat templates and adapters; a prompt is one user message.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from promptsearch.errors import BackendError, ContextError, ModelError
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.wrapped import (
    DEFAULT_CONTEXT,
    EstimatingEngine,
    GeneratedChoice,
    estimate_tokens,
    map_in_threads,
    refuse,
)
from promptsearch.optional import require

__all__ = ["DspyLM"]

_AT_ONCE = 8


class DspyLM(GeneratedChoice, EstimatingEngine):
    """A ``dspy.LM`` behind the engine protocol.

    Args:
        lm: the language model.
        context_tokens: tokens that prompt and answer may take together.

    Raises:
        ModelError: ``lm`` is no DSPy language model.
    """

    def __init__(self, lm: Any, *, context_tokens: int = DEFAULT_CONTEXT) -> None:
        dspy = require("dspy", install="dspy-ai")
        if not isinstance(lm, dspy.BaseLM):
            raise ModelError(f"a {type(lm).__name__} is no dspy.LM; give dspy.LM(...)")
        name = str(lm.model)
        super().__init__(name=name, fingerprint=f"dspy:{dspy.__version__}:{name}", context_tokens=context_tokens)
        self._lm = lm
        # an engine object may hold a model in this process, which takes one request at a time
        self._threads = _AT_ONCE if isinstance(getattr(lm, "engine", None), str) else 1

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order.

        Above temperature 0 every request has a seed of its own; ``min_p`` is not passed on, since DSPy's
        requests cannot carry it, and ``until`` is not asked, since a request cannot be stopped.

        Raises:
            BackendError: the model failed.
            ContextError: a prompt does not fit its context.
            UserError: ``params`` ask for a grammar, a JSON Schema or log-probabilities.
        """
        self._require_open()
        refuse(params, self.name, "grammar", "json_schema", "log_probabilities")
        params.require_seeds(len(prompts))
        said = map_in_threads(
            lambda item: self._said(item[1], params, item[0]),
            enumerate(prompts),
            self._threads,
            threading.Event(),
        )
        refusal = next((each for each in said if isinstance(each, ContextError)), None)
        if refusal is not None:
            raise refusal
        return [each for each in said if isinstance(each, Completion)]

    def _said(self, prompt: str, params: GenerationParams, number: int) -> Completion | ContextError:
        """An answer or a refusal; those beside a refusal end, so that it costs the same tokens each time."""
        try:
            return self._complete(prompt, params, number)
        except ContextError as error:
            return error

    def _complete(self, prompt: str, params: GenerationParams, number: int) -> Completion:
        dspy = require("dspy", install="dspy-ai")
        request = dspy.lm15.Request(
            model=self._lm.model,
            messages=(dspy.lm15.Message.user(str(prompt)),),
            config=dspy.lm15.Config(**_options(params, number)),
        )
        try:
            response = self._lm(request)
        except dspy.utils.exceptions.ContextWindowExceededError as error:
            raise ContextError(f"a prompt does not fit {self.name!r}: {_line(error)}; shorten it") from error
        except dspy.utils.exceptions.LMError as error:
            raise BackendError(f"the dspy.LM {self.name!r} failed: {_line(error)}") from error
        return self._read(response, prompt)

    def _read(self, response: Any, prompt: str) -> Completion:
        if response.finish_reason == "error":
            raise BackendError(f"the dspy.LM {self.name!r} answered with an error; look at its history")
        text = response.text or ""
        usage = response.usage
        tokens = int(getattr(usage, "output_tokens", None) or estimate_tokens(text))
        self._count_decoded(int(getattr(usage, "input_tokens", None) or estimate_tokens(prompt)) + tokens)
        return Completion(text=text, tokens=tokens, finish="length" if response.finish_reason == "length" else "stop")


def _options(params: GenerationParams, number: int) -> dict[str, Any]:
    """Fields of a request's config; those at their default are left out."""
    options: dict[str, Any] = {
        "max_tokens": params.max_tokens,
        "temperature": params.temperature,
        "stop": tuple(params.stop),
    }
    if params.temperature > 0:
        seed, place = params.seed_of(number)
        options["seed"] = (seed * 1_000_003 + place) % 2**31
        if params.top_p < 1:
            options["top_p"] = params.top_p
        if params.top_k > 0:
            options["top_k"] = params.top_k
    return options


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
