"""The server engine against a small server in a thread: routes, retries, errors, and the key kept secret."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.errors import BackendError, ContextError, ModelError, UserError
from promptsearch.lm.base import GenerationParams
from promptsearch.lm.endpoint import EndpointLM, _seconds_asked

KEY = "sk-secret-123"
Reply = tuple[int, object] | tuple[int, object, dict[str, str]]


class Server:
    """Answers as ``reply(route, body)`` says, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[str] = set()
        self.reply: Callable[[str, dict[str, Any]], Reply] = completions
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.answer({})

            def do_POST(self) -> None:
                self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def answer(self, body: dict[str, Any]) -> None:
                outer.asked.append((self.path, body))
                outer.keys.add(self.headers.get("Authorization", ""))
                status, content, *more = outer.reply(self.path, body)
                data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in (more[0] if more else {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"

    @property
    def routes(self) -> list[str]:
        return [route for route, _ in self.asked]


def text_for(prompt: str) -> str:
    return " positive" if "good" in prompt else " negative" if "bad" in prompt else " who knows"


def completions(route: str, body: dict[str, Any]) -> Reply:
    if route == "/v1/models":
        return 200, {"data": [{"id": "small"}]}
    assert route == "/v1/completions"
    choice = {"text": text_for(body["prompt"]), "finish_reason": "stop"}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 2}}


