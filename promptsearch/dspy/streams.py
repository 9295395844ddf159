"""One request's text as events while it is written, and our errors as DSPy's.

Invariant: one start, then text, then one end; what may be the beginning of a stop string is held back until it is
known not to be.
Leaves out: how the text is written.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from dspy import lm15

from promptsearch.errors import BackendError, ContextError, UserError

__all__ = ["Stream", "errors_for_dspy"]


class Stream:
    """Events of one request, whose text a thread of its own is writing.

    Args:
        model: the LM's name.
        write: writes the text and returns the response, asking the function given about the text so far.
        stop: strings that end the text; what may be the beginning of one is held back.
    """

    def __init__(
        self, model: str, write: Callable[[Callable[[str], bool]], lm15.Response], stop: Sequence[str]
    ) -> None:
        self._model = model
        self._write = write
        self._stop = stop
        self._heard = 0  # characters
        self._news: queue.SimpleQueue[Any] = queue.SimpleQueue()  # what each token adds, then a response or an error
        self._abandoned = False
        self._events = self._made()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self._events)

    def close(self) -> None:
        """Have the model stop at its next token; nobody waits for it."""
        self._abandoned = True

    def _made(self) -> Iterator[Any]:
        threading.Thread(target=self._run, name="promptsearch stream").start()
        try:
            yield lm15.StreamStartEvent(model=self._model)
            text, sent = "", 0
            while isinstance(news := self._news.get(), str):
                text += news
                end = _certain(text, self._stop)
                if end > sent:
                    yield _text_event(text[sent:end])
                    sent = end
            if isinstance(news, BaseException):
                with errors_for_dspy():
                    raise news
            if len(news.text) > sent:
                yield _text_event(news.text[sent:])
            yield lm15.StreamEndEvent(finish_reason=news.finish_reason, usage=news.usage)
        finally:
            self.close()

    def _run(self) -> None:
        try:
            self._news.put(self._write(self._hear))
        except BaseException as error:  # it is raised where the events are taken
            self._news.put(error)

    def _hear(self, text: str) -> bool:
        """Pass on what the text so far has more than before; True where nobody listens any longer."""
        self._news.put(text[self._heard :])
        self._heard = len(text)
        return self._abandoned


def _certain(text: str, stop: Sequence[str]) -> int:
    """Characters of a text before what may turn out to be the beginning of a stop string."""
    longest = max(map(len, stop), default=0)
    places = range(max(0, len(text) - longest), len(text))
    return next((at for at in places if any(each.startswith(text[at:]) for each in stop)), len(text))


def _text_event(text: str) -> Any:
    return lm15.StreamDeltaEvent(delta=lm15.TextDelta(text=text))


@contextmanager
def errors_for_dspy() -> Iterator[None]:
    """Our errors as those that DSPy expects of an engine."""
    try:
        yield
    except ContextError as error:
        raise lm15.ContextLengthError(str(error)) from error
    except UserError as error:
        raise lm15.InvalidRequestError(str(error)) from error
    except BackendError as error:
        raise lm15.ServerError(str(error)) from error
