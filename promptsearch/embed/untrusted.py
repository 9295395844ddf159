"""Encoders that a saved file names, where a person named none: which may be opened, and from where.

A file can come from anybody. What it names is opened only where it lies on this machine already, and only where it
consists of sentence-transformers' own parts: earlier versions of that library import whatever class a folder names,
and so does a folder of weights that somebody left in the right place.
Invariant: nothing here imports or runs anything, and no network is asked.
Leaves out: opening (:mod:`promptsearch.embed.transformer`). Encoders that a person names are not looked at.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from promptsearch.errors import ModelError
from promptsearch.optional import require

__all__ = ["folder_without_code"]

_FILES = ("modules.json", "config.json")  # one of which every model has
_PLAIN_PARTS = frozenset(
    {
        "BoW",
        "CLIPModel",
        "CNN",
        "Dense",
        "Dropout",
        "LSTM",
        "LayerNorm",
        "Normalize",
        "Pooling",
        "StaticEmbedding",
        "Transformer",
        "WeightedLayerPooling",
        "WordWeights",
    }
)
"""Parts whose own configuration names no class, but that of :data:`_ACTIVATED` an activation function."""

_ACTIVATED = "Dense"


def folder_without_code(model: str) -> Path:
    """The folder of an encoder that a file names.

    Args:
        model: a folder, or a name on the hub whose files were fetched before.

    Raises:
        ModelError: it is not on this machine, or asks for code that sentence-transformers does not bring.
    """
    folder = _folder(model)
    for part in _parts(folder):
        kind = part.get("type")
        package, _, name = str(kind).rpartition(".")
        if package.split(".")[0] != "sentence_transformers" or name not in _PLAIN_PARTS:
            raise ModelError(_refused(folder, kind))
        if name == _ACTIVATED:
            activation = _read(folder / str(part.get("path", "")) / "config.json", {}).get("activation_function")
            if activation is not None and not str(activation).startswith("torch.nn."):
                raise ModelError(_refused(folder, activation))
    return folder


def _folder(model: str) -> Path:
    if Path(model).is_dir():
        return Path(model)
    hub = require("huggingface_hub", install="sentence-transformers")
    # A short name stands for one of the library's own organization first, as where it is opened.
    for name in [model] if "/" in model else [f"sentence-transformers/{model}", model]:
        for file in _FILES:
            with suppress(ValueError):  # which is how the hub's client calls what can be no name
                found = hub.try_to_load_from_cache(name, file)
                if isinstance(found, str):
                    return Path(found).parent
    raise ModelError(
        f"encoder {model!r} is not on this machine, and nothing is fetched because a saved file names it; give "
        "that name as encoder= to fetch it"
    )


def _parts(folder: Path) -> list[dict[str, Any]]:
    """The entries of a model's list of parts; none where it has no list and is a plain transformer."""
    parts: list[Any] = _read(folder / "modules.json", [])
    if not all(isinstance(part, dict) for part in parts):
        raise ModelError(
            f"encoder folder {str(folder)!r} is damaged: modules.json lists no parts; give an encoder as encoder="
        )
    return parts


def _read(file: Path, missing: Any) -> Any:
    try:
        content = json.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        return missing
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"encoder file {str(file)!r} cannot be read ({type(error).__name__}); give an encoder as encoder="
        ) from error
    if not isinstance(content, type(missing)):
        raise ModelError(f"encoder file {str(file)!r} is none of a model; give an encoder as encoder=")
    return content


def _refused(folder: Path, named: object) -> str:
    return (
        f"encoder folder {str(folder)!r} asks for {named!r}, which may be code of its own, and only a saved file "
        "names that folder; if you trust it, give it as encoder="
    )
