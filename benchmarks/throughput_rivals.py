"""What ``benchmarks.throughput`` compares with: the ways to ask the same model without this library.

Every one gets its best fair settings: as many threads as cores, batches of 512 tokens, flash attention as ours, no
more logits than it needs, and the class's own reuse of the beginning that a prompt shares with the last one. The
sequence is forgotten before a measurement begins, so that its first prompt pays for the shared beginning.

Scoring labels one after another is done with ``Llama.eval`` and ``Llama.scores`` (``logits_all=True``): the prompt is
evaluated once, each label's tokens are appended and taken back by setting ``n_tokens`` (which is how the class itself
reuses a prefix), and the last token of a label is never evaluated. ``create_completion`` with ``echo`` and
``logprobs`` gives the same numbers and sorts the whole vocabulary in Python for every token of the prompt, which
takes seconds for one label.

Leaves out: the library's way to load the binding, which would choose how this process's threads wait; the binding is
imported as its own users import it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
from numpy.typing import NDArray

from benchmarks.dspy_engine import BATCH, LlamaForDspy, cores, open_llama
from benchmarks.throughput_cases import Case
from benchmarks.throughput_figures import label_of
from benchmarks.throughput_processes import ContenderError, Spec

__all__ = ["Completion", "DspyPredict", "LabelsOneByOne", "Server"]

_DSPY_CONTEXT = 4096
_DSPY_ANSWER = 64
_SECONDS_TO_START = 120.0
_SERVER_PACKAGES = ("uvicorn", "fastapi", "sse_starlette", "starlette_context", "pydantic_settings")


class Completion:
    """``Llama.create_completion``, prompt after prompt, temperature 0: one token, whose text names the label."""

    def __init__(self, spec: Spec) -> None:
        self._llama = open_llama(spec.path, spec.context_tokens)
        self._llama.create_completion("The first batch sets up the buffers.", max_tokens=2, temperature=0.0)

    def measure(self, case: Case) -> dict[str, Any]:
        """Answer a case, timing each prompt."""
        self._llama.reset()
        items: list[list[float]] = []
        answers: list[list[Any]] = []
        generated = 0
        for group in case.groups:
            items.append([])
            answers.append([])
            for prompt in group:
                start = time.perf_counter()
                made = self._llama.create_completion(prompt, max_tokens=case.max_tokens or 1, temperature=0.0)
                items[-1].append(time.perf_counter() - start)
                text = made["choices"][0]["text"]
                answers[-1].append(label_of(text, case.labels) if case.labels else text)
                generated += made["usage"]["completion_tokens"]
        return {"items": items, "answers": answers, "generated": generated}


class LabelsOneByOne:
    """All labels one after another through the class's own methods; see the module."""

    def __init__(self, spec: Spec) -> None:
        self._llama = open_llama(spec.path, spec.context_tokens, logits_all=True)
        self._llama.eval(self._llama.tokenize(b"The first batch sets up the buffers."))

    def measure(self, case: Case) -> dict[str, Any]:
        """Answer a case, timing each prompt."""
        self._llama.reset()
        items: list[list[float]] = []
        answers: list[list[int]] = []
        for group in case.groups:
            items.append([])
            answers.append([])
            for prompt in group:
                start = time.perf_counter()
                scores = self._scores(prompt, case.continuations)
                items[-1].append(time.perf_counter() - start)
                answers[-1].append(int(np.argmax(scores)))
        return {"items": items, "answers": answers}

    def _scores(self, prompt: str, labels: Sequence[str]) -> list[float]:
        """Log-probability of each label after the prompt."""
        llama = self._llama
        tokens = llama.tokenize(prompt.encode("utf-8"))
        self._hold(tokens)
        last = len(tokens) - 1
        after_prompt = _log_probabilities(llama.scores[last])
        scores = []
        for label in labels:
            own = llama.tokenize(label.encode("utf-8"), add_bos=False)
            self._hold(tokens + own[:-1])
            later = (_log_probabilities(llama.scores[last + at])[own[at]] for at in range(1, len(own)))
            scores.append(float(after_prompt[own[0]] + sum(later)))
        return scores

    def _hold(self, tokens: Sequence[int]) -> None:
        """Make the sequence hold these tokens, evaluating only those that are new."""
        llama = self._llama
        shared = min(llama.n_tokens, len(tokens))
        differing = np.flatnonzero(llama.input_ids[:shared] != np.asarray(tokens[:shared], dtype=np.intc))
        llama.n_tokens = int(differing[0]) if differing.size else shared
        if llama.n_tokens < len(tokens):
            llama.eval(tokens[llama.n_tokens :])


def _log_probabilities(logits: NDArray[np.single]) -> NDArray[np.single]:
    shifted = logits - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


