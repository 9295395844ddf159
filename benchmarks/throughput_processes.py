"""Each contender of ``benchmarks.throughput`` in a process of its own.

So each runs with the thread policy that suits it, none patches another, and one that dies is only missing. All
wait in turn: an idle one sleeps in ``recv`` and takes no core from the one that is measured.

Invariant: whatever ends the benchmark, no process outlives it: a worker ends when its pipe does. Each starts with
what this process's environment said of threads at first, whatever the library has set there since, and the policy.
Leaves out: what a contender does with a case.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

__all__ = ["DEFAULT", "PASSIVE", "POLICIES", "USERS_OWN", "ContenderError", "Spec", "Worker", "policy_set"]

_POLICY_VARIABLE = "OMP_WAIT_POLICY"
_VARIABLES = (_POLICY_VARIABLE, "GOMP_SPINCOUNT")  # GNU's OpenMP heeds the first only where the second is not set
USERS_OWN = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
PASSIVE = "passive"
DEFAULT = "default"
POLICIES = (PASSIVE, DEFAULT)

_SECONDS_AT_MOST = 900.0
_SECONDS_TO_END = 10.0


class ContenderError(Exception):
    """A contender cannot run here, or failed; the text says why."""


@dataclass(frozen=True)
class Spec:
    """What a worker is to be.

    Attributes:
        maker: ``"module:class"``; the class takes this spec and answers the methods that are called.
        model: what :func:`promptsearch.lm.resolve.open_engine` takes.
        weights: weight type to open it with.
        path: file that holds these weights.
        context_tokens: tokens that the longest prompt and its answer take.
    """

    maker: str
    model: str | None
    weights: str
    path: str
    context_tokens: int


class Worker:
    """A contender in another process.

    Args:
        spec: what to run.
        policy: how its threads wait: one of :data:`POLICIES`, or None for what the user's environment says.
        seconds: how long an answer may take.

    Raises:
        ContenderError: it cannot run here.
    """

    def __init__(self, spec: Spec, policy: str | None, seconds: float = _SECONDS_AT_MOST) -> None:
        self._seconds = seconds
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, spec), daemon=True)
        with policy_set(policy):
            self._process.start()
        theirs.close()
        try:
            self._receive()
        except ContenderError:
            self.close()
            raise

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def call(self, method: str, *arguments: Any) -> Any:
        """What the contender's method returns.

        Raises:
            ContenderError: it failed, died, or took too long.
        """
        try:
            self._connection.send((method, arguments))
        except OSError as error:
            raise ContenderError("its process has ended") from error
        return self._receive()

    def _receive(self) -> Any:
        try:
            if not self._connection.poll(self._seconds):
                self.close()
                raise ContenderError(f"no answer within {self._seconds:.0f} s")
            done, value = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join(_SECONDS_TO_END)
            raise ContenderError(f"its process ended (exit code {self._process.exitcode})") from error
        if not done:
            raise ContenderError(str(value))
        return value

    def close(self) -> None:
        """End the process; twice is harmless.

        It is given time to close what it opened itself: first by the end of its pipe, then by a signal.
        """
        self._connection.close()
        self._process.join(_SECONDS_TO_END)
        for end in (self._process.terminate, self._process.kill):
            if self._process.is_alive():
                end()
                self._process.join(_SECONDS_TO_END)


@contextlib.contextmanager
def policy_set(policy: str | None) -> Iterator[None]:
    """The environment in which a new process is to start: the user's own, but for the policy."""
    wanted = dict(USERS_OWN)
    if policy == PASSIVE:
        wanted[_POLICY_VARIABLE] = PASSIVE
    elif policy == DEFAULT:
        wanted.pop(_POLICY_VARIABLE, None)
    before = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    _set_variables(wanted)
    try:
        yield
    finally:
        _set_variables(before)


def _set_variables(values: Mapping[str, str]) -> None:
    """Give the environment these variables of threads, and no others of them."""
    for name in _VARIABLES:
        os.environ.pop(name, None)
    os.environ.update(values)


def _serve(connection: Connection, spec: Spec) -> None:
    """The worker's side: make the contender, answer calls until the pipe ends, then close what it opened."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the benchmark itself decides what Ctrl-C does
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # lives as long as the process
    with contextlib.ExitStack() as opened:
        try:
            module, name = spec.maker.split(":")
            contender = getattr(importlib.import_module(module), name)(spec)
        except Exception as error:  # whatever stops it is the reason that the results show
            connection.send((False, _reason(error)))
            return
        opened.callback(getattr(contender, "close", _nothing))
        connection.send((True, None))
        with contextlib.suppress(EOFError, OSError):
            while True:
                method, arguments = connection.recv()
                connection.send(_answer(contender, method, arguments))


def _answer(contender: Any, method: str, arguments: tuple[Any, ...]) -> tuple[bool, Any]:
    try:
        return True, getattr(contender, method)(*arguments)
    except Exception as error:
        return False, _reason(error)


def _nothing() -> None:
    """What there is to close where a contender opened nothing outside its process."""


def _reason(error: Exception) -> str:
    said = str(error) if isinstance(error, ContenderError) else f"{type(error).__name__}: {error}"
    return " ".join(said.split())[:300]