def chat_only(route: str, body: dict[str, Any]) -> Reply:
    if route != "/v1/chat/completions":
        return 404, {"error": "no such route"}
    (message,) = body["messages"]
    assert message["role"] == "user"
    content = {"role": "assistant", "content": text_for(message["content"])}
    return 200, {"choices": [{"message": content, "finish_reason": "length"}]}


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.01,))
    thread.start()
    yield running
    running.http.shutdown()
    thread.join()
    running.http.server_close()


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds that would have been waited between attempts; nobody waits."""
    waited: list[float] = []
    monkeypatch.setattr("tenacity.sleep_using_event", lambda _: waited.append)
    return waited


@pytest.fixture
def lm(server: Server) -> Iterator[EndpointLM]:
    opened = EndpointLM(server.url, "small", KEY)
    yield opened
    opened.close()


def test_prompts_go_to_completions_in_order(server: Server, lm: EndpointLM) -> None:
    prompts = [f"{word} {number}" for number in range(12) for word in ("good", "bad")]
    texts = [completion.text for completion in lm.generate(prompts, GenerationParams(max_tokens=5))]
    assert texts == [" positive", " negative"] * 12
    assert set(server.routes) == {"/v1/completions"}
    assert all(body["model"] == "small" and body["max_tokens"] == 5 for _, body in server.asked)
    assert server.keys == {f"Bearer {KEY}"}
    assert lm.tokens_decoded == 24 * 12


def test_labels_are_scored_by_the_answer(lm: EndpointLM) -> None:
    scores = lm.score(["good", "bad", "odd"], [" negative", " positive"])
    assert scores.tolist() == [[-np.inf, 0.0], [0.0, -np.inf], [-np.inf, -np.inf]]


def test_sampling_fields_are_sent_where_they_are_not_the_default(server: Server, lm: EndpointLM) -> None:
    lm.generate(["good"], GenerationParams())
    params = GenerationParams(temperature=0.7, top_k=5, top_p=0.9, stop=("\n",), seed=3)
    lm.generate(["good", "bad"], params)
    plain, *sampled = (body for _, body in server.asked)
    assert set(plain) == {"model", "prompt", "max_tokens", "temperature"}
    assert all((body["top_k"], body["top_p"], body["stop"]) == (5, 0.9, ["\n"]) for body in sampled)
    assert len({body["seed"] for body in sampled}) == 2


def test_a_server_without_completions_gets_chat_messages(server: Server, lm: EndpointLM) -> None:
    server.reply = chat_only
    first, second = lm.generate(["good", "bad"], GenerationParams())
    assert (first.text, second.text, first.finish) == (" positive", " negative", "length")
    assert first.tokens == 3
    assert server.routes == ["/v1/completions", "/v1/chat/completions", "/v1/chat/completions"]


SCHEMA = {"type": "object", "properties": {"label": {"type": "string"}}, "required": ["label"]}


def test_a_schema_goes_out_as_response_format(server: Server, lm: EndpointLM) -> None:
    choice = {"text": '{"label": "good"}', "finish_reason": "stop"}
    server.reply = lambda route, body: (200, {"choices": [choice]})
    assert json.loads(lm.generate(["good"], GenerationParams(json_schema=SCHEMA))[0].text) == {"label": "good"}
    asked = server.asked[0][1]["response_format"]
    assert (asked["type"], asked["json_schema"]["schema"]) == ("json_schema", SCHEMA)


def test_a_server_that_passes_over_a_schema_is_an_error(lm: EndpointLM) -> None:
    with pytest.raises(BackendError, match="does not follow response_format"):
        lm.generate(["good"], GenerationParams(json_schema=SCHEMA))
    assert lm.generate(["good"], GenerationParams(json_schema=SCHEMA, stop=("x",)))[0].text == " positive"


def test_a_grammar_is_refused_before_anything_is_asked(server: Server, lm: EndpointLM) -> None:
    with pytest.raises(UserError, match="cannot follow grammar"):
        lm.generate(["good"], GenerationParams(grammar='root ::= "a"'))
    assert server.asked == []


@pytest.mark.parametrize(
    ("logprobs", "expected"),
    [
        ({"tokens": [" po", "sitive"], "token_logprobs": [-0.5, -0.25]}, ((-0.5, -0.25), (" po", "sitive"))),
        ({"content": [{"token": " positive", "logprob": -0.5}]}, ((-0.5,), (" positive",))),
        (None, ((), ())),
        ({"tokens": [" positive"], "token_logprobs": [None]}, ((), ())),
        ("odd", ((), ())),
    ],
)
def test_log_probabilities_are_those_that_the_server_returns(
    server: Server, lm: EndpointLM, logprobs: object, expected: object
) -> None:
    choice = {"text": " positive", "finish_reason": "stop", "logprobs": logprobs}
    server.reply = lambda route, body: (200, {"choices": [choice]})
    completion = lm.generate(["good"], GenerationParams(log_probabilities=True))[0]
    assert (completion.log_probabilities, completion.token_texts) == expected
    assert server.asked[0][1]["logprobs"] == 1


def test_chat_routes_are_asked_for_log_probabilities_in_their_own_way(server: Server, lm: EndpointLM) -> None:
    server.reply = chat_only
    lm.generate(["good"], GenerationParams(log_probabilities=True))
    assert server.asked[1][1]["logprobs"] is True


def test_until_is_not_asked_of_a_server(lm: EndpointLM) -> None:
    def refuse(text: str) -> bool:
        raise AssertionError(text)

    assert lm.generate(["good"], GenerationParams(until=refuse))[0].text == " positive"


def test_the_only_model_is_found(server: Server) -> None:
    lm = EndpointLM(server.url + "/v1/")
    assert (lm.name, server.routes) == ("small", ["/v1/models"])
    lm.close()


def test_the_url_may_name_the_model(server: Server) -> None:
    lm = EndpointLM(server.url + "#large")
    assert lm.name == "large"
    assert server.asked == []
    assert lm.fingerprint == f"endpoint:{server.url}/v1:large"
    lm.close()


@pytest.mark.parametrize(("end", "name"), [("#large?context=512", "large"), ("#?context=512", "small")])
def test_the_url_may_say_what_the_model_has_room_for(server: Server, end: str, name: str) -> None:
    lm = EndpointLM(server.url + end)
    assert (lm.name, lm.context_tokens) == (name, 512)
    assert lm.fingerprint == f"endpoint:{server.url}/v1:{name}:context=512"
    assert EndpointLM(server.url + end, context_tokens=100).context_tokens == 100
    assert EndpointLM(server.url + "#large").context_tokens == 4096
    lm.close()


@pytest.mark.parametrize("end", ["#a?context=0", "#a?context=", "#a?context=many", "#a?ctx=512", "#a?context=5?b"])
def test_an_end_of_a_url_that_says_something_else(end: str) -> None:
    with pytest.raises(ModelError, match=r"#name\?context=8192"):
        EndpointLM("http://localhost:8080" + end)


@pytest.mark.parametrize("names", [[], ["a", "b"]])
def test_no_model_or_several_ask_for_a_name(server: Server, names: list[str]) -> None:
    server.reply = lambda route, body: (200, {"data": [{"id": name} for name in names]})
    with pytest.raises(ModelError, match=f"lists {len(names)} models"):
        EndpointLM(server.url)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_is_asked_again(server: Server, lm: EndpointLM, status: int) -> None:
    server.reply = lambda route, body: completions(route, body) if len(server.asked) > 3 else (status, "busy")
    assert lm.generate(["good"], GenerationParams())[0].text == " positive"
    assert len(server.asked) == 4


@pytest.mark.parametrize("status", [429, 503])
def test_a_server_that_stays_busy_is_an_error_after_a_minute(
    server: Server, lm: EndpointLM, pauses: list[float], status: int
) -> None:
    server.reply = lambda route, body: (status, "over\nloaded")
    with pytest.raises(BackendError, match=rf"{status}: over loaded \(\d+ attempts\)") as caught:
        lm.generate(["good"], GenerationParams())
    assert "\n" not in str(caught.value)
    assert 60 <= sum(pauses) < 60 + 20
    assert len(server.asked) == len(pauses) + 1 >= 5


def test_a_server_that_stays_broken_is_an_error_after_a_few_attempts(
    server: Server, lm: EndpointLM, pauses: list[float]
) -> None:
    server.reply = lambda route, body: (500, "broken")
    with pytest.raises(BackendError, match=r"500: broken \(5 attempts\)"):
        lm.generate(["good"], GenerationParams())
    assert len(server.asked) == 5
    assert sum(pauses) < 10


def test_the_wait_is_what_the_server_asks_for(server: Server, lm: EndpointLM, pauses: list[float]) -> None:
    asked = iter(["37", "3600"])

    def reply(route: str, body: dict[str, Any]) -> Reply:
        seconds = next(asked, None)
        return completions(route, body) if seconds is None else (429, "slowly", {"Retry-After": seconds})

    server.reply = reply
    assert lm.generate(["good"], GenerationParams())[0].text == " positive"
    assert pauses == [37, 60]


SENT = "Wed, 21 Oct 2015 07:28:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "2.5"}, 2.5),
        ({"Retry-After": "-1"}, 0),
        ({"Retry-After": "nan"}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:20 GMT", "Date": SENT}, 20),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:20 GMT", "Date": SENT}, 0),
        ({"Retry-After": "Wed, 21 Oct 2015 09:28:20 GMT", "Date": SENT}, 60),
        ({"Retry-After": SENT}, 0),
        ({"Retry-After": "soon"}, 0),
        ({}, 0),
    ],
)
def test_seconds_to_wait(headers: dict[str, str], seconds: float) -> None:
    assert _seconds_asked(headers) == seconds


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str), st.text(max_size=30) | st.just(SENT))
def test_any_header_asks_for_a_wait_that_can_be_waited(asked: str, sent: str) -> None:
    assert 0 <= _seconds_asked({"Retry-After": asked, "Date": sent}) <= 60


def test_a_timeout_is_tried_again_and_then_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        lm = EndpointLM(f"http://127.0.0.1:{silent.getsockname()[1]}", "small", timeout=0.05)
        with pytest.raises(BackendError, match=r"did not answer in time \(5 attempts\)"):
            lm.generate(["good"], GenerationParams())
        lm.close()


def test_a_refusal_is_an_error_at_once(server: Server, lm: EndpointLM) -> None:
    server.reply = lambda route, body: (400, {"error": "prompt too long"})
    with pytest.raises(BackendError, match=r"refused the request \(400\).*prompt too long"):
        lm.generate(["good", "bad"], GenerationParams())
    assert len(server.asked) == 1


REFUSALS = (
    {"error": {"message": "too many tokens", "type": "invalid_request_error", "code": "context_length_exceeded"}},
    {"object": "error", "message": "This model's maximum context length is 512 tokens. However, you requested 601"},
    {"error": {"code": 400, "message": "the request exceeds it", "type": "exceed_context_size_error"}},
    {"error": {"code": 400, "message": "the request exceeds the available context size, try increasing it"}},
)


def refusing(content: object) -> Callable[[str, dict[str, Any]], Reply]:
    """A server that refuses prompts with "long" in them."""

    def reply(route: str, body: dict[str, Any]) -> Reply:
        return (400, content) if "long" in body["prompt"] else completions(route, body)

    return reply


@pytest.mark.parametrize("content", REFUSALS)
def test_a_prompt_that_is_too_long_for_the_server_is_told_as_such(
    server: Server, lm: EndpointLM, content: object
) -> None:
    server.reply = refusing(content)
    with pytest.raises(ContextError, match=rf"too long.*{server.url}/v1#small\?context=2048") as caught:
        lm.generate(["long"], GenerationParams())
    assert "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_what_was_answered_beside_a_prompt_that_is_too_long_is_not_asked_again(
    server: Server, lm: EndpointLM
) -> None:
    server.reply = refusing(REFUSALS[0])
    prompts = [f"good {number}" for number in range(20)]
    with pytest.raises(ContextError):
        lm.generate([*prompts[:7], "long", *prompts[7:]], GenerationParams())
    assert len(server.asked) == 21
    lm.generate(["good in between, as the second step of reasoning is"], GenerationParams())
    decoded = lm.tokens_decoded
    with pytest.raises(ContextError):
        lm.generate([*prompts[:7], "long"], GenerationParams())
    assert [each.text for each in lm.generate(prompts, GenerationParams())] == [" positive"] * 20
    assert (len(server.asked), lm.tokens_decoded) == (22, decoded)
    lm.generate(prompts, GenerationParams())  # a call of its own
    lm.generate(prompts, GenerationParams(max_tokens=5))  # and another one
    assert len(server.asked) == 62


def test_items_that_are_too_long_for_the_server_are_counted_and_end_nothing(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"text": f"good {number}", "label": "positive"} for number in range(20)]
    rows += [{"text": f"bad {number}", "label": "negative"} for number in range(20)]
    task = ps.Task(rows, inputs="text", output="label")
    server.reply = refusing(REFUSALS[0])
    prompt = ps.Prompt(task, [], model=f"{server.url}#small")
    server.asked.clear()
    said = prompt.predict([f"{'a long' if number % 5 == 0 else 'a good'} film {number}" for number in range(30)])
    assert [each.failure for each in said] == ["too long" if number % 5 == 0 else None for number in range(30)]
    assert {each.output for each in said} == {"positive", None}
    assert len(server.asked) <= 30 + 6  # a refusal is asked for once more where its prompt is asked about alone
    assert caplog.text.count("count as too long") == 1


@pytest.mark.parametrize("content", ["<html>", {"choices": []}, [1], {"choices": [{}]}, {"choices": ["x"]}])
def test_an_answer_without_a_completion_is_an_error(server: Server, lm: EndpointLM, content: object) -> None:
    server.reply = lambda route, body: (200, content)
    with pytest.raises(BackendError, match="answered with"):
        lm.generate(["good"], GenerationParams())


def test_no_server_is_a_clear_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(BackendError, match="no server answers at"):
        EndpointLM(f"http://127.0.0.1:{port}")


def test_a_host_that_does_not_answer_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def silent(_: object, url: str, **__: object) -> None:
        tried.append(url)
        raise httpx.ConnectTimeout("timed out")

    monkeypatch.setattr("httpx.Client.post", silent)
    lm = EndpointLM("http://192.0.2.1:8080", "small")
    with pytest.raises(BackendError, match="no server answers at"):
        lm.generate(["good"], GenerationParams())
    assert len(tried) == 1
    assert (lm._client.timeout.connect, lm._client.timeout.read) == (10, 120)
    lm.close()


def test_an_interruption_waits_for_no_request_and_none_is_tried_again(
    lm: EndpointLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm.generate(["good"], GenerationParams())
    begun, release = threading.Event(), threading.Event()
    posting: list[threading.Thread] = []
    ended: list[bool] = []

    def post(url: str, json: dict[str, Any]) -> Any:
        if json["prompt"] == "first":
            return httpx.Response(200, json={"choices": [{"text": "x"}]})
        posting.append(threading.current_thread())
        if json["prompt"] == "interrupt":
            begun.wait(30)
            raise KeyboardInterrupt
        begun.set()
        release.wait(30)
        ended.append(True)
        raise httpx.ReadTimeout("timed out")

    monkeypatch.setattr(lm._client, "post", post)
    with pytest.raises(KeyboardInterrupt):
        lm.generate(["first", "interrupt", "wait"], GenerationParams())
    assert ended == []
    release.set()
    for thread in posting:
        thread.join(30)
    assert len(posting) == 2


def test_no_attempt_follows_a_pause_in_which_all_was_stopped(
    server: Server, lm: EndpointLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    server.reply = lambda route, body: (503, "busy")
    monkeypatch.setattr("tenacity.sleep_using_event", lambda event: lambda _: event.set())
    with pytest.raises(BackendError, match="given up"):
        lm._request("models", None, stop)
    assert (len(server.asked), stop.is_set()) == (1, True)


@pytest.mark.parametrize("url", ["ftp://host/v1", "localhost", "http://", "http://host:port", ""])
def test_an_unusable_url_is_a_clear_error(url: str) -> None:
    with pytest.raises(ModelError, match="http://localhost:8080/v1"):
        EndpointLM(url, "small")


@pytest.mark.parametrize("url", [f"http://me:{KEY}@host/v1", f"http://host/v1?key={KEY}"])
def test_a_url_with_a_secret_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ModelError) as caught:
        EndpointLM(url, "small")
    assert KEY not in str(caught.value)


def test_the_key_shows_nowhere(server: Server, lm: EndpointLM, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.reply = lambda route, body: (401, {"error": f"wrong key {KEY}"})
    with pytest.raises(BackendError, match=r"wrong key \*\*\*") as caught:
        lm.generate(["good"], GenerationParams())
    shown = [repr(lm), str(lm), lm.name, lm.fingerprint, repr(caught.value), caplog.text]
    assert not any(KEY in text for text in shown)
    assert caught.value.__cause__ is None


def test_the_key_may_come_from_the_environment(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
    lm = EndpointLM(server.url)
    assert server.keys == {"Bearer from-environment"}
    lm.close()


def test_closed_is_closed(lm: EndpointLM) -> None:
    lm.close()
    with pytest.raises(BackendError, match="closed"):
        lm.score(["good"], [" yes", " no"])
