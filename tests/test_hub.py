"""Models of the Hugging Face hub: a name means one of them, only its files are fetched, and what is cached opens."""

from __future__ import annotations

from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.errors import ModelError
from promptsearch.inventory import known_models, model_named
from promptsearch.lm import resolve
from promptsearch.lm.hub import cached_models, choose_model, fetch_model, models_among

REPOSITORY = "owner/repo"
KINDS = ("Q4_K_S", "Q4_K_M", "Q4_K_L", "Q8_0")
PARTS = tuple(f"Q8_0/model-Q8_0-{number:05}-of-00002.gguf" for number in (1, 2))


def chosen(wanted: str, *files: str) -> str:
    return choose_model(models_among(files), wanted, REPOSITORY).name


def refusal(wanted: str, *files: str) -> str:
    with pytest.raises(ModelError) as caught:
        chosen(wanted, *files)
    assert "\n" not in str(caught.value)
    return str(caught.value)


FILES = tuple(f"model-{kind}.gguf" for kind in KINDS)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("Q4_K_M", "model-Q4_K_M"),
        ("q4_k_m", "model-Q4_K_M"),
        ("model-Q4_K_M", "model-Q4_K_M"),
        ("model-q8_0.gguf", "model-Q8_0"),
        ("Q8_0", "model-Q8_0"),
    ],
)
def test_a_quantization_is_a_whole_part_of_a_name_in_any_case(wanted: str, name: str) -> None:
    assert chosen(wanted, *FILES, "README.md", "mmproj-model-Q8_0.gguf") == name


@pytest.mark.parametrize("separator", ["-", ".", "_", "/"])
def test_names_are_parted_in_several_ways(separator: str) -> None:
    assert chosen("Q4_K_M", f"model{separator}Q4_K_M.gguf", f"model{separator}Q4_K_S.gguf").endswith("Q4_K_M")


@pytest.mark.parametrize("wanted", ["Q4_K", "4_K_M", "Q4", "mode", "Q4_K_M-v2"])
def test_what_is_no_whole_part_means_nothing_and_the_models_are_listed(wanted: str) -> None:
    said = refusal(wanted, *FILES)
    assert "means none" in said
    assert all(f"'hf:owner/repo:{kind}'" in said for kind in KINDS)


def test_several_that_are_meant_are_listed_and_no_others() -> None:
    said = refusal("Q4_K_XL", "m-Q4_K_XL.gguf", "m-UD-Q4_K_XL.gguf", "m-Q8_0.gguf")
    assert "means 2 models" in said
    assert "'hf:owner/repo:m-Q4_K_XL'" in said
    assert "'hf:owner/repo:UD-Q4_K_XL'" in said
    assert "Q8_0" not in said


def test_without_a_quantization_the_only_model_is_meant() -> None:
    assert chosen("", "model-Q4_K_M.gguf", "mmproj-model-f16.gguf", "model.mmproj-Q8_0.gguf") == "model-Q4_K_M"
    assert "means 4 models" in refusal("", *FILES)
    assert "holds no GGUF model" in refusal("", "model.safetensors", "mmproj-model-f16.gguf")


def test_parts_are_one_model_and_none_where_some_are_missing() -> None:
    (model,) = models_among(reversed(PARTS))
    assert (model.name, model.files) == ("Q8_0/model-Q8_0", PARTS)
    for wanted in ("Q8_0", "model-q8_0", PARTS[0], "model-Q8_0-00001-of-00002"):
        assert chosen(wanted, *PARTS, *FILES[:3]) == "Q8_0/model-Q8_0"
    assert models_among(PARTS[1:]) == []


def test_a_long_list_is_cut() -> None:
    assert "and 60 more" in refusal("", *(f"model-{number}.gguf" for number in range(100)))


