"""What cannot be opened says so in one line; what can goes to the accelerator that there is."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tiny_models import write_model

from promptsearch.errors import BackendError, ModelError
from promptsearch.lm.llamacpp import engine as engine_module
from promptsearch.lm.llamacpp import opening
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import accelerator, llama
from promptsearch.lm.llamacpp.opening import open_model, open_on_device
from promptsearch.lm.resolve import open_engine


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        LlamaEngine(path, name="x", fingerprint="x")
    message = str(caught.value)
    assert "\n" not in message
    assert repr(str(path)) in message
    return message


@pytest.mark.parametrize(
    ("name", "said", "way_out"),
    [
        ("bert", "an encoder, which cannot continue text", "give a decoder model"),
        ("t5", "an encoder with a decoder", "give a decoder model"),
        ("dream", "a diffusion model", "give a decoder model"),
        ("embedder", "an embedding model", "give a decoder model"),
        ("vocabulary", "a vocabulary and no weights", "give a file with the model's weights"),
        ("unknown", "the architecture 'nosuchthing'", "upgrade it"),
    ],
)
def test_models_that_do_not_continue_text(tmp_path: Path, name: str, said: str, way_out: str) -> None:
    message = refused(write_model(tmp_path, name))
    assert said in message
    assert way_out in message


def test_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model.gguf"
    folder.mkdir()
    assert "is a folder" in refused(folder)


def test_an_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.touch()
    assert "is empty" in refused(path)


def test_a_later_part(tmp_path: Path) -> None:
    path = write_model(tmp_path, "llama").rename(tmp_path / "big-00002-of-00003.gguf")
    assert "give its first part, 'big-00001-of-00003.gguf'" in refused(path)


def test_a_first_part_alone(tmp_path: Path) -> None:
    path = write_model(tmp_path, "llama").rename(tmp_path / "big-00001-of-00003.gguf")
    (tmp_path / "big-00002-of-00003.gguf").touch()
    assert "'big-00003-of-00003.gguf' is missing" in refused(path)


@pytest.mark.parametrize("kept", [30, 3000, 400_000])
def test_a_file_cut_short(tmp_path: Path, kept: int) -> None:
    path = write_model(tmp_path, "llama")
    path.write_bytes(path.read_bytes()[:kept])
    message = refused(path)
    assert "cut short" in message
    assert "fetch it again" in message


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    path = write_model(tmp_path, "broken")
    with (
        LlamaEngine(path, name="x", fingerprint="x", threads=1) as engine,
        pytest.raises(BackendError, match="no numbers"),
    ):
        engine.score(["a"], ["b", "c"])


def test_an_encoder_that_does_not_say_so(tmp_path: Path) -> None:
    """The last guard: a model without a memory."""
    library = llama()
    path = write_model(tmp_path, "dream")
    model = library.llama_model_load_from_file(str(path).encode(), library.llama_model_default_params())
    try:
        with pytest.raises(ModelError, match="no memory of its text"):
            Context(model, cells=256, batch=64, sequences=1, threads=1).clear()
    finally:
        library.llama_model_free(model)


class Driver:
    """llama.cpp as if built for an accelerator, which holds a model or does not."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, holds: bool) -> None:
        self.layers: list[int] = []
        self.holds = holds
        library = llama()
        self.load = library.llama_model_load_from_file
        monkeypatch.setattr(library, "llama_supports_gpu_offload", lambda: True)
        monkeypatch.setattr(library, "llama_model_load_from_file", self.load_or_fail)

    def load_or_fail(self, path: bytes, params: Any) -> Any:
        self.layers.append(params.n_gpu_layers)
        return self.load(path, params) if self.holds or params.n_gpu_layers == 0 else None


def test_all_layers_go_to_an_accelerator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, holds=True)
    with LlamaEngine(write_model(tmp_path, "llama"), name="x", fingerprint="x", threads=1) as engine:
        assert engine.device == accelerator() == "accelerator"  # a build for processors alone knows no name
    assert driver.layers == [-1]


def test_an_accelerator_without_room_leaves_the_model_to_the_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    driver = Driver(monkeypatch, holds=False)
    with caplog.at_level(logging.WARNING, logger="promptsearch.llamacpp"):
        model, device = open_on_device(write_model(tmp_path, "llama"))
    llama().llama_model_free(model)
    assert (driver.layers, device) == ([-1, 0], "cpu")
    assert [record.message.split(",")[0] for record in caplog.records] == ["llama.gguf runs on the processor"]


def test_a_broken_file_is_no_fault_of_the_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Driver(monkeypatch, holds=True)
    path = write_model(tmp_path, "llama")
    path.write_bytes(path.read_bytes()[:400_000])
    with (
        caplog.at_level(logging.WARNING, logger="promptsearch.llamacpp"),
        pytest.raises(ModelError, match="cut short"),
    ):
        open_model(path)
    assert not caplog.records


def test_a_build_for_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama(), "llama_supports_gpu_offload", lambda: False)
    model, device = open_on_device(write_model(tmp_path, "llama"))
    llama().llama_model_free(model)
    assert device == opening.PROCESSOR


class SlowEngine:
    """Takes so long to open that another thread would open a second one meanwhile; the first ``failures`` fail."""

    meeting: threading.Barrier
    opened: list[Path]
    failures: int

    def __init__(self, path: Path, **_: object) -> None:
        with suppress(threading.BrokenBarrierError):
            self.meeting.wait(0.2)
        self.opened.append(path)
        self.closed = False
        if len(self.opened) <= self.failures:
            raise ModelError("no memory")


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> type[SlowEngine]:
    monkeypatch.setattr(engine_module, "LlamaEngine", SlowEngine)
    SlowEngine.meeting, SlowEngine.opened, SlowEngine.failures = threading.Barrier(2), [], 0
    return SlowEngine


def test_threads_that_open_a_model_at_once_get_one_engine(tmp_path: Path, slow: type[SlowEngine]) -> None:
    path = write_model(tmp_path, "llama")
    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(lambda _: open_engine(path, "as-is"), range(2))
    assert first.engine is second.engine
    assert slow.opened == [path]
    first.engine.closed = True
    assert open_engine(path, "as-is").engine is not first.engine


def test_a_model_that_could_not_be_opened_holds_nobody_up(tmp_path: Path, slow: type[SlowEngine]) -> None:
    path = write_model(tmp_path, "llama", seed=1)
    slow.failures = 1
    with pytest.raises(ModelError, match="no memory"):
        open_engine(path, "as-is")
    assert open_engine(path, "as-is").engine is open_engine(path, "as-is").engine
