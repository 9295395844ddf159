"""A prompt as a ``dspy.Module``, to stand inside a DSPy program.

Invariant: the module answers as its prompt does; DSPy's own language model is never asked.
Leaves out: optimizing with DSPy. To DSPy the module is one parameter, so that a program's state holds it, and
no predictor, so that optimizers leave it as it is.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy
from dspy.predict.parameter import Parameter

from promptsearch.artifact import checked_document
from promptsearch.embed.base import encoder_name
from promptsearch.errors import ArtifactError, UserError
from promptsearch.lm.resolve import OpenedModel
from promptsearch.prompt import Prompt

__all__ = ["Loading", "PromptModule", "holds_prompt", "loading", "module_for", "module_from", "now_loading"]


@dataclass(frozen=True)
class Loading:
    """What a saved program is loaded with, while DSPy hands its parts their states and nothing else.

    Attributes:
        path: the file, as errors name it.
        encoder: what encodes queries; None for what the states name.
    """

    path: Path = Path("a saved module")
    encoder: Any = None


_LOADING: ContextVar[Loading | None] = ContextVar("promptsearch_loading", default=None)


def now_loading() -> Loading:
    """What the program that is being loaded is loaded with."""
    return _LOADING.get() or Loading()


@contextmanager
def loading(path: str | Path, encoder: object = None) -> Iterator[None]:
    """While this lasts, states are of this file, and need this encoder.

    Args:
        path: the file.
        encoder: None for the one that was given around this, or for what the states name.
    """
    token = _LOADING.set(Loading(Path(path), now_loading().encoder if encoder is None else encoder))
    try:
        yield
    finally:
        _LOADING.reset(token)


def module_for(prompt: Prompt) -> PromptModule:
    """A ``dspy.Module`` that predicts as ``prompt`` does."""
    return PromptModule(prompt)


def module_from(path: str | Path, model: object = None, encoder: object = None) -> PromptModule:
    """The module that ``module_for(prompt).save(path)`` wrote.

    Args:
        path: the file.
        model: another model than the saved one; None opens the saved one.
        encoder: another encoder than the saved one; None opens the saved one.

    Raises:
        ArtifactError: the file cannot be read, or its model or encoder has to be given.
        UserError: it holds a program of another kind.
    """
    state = _state_in(path)
    if not _is_of_prompt(state):
        raise UserError(f"{str(path)!r} holds a program of predictors; give an instance of its class too")
    return PromptModule(_prompt_in(state, Path(path), model, encoder))


def holds_prompt(path: str | Path) -> bool:
    """Whether a file was written by a :class:`PromptModule`.

    Raises:
        ArtifactError: the file cannot be read.
    """
    return _is_of_prompt(_state_in(path))


def _state_in(path: str | Path) -> Any:
    try:
        state = json.loads(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ArtifactError(
            f"{str(path)!r} cannot be read ({error.strerror}); give the JSON file that save wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{str(path)!r} is no JSON file of a saved module ({error}); save it anew") from error
    if not isinstance(state, Mapping):
        raise ArtifactError(f"{str(path)!r} holds no saved module; give the JSON file that save wrote")
    return state


def _is_of_prompt(state: Mapping[str, Any]) -> bool:
    """Whether a state is what :meth:`PromptModule.dump_state` gives; predictors can have any names."""
    document, index = state.get("prompt"), state.get("index")
    if set(state) - {"metadata"} != {"prompt", "index"} or not isinstance(document, Mapping):
        return False
    return "signature" not in document and isinstance(index, Mapping) and "signature" not in index


class PromptModule(dspy.Module, Parameter):  # type: ignore[misc]  # dspy has no types
    """Calls a prompt.

    ``module(text="…")`` returns a ``dspy.Prediction`` with a field named as the task's output column, and
    ``probabilities`` by label, unless the output column itself has that name.

    ``module.save("module.json")``, or that of a program around it, writes what ``Prompt.save`` writes, and
    for a prompt that retrieves its index too (in base64); ``load`` puts that prompt in place of the
    module's own. The model is not in it: it is opened again by name, and where the name opens none, the loaded prompt
    runs on this module's own. Copies share the prompt, which never changes.

    Args:
        prompt: what answers.
    """

    def __init__(self, prompt: Prompt) -> None:
        super().__init__()
        self.prompt = prompt
        self.lm = None  # DSPy asks every parameter for one

    def forward(self, **inputs: Any) -> dspy.Prediction:
        """Predict one item, given by column.

        Raises:
            DataError: a column is missing.
        """
        prediction = self.prompt(inputs)
        fields = {"probabilities": dict(prediction.probabilities), self.prompt.task.output: prediction.output}
        return dspy.Prediction(**fields)

    def __deepcopy__(self, memo: dict[int, object]) -> PromptModule:
        copied = type(self)(self.prompt)
        memo[id(self)] = copied
        copied.callbacks = list(self.callbacks)
        return copied

    def reset(self) -> None:
        """Nothing was learnt since the prompt was given."""

    def dump_state(self, json_mode: bool = True) -> dict[str, Any]:
        """The prompt as plain values; see the class."""
        with tempfile.TemporaryDirectory() as folder:
            path = self.prompt.save(Path(folder, "prompt.json"))
            document = json.loads(path.read_text("utf-8"))
            index = Path(folder, str(document.get("index") or ""))
            files = sorted(index.iterdir()) if document.get("index") else []
            return {
                "prompt": document,
                "index": {file.name: base64.b64encode(file.read_bytes()).decode("ascii") for file in files},
            }

    def load(self, path: str | Path, *options: Any, encoder: object = None, **named: Any) -> None:
        """Put a saved prompt in place of this one; nothing changes where that fails.

        Args:
            path: the JSON file that ``save`` wrote.
            *options: as of ``dspy.Module.load``.
            encoder: as for :meth:`load_state`.
            **named: as of ``dspy.Module.load``.

        Raises:
            ArtifactError: the file holds no prompt.
        """
        with loading(path, encoder):
            super().load(path, *options, **named)

    def load_state(self, state: Mapping[str, Any], *, encoder: object = None, **_options: Any) -> None:
        """Put the prompt of a dumped state in place; nothing changes where that fails.

        It runs on the model that the state names; where that cannot be opened here, or is an object or a server, on
        this module's own one.

        Args:
            state: what :meth:`dump_state` gave.
            encoder: another encoder than the saved one; None for this module's own one where it is the same, and
                otherwise for the saved one.

        Raises:
            ArtifactError: the state is none of a prompt.
        """
        now = now_loading()
        given = now.encoder if encoder is None else encoder
        self.prompt = _prompt_in(
            state, now.path, None, self._same_encoder(state) if given is None else given, self.prompt.opened
        )

    def _same_encoder(self, state: Mapping[str, Any]) -> object:
        """This prompt's encoder where a state's vectors were made with it."""
        retriever, document = self.prompt.parts.retriever, state.get("prompt")
        saved = document.get("encoder") if isinstance(document, Mapping) else None
        if retriever is None or not isinstance(saved, Mapping):
            return None
        return retriever.encoder if encoder_name(retriever.encoder) == saved.get("fingerprint") else None

    def __repr__(self) -> str:
        return f"PromptModule({self.prompt!r})"


def _prompt_in(
    state: Mapping[str, Any], path: Path, model: object, encoder: object, otherwise: OpenedModel | None = None
) -> Prompt:
    """The prompt of a state; the arguments are those of :meth:`Prompt.from_document`."""
    document, index = state.get("prompt"), state.get("index")
    if not isinstance(document, Mapping) or not isinstance(index, Mapping):
        raise ArtifactError(f"{str(path)!r} holds no promptsearch prompt; load what a PromptModule saved")
    files = {str(name): _decoded(name, content, path) for name, content in index.items()}
    return Prompt.from_document(
        checked_document(document, path), path, model, encoder=encoder, index=files, otherwise=otherwise
    )


def _decoded(name: str, content: str, path: Path) -> bytes:
    try:
        return base64.b64decode(content, validate=True)
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            f"{str(path)!r} is damaged: its index file {name!r} is none; save the module anew"
        ) from error