PIECES = st.sampled_from(["m", "M", "Q4_K", "Q4_K_M", "q4_k_m", "00001-of-00002", "00002-of-00002", "00001-of-00001"])
PATHS = st.lists(PIECES, min_size=1, max_size=4).flatmap(
    lambda pieces: st.sampled_from("-._/").map(lambda separator: separator.join(pieces) + ".gguf")
)


@given(st.lists(PATHS | st.text("-._/Qq4m ", max_size=6).map(lambda stem: stem + ".gguf"), max_size=12))
def test_every_name_means_its_own_model_and_no_file_belongs_to_two(files: list[str]) -> None:
    models = models_among(files)
    for model in models:
        assert choose_model(models, model.name, REPOSITORY) == model
    held = [file for model in models for file in model.files]
    assert len(held) == len(set(held)) <= len(set(files))
    assert set(held) <= set(files)


@given(st.lists(PATHS, max_size=8), st.text(max_size=8) | PIECES)
def test_what_is_chosen_does_not_depend_on_the_order(files: list[str], wanted: str) -> None:
    def outcome(files: list[str]) -> str:
        try:
            return chosen(wanted, *files)
        except ModelError as error:
            return str(error)

    assert outcome(files) == outcome(files[::-1])


# -- fetching and the cache ---------------------------------------------------------------------------------


@dataclass
class Hub:
    """A hub of one repository, and a cache in a folder; ``down`` is what both questions raise."""

    cache: Path
    files: list[str] = field(default_factory=list)
    version: str = "b1"
    down: Exception | None = None
    fetched: list[str] = field(default_factory=list)

    def model_info(self, repository: str, **_: object) -> Any:
        self._answer()
        assert repository == REPOSITORY
        return SimpleNamespace(siblings=[SimpleNamespace(rfilename=file) for file in self.files])

    def snapshot_download(self, repository: str, allow_patterns: list[str]) -> str:
        self._answer()
        for file in self.files:
            if any(fnmatchcase(file, pattern) for pattern in allow_patterns):
                self.fetched.append(file)
                self.keep(file)
        return str(self._folder / "snapshots" / self.version)

    def keep(self, *files: str) -> None:
        """Put files into the cache, under the current version."""
        for file in files:
            path = self._folder / "snapshots" / self.version / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"GGUF" + self.version.encode())
        (self._folder / "refs").mkdir(exist_ok=True)
        (self._folder / "refs" / "main").write_text(self.version)

    @property
    def _folder(self) -> Path:
        return self.cache / "models--owner--repo"

    def _answer(self) -> None:
        if self.down is not None:
            raise self.down


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path, [*FILES[:3], *PARTS, "mmproj-f16.gguf", "README.md"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda _, *of, **options: made.model_info(*of, **options))
    monkeypatch.setattr("huggingface_hub.snapshot_download", made.snapshot_download)
    return made


def test_only_the_files_of_the_model_are_fetched(hub: Hub) -> None:
    assert fetch_model("hf:owner/repo:q4_k_m").name == "model-Q4_K_M.gguf"
    assert hub.fetched == ["model-Q4_K_M.gguf"]
    assert fetch_model("hf:owner/repo:Q8_0").name == "model-Q8_0-00001-of-00002.gguf"
    assert hub.fetched[1:] == list(PARTS)


def test_nothing_is_fetched_for_a_name_of_several(hub: Hub) -> None:
    for name in ("hf:owner/repo", "hf:owner/repo:Q4_K"):
        with pytest.raises(ModelError, match="hf:owner/repo:Q4_K_M"):
            fetch_model(name)
    assert hub.fetched == []


def test_signs_in_names_are_no_patterns(hub: Hub) -> None:
    hub.files = ["m[1].gguf", "m1.gguf"]
    assert fetch_model("hf:owner/repo:m[1]").name == "m[1].gguf"
    assert hub.fetched == ["m[1].gguf"]


