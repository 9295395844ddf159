"""The same model file as other libraries' users run it: ``llama_cpp.Llama``, and that as the engine of a ``dspy.LM``.

The class reuses the beginning that a request shares with the one before it. Sampled requests get a seed of their own
each, by their number: DSPy tells rollouts apart in its cache only, and would get the same text again and again.
Invariant: one model however often DSPy copies what holds it; every request is counted, and a request beyond the
limit is refused before the model runs.
Leaves out: the library's way to load the binding, which would choose how this process's threads wait; the binding is
imported as its own users import it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

__all__ = ["BATCH", "LimitReachedError", "LlamaForDspy", "Usage", "cores", "open_llama"]

BATCH = 512
_MOST_SEED = 2**31 - 1


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_llama(path: str, context_tokens: int, *, logits_all: bool = False, draft_model: Any = None) -> Any:
    """The high-level class with its best fair settings: all cores, batches of 512, flash attention."""
    from llama_cpp import Llama

    return Llama(
        path,
        n_ctx=context_tokens,
        n_batch=BATCH,
        n_threads=cores(),
        n_threads_batch=cores(),
        flash_attn=True,
        logits_all=logits_all,
        draft_model=draft_model,
        verbose=False,
    )


class LimitReachedError(Exception):
    """A request came after the time that was allowed."""


@dataclass
class Usage:
    """What requests cost.

    Attributes:
        calls: requests answered.
        prompt_tokens: tokens of their prompts.
        generated_tokens: tokens written.
        evaluated_tokens: tokens run through the model: those of prompts that were not reused, and those written.
    """

    calls: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    evaluated_tokens: int = 0

    def since(self, before: Usage) -> Usage:
        """What was added to ``before``."""
        ours, theirs = asdict(self), asdict(before)
        return Usage(**{name: ours[name] - theirs[name] for name in ours})

    def to_dict(self) -> dict[str, int]:
        """Plain values."""
        return asdict(self)


class LlamaForDspy:
    """A ``Llama`` as DSPy's engine: one request, one response.

    Args:
        llama: the model.
        dspy: the module.
        plain_tokens: a request that is a lone user message is completed as it stands, outside the chat template, up
            to the end of its line and to so many tokens; None: every request is a chat.
        follows_schemas: whether JSON is held to the schema of the answer, as DSPy lets engines that can do so.
        seed: of sampled requests.

    Attributes:
        usage: what requests cost so far.
        deadline: moment (of ``time.perf_counter``) after which requests are refused; None: never.
    """

    def __init__(
        self,
        llama: Any,
        dspy: Any,
        *,
        plain_tokens: int | None = None,
        follows_schemas: bool = False,
        seed: int = 0,
    ) -> None:
        self._llama = llama
        self._dspy = dspy
        self._plain_tokens = plain_tokens
        self._seed = seed
        self.supports_response_schema = follows_schemas
        self.supported_params = ("temperature", "max_tokens", "stop", *(("response_format",) * follows_schemas))
        self.usage = Usage()
        self.deadline: float | None = None
        self._evaluate = partial(type(llama).eval, llama)  # not an earlier engine's count
        llama.eval = self._counted

    def __deepcopy__(self, memo: dict[int, object]) -> LlamaForDspy:
        return self

    def snapshot(self) -> Usage:
        """What requests cost so far, as it is now."""
        return Usage(**asdict(self.usage))

    def complete(self, request: Any) -> Any:
        """Answer a request.

        Raises:
            LimitReachedError: the deadline has passed.
        """
        if self.deadline is not None and time.perf_counter() > self.deadline:
            raise LimitReachedError("the time that was allowed is over")
        text, cut, usage = self._answered(request)
        self.usage.calls += 1
        self.usage.prompt_tokens += usage["prompt_tokens"]
        self.usage.generated_tokens += usage["completion_tokens"]
        return self._dspy.lm15.Response(
            id=None,
            model=request.model,
            message=self._dspy.lm15.Message.assistant(text),
            finish_reason="length" if cut else "stop",
            usage=self._dspy.lm15.Usage(
                input_tokens=usage["prompt_tokens"],
                output_tokens=usage["completion_tokens"],
                total_tokens=usage["total_tokens"],
            ),
        )

    def _answered(self, request: Any) -> tuple[str, bool, dict[str, int]]:
        """Text, whether it was cut, and token counts."""
        messages = _messages(request)
        options: dict[str, Any] = {"temperature": request.config.temperature or 0.0}
        if options["temperature"] > 0:
            options["seed"] = (self._seed * 1_000_003 + self.usage.calls) % _MOST_SEED
        if self._plain_tokens is not None and [message["role"] for message in messages] == ["user"]:
            options |= {"max_tokens": self._plain_tokens, "stop": ["\n"]}
            made = self._llama.create_completion(messages[0]["content"], **options)
            text = made["choices"][0]["text"]
        else:
            options |= {"max_tokens": request.config.max_tokens, "stop": list(request.config.stop)}
            if self.supports_response_schema and request.config.response_format:
                options["response_format"] = _llama_format(request.config.response_format)
            made = self._llama.create_chat_completion(messages, **options)
            text = made["choices"][0]["message"]["content"]
        return text, made["choices"][0]["finish_reason"] == "length", made["usage"]

    def _counted(self, tokens: Sequence[int]) -> None:
        self.usage.evaluated_tokens += len(tokens)
        self._evaluate(tokens)


def _messages(request: Any) -> list[dict[str, str]]:
    """A request's messages as the class takes them."""
    messages = [{"role": message.role, "content": message.text or ""} for message in request.messages]
    if isinstance(request.system, str):
        messages.insert(0, {"role": "system", "content": request.system})
    elif request.system:
        text = "\n".join(part.text for part in request.system)
        messages.insert(0, {"role": "system", "content": text})
    return messages


def _llama_format(asked: dict[str, Any]) -> dict[str, Any]:
    """DSPy's response format as the class names it."""
    schema = asked.get("schema") or asked.get("json_schema", {}).get("schema")
    return {"type": "json_object", "schema": schema} if schema else {"type": "json_object"}
