"""A prompt as a ``dspy.Module``, to stand inside a DSPy program.

Invariant: the module answers as its prompt does; DSPy's own language model is never asked.
Leaves out: optimizing with DSPy. To DSPy the module is one parameter, so that a program's state holds it, and
no predictor, so that optimizers leave it as it is.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dspy
from dspy.predict.parameter import Parameter

from promptsearch.errors import ArtifactError, UserError
from promptsearch.prompt import Prompt

__all__ = ["PromptModule", "holds_prompt", "module_for", "module_from"]

_DOCUMENT = "prompt.json"


def module_for(prompt: Prompt) -> PromptModule:
    """A ``dspy.Module`` that predicts as ``prompt`` does."""
    return PromptModule(prompt)


def module_from(path: str | Path, encoder: object = None) -> PromptModule:
    """The module that ``module_for(prompt).save(path)`` wrote.

    Args:
        path: the file.
        encoder: another encoder than the saved one; None opens the saved one.

    Raises:
        ArtifactError: the file cannot be read.
        UserError: it holds a program of another kind.
    """
    state = _state_in(path)
    if not _is_of_prompt(state):
        raise UserError(f"{str(path)!r} holds a program of predictors; give an instance of its class too")
    return PromptModule(_prompt_in(state, encoder))


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
    module's own. The model is not in it: it is opened again by name. Copies share the prompt, which never changes.

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
            path = self.prompt.save(Path(folder, _DOCUMENT))
            document = json.loads(path.read_text("utf-8"))
            index = Path(folder, str(document.get("index") or ""))
            files = sorted(index.iterdir()) if document.get("index") else []
            return {
                "prompt": document,
                "index": {file.name: base64.b64encode(file.read_bytes()).decode("ascii") for file in files},
            }

    def load_state(self, state: Mapping[str, Any], **_options: Any) -> None:
        """Put the prompt of a dumped state in place; nothing changes where that fails.

        Raises:
            ArtifactError: the state is none of a prompt.
        """
        self.prompt = _prompt_in(state)

    def __repr__(self) -> str:
        return f"PromptModule({self.prompt!r})"


def _prompt_in(state: Mapping[str, Any], encoder: object = None) -> Prompt:
    document, index = state.get("prompt"), state.get("index")
    if not isinstance(document, Mapping) or not isinstance(index, Mapping):
        raise ArtifactError("this state holds no promptsearch prompt; load what a PromptModule saved")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, _DOCUMENT)
        path.write_text(json.dumps(document), encoding="utf-8")
        _write_index(Path(folder, Path(str(document.get("index") or "index")).name), index)
        return Prompt.load(path, encoder=encoder)


def _write_index(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir()
    for name, content in files.items():
        try:
            folder.joinpath(Path(name).name).write_bytes(base64.b64decode(content, validate=True))
        except (TypeError, ValueError, OSError) as error:
            raise ArtifactError(f"the state's index file {name!r} is damaged; save the module anew") from error
