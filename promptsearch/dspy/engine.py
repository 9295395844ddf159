"""A GGUF model in this process as the engine of a ``dspy.LM``.

``lm("smollm2-135m")`` is a ``dspy.LM`` that needs no server. DSPy keeps its cache, retries, history and callbacks;
the engine answers one request, and requests of many threads are run together (:mod:`promptsearch.dspy.batching`).
Messages become the prompt that the model's own chat template writes; a model without one reads a transcript of lines
``User: …`` and ``Assistant: …``, and its answer ends before the next ``User:``.

``Config.extensions`` of a typed request may hold what only this engine knows:

- ``"plain": True``: the request is one user message, which the model continues outside its chat template.
- ``"shared": int``: with ``plain``, leading characters that other requests begin with too, so that what the model
  computed for them is kept. Answers follow from the prompt and this number, which decides how the prompt is read.
- ``"prefill": str``: what the assistant's turn begins with; the response holds what follows it.
- ``"choices": [str, …]``: texts that may follow the prompt, with a leading space where it needs one. They are scored,
  and the response is the likeliest one, stripped. ``response.provider_data["promptsearch"]["log_probabilities"]``
  holds the summed log-probability of each, in their order, also where the response comes from DSPy's cache.
- ``"grammar": str``: GBNF that the text follows.
- ``"min_p": float``: see :class:`promptsearch.lm.base.GenerationParams`.

Seeds. At temperature 0 the likeliest tokens are taken. Above it, a request that names a seed samples from that.
Others may be equal though DSPy wants different texts (``n``, ``rollout_id``), so each gets a seed of its own: of the
engine's seed, the request, and how many equal ones this engine answered before. A process that makes the same
requests in the same order gets the same texts, unless DSPy's cache answers some of them, which the engine never sees.

Invariant: what a request asks for is done or refused with a reason, never dropped; control tokens in messages are
data; copies of an engine are the engine.
Leaves out: tools, images, and servers, for which ``dspy.LM`` needs no engine.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import logging
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import dspy
from dspy import lm15

from promptsearch.dspy.batching import shared_dispatcher
from promptsearch.dspy.requests import (
    TRANSCRIPT_STOP,
    chat_prompt,
    check_choices,
    extensions_of,
    json_schema_of,
    plain_prompt,
    refuse_what_cannot_be_done,
    transcript_prompt,
    turns_of,
)
from promptsearch.dspy.streams import Stream, errors_for_dspy
from promptsearch.errors import ArtifactError, ModelError
from promptsearch.lm.base import Completion, Engine, GenerationParams, Rendered
from promptsearch.lm.resolve import OpenedModel, open_engine
from promptsearch.template import ChatFormat

__all__ = ["AsyncLocalEngine", "LocalEngine", "lm"]

_logger = logging.getLogger("promptsearch.dspy")

_MAX_TOKENS = 256
_AT_ONCE = 64  # asynchronous requests in flight; the engine itself writes no more texts together
_LEAST = -1e9  # stands for minus infinity, which JSON lacks

_Value = TypeVar("_Value")


def lm(
    model: object = None,
    *,
    weights: str = "auto",
    temperature: float = 0.0,
    max_tokens: int = _MAX_TOKENS,
    cache: bool = True,
    seed: int = 0,
    **options: Any,
) -> dspy.LM:
    """A ``dspy.LM`` on a model in this process.

    The LM's name holds a hash of model and weights, so that DSPy's cache never mixes two of them up.

    Args:
        model: None for the packaged one, a name, a path of a GGUF file, ``"hf:owner/repo:quant"``, or an object with
            ``score`` and ``generate``. The same model given twice is opened once.
        weights: for GGUF files, see :func:`promptsearch.lm.resolve.open_engine`.
        temperature: 0 takes the likeliest tokens; above it samples.
        max_tokens: new tokens at most; also of typed requests that name no number.
        cache: whether DSPy keeps responses.
        seed: what the seeds of sampled requests derive from, see :mod:`promptsearch.dspy.engine`.
        **options: as of ``dspy.LM``, such as ``top_p``, ``stop`` or ``callbacks``. ``num_retries`` is 0 if it is not
            given, since a model in this process fails the same way again.

    Raises:
        ModelError: the model cannot be found or opened, or needs no engine.
        UserError: ``weights`` names no weights.
    """
    engine = LocalEngine(_opened(model, weights), weights=weights, seed=seed, max_tokens=max_tokens)
    return dspy.LM(
        model=engine.lm_name,
        engine=engine,
        async_engine=AsyncLocalEngine(engine),
        temperature=temperature,
        max_tokens=max_tokens,
        cache=cache,
        **{"num_retries": 0, **options},
    )


def _opened(model: object, weights: str) -> OpenedModel:
    """Open a model of this process."""
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        raise ModelError(
            f"the server {model!r} needs no engine of ours; give dspy.LM('openai/<its model>', api_base={model!r})"
        )
    if isinstance(model, dspy.BaseLM):
        raise ModelError(f"a {type(model).__name__} is a language model of DSPy already; use it as it is")
    return open_engine(model, weights)


class LocalEngine:
    """One model behind DSPy's engine protocol.

    Args:
        opened: the model; engines on the same one share its dispatcher.
        weights: the weights that were asked for, to open it again.
        seed: what the seeds of sampled requests derive from.
        max_tokens: new tokens of a request that names no number.

    Attributes:
        engine: the engine underneath.
        supported_params: parameters of a ``dspy.LM`` that are honoured.
        supports_response_schema: whether answers can be held to a JSON Schema.
    """

    supports_function_calling = False
    supports_reasoning = False

    def __init__(
        self, opened: OpenedModel, *, weights: str = "auto", seed: int = 0, max_tokens: int = _MAX_TOKENS
    ) -> None:
        self.engine = opened.engine
        self._source = opened.source
        self._weights = weights
        self._seed = seed
        self._max_tokens = max_tokens
        self._dispatcher = shared_dispatcher(opened.engine)
        self._chat = _chat_format(opened.engine)
        self._answered: Counter[bytes] = Counter()
        self._counting = threading.Lock()
        self.supports_response_schema = bool(opened.engine.follows_grammars)
        self.supported_params = (
            *("temperature", "max_tokens", "top_p", "top_k", "stop", "seed", "logprobs"),
            *(("response_format",) if self.supports_response_schema else ()),
        )

    def __copy__(self) -> LocalEngine:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> LocalEngine:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).load_state, (self.dump_state(),)

    @property
    def lm_name(self) -> str:
        """What a ``dspy.LM`` on this engine is called: DSPy's cache tells models apart by it."""
        digest = hashlib.sha256(self.engine.fingerprint.encode()).hexdigest()[:12]
        return f"promptsearch/{self.engine.name}@{digest}" + (f"-seed{self._seed}" if self._seed else "")

    def fits(self, prompt: str, tokens: int) -> bool:
        """Whether a prompt and so many new tokens fit the model's context together."""
        room = self.engine.context_tokens - tokens
        if len(prompt.encode("utf-8", "surrogatepass")) < room:
            return True  # no tokenizer makes more tokens than there are bytes, but for one that begins the text
        return self.engine.count_tokens([prompt])[0] <= room

    def crowd(self, threads: int, tasks: int) -> AbstractContextManager[Callable[[], None]]:
        """While so many threads work through tasks: see :meth:`promptsearch.dspy.batching.Dispatcher.crowd`."""
        return self._dispatcher.crowd(threads, tasks)

    def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer a request.

        Raises:
            lm15.ContextLengthError: prompt and answer do not fit the model's context.
            lm15.InvalidRequestError: what was asked breaks a rule.
            lm15.UnsupportedFeatureError: it asks for what this engine cannot do.
            lm15.ServerError: the model failed.
        """
        with errors_for_dspy():
            asked = self._read(request)
            if asked.choices:
                return self._chosen(request, asked)
            return self._written(request, asked.prompt, self._seeded(request, asked))

    def stream(self, request: lm15.Request) -> Iterator[Any]:
        """Events of a request: a start, a piece of text for each token or so, and an end.

        Scored choices and log-probabilities come in one piece.

        Raises:
            lm15.LM15Error: as of :meth:`complete`, when the first event is taken at the latest.
        """
        with errors_for_dspy():
            asked = self._read(request)
            if asked.choices or asked.params.log_probabilities:
                return iter(lm15.response_to_events(self.complete(request)))
            params = self._seeded(request, asked)
        return Stream(
            request.model,
            lambda until: self._written(request, asked.prompt, replace(params, until=until)),
            params.stop,
        )

    def close(self) -> None:
        """Free the model, for everyone who shares it; opening it again is possible."""
        self.engine.close()

    def dump_state(self) -> dict[str, Any]:
        """What opens the engine again, as plain values.

        Raises:
            ModelError: the model is an object that exists in this process only.
        """
        if not self._source:
            raise ModelError(
                f"the model {self.engine.name!r} was given as an object, which no file can name; open it by name or "
                "path, or save the program without its LM"
            )
        return {
            "model": self._source,
            "weights": self._weights,
            "fingerprint": self.engine.fingerprint,
            "seed": self._seed,
            "max_tokens": self._max_tokens,
        }

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> LocalEngine:
        """Open an engine again.

        Weights of another type or another version of llama.cpp, which this machine may have chosen, are logged.

        Args:
            state: what :meth:`dump_state` gave.

        Raises:
            ArtifactError: the state is damaged, or the model's file is another one than it was.
            ModelError: the model cannot be found or opened.
        """
        try:
            model, weights, fingerprint = str(state["model"]), str(state["weights"]), str(state["fingerprint"])
            seed, max_tokens = int(state["seed"]), int(state["max_tokens"])
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"the saved engine cannot be read ({error!r}); save the program anew with this version"
            ) from error
        opened = _opened(model, weights)
        _check_same(model, fingerprint, opened.engine.fingerprint)
        return cls(opened, weights=weights, seed=seed, max_tokens=max_tokens)

    # -- what is asked --------------------------------------------------------------------------------------

    def _read(self, request: lm15.Request) -> _Asked:
        """A request as the engine underneath takes it; whatever it cannot do is refused here."""
        refuse_what_cannot_be_done(request, self.engine.name, follows_schemas=self.supports_response_schema)
        given = extensions_of(request.config)
        asked = self._params(request.config, given)
        choices = tuple(given.get("choices", ()))
        if "choices" in given:
            check_choices(choices, request.config, given)
        return _Asked(self._prompt(request, given), asked, choices)

    def _params(self, config: lm15.Config, given: Mapping[str, Any]) -> GenerationParams:
        ends = () if self._chat is not None or given.get("plain") else (TRANSCRIPT_STOP,)
        return GenerationParams(
            max_tokens=config.max_tokens or self._max_tokens,
            temperature=config.temperature or 0.0,
            top_k=config.top_k or 0,
            top_p=1.0 if config.top_p is None else config.top_p,
            min_p=given.get("min_p", 0.0),
            stop=(*config.stop, *ends),
            grammar=given.get("grammar"),
            json_schema=json_schema_of(config.response_format),
            log_probabilities=config.logprobs is not None,
        )

    def _prompt(self, request: lm15.Request, given: Mapping[str, Any]) -> Rendered:
        turns = turns_of(request)
        if given.get("plain"):
            return plain_prompt(turns, given)
        if "shared" in given:
            raise lm15.InvalidRequestError("the extension 'shared' is for 'plain' prompts; leave it out of a chat")
        if turns[-1]["role"] == "assistant":
            raise lm15.InvalidRequestError(
                "the last message is the assistant's; end with a user message, and give the extension 'prefill' for "
                "what the assistant's turn begins with"
            )
        prefill = given.get("prefill", "")
        if self._chat is None:
            return transcript_prompt(turns, prefill)
        return chat_prompt(self._chat, turns, prefill)

    def _seeded(self, request: lm15.Request, asked: _Asked) -> GenerationParams:
        """How to generate, with the seed that this request samples from."""
        if asked.params.temperature == 0:
            return asked.params
        seed = request.config.seed
        return replace(asked.params, seed=self._next_seed(asked) if seed is None else seed)

    def _next_seed(self, asked: _Asked) -> int:
        """A seed of the engine's, the request, and how many equal ones were answered before."""
        question = f"{self._seed}\0{asked.params!r}\0{asked.prompt}".encode("utf-8", "surrogatepass")
        digest = hashlib.sha256(question).digest()
        with self._counting:
            number = self._answered[digest]
            self._answered[digest] += 1
        return int.from_bytes(hashlib.sha256(digest + number.to_bytes(8, "big")).digest()[:8], "big")

    # -- what is answered -----------------------------------------------------------------------------------

    def _written(self, request: lm15.Request, prompt: str, params: GenerationParams) -> lm15.Response:
        """The response that the model writes."""
        completion, tokens = self._dispatcher.generate_counted(prompt, params)
        logprobs, complete = _token_logprobs(completion) if params.log_probabilities else (None, True)
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant(completion.text),
            finish_reason="length" if completion.finish == "length" else "stop",
            usage=lm15.Usage(input_tokens=tokens, output_tokens=completion.tokens),
            logprobs=logprobs,
            logprobs_complete=complete,
        )

    def _chosen(self, request: lm15.Request, asked: _Asked) -> lm15.Response:
        """The response that is the likeliest choice; no token is written for it."""
        scores, tokens = self._dispatcher.score_counted(asked.prompt, asked.choices)
        values = [max(float(score), _LEAST) for score in scores]
        return lm15.Response(
            id=None,
            model=request.model,
            message=lm15.Message.assistant(asked.choices[int(scores.argmax())].strip()),
            finish_reason="stop",
            usage=lm15.Usage(input_tokens=tokens, output_tokens=0),
            provider_data={"promptsearch": {"log_probabilities": values}},
        )


