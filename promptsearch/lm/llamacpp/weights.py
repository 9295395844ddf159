"""Makes the weight type that a processor runs fastest.

A quantized file's type decides prefill speed more than anything else: the same weights held as BF16 can run four
times faster than as packaged 4-bit blocks. The types are made from the file, measured on this machine once, and
the table is kept in the cache folder beside the chosen file.

Invariant: a file in the cache is whole, and belongs to the source file's hash. Deleting the cache loses nothing.
Leaves out: which prompts run on the weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import time
from ctypes import byref
from dataclasses import dataclass
from pathlib import Path

from promptsearch.errors import BackendError, UserError
from promptsearch.files import write_whole
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.library import last_errors, llama, version
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.plan import Row
from promptsearch.paths import cache_dir

__all__ = [
    "AS_IS",
    "KINDS",
    "ChosenWeights",
    "choose_weights",
    "convert",
    "file_hash",
    "kept_prefill",
    "measure_prefill",
]

_logger = logging.getLogger(__name__)

AS_IS = "as-is"
KINDS = ("BF16", "F16", "Q8_0")
_BYTES_PER_PARAMETER = {"BF16": 2.0, "F16": 2.0, "Q8_0": 1.0625}
_LARGEST_COPY = 4 * 2**30  # a larger copy costs more disk than a laptop's owner would expect
_TABLE = "prefill.json"
_MEASURED_TOKENS = 512
_MEASURED_BATCH = 256


@dataclass(frozen=True)
class ChosenWeights:
    """The weights that run.

    Attributes:
        path: the file to open.
        kind: ``"as-is"`` or one of :data:`KINDS`.
        source_hash: sha256 of the source file.
        prefill: tokens per second of each kind measured; empty where nothing was measured.
    """

    path: Path
    kind: str
    source_hash: str
    prefill: dict[str, float]

    @property
    def fingerprint(self) -> str:
        """Identity of weights and binding: results of another fingerprint may differ."""
        return f"{self.source_hash[:16]}:{self.kind}:llama-cpp-python {version()}"


def choose_weights(source: Path, weights: str = "auto") -> ChosenWeights:
    """Find or make the weights to run.

    Args:
        source: a GGUF file.
        weights: ``"auto"`` for the fastest type on this machine, ``"as-is"``, or one of :data:`KINDS`.

    Raises:
        UserError: ``weights`` names none of these.
    """
    if weights not in ("auto", AS_IS, *KINDS):
        raise UserError(f"weights={weights!r} is none of: auto, {AS_IS}, {', '.join(KINDS)}; name one of these")
    source_hash = file_hash(source)
    if weights == AS_IS:
        return ChosenWeights(source, AS_IS, source_hash, {})
    if weights != "auto":
        return ChosenWeights(_made(source, source_hash, weights), weights, source_hash, {})
    prefill = _prefill_table(source, source_hash)
    kind = max(prefill, key=lambda name: prefill[name])
    path = source if kind == AS_IS else _made(source, source_hash, kind)
    return ChosenWeights(path, kind, source_hash, prefill)


def convert(source: Path, target: Path, kind: str) -> None:
    """Write ``source``'s weights as another type; ``target`` appears whole or not at all."""
    library = llama()
    params = library.llama_model_quantize_default_params()
    params.ftype = getattr(library, f"LLAMA_FTYPE_MOSTLY_{kind}")
    params.allow_requantize = True
    params.nthread = usable_cores()
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        status = library.llama_model_quantize(os.fsencode(source), os.fsencode(partial), byref(params))
        if status != 0:
            raise BackendError(f"{source.name!r} cannot be converted to {kind}: {last_errors()}")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def file_hash(path: Path) -> str:
    """The sha256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def measure_prefill(path: Path, repeats: int = 2) -> float:
    """Prompt tokens per second that this machine runs with these weights: the best of ``repeats``."""
    model = open_model(path)
    context = Context(model, cells=_MEASURED_TOKENS, batch=_MEASURED_BATCH, sequences=1, threads=usable_cores())
    rows = [Row(100 + at % 1000, at, (0,)) for at in range(_MEASURED_TOKENS)]
    try:
        _prefill(context, rows[:64])  # the first batch also sets up the compute buffers
        seconds = min(_timed_prefill(context, rows) for _ in range(repeats))
    finally:
        context.close()
        llama().llama_model_free(model)
    return len(rows) / seconds


def _timed_prefill(context: Context, rows: list[Row]) -> float:
    start = time.perf_counter()
    _prefill(context, rows)
    return time.perf_counter() - start


def _prefill(context: Context, rows: list[Row]) -> None:
    context.clear()
    for first in range(0, len(rows), _MEASURED_BATCH):
        batch = rows[first : first + _MEASURED_BATCH]
        context.decode(batch, [len(batch) - 1])


def _folder(source_hash: str) -> Path:
    return cache_dir() / "weights" / source_hash[:16]


def _made(source: Path, source_hash: str, kind: str) -> Path:
    """The source's weights as ``kind``, made where they do not exist yet."""
    target = _folder(source_hash) / f"{kind}.gguf"
    if not target.is_file():
        _logger.info("making %s weights of %s", kind, source.name)
        convert(source, target, kind)
    return target


def _machine() -> dict[str, str | int]:
    """What the measured speeds depend on."""
    return {
        "processor": platform.processor() or platform.machine(),
        "cores": usable_cores(),
        "binding": version(),
    }


def _prefill_table(source: Path, source_hash: str) -> dict[str, float]:
    """Speed of each type, from the cache or measured now."""
    kept = kept_prefill(source_hash)
    if kept:
        return kept
    prefill = {AS_IS: measure_prefill(source)}
    for kind in _affordable_kinds(source):
        prefill[kind] = measure_prefill(_made(source, source_hash, kind))
    best = max(prefill, key=lambda name: prefill[name])
    for kind in KINDS:
        if kind != best:
            (_folder(source_hash) / f"{kind}.gguf").unlink(missing_ok=True)
    text = json.dumps({"machine": _machine(), "prefill": prefill}, indent=1)
    write_whole(_folder(source_hash) / _TABLE, text)
    return prefill


def kept_prefill(source_hash: str) -> dict[str, float]:
    """Speeds that were measured on this machine and kept; none where there are none or the file is damaged."""
    try:
        kept = json.loads((_folder(source_hash) / _TABLE).read_text("utf-8"))
        speeds = {str(kind): float(speed) for kind, speed in kept["prefill"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # what is lost is measured again
    return speeds if kept.get("machine") == _machine() else {}


def _affordable_kinds(source: Path) -> list[str]:
    """Types whose file stays small beside memory and disk."""
    model = open_model(source)
    parameters = int(llama().llama_model_n_params(model))
    llama().llama_model_free(model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = min(_LARGEST_COPY, memory // 4)
    return [kind for kind in KINDS if parameters * _BYTES_PER_PARAMETER[kind] <= limit]
