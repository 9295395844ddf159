"""An OpenAI-compatible server as an engine: llama-server, Ollama, vLLM, LM Studio, or a hosted one.

Labels are scored by the one that the model writes, since such servers do not score given texts.

Invariant: the key is sent to the server and shown nowhere: not in a repr, a fingerprint, a log or an error.
Leaves out: chat templates; a prompt goes to ``completions`` as it is, or, where the server has no such
route, as one user message to ``chat/completions``.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

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

__all__ = ["EndpointLM"]

_logger = logging.getLogger(__name__)
_ATTEMPTS = 5
_LONGEST_WAIT = 20.0  # seconds between two attempts, unless the server asks for more
_LONGEST_ASKED = 60.0  # seconds that a server may ask for between two attempts
_PATIENCE = 60.0  # seconds of waiting until a busy server is given up
_MOST_SPARED = 512  # answers beside refused prompts that are kept until they are asked for again
_CONNECT = 10.0  # seconds to reach a server
_BUSY = (429, 503)
_REFUSED = (400, 413, 422)  # for what was asked, such as its length
_NO_ROUTE = (404, 405, 501)
_AT_ONCE = 8  # requests in flight: servers batch what arrives together


_NAMED = re.compile(r"(?P<name>[^?]*)(?:\?context=(?P<context>[1-9][0-9]{0,8}))?")
_TOO_LONG = re.compile(
    r"context_length_exceeded|exceed_context_size|maximum (context|model) length|context (length|size|window)",
    re.IGNORECASE,
)  # OpenAI, llama-server, vLLM, and others


class _Passing(Exception):
    """A failure that may be gone at the next attempt.

    Attributes:
        busy: whether the server says that it has too much to do.
        wait: seconds until the next attempt that it asks for, 0 where it does not.
    """

    def __init__(self, message: str, *, busy: bool = False, wait: float = 0.0) -> None:
        super().__init__(message)
        self.busy = busy
        self.wait = wait


class _Asked(NamedTuple):
    """What decides about an answer: the prompt, whether log-probabilities are wanted, and the options as JSON."""

    prompt: str
    log_probabilities: bool
    options: str


class EndpointLM(GeneratedChoice, EstimatingEngine):
    """A model behind a URL.

    Args:
        url: where the server is, such as ``"http://localhost:8080"``; ``/v1`` is added where there is no
            path. ``"http://localhost:8080#name"`` names the model too, and ``"#name?context=8192"`` or
            ``"#?context=8192"`` says what it has room for.
        model: the model's name on the server; None for the only one that it lists.
        api_key: None for the environment variable ``OPENAI_API_KEY``, or no key.
        context_tokens: tokens that prompt and answer may take together; None for what the URL says, or 4096.
        timeout: seconds that one request may take.

    Raises:
        ModelError: the URL cannot be used, or the server lists no model or several.
        BackendError: the server does not answer.
    """

    def __init__(
        self,
        url: str,
        model: str | None = None,
        api_key: str | None = None,
        *,
        context_tokens: int | None = None,
        timeout: float = 120.0,
    ) -> None:
        self._base, named, context = _parsed(url)
        context = context_tokens or context or DEFAULT_CONTEXT
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        httpx = require("httpx", install="httpx")
        self._client: Any = httpx.Client(
            headers=headers, timeout=httpx.Timeout(timeout, connect=min(timeout, _CONNECT))
        )
        self._chat = False
        self._spared: dict[_Asked, Completion | ContextError] = {}
        self._model = model or named or self._only_model()
        super().__init__(
            name=self._model,
            fingerprint=f"endpoint:{self._base}:{self._model}"
            + (f":context={context}" if context != DEFAULT_CONTEXT else ""),
            context_tokens=context,
        )

    def __repr__(self) -> str:
        return f"EndpointLM({self._base!r}, {self._model!r})"

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order; several are requested at once.

        Above temperature 0 every request has a seed of its own, which servers may disregard. A JSON Schema goes
        out as ``response_format``. Log-probabilities are those that the server returns, and empty where it
        returns none. ``until`` is not asked: a server answers in full, and where its tokens end is not known.

        Where the server refuses a prompt as too long, the others are still asked, and are not asked again if a call
        soon after repeats some of them.

        Raises:
            ContextError: a prompt is longer than the server takes.
            BackendError: the server refuses, still fails after several attempts, or ends an answer that is no
                JSON though a JSON Schema was given.
            UserError: ``params`` ask for a grammar, which servers pass over in silence.
        """
        self._require_open()
        refuse(params, self.name, "grammar")
        params.require_seeds(len(prompts))
        asked = [
            _Asked(str(prompt), params.log_probabilities, json.dumps(_options(params, number)))
            for number, prompt in enumerate(prompts)
        ]
        stop = threading.Event()
        first = 0 if self._chat else 1  # it finds out which route the server has
        said = [self._said(each, params, stop) for each in asked[:first]]
        said += map_in_threads(lambda each: self._said(each, params, stop), asked[first:], _AT_ONCE, stop)
        refusal = next((each for each in said if isinstance(each, ContextError)), None)
        if refusal is not None and len(asked) > 1:
            self._spared.update(zip(asked, said, strict=True))
            while len(self._spared) > _MOST_SPARED:  # the oldest belong to what the caller has left behind
                del self._spared[next(iter(self._spared))]
        else:
            for each in asked:
                self._spared.pop(each, None)
        if refusal is not None:
            raise ContextError(str(refusal))
        return [each for each in said if isinstance(each, Completion)]

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._client.close()

    def _said(self, asked: _Asked, params: GenerationParams, stop: threading.Event) -> Completion | ContextError:
        """What the server writes, or why it takes no such prompt."""
        known = self._spared.get(asked)
        if known is not None:
            return known
        try:
            return self._complete(asked, params, stop)
        except ContextError as error:
            return error

    def _complete(self, of: _Asked, params: GenerationParams, stop: threading.Event) -> Completion:
        prompt = of.prompt
        body = {"model": self._model, **json.loads(of.options)}
        answer = None
        if not self._chat:
            asked = {"logprobs": 1} if params.log_probabilities else {}
            answer = self._request("completions", {**body, **asked, "prompt": prompt}, stop, may_lack=True)
            self._chat = answer is None
        if answer is None:
            messages = [{"role": "user", "content": prompt}]
            asked = {"logprobs": True} if params.log_probabilities else {}
            answer = self._request("chat/completions", {**body, **asked, "messages": messages}, stop)
        completion, prompt_tokens = self._read(answer, prompt)
        if params.json_schema is not None and not params.stop and completion.finish == "stop":
            self._check_json(completion.text)
        self._count_decoded(prompt_tokens + completion.tokens)
        return completion

    def _only_model(self) -> str:
        answer = self._request("models", None, threading.Event())
        listed = answer.get("data") if isinstance(answer, dict) else None
        names = [item["id"] for item in listed or [] if isinstance(item, dict) and "id" in item]
        if len(names) != 1:
            shown = ", ".join(map(repr, names[:5])) or "none"
            raise ModelError(
                f"the server at {self._base} lists {len(names)} models ({shown}); "
                f"name one with model=, or as {self._base}#name"
            )
        return str(names[0])

    def _request(
        self, route: str, body: Mapping[str, object] | None, stop: threading.Event, *, may_lack: bool = False
    ) -> Any:
        """The server's answer as JSON, after several attempts if need be; None for a route that it lacks.

        A busy server is given more time. Once ``stop`` is set there are no further attempts.
        """
        tenacity = require("tenacity", install="tenacity")
        backoff = tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT)

        def given_up(state: Any) -> bool:
            if stop.is_set() or state.idle_for >= _PATIENCE:
                return True
            return bool(state.attempt_number >= _ATTEMPTS and not state.outcome.exception().busy)

        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=given_up,
            wait=lambda state: max(backoff(state), state.outcome.exception().wait),
            sleep=tenacity.sleep_using_event(stop),
            reraise=True,
        )
        try:
            return attempts(self._request_once, route, body, stop, may_lack)
        except _Passing as error:
            raise BackendError(
                f"{error} ({attempts.statistics['attempt_number']} attempts); try again later"
            ) from None

    def _request_once(
        self, route: str, body: Mapping[str, object] | None, stop: threading.Event, may_lack: bool
    ) -> Any:
        httpx = require("httpx", install="httpx")
        url = f"{self._base}/{route}"
        if stop.is_set():
            raise BackendError(f"the request to {url} was given up; ask again")
        try:
            response = self._client.get(url) if body is None else self._client.post(url, json=body)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            raise BackendError(f"no server answers at {url}; start it, or correct the URL") from None
        except httpx.TimeoutException:
            raise _Passing(f"the server at {url} did not answer in time") from None
        except httpx.HTTPError as error:
            raise _Passing(f"the connection to {url} broke ({type(error).__name__})") from None
        if response.status_code in _NO_ROUTE and may_lack:
            _logger.info("%s has no completions route; prompts go out as chat messages", self._base)
            return None
        return self._checked(response, url)

    def _checked(self, response: Any, url: str) -> Any:
        """The JSON of a good response.

        Raises:
            _Passing: the server is busy or broken for now.
            ContextError: it takes no prompt as long as this one.
            BackendError: it refused the request, or answered with something else.
        """
        said = self._quoted(response.text)
        busy = response.status_code in _BUSY
        if response.status_code in _REFUSED and _TOO_LONG.search(response.text):
            raise ContextError(
                f"a prompt is too long for the server at {url} ({response.status_code}): {said}; shorten it, or say "
                f"how many tokens prompt and answer may take, such as {self._base}#{self._model}?context=2048"
            )
        if busy or response.status_code >= 500:
            wait = _seconds_asked(response.headers)
            raise _Passing(f"the server at {url} answered {response.status_code}: {said}", busy=busy, wait=wait)
        if response.status_code >= 400:
            raise BackendError(
                f"the server at {url} refused the request ({response.status_code}): {said}; "
                "check model name, key and prompt length"
            )
        try:
            return response.json()
        except ValueError:
            raise BackendError(f"the server at {url} answered with no JSON: {said}; check the URL") from None

    def _read(self, answer: Any, prompt: str) -> tuple[Completion, int]:
        """Completion and number of prompt tokens in a server's answer."""
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if "message" in choice else choice["text"]
        except (KeyError, IndexError, TypeError):
            raise BackendError(
                f"the server at {self._base} answered without a completion: {self._quoted(str(answer))}; "
                "it must speak the OpenAI protocol"
            ) from None
        text = "" if text is None else str(text)
        usage = answer.get("usage") or {}
        tokens = _tokens_of(choice.get("logprobs"))
        completion = Completion(
            text=text,
            tokens=int(usage.get("completion_tokens") or len(tokens) or estimate_tokens(text)),
            finish="length" if choice.get("finish_reason") == "length" else "stop",
            log_probabilities=tuple(value for _, value in tokens),
            token_texts=tuple(token for token, _ in tokens),
        )
        return completion, int(usage.get("prompt_tokens") or estimate_tokens(prompt))

    def _check_json(self, text: str) -> None:
        """Notice a server that passes over ``response_format``."""
        try:
            json.loads(text)
        except ValueError:
            raise BackendError(
                f"the server at {self._base} was given a JSON Schema and answered {self._quoted(text)}; "
                "it does not follow response_format, so leave json_schema out"
            ) from None

    def _quoted(self, text: str) -> str:
        """What a server said on one short line; some repeat the key that they were sent."""
        line = " ".join(text.split())
        if self._key:
            line = line.replace(self._key, "***")
        return line[:200] or "(nothing)"