class AsyncLocalEngine:
    """The same engine for ``await``: requests wait in threads, so that those in flight run together.

    Args:
        engine: the engine.
    """

    def __init__(self, engine: LocalEngine) -> None:
        self._engine = engine
        # of its own: asyncio's threads are few on small machines, and DSPy needs them for its cache meanwhile
        self._threads = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="promptsearch")

    def __copy__(self) -> AsyncLocalEngine:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> AsyncLocalEngine:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._engine,)

    async def complete(self, request: lm15.Request) -> lm15.Response:
        """Answer a request; see :meth:`LocalEngine.complete`."""
        return await self._in_thread(partial(self._engine.complete, request))

    async def stream(self, request: lm15.Request) -> AsyncIterator[Any]:
        """Events of a request; see :meth:`LocalEngine.stream`."""
        events: Any = await self._in_thread(partial(self._engine.stream, request))
        try:
            while (event := await self._in_thread(partial(next, events, None))) is not None:
                yield event
        finally:
            events.close()

    async def aclose(self) -> None:
        """Free the model; see :meth:`LocalEngine.close`."""
        await self._in_thread(self._engine.close)

    def dump_state(self) -> dict[str, Any]:
        """What opens the engine again; see :meth:`LocalEngine.dump_state`."""
        return self._engine.dump_state()

    @classmethod
    def load_state(cls, state: Mapping[str, Any]) -> AsyncLocalEngine:
        """Open an engine again; see :meth:`LocalEngine.load_state`."""
        return cls(LocalEngine.load_state(state))

    async def _in_thread(self, function: Callable[[], _Value]) -> _Value:
        context = contextvars.copy_context()
        return await asyncio.get_running_loop().run_in_executor(self._threads, context.run, function)


