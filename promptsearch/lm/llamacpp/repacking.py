"""Whether llama.cpp's repacked weights run on this processor.

llama.cpp lays out some weight types anew for matrix instructions. Where those are Intel's tiles (AMX), a library
compiled by GCC 12 or older ends the process with an illegal instruction at its first product: the compiler drops the
stores that describe the tiles, since its ``_tile_loadconfig`` names only eight of their 64 bytes as read. Hypervisors
that report tiles and lack them end alike. What ends a process can only be tried in another one.
Invariant: on a processor without tiles nothing is tried. What a try found is kept for the file and the library.
Leaves out: how models are opened.
"""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

from promptsearch.kept import keep, kept

__all__ = ["repacked_weights_run"]

_logger = logging.getLogger("promptsearch.llamacpp")

_FILE = "repacking.json"
_SECONDS = 300  # a file of many gigabytes on a slow disk
_TOKENS = 64  # tiles are used for more than a few rows
_TRIAL = """
import os
import sys
import llama_cpp
llama_cpp.llama_backend_init()
params = llama_cpp.llama_model_default_params()
params.n_gpu_layers = 0
model = llama_cpp.llama_model_load_from_file(os.fsencode(sys.argv[1]), params)
if not model:
    sys.exit(0)  # whoever opens it next says why
params = llama_cpp.llama_context_default_params()
params.n_ctx = params.n_batch = params.n_ubatch = count = int(sys.argv[2])
context = llama_cpp.llama_init_from_model(model, params)
if context:
    tokens = (llama_cpp.llama_token * count)()
    llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, count))
    print("done")
"""


def repacked_weights_run(path: Path) -> bool:
    """Whether a model may be opened with repacked weights: always but where a try in a child process was killed."""
    if not _has_tiles():
        return True
    name = _name(path)
    runs = kept(_FILE).get(name)
    if not isinstance(runs, bool):
        ended = _try(path)
        runs = ended is not None and ended.returncode >= 0
        ran = ended is not None and b"done" in ended.stdout
        # What ended otherwise, for lack of memory or time, or before the model ran, is tried again.
        if ran or (ended is not None and ended.returncode == -signal.SIGILL):
            keep(_FILE, {**kept(_FILE), name: runs})
    if not runs:
        _logger.info("%s runs without repacked weights: a try with them did not end by itself", path.name)
    return runs


@lru_cache(maxsize=1)
def _has_tiles() -> bool:
    """Whether the system reports Intel's matrix tiles; only Linux lets processes use them."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    try:
        return "amx_tile" in Path("/proc/cpuinfo").read_text("utf-8", errors="replace")
    except OSError:
        return False


def _name(path: Path) -> str:
    """What a try is kept by: another file, or a library compiled anew, is tried again; a file that moved is not."""
    from importlib.util import find_spec

    found = find_spec("llama_cpp")
    folder = Path(found.origin).parent / "lib" if found is not None and found.origin else Path()
    stamps = [f"{each.name} {each.stat().st_mtime_ns}" for each in sorted(folder.glob("libggml-cpu*"))]
    about = path.stat()
    return f"{about.st_size} {about.st_mtime_ns}, {platform.node()}, {', '.join(stamps)}"


def _try(path: Path) -> subprocess.CompletedProcess[bytes] | None:
    """How a child process ended that reads a few tokens with the model and says so; None for not in time."""
    command = [sys.executable, "-c", _TRIAL, os.fspath(path), str(_TOKENS)]
    try:
        return subprocess.run(command, capture_output=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