def _tokens_of(logprobs: Any) -> list[tuple[str, float]]:
    """Tokens and their log-probabilities, as completions or chat completions return them; empty without them."""
    try:
        if "content" in logprobs:
            return [(str(token["token"]), float(token["logprob"])) for token in logprobs["content"]]
        pairs = zip(logprobs["tokens"], logprobs["token_logprobs"], strict=True)
        return [(str(token), float(value)) for token, value in pairs]
    except (KeyError, TypeError, ValueError):
        return []


def _seconds_asked(headers: Mapping[str, str]) -> float:
    """Seconds that ``Retry-After`` asks for, as a number or a date, up to a limit; 0 where it does not."""
    asked, sent = headers.get("Retry-After", "").strip(), headers.get("Date", "")
    try:
        seconds = float(asked)
    except ValueError:
        try:
            now = parsedate_to_datetime(sent) if sent else datetime.now(timezone.utc)
            seconds = (parsedate_to_datetime(asked) - now).total_seconds()
        except (TypeError, ValueError, IndexError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), _LONGEST_ASKED) if math.isfinite(seconds) else 0.0


def _parsed(url: str) -> tuple[str, str, int]:
    """Base URL of the routes, the model that the URL names, and its context, 0 where the URL does not say."""
    httpx = require("httpx", install="httpx")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ModelError("the model URL cannot be read; write it like http://localhost:8080/v1") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ModelError("the model URL is none; write it like http://localhost:8080/v1")
    if parsed.userinfo or parsed.query:
        raise ModelError(
            f"the URL of {parsed.host} holds a password or a query, which would show in reports; "
            "give the key as api_key= or in OPENAI_API_KEY"
        )
    base = str(parsed.copy_with(fragment=None)).rstrip("/")
    named = _NAMED.fullmatch(str(parsed.fragment))
    if named is None:
        raise ModelError(
            f"the model URL ends in {'#' + str(parsed.fragment)!r}; write the model's name after the #, and the "
            "tokens that it has room for like #name?context=8192"
        )
    return (base if parsed.path.strip("/") else base + "/v1"), named["name"], int(named["context"] or 0)


def _options(params: GenerationParams, number: int) -> dict[str, object]:
    """Request fields; those at their default are left out, since not every server knows them all."""
    options: dict[str, object] = {"max_tokens": params.max_tokens, "temperature": params.temperature}
    if params.stop:
        options["stop"] = list(params.stop)
    if params.json_schema is not None:
        schema = {"name": "answer", "schema": dict(params.json_schema), "strict": True}
        options["response_format"] = {"type": "json_schema", "json_schema": schema}
    if params.temperature > 0:
        seed, place = params.seed_of(number)
        options["seed"] = (seed * 1_000_003 + place) % 2**31
        if params.top_p < 1:
            options["top_p"] = params.top_p
        if params.top_k > 0:
            options["top_k"] = params.top_k
        if params.min_p > 0:
            options["min_p"] = params.min_p
    return options
