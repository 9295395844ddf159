"""An OpenAI-compatible server as an engine: llama-server, Ollama, vLLM, LM Studio, or a hosted one.

Labels are scored by the one that the model writes, since such servers do not score given texts.

Invariant: the key is sent to the server and shown nowhere: not in a repr, a fingerprint, a log or an error.
Leaves out: chat templates; a prompt goes to ``completions`` as it is, or, where the server has no such
route, as one user message to ``chat/completions``.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from promptsearch.errors import BackendError, ModelError
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
_LONGEST_WAIT = 20.0  # seconds between two attempts
_NO_ROUTE = (404, 405, 501)
_AT_ONCE = 8  # requests in flight: servers batch what arrives together


class _Passing(Exception):
    """A failure that may be gone at the next attempt."""


class EndpointLM(GeneratedChoice, EstimatingEngine):
    """A model behind a URL.

    Args:
        url: where the server is, such as ``"http://localhost:8080"``; ``/v1`` is added where there is no
            path. ``"http://localhost:8080#name"`` names the model too.
        model: the model's name on the server; None for the only one that it lists.
        api_key: None for the environment variable ``OPENAI_API_KEY``, or no key.
        context_tokens: tokens that prompt and answer may take together.
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
        context_tokens: int = DEFAULT_CONTEXT,
        timeout: float = 120.0,
    ) -> None:
        self._base, named = _parsed(url)
        self._key = api_key or os.environ.get("OPENAI_API_KEY") or ""
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        httpx = require("httpx", install="httpx")
        self._client: Any = httpx.Client(headers=headers, timeout=timeout)
        self._chat = False
        self._model = model or named or self._only_model()
        super().__init__(
            name=self._model,
            fingerprint=f"endpoint:{self._base}:{self._model}",
            context_tokens=context_tokens,
        )

    def __repr__(self) -> str:
        return f"EndpointLM({self._base!r}, {self._model!r})"

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        """One completion for each prompt, in order; several are requested at once.

        Above temperature 0 every request has a seed of its own, which servers may disregard. A JSON Schema goes
        out as ``response_format``. Log-probabilities are those that the server returns, and empty where it
        returns none. ``until`` is not asked: a server answers in full, and where its tokens end is not known.

        Raises:
            BackendError: the server refuses, still fails after several attempts, or ends an answer that is no
                JSON though a JSON Schema was given.
            UserError: ``params`` ask for a grammar, which servers pass over in silence.
        """
        self._require_open()
        refuse(params, self.name, "grammar")
        params.require_seeds(len(prompts))
        numbered = list(enumerate(prompts))
        if not self._chat and numbered:  # the first one finds out which route the server has
            first = [self._complete(numbered[0], params)]
            numbered = numbered[1:]
        else:
            first = []
        return first + map_in_threads(lambda item: self._complete(item, params), numbered, _AT_ONCE)

    def close(self) -> None:
        """Close the connections."""
        super().close()
        self._client.close()

    def _complete(self, item: tuple[int, str], params: GenerationParams) -> Completion:
        number, prompt = item
        body = {"model": self._model, **_options(params, number)}
        answer = None
        if not self._chat:
            asked = {"logprobs": 1} if params.log_probabilities else {}
            answer = self._request("completions", {**body, **asked, "prompt": str(prompt)}, may_lack=True)
            self._chat = answer is None
        if answer is None:
            messages = [{"role": "user", "content": str(prompt)}]
            asked = {"logprobs": True} if params.log_probabilities else {}
            answer = self._request("chat/completions", {**body, **asked, "messages": messages})
        completion, prompt_tokens = self._read(answer, prompt)
        if params.json_schema is not None and not params.stop and completion.finish == "stop":
            self._check_json(completion.text)
        self._count_decoded(prompt_tokens + completion.tokens)
        return completion

    def _only_model(self) -> str:
        answer = self._request("models", None)
        listed = answer.get("data") if isinstance(answer, dict) else None
        names = [item["id"] for item in listed or [] if isinstance(item, dict) and "id" in item]
        if len(names) != 1:
            shown = ", ".join(map(repr, names[:5])) or "none"
            raise ModelError(
                f"the server at {self._base} lists {len(names)} models ({shown}); "
                f"name one with model=, or as {self._base}#name"
            )
        return str(names[0])

    def _request(self, route: str, body: Mapping[str, object] | None, *, may_lack: bool = False) -> Any:
        """The server's answer as JSON, after several attempts if need be; None for a route that it lacks."""
        tenacity = require("tenacity", install="tenacity")
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_Passing),
            stop=tenacity.stop_after_attempt(_ATTEMPTS),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT),
            reraise=True,
        )
        try:
            return attempts(self._request_once, route, body, may_lack)
        except _Passing as error:
            raise BackendError(f"{error} ({_ATTEMPTS} attempts); try again later") from None

    def _request_once(self, route: str, body: Mapping[str, object] | None, may_lack: bool) -> Any:
        httpx = require("httpx", install="httpx")
        url = f"{self._base}/{route}"
        try:
            response = self._client.get(url) if body is None else self._client.post(url, json=body)
        except httpx.TimeoutException:
            raise _Passing(f"the server at {url} did not answer in time") from None
        except httpx.ConnectError:
            raise BackendError(f"no server answers at {url}; start it, or correct the URL") from None
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
            BackendError: it refused the request, or answered with something else.
        """
        said = self._quoted(response.text)
        if response.status_code == 429 or response.status_code >= 500:
            raise _Passing(f"the server at {url} answered {response.status_code}: {said}")
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


def _parsed(url: str) -> tuple[str, str]:
    """Base URL of the routes, and the model that the URL names."""
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
    return (base if parsed.path.strip("/") else base + "/v1"), str(parsed.fragment)


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