@dataclass(frozen=True)
class _Asked:
    """What the engine underneath is asked.

    Attributes:
        prompt: the prompt.
        params: how to generate, without the seed.
        choices: continuations to score instead; empty for a text.
    """

    prompt: Rendered
    params: GenerationParams
    choices: tuple[str, ...]


def _chat_format(engine: Engine) -> ChatFormat | None:
    """The model's chat template; None where it has none that can be run."""
    source = engine.chat_template
    if not source:
        return None
    chat = ChatFormat(source, engine.text_marks)
    if chat.usable:
        return chat
    _logger.warning("the chat template of %s cannot be used; it reads messages as a plain transcript", engine.name)
    return None


def _check_same(model: str, saved: str, opened: str) -> None:
    """Compare fingerprints, which begin with the hash of the model's file."""
    if saved == opened:
        return
    if saved.split(":")[0] != opened.split(":")[0]:
        raise ArtifactError(
            f"the model {model!r} is another one than when the program was saved (fingerprint {opened!r}, then "
            f"{saved!r}); put that file back, or load the program without its LM and set another"
        )
    _logger.warning("%s was saved as %s and runs as %s here; some answers may differ", model, saved, opened)


def _token_logprobs(completion: Completion) -> tuple[tuple[Any, ...], bool]:
    """The tokens of the text with their log-probabilities, and whether these cover all of it.

    A stop string that ends the text inside a token leaves that token out.
    """
    kept = []
    length = 0
    for text, value in zip(completion.token_texts, completion.log_probabilities, strict=True):
        if length + len(text) > len(completion.text) or (length == len(completion.text) and completion.text):
            break
        kept.append(lm15.TokenLogprob(token=text, logprob=value))
        length += len(text)
    return tuple(kept), length == len(completion.text)
