"""Opens a model file, or says in one line why it cannot be used.

Invariant: what comes back continues text. All layers go to an accelerator where llama.cpp was built for one and it
has the memory; otherwise the processor runs them.
Leaves out: contexts, and how prompts run.
"""

from __future__ import annotations

import logging
import os
import re
import struct
from pathlib import Path
from typing import Any

from promptsearch.errors import ModelError
from promptsearch.lm.llamacpp.library import accelerator, last_errors, llama, version
from promptsearch.lm.llamacpp.repacking import repacked_weights_run
from promptsearch.lm.llamacpp.traits import why_not_generator

__all__ = ["PROCESSOR", "check_file", "open_model", "open_on_device"]

_logger = logging.getLogger("promptsearch.llamacpp")

PROCESSOR = "cpu"
_PART = re.compile(r"(?P<stem>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_ALL_LAYERS = -1  # llama.cpp takes any negative number as all; a build for processors alone ignores it


def open_model(path: Path) -> Any:
    """Load a GGUF file's weights.

    Raises:
        ModelError: the file is missing, is no GGUF, is cut short, or holds no text generator.
    """
    return open_on_device(path)[0]


def open_on_device(path: Path) -> tuple[Any, str]:
    """Load a GGUF file's weights and say what runs them.

    Returns:
        The model's handle, and ``"cpu"`` or the name that the accelerator's driver gives it.

    Raises:
        ModelError: as :func:`open_model`.
    """
    check_file(path)
    model, device = _load(path)
    instead = why_not_generator(model)
    if instead is not None:
        llama().llama_model_free(model)
        raise ModelError(f"{str(path)!r} holds {instead}; give a decoder model, such as one made for chat")
    return model, device


def check_file(path: Path) -> None:
    """Refuse what is no whole GGUF file, before anything reads further.

    Raises:
        ModelError: naming what was found instead.
    """
    if path.is_dir():
        raise ModelError(f"{str(path)!r} is a folder; give the GGUF file itself")
    if not path.is_file():
        raise ModelError(f"there is no model file {str(path)!r}; give the path of a GGUF file")
    _check_parts(path)
    with path.open("rb") as file:
        header = file.read(16)
    if not header:
        raise ModelError(f"{str(path)!r} is empty, which no GGUF file is; fetch it again")
    if header[:4] != b"GGUF":
        raise ModelError(f"{str(path)!r} is no GGUF file; give one, such as those named *.gguf")
    if len(header) == 16 and struct.unpack("<Q", header[8:])[0] == 0:
        raise ModelError(f"{str(path)!r} holds a vocabulary and no weights; give a file with the model's weights")


def _check_parts(path: Path) -> None:
    """Refuse a later part of a model in parts, and a first one whose others are missing."""
    part = _PART.fullmatch(path.name)
    if part is None:
        return
    names = [f"{part['stem']}-{number:05}-of-{part['count']}.gguf" for number in range(1, int(part["count"]) + 1)]
    if int(part["number"]) != 1:
        raise ModelError(f"{str(path)!r} is a later part of a model; give its first part, {names[0]!r}")
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        raise ModelError(
            f"{str(path)!r} needs its other parts beside it, and {missing[0]!r} is missing; fetch it too"
        )


def _load(path: Path) -> tuple[Any, str]:
    """Load with all layers on an accelerator, or on the processor where there is none or it lacks the memory."""
    last_errors()
    device = accelerator() or PROCESSOR
    model = _load_layers(path, _ALL_LAYERS)
    if not model and device != PROCESSOR:
        reason = last_errors()
        model = _load_layers(path, 0)
        if model:
            _logger.warning("%s runs on the processor, since %s cannot hold it: %s", path.name, device, reason)
        device = PROCESSOR
    if not model:
        raise _refusal(path, last_errors())
    return model, device


def _load_layers(path: Path, layers: int) -> Any:
    params = llama().llama_model_default_params()
    params.n_gpu_layers = layers
    params.use_extra_bufts = repacked_weights_run(path)
    return llama().llama_model_load_from_file(os.fsencode(path), params)


def _refusal(path: Path, reason: str) -> ModelError:
    """Why llama.cpp did not load a file that looks like a model."""
    unknown = re.search(r"unknown model architecture: '([^']*)'", reason)
    if unknown is not None:
        return ModelError(
            f"{str(path)!r} is of the architecture {unknown[1]!r}, which llama-cpp-python {version()} does not know; "
            "upgrade it, or give another model"
        )
    if "CLIP cannot be used as main model" in reason:
        return ModelError(f"{str(path)!r} is the part of a model that sees images; give the part that writes text")
    return ModelError(
        f"{str(path)!r} cannot be loaded, it may be cut short or too new for llama-cpp-python {version()}; fetch it "
        f"again or upgrade ({reason})"
    )