def test_a_name_opens_the_file_that_was_fetched(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(resolve, "_open_file", lambda *of: opened.append(of))
    resolve.open_engine("hf:owner/repo:Q8_0")
    path, name, source = opened[0][:3]
    assert (path.name, name) == ("model-Q8_0-00001-of-00002.gguf", "model-Q8_0-00001-of-00002")
    assert source == "hf:owner/repo:Q8_0"


@pytest.mark.parametrize("name", ["hf:", "hf:a/b/c", "hf:a b/c", "hf:owner/repo:"])
def test_what_names_no_repository(hub: Hub, name: str) -> None:
    with pytest.raises(ModelError, match="names no hub file"):
        fetch_model(name)


def test_without_a_network_what_is_kept_is_opened(hub: Hub) -> None:
    hub.keep("model-Q4_K_M.gguf", *PARTS)
    hub.down = ConnectionError("no network")
    assert fetch_model("hf:owner/repo:Q4_K_M").name == "model-Q4_K_M.gguf"
    assert fetch_model("hf:owner/repo:Q8_0").name == "model-Q8_0-00001-of-00002.gguf"
    with pytest.raises(ModelError, match=r"does not answer \(ConnectionError\).*'hf:owner/repo:Q8_0'"):
        fetch_model("hf:owner/repo:Q4_K_S")


def test_without_a_network_and_a_copy_it_cannot_be_fetched(hub: Hub) -> None:
    hub.down = ConnectionError("no network")
    with pytest.raises(ModelError, match=r"cannot be fetched \(ConnectionError\)"):
        fetch_model("hf:owner/repo:Q4_K_M")


def test_a_download_that_fails_leaves_the_copy_of_before(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> str:
        raise OSError("connection lost")

    hub.keep("model-Q4_K_M.gguf")
    monkeypatch.setattr("huggingface_hub.snapshot_download", broken)
    assert fetch_model("hf:owner/repo:Q4_K_M").is_file()
    with pytest.raises(ModelError, match=r"cannot be fetched \(OSError\)"):
        fetch_model("hf:owner/repo:Q4_K_S")


def all_listed() -> list[str]:
    return [model.name for model in known_models() if model.name.startswith("hf:")]


@pytest.mark.parametrize("down", [None, ConnectionError("no network")])
def test_every_listed_name_can_be_opened(hub: Hub, down: Exception | None) -> None:
    """Also a model that only an older version of the repository has."""
    hub.keep("old-Q4_K_M.gguf", "model-Q4_K_M.gguf")
    hub.version = "a2"
    hub.keep("model-Q4_K_M.gguf", *PARTS, "mmproj-f16.gguf", "cut-00001-of-00002.gguf")
    hub.down = down
    names = ["hf:owner/repo:Q8_0/model-Q8_0", "hf:owner/repo:model-Q4_K_M", "hf:owner/repo:old-Q4_K_M"]
    assert all_listed() == names
    for name, path in cached_models():
        assert path.is_file()
        assert fetch_model(name) == path == model_named(name).path
    assert fetch_model(names[1]).read_bytes() == b"GGUFa2"


def test_a_part_of_a_name_is_enough_for_a_kept_model(hub: Hub) -> None:
    hub.keep("model-Q4_K_M.gguf")
    for name in ("hf:owner/repo", "hf:Owner/Repo:q4_k_m"):
        assert model_named(name).path == cached_models()[0][1]
    with pytest.raises(ModelError, match="means none"):
        model_named("hf:owner/repo:Q8_0")
    with pytest.raises(ModelError, match="not in the hub's cache"):
        model_named("hf:owner/other:Q8_0")


def test_a_model_whose_file_is_gone_is_not_listed(hub: Hub, tmp_path: Path) -> None:
    hub.keep("model-Q4_K_M.gguf")
    (tmp_path / "models--owner--repo/snapshots/b1/lost-Q8_0.gguf").symlink_to(tmp_path / "nowhere")
    assert all_listed() == ["hf:owner/repo:model-Q4_K_M"]