class DspyPredict:
    """DSPy's ``Predict`` with the demonstrations as demos, the default ``ChatAdapter``, and no cache.

    The model runs in this process through ``create_chat_completion``, which reuses prefixes as the class does.
    """

    def __init__(self, spec: Spec) -> None:
        import dspy

        self._dspy = dspy
        self._llama = open_llama(spec.path, max(spec.context_tokens, _DSPY_CONTEXT))
        self._lm = dspy.LM(
            "local/llama",
            engine=LlamaForDspy(self._llama, dspy),
            cache=False,
            num_retries=0,
            temperature=0.0,
            max_tokens=_DSPY_ANSWER,
        )
        with self._context(), contextlib.suppress(dspy.utils.exceptions.AdapterParseError):
            dspy.Predict("question -> answer")(question="The first call imports the adapters.")

    def measure(self, case: Case) -> dict[str, Any]:
        """Answer a case, timing each query. An answer that DSPy cannot parse is None."""
        if case.worked is None:
            raise ContenderError("needs one static prompt")
        labels = list(case.worked.labels)
        predict = self._predict(case)
        self._llama.reset()
        items: list[float] = []
        answers: list[int | None] = []
        with self._context():
            for query in case.worked.queries:
                start = time.perf_counter()
                try:
                    answer = predict(text=query).label
                except self._dspy.utils.exceptions.AdapterParseError:
                    answer = None
                items.append(time.perf_counter() - start)
                answers.append(labels.index(answer) if answer in labels else None)
        return {"items": [items], "answers": [answers], "unparsable": answers.count(None)}

    def _context(self) -> Any:
        return self._dspy.context(lm=self._lm, adapter=self._dspy.ChatAdapter())

    def _predict(self, case: Case) -> Any:
        dspy, worked = self._dspy, case.worked
        assert worked is not None
        literal: Any = Literal  # whose values are data here
        fields = {"text": (str, dspy.InputField()), "label": (literal[worked.labels], dspy.OutputField())}
        predict = dspy.Predict(dspy.Signature(fields, worked.instruction))
        predict.demos = [dspy.Example(text=text, label=output) for text, output in worked.demonstrations]
        return predict


class Server:
    """``llama_cpp.server`` over HTTP, in a process of its own below this one, one connection kept open.

    Raises:
        ContenderError: packages lack, or it does not start.
    """

    def __init__(self, spec: Spec) -> None:
        lacking = [name for name in _SERVER_PACKAGES if importlib.util.find_spec(name) is None]
        if lacking:
            raise ContenderError(f"not installed: {', '.join(lacking)} (pip install 'llama-cpp-python[server]')")
        port = _free_port()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            _server_command(spec, port), stdout=self._said, stderr=self._said, stdin=subprocess.DEVNULL
        )
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60.0, trust_env=False)
        try:
            self._wait()
            self._ask("The first batch sets up the buffers.")
        except BaseException:
            self.close()
            raise

    def measure(self, case: Case) -> dict[str, Any]:
        """Answer a case, timing each prompt."""
        self._ask("!")  # another prompt: what the server kept of the last measurement is gone
        items: list[list[float]] = []
        answers: list[list[int | None]] = []
        for group in case.groups:
            items.append([])
            answers.append([])
            for prompt in group:
                start = time.perf_counter()
                text = self._ask(prompt)
                items[-1].append(time.perf_counter() - start)
                answers[-1].append(label_of(text, case.labels))
        return {"items": items, "answers": answers}

    def close(self) -> None:
        """End the server; twice is harmless."""
        self._client.close()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._said.close()

    def _ask(self, prompt: str) -> str:
        body = {"prompt": prompt, "max_tokens": 1, "temperature": 0.0}
        answer = self._client.post("/v1/completions", json=body)
        answer.raise_for_status()
        return str(answer.json()["choices"][0]["text"])

    def _wait(self) -> None:
        end = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < end:
            if self._process.poll() is not None:
                raise ContenderError(f"it did not start: {self._last_words()}")
            with contextlib.suppress(httpx.TransportError):
                if self._client.get("/v1/models").is_success:
                    return
            time.sleep(0.2)
        raise ContenderError(f"it was not ready within {_SECONDS_TO_START:.0f} s: {self._last_words()}")

    def _last_words(self) -> str:
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", errors="replace").split("\n")
        return " ".join(" ".join(lines[-4:]).split())[:300]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _server_command(spec: Spec, port: int) -> list[str]:
    threads = str(cores())
    return [
        *(sys.executable, "-m", "llama_cpp.server", "--model", str(Path(spec.path))),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--n_ctx", str(spec.context_tokens), "--n_batch", str(BATCH)),
        *("--n_threads", threads, "--n_threads_batch", threads),
        *("--flash_attn", "true", "--logits_all", "false", "--verbose", "false"),
    ]
