"""``llama_cpp.Llama`` behind HTTP, as people run a server: one model, one request at a time, beginnings reused.

It runs in a process of its own, in the environment that a user would start it in, and imports the binding as its own
users do. Connections are kept open, as OpenAI's client expects of a server.
Invariant: the process ends with the block that started it.
Leaves out: streams, and all paths but that of chats.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from benchmarks.dspy_engine import open_llama
from benchmarks.throughput_processes import Spec, Worker

__all__ = ["ChatServer", "served"]

_CONTEXT_TOKENS = 8192


@contextmanager
def served(file: Path, kind: str) -> Iterator[str]:
    """Serve a model file.

    Args:
        file: the weights.
        kind: their type.

    Yields:
        What OpenAI's client takes as ``base_url``.

    Raises:
        ContenderError: the server does not start.
    """
    spec = Spec("benchmarks.dspy_server:ChatServer", None, kind, str(file), _CONTEXT_TOKENS)
    with Worker(spec, None) as worker:
        yield f"http://127.0.0.1:{worker.call('port')}/v1"


class ChatServer:
    """The server's side: answers from the moment that it is made."""

    def __init__(self, spec: Spec) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(open_llama(spec.path, spec.context_tokens)))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Take no further requests."""
        self._server.shutdown()
        self._server.server_close()


def _handler(llama: Any) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"  # which keeps connections
        disable_nagle_algorithm = True  # it would hold each body back until the client has confirmed the head

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            most = asked.get("max_completion_tokens") or asked.get("max_tokens")
            with lock:
                made = llama.create_chat_completion(
                    asked["messages"], max_tokens=most, temperature=asked.get("temperature", 0.0)
                )
            body = json.dumps(made).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_given: object) -> None:
            pass

    return Handler
