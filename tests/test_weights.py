"""Weights that suit the processor: fast ones run only if they fit and answer as the file's own, and are kept."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fakes import model as fake_model
from fakes import task as fake_task
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.errors import ArtifactError, BackendError, ContextError, ModelError, UserError
from promptsearch.events import Event, Note, Progress
from promptsearch.lm.llamacpp import agreement, conversion, hashes, weights
from promptsearch.lm.llamacpp.agreement import Agreement, compare, labels_and_prompts, reference_scores
from promptsearch.lm.llamacpp.conversion import convert
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.hashes import file_hash
from promptsearch.lm.llamacpp.speed import PREFILL_TOKENS, Speed, measure_speed
from promptsearch.lm.llamacpp.weights import AS_IS, KINDS, ChosenWeights, bench_weights, choose_weights
from promptsearch.lm.resolve import OpenedModel, open_engine

GB = 10**9


def untold(_done: float) -> None:
    """Nobody listens."""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def weights_folder(cache: Path) -> Path:
    (folder,) = (cache / "weights").iterdir()
    return folder


# -- what runs on this machine ------------------------------------------------------------------------------


def test_what_runs_here_is_fast_and_answers_as_the_file_does(
    model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing: the choice that every other test of this session runs on."""
    chosen = choose_weights(model_file)
    assert chosen.table is not None
    assert [each.kind for each in chosen.table.types] == [AS_IS, *KINDS]
    assert [each.kind for each in chosen.table.types if not each.reason] == [chosen.kind]
    assert set(chosen.prefill) == {AS_IS, *KINDS}
    if chosen.kind == AS_IS:
        assert chosen.path == model_file
        assert chosen.agreement is None
    else:
        assert chosen.path.name == f"{chosen.kind}.gguf"
        assert chosen.prefill[chosen.kind] > chosen.prefill[AS_IS]
        assert chosen.agreement is not None
        assert chosen.agreement.holds
        assert chosen.agreement.reference == "F32"
    assert not list(chosen.path.parent.glob("trial*"))
    for name in ("measure_speed", "compare", "reference_scores", "convert"):
        monkeypatch.setattr(weights, name, None)  # whoever calls it fails
    assert choose_weights(model_file, tell=pytest.fail) == chosen


def test_all_speeds_of_a_file(model_file: Path) -> None:
    full = measure_speed(model_file, full=True)
    assert sorted(full.prefill) == [32, 128, PREFILL_TOKENS]
    assert full.generation is not None
    assert min(full.generation, *full.prefill.values()) > 0
    quick = measure_speed(model_file)
    assert (list(quick.prefill), quick.generation) == ([PREFILL_TOKENS], None)


def test_the_better_of_two_measurements_counts() -> None:
    one, other = Speed({32: 5.0, 512: 9.0}, 3.0), Speed({32: 6.0, 512: 8.0}, 2.0)
    assert one.best(other) == other.best(one) == Speed({32: 6.0, 512: 9.0}, 3.0)
    assert Speed({512: 9.0}).best(Speed({512: 1.0})) == Speed({512: 9.0})


# -- the choice, on weights of given speeds -----------------------------------------------------------------

SPEEDS = {AS_IS: 100.0, "BF16": 400.0, "F16": 300.0, "Q8_0": 200.0}


class Workshop:
    """Makes tiny files instead of models, and says how fast they are and how alike; counts what it is asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.speeds: dict[str, float] = dict(SPEEDS)
        self.agreed: dict[str, int] = {}
        self.unmakeable: set[str] = set()
        self.unanswering: dict[str, Exception] = {}
        self.disk_full: set[str] = set()
        self.made: list[str] = []
        self.measured: list[str] = []
        self.compared: list[str] = []
        self.references: list[str] = []
        self.allowances: list[float] = []
        for name in ("convert", "measure_speed", "compare", "reference_scores"):
            monkeypatch.setattr(weights, name, getattr(self, name))

    def convert(self, _source: Path, target: Path, kind: str) -> None:
        if kind in self.unmakeable:
            raise BackendError(f"no {kind} from this")
        if kind in self.disk_full:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.made.append(kind)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(b"GGUF" + kind.encode() * 100)

    def measure_speed(self, path: Path, *, full: bool) -> Speed:
        kind = path.stem if path.stem in KINDS else AS_IS
        self.measured.append(kind)
        others = {32: 10.0, 128: 20.0} if full else {}
        return Speed({**others, PREFILL_TOKENS: self.speeds[kind]}, 5.0 if full else None)

    def reference_scores(self, path: Path, allowance: float, _tell: Callable[[float], None]) -> Any:
        kind = "F32" if path.stem == "F32" else AS_IS
        self.references.append(kind)
        self.allowances.append(allowance)
        if kind in self.unanswering:
            raise self.unanswering[kind]
        return np.zeros((60, 2))

    def compare(
        self, _path: Path, kind: str, _scores: Any, reference: str, _tell: Callable[[float], None]
    ) -> Agreement:
        self.compared.append(kind)
        return Agreement(kind, 50, self.agreed.get(kind, 50), 10, reference)


@pytest.fixture
def workshop(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    del cache
    return Workshop(monkeypatch)


def reasons(chosen: ChosenWeights) -> dict[str, str]:
    assert chosen.table is not None
    return {each.kind: each.reason for each in chosen.table.types}


def test_the_fastest_is_compared_and_taken(model_file: Path, workshop: Workshop, cache: Path) -> None:
    told: list[float] = []
    chosen = choose_weights(model_file, tell=told.append)
    assert chosen.kind == "BF16"
    assert chosen.agreement == Agreement("BF16", 50, 50, 10, "F32")
    assert chosen.prefill == SPEEDS
    assert workshop.compared == ["BF16"]
    assert workshop.references == ["F32"]
    assert reasons(chosen) == {
        AS_IS: "slower than BF16",
        "BF16": "",
        "F16": "slower than BF16",
        "Q8_0": "slower than BF16",
    }
    assert (told[0], told[-1]) == (0.0, 1.0)
    assert told == sorted(told)
    assert sorted(file.name for file in weights_folder(cache).iterdir()) == ["BF16.gguf", "lock", "weights.json"]


@pytest.mark.parametrize(("seconds", "rounds", "allowance"), [(None, 3, 20.0), (1e6, 3, 20.0), (0.0, 1, 0.0)])
def test_a_caller_in_a_hurry_has_less_measured(
    model_file: Path, workshop: Workshop, seconds: float | None, rounds: int, allowance: float
) -> None:
    chosen = choose_weights(model_file, seconds=seconds)
    assert chosen.kind == "BF16"
    assert workshop.measured == [AS_IS, *KINDS] * rounds
    assert workshop.allowances == [allowance]
    assert choose_weights(model_file).table == chosen.table
    assert len(workshop.allowances) == 1


def test_one_that_disagrees_is_passed_over(model_file: Path, workshop: Workshop) -> None:
    workshop.agreed = {"BF16": 49}  # 98 %
    chosen = choose_weights(model_file)
    assert chosen.kind == "F16"
    assert workshop.compared == ["BF16", "F16"]
    assert reasons(chosen)["BF16"] == "another label than the file's own on 1 of 50"
    workshop.compared.clear()
    assert choose_weights(model_file).kind == "F16"
    assert not workshop.compared


def test_if_none_agrees_the_file_runs_as_it_is(model_file: Path, workshop: Workshop, cache: Path) -> None:
    workshop.agreed = dict.fromkeys(KINDS, 0)
    chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path, chosen.agreement) == (AS_IS, model_file, None)
    assert reasons(chosen)[AS_IS] == ""
    assert not list(weights_folder(cache).glob("*.gguf"))


def test_a_copy_that_is_hardly_faster_does_not_pay(model_file: Path, workshop: Workshop) -> None:
    workshop.speeds = {AS_IS: 100.0, "BF16": 109.0, "F16": 80.0, "Q8_0": 100.0}
    chosen = choose_weights(model_file)
    assert chosen.kind == AS_IS
    assert not workshop.references
    assert reasons(chosen)["BF16"] == "not 10% faster than the file as it is"


def test_a_type_that_cannot_be_made_drops_out_with_its_reason(
    model_file: Path, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.unmakeable = {"BF16"}
    with caplog.at_level(logging.INFO, "promptsearch"):
        chosen = choose_weights(model_file)
    assert chosen.kind == "F16"
    assert reasons(chosen)["BF16"] == "no BF16 from this"
    assert "BF16 weights of SmolLM2-135M-Instruct.Q4_1.gguf are left out: no BF16 from this" in caplog.text


def test_without_the_expansion_the_file_as_it_is_is_the_reference(model_file: Path, workshop: Workshop) -> None:
    workshop.unmakeable = {"F32"}
    chosen = choose_weights(model_file)
    assert workshop.references == [AS_IS]
    assert chosen.agreement is not None
    assert chosen.agreement.reference == AS_IS


def test_an_expansion_that_cannot_answer_leaves_the_file_as_it_is_as_the_reference(
    model_file: Path, workshop: Workshop
) -> None:
    workshop.unanswering = {"F32": ModelError("no context of 512 tokens")}
    chosen = choose_weights(model_file)
    assert workshop.references == ["F32", AS_IS]
    assert chosen.kind == "BF16"
    assert chosen.agreement is not None
    assert chosen.agreement.reference == AS_IS


@pytest.mark.parametrize("choose", [choose_weights, bench_weights])
def test_where_nothing_can_answer_the_file_runs_as_it_is(
    model_file: Path, workshop: Workshop, choose: Callable[[Path], object]
) -> None:
    workshop.unanswering = dict.fromkeys(("F32", AS_IS), ContextError("prompt 0 has 300 tokens, 256 fit"))
    choose(model_file)
    assert workshop.references == ["F32", AS_IS]
    assert not workshop.compared
    chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path) == (AS_IS, model_file)
    assert reasons(chosen) == {
        AS_IS: "",
        **dict.fromkeys(KINDS, "cannot be compared: prompt 0 has 300 tokens, 256 fit"),
    }


def test_a_disk_that_fills_up_leaves_types_out(model_file: Path, workshop: Workshop) -> None:
    workshop.disk_full = {"BF16", "F32"}
    chosen = choose_weights(model_file)
    assert chosen.kind == "F16"
    assert reasons(chosen)["BF16"] == "[Errno 28] No space left on device"
    assert workshop.references == [AS_IS]


def test_a_file_without_room_for_a_copy_is_measured_on_demand_only_and_once(
    model_file: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_LARGEST_COPY", 10**6)
    chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.prefill, workshop.measured) == (AS_IS, {}, [])
    assert choose_weights(model_file) == chosen  # kept
    assert bench_weights(model_file).speeds == {AS_IS: SPEEDS[AS_IS]}
    assert workshop.measured == [AS_IS]


def test_a_file_whose_copies_all_fail_is_measured_once(model_file: Path, workshop: Workshop) -> None:
    workshop.unmakeable = set(KINDS)
    assert choose_weights(model_file).prefill == {AS_IS: SPEEDS[AS_IS]}
    assert workshop.measured == [AS_IS]


@pytest.mark.parametrize(
    ("available", "kind", "reference"),
    [
        (int(1.2 * GB), "BF16", "F32"),
        (int(0.95 * GB), "BF16", AS_IS),
        (int(0.75 * GB), "Q8_0", AS_IS),
        (10**8, AS_IS, ""),
    ],
)
def test_what_does_not_fit_memory_is_left_out(
    model_file: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, available: int, kind: str, reference: str
) -> None:
    """A copy takes 0.54, 0.27 and 0.14 GB here, and an engine's memories 0.58."""
    monkeypatch.setattr(conversion.psutil, "virtual_memory", lambda: SimpleNamespace(available=available))
    chosen = choose_weights(model_file)
    assert chosen.kind == kind
    assert workshop.references == ([reference] if reference else [])
    if kind != "BF16":
        assert reasons(chosen)["BF16"] == f"needs 0.8 GB of memory, {available / GB:.1f} GB are available"


def test_what_the_disk_has_no_place_for_is_left_out(
    model_file: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 2**30 + int(0.2 * GB)
    monkeypatch.setattr(conversion.shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    chosen = choose_weights(model_file)
    assert chosen.kind == "Q8_0"
    assert "a copy takes 0.3 GB of disk" in reasons(chosen)["BF16"]
    with pytest.raises(ModelError, match=r"cannot run with F16 weights: a copy takes .*; give weights='as-is'"):
        choose_weights(model_file, "F16")
    assert set(workshop.made) == {"Q8_0"}


def test_a_large_model_gets_no_large_copy(
    model_file: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversion, "_LARGEST_COPY", 2 * 10**8)
    chosen = choose_weights(model_file)
    assert chosen.kind == "Q8_0"
    assert reasons(chosen)["BF16"] == "a copy takes 0.3 GB, above the limit of 0.2 GB"
    assert workshop.references == [AS_IS]


def test_the_type_that_a_file_has_already_is_not_made(model_file: Path, workshop: Workshop, tmp_path: Path) -> None:
    source = tmp_path / "own.gguf"
    convert(model_file, source, "Q8_0")
    chosen = choose_weights(source)
    assert chosen.table is not None
    assert [each.kind for each in chosen.table.types] == [AS_IS, "BF16", "F16"]
    assert "Q8_0" not in workshop.made


@pytest.mark.usefixtures("workshop")
def test_all_types_are_compared_on_demand(model_file: Path) -> None:
    table = bench_weights(model_file)
    assert table.chosen == "BF16"
    assert all(each.agreement is not None for each in table.types)
    assert all(each.speed is not None and each.speed.generation == 5.0 for each in table.types)
    assert choose_weights(model_file).table == table  # kept
    assert weights.kept_table(model_file) == table


# -- what is kept -------------------------------------------------------------------------------------------


def damaged(table: Path, content: str) -> None:
    table.write_text(content, encoding="utf-8")


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "1", '{"schema": 1}', '{"schema": 0, "files": {}, "measured": {}}', "\x00\x01"],
)
def test_a_damaged_table_is_measured_again(model_file: Path, workshop: Workshop, cache: Path, content: str) -> None:
    chosen = choose_weights(model_file)
    damaged(weights_folder(cache) / "weights.json", content)
    assert weights.kept_table(model_file) is None
    workshop.measured.clear()
    assert choose_weights(model_file) == chosen
    assert workshop.measured == [AS_IS, *KINDS] * 3


@pytest.mark.parametrize("part", ["processor", "accelerator", "features", "cores", "binding"])
def test_another_machine_measures_for_itself(
    model_file: Path, workshop: Workshop, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    choose_weights(model_file)
    other = {**weights._machine(), part: "another"}
    monkeypatch.setattr(weights, "_machine", lambda: other)
    workshop.speeds["Q8_0"] = 1000.0
    assert choose_weights(model_file).kind == "Q8_0"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place inside a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in items:
        yield from places(inner, (*path, name))


@given(data=st.data())
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_table_changed_anywhere_is_whole_or_none(
    data: st.DataObject, model_file: Path, workshop: Workshop, cache: Path
) -> None:
    del workshop
    choose_weights(model_file)
    file = weights_folder(cache) / "weights.json"
    kept = file.read_text("utf-8")
    document = json.loads(kept)
    *path, last = data.draw(st.sampled_from([place for place in places(document) if place]))
    inside = document
    for name in path:
        inside = inside[name]
    inside[last] = data.draw(JSON)
    damaged(file, json.dumps(document))
    try:
        table = weights.kept_table(model_file)
        assert table is None or isinstance(table.named(table.chosen), weights.WeightType)
        assert choose_weights(model_file).path.is_file()
    finally:
        damaged(file, kept)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def overwritten(path: Path) -> None:
    path.write_bytes(b"x" * path.stat().st_size)
    os.utime(path, ns=(1, 1))


@pytest.mark.parametrize("damage", [cut_short, overwritten, Path.unlink])
@pytest.mark.parametrize("asked", ["auto", "BF16", "Q8_0"])
def test_a_damaged_copy_is_made_again_without_measuring(
    model_file: Path, workshop: Workshop, damage: Callable[[Path], None], asked: str
) -> None:
    path = choose_weights(model_file, asked).path
    content = path.read_bytes()
    damage(path)
    workshop.made.clear()
    workshop.measured.clear()
    assert choose_weights(model_file, asked).path.read_bytes() == content
    assert workshop.made == [path.stem]
    assert not workshop.measured
    workshop.made.clear()
    choose_weights(model_file, asked)
    assert not workshop.made


def test_a_chosen_copy_that_cannot_be_made_again_leaves_the_file_as_it_is(
    model_file: Path, workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    first = choose_weights(model_file)
    first.path.unlink()
    workshop.disk_full = {"BF16"}
    with caplog.at_level(logging.WARNING, "promptsearch"):
        chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path, chosen.agreement) == (AS_IS, model_file, None)
    assert reasons(chosen)[AS_IS] == ""
    assert reasons(chosen)["BF16"] == "cannot be made again: [Errno 28] No space left on device"
    assert "runs as it is: its BF16 weights cannot be made again: [Errno 28]" in caplog.text
    workshop.disk_full.clear()
    assert choose_weights(model_file) == first  # what was measured still counts


def test_a_type_that_was_asked_for_by_name_stays(model_file: Path, workshop: Workshop) -> None:
    named = choose_weights(model_file, "Q8_0")
    assert (named.kind, named.prefill, named.agreement) == ("Q8_0", {}, None)
    assert not workshop.measured
    assert choose_weights(model_file).kind == "BF16"
    assert named.path.is_file()
    assert workshop.made.count("Q8_0") == 1  # measured where it lay


def unlockable(cache: Path) -> None:
    """Leave a weights folder as a read-only one is; whoever runs tests may write to those all the same."""
    lock = weights_folder(cache) / "lock"
    lock.unlink()
    lock.mkdir()


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("asked", ["auto", "Q8_0"])
def test_what_a_folder_holds_whole_runs_though_nothing_can_be_written_there(
    model_file: Path, workshop: Workshop, cache: Path, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    first = choose_weights(model_file, asked)
    unlockable(cache)
    before, made = contents(cache), len(workshop.made)
    with caplog.at_level(logging.WARNING, "promptsearch"):
        assert choose_weights(model_file, asked) == first
    assert (contents(cache), len(workshop.made)) == (before, made)
    assert not caplog.records


def test_a_choice_of_the_file_as_it_is_counts_in_a_folder_that_cannot_be_written_to(
    model_file: Path, workshop: Workshop, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workshop.agreed = dict.fromkeys(KINDS, 0)
    first = choose_weights(model_file)
    unlockable(cache)
    with caplog.at_level(logging.WARNING, "promptsearch"):
        assert choose_weights(model_file) == first
    assert not caplog.records


@pytest.mark.parametrize("damage", [cut_short, overwritten, Path.unlink])
def test_a_damaged_copy_in_a_folder_that_cannot_be_written_to_leaves_the_file_as_it_is(
    model_file: Path,
    workshop: Workshop,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
) -> None:
    damage(choose_weights(model_file).path)
    unlockable(cache)
    workshop.made.clear()
    with caplog.at_level(logging.WARNING, "promptsearch"):
        chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path, chosen.agreement) == (AS_IS, model_file, None)
    assert chosen.prefill == SPEEDS
    assert reasons(chosen)[AS_IS] == ""
    assert "the cache folder cannot be used ([Errno " in reasons(chosen)["BF16"]
    assert "runs as it is: the cache folder cannot be used ([Errno " in caplog.text
    assert not workshop.made


@pytest.mark.parametrize("inside", ["", "weights"], ids=["no cache folder", "no folder of weights"])
def test_without_a_cache_folder_the_file_runs_as_it_is(
    model_file: Path, workshop: Workshop, cache: Path, caplog: pytest.LogCaptureFixture, inside: str
) -> None:
    """A file lies in the folder's place."""
    (cache / inside).parent.mkdir(exist_ok=True)
    (cache / inside).touch()
    with caplog.at_level(logging.WARNING, "promptsearch"):
        chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path, chosen.table, chosen.prefill) == (AS_IS, model_file, None, {})
    assert f"{model_file.name} runs as it is: the cache folder cannot be used ([Errno " in caplog.text
    assert weights.kept_table(model_file) is None
    with pytest.raises(
        ModelError, match=r"cannot run with F16 weights: the cache folder .*; give weights='as-is'"
    ) as told:
        choose_weights(model_file, "F16")
    assert "\n" not in str(told.value)
    assert "PROMPTSEARCH_CACHE" in str(told.value)
    assert choose_weights(model_file, AS_IS).path == model_file
    assert (workshop.made, workshop.measured) == ([], [])


def test_a_named_type_that_the_disk_has_no_room_for_is_one_line(model_file: Path, workshop: Workshop) -> None:
    workshop.disk_full = {"F16"}
    with pytest.raises(ModelError, match=r"cannot run with F16 weights: \[Errno 28\] .*; give weights='as-is'"):
        choose_weights(model_file, "F16")


@pytest.mark.parametrize("agreed", [50, 0])
def test_what_was_measured_and_cannot_be_kept_leaves_the_file_as_it_is(
    model_file: Path,
    workshop: Workshop,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    agreed: int,
) -> None:
    workshop.agreed = dict.fromkeys(KINDS, agreed)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "promptsearch"):
        patch.setattr(weights, "write_whole", full)
        chosen = choose_weights(model_file)
    assert (chosen.kind, chosen.path, chosen.prefill) == (AS_IS, model_file, SPEEDS)
    assert "what was measured cannot be kept, so that it is measured again next time: [Errno 28]" in caplog.text
    assert choose_weights(model_file).kind == ("BF16" if agreed else AS_IS)


def test_what_a_killed_process_left_is_cleared_away(model_file: Path, workshop: Workshop, cache: Path) -> None:
    choose_weights(model_file, "F16")
    trial = weights_folder(cache) / "trial"
    trial.mkdir()
    (trial / "F32.123.partial").write_bytes(b"half")
    (trial.parent / "BF16.123.partial").write_bytes(b"half")
    assert choose_weights(model_file).kind == "BF16"
    assert not trial.exists()
    assert not list(trial.parent.glob("*.partial"))


SCRIPT = """
import logging, sys, time
from pathlib import Path
import numpy as np
from promptsearch.lm.llamacpp import weights
from promptsearch.lm.llamacpp.agreement import Agreement
from promptsearch.lm.llamacpp.speed import Speed

speeds = {"BF16": 400.0}
weights.measure_speed = lambda path, full: Speed({512: speeds.get(path.stem, 100.0)})
weights.reference_scores = lambda *_: np.zeros((1, 1))
weights.compare = lambda path, kind, *_: Agreement(kind, 50, 50, 0, "F32")
logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
print("ready", flush=True)
sys.stdin.readline()
print(weights.choose_weights(Path(sys.argv[1])).path)
"""


def started(model_file: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(model_file)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once_measure_once_and_get_the_same_whole_file(model_file: Path, cache: Path) -> None:
    """Real conversions; only speed and agreement are given."""
    both = [started(model_file), started(model_file)]
    for process in both:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in both:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("measuring which weights" in text for text in said) == 1
    paths = {text.splitlines()[-1] for text in said}
    assert paths == {str(weights_folder(cache) / "BF16.gguf")}
    with LlamaEngine(Path(paths.pop()), name="x", fingerprint="x") as engine:
        assert np.isfinite(engine.score(["It was"], [" good", " bad"])).all()


def test_a_killed_process_holds_nobody_up(model_file: Path, workshop: Workshop, cache: Path) -> None:
    del workshop
    folder = cache / "weights" / file_hash(model_file)[:16]
    holding = (
        "import sys, time; from pathlib import Path; from promptsearch.lm.llamacpp import weights\n"
        "with weights._locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", holding, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.kill()
    process.communicate()
    assert choose_weights(model_file).kind == "BF16"


# -- damaged types, for real --------------------------------------------------------------------------------


def test_wrong_weights_are_refused_and_the_next_type_is_taken(
    model_file: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What calls itself BF16 holds the weights cut to two bits; the rest is as it would be."""
    del cache
    made = {"BF16": "Q2_K"}
    monkeypatch.setattr(
        weights, "convert", lambda source, target, kind: convert(source, target, made.get(kind, kind))
    )
    monkeypatch.setattr(
        weights,
        "measure_speed",
        lambda path, full: Speed({PREFILL_TOKENS: SPEEDS[path.stem if path.stem in KINDS else AS_IS]}),
    )
    monkeypatch.setattr(weights, "_ALLOWANCE", 0.0)  # the fewest messages
    chosen = choose_weights(model_file)
    assert chosen.kind == "F16"
    assert chosen.table is not None
    wrong = chosen.table.named("BF16")
    assert wrong is not None
    assert wrong.agreement is not None
    assert wrong.agreement.share < 0.9
    assert wrong.reason.startswith("another label than the file's own on ")
    assert chosen.agreement is not None
    assert chosen.agreement.agreed == chosen.agreement.items > 25


def test_a_file_that_cannot_be_converted_leaves_nothing(tmp_path: Path) -> None:
    source = tmp_path / "broken.gguf"
    source.write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(BackendError, match=r"'broken.gguf' cannot be converted to F16") as caught:
        convert(source, tmp_path / "new" / "F16.gguf", "F16")
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "new").iterdir())


# -- agreement ----------------------------------------------------------------------------------------------


def test_the_messages_are_short_different_and_none_is_shown() -> None:
    labels, prompts = labels_and_prompts()
    assert len(labels) == 7
    assert len(set(prompts)) == agreement.ITEMS
    assert list(map(len, prompts)) == sorted(map(len, prompts))
    shown, asked = zip(*(prompt.rsplit("\n\n", 1) for prompt in prompts), strict=True)
    assert len(set(shown)) == 1
    assert all(f"Team:{label}" in shown[0] for label in labels)
    assert not any(message.removesuffix("\nTeam:") in shown[0] for message in asked)


class Answering:
    """An engine that gives each prompt the scores of its place."""

    def __init__(self, scores: np.ndarray[Any, Any]) -> None:
        self.rows = dict(zip(labels_and_prompts()[1], scores, strict=False))
        self.asked = 0

    def score(self, prompts: Sequence[str], _labels: Sequence[str]) -> np.ndarray[Any, Any]:
        self.asked += len(prompts)
        return np.stack([self.rows[prompt] for prompt in prompts])


def answers(best: Sequence[int], lead: float = 1.0) -> np.ndarray[Any, Any]:
    scores = np.full((len(best), 7), -3.0)
    scores[np.arange(len(best)), list(best)] += lead
    return scores


def answering(scores: np.ndarray[Any, Any], monkeypatch: pytest.MonkeyPatch) -> Answering:
    engine = Answering(scores)

    @contextmanager
    def opened(_path: Path) -> Iterator[Answering]:
        yield engine

    monkeypatch.setattr(agreement, "_opened", opened)
    return engine


def test_one_in_a_hundred_may_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = answers([0] * 500)
    for wrong, holds in ((0, True), (5, True), (6, False), (300, False)):
        answering(answers([1] * wrong + [0] * (500 - wrong)), monkeypatch)
        found = compare(Path("x"), "BF16", reference, "F32", untold)
        assert found.holds == holds
        assert found.items - found.agreed == min(wrong, found.items)


def test_one_that_disagrees_is_not_compared_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering(answers([1] * 500), monkeypatch)
    found = compare(Path("x"), "BF16", answers([0] * 500), "F32", untold)
    assert (found.items, found.agreed, engine.asked) == (50, 0, 50)


def test_near_ties_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    reference = np.concatenate([answers([0] * 60, lead=0.19), answers([0] * 40, lead=0.21)])
    engine = answering(answers([1] * 60 + [0] * 40), monkeypatch)
    found = compare(Path("x"), "BF16", reference, "F32", untold)
    assert found == Agreement("BF16", 40, 40, 60, "F32")
    assert engine.asked == 40
    assert str(found) == "40 of 40, 60 near ties aside"


def test_near_ties_everywhere_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = answering(answers([0] * 100), monkeypatch)
    reference = np.concatenate([answers([0] * 76, lead=0.1), answers([0] * 24)])
    found = compare(Path("x"), "BF16", reference, "F32", untold)
    assert not found.holds
    assert engine.asked == 0


@pytest.mark.parametrize(("seconds", "read"), [(0.1, 500), (5.0, 350), (9.0, 50), (1000.0, 50)])
def test_the_allowance_bounds_the_messages_read(monkeypatch: pytest.MonkeyPatch, seconds: float, read: int) -> None:
    """A clock that moves on by so much at each look: at the start, then once before each further call."""
    engine = answering(answers([0] * 500), monkeypatch)
    ticks = iter(np.arange(100) * seconds)
    scores = reference_scores(Path("x"), 20.0, untold, clock=lambda: float(next(ticks)))
    assert len(scores) == engine.asked == read


def test_f16_answers_as_the_expansion_and_two_bits_do_not(model_file: Path, tmp_path: Path) -> None:
    for kind in ("F32", "F16", "Q2_K"):
        convert(model_file, tmp_path / f"{kind}.gguf", kind)
    reference = reference_scores(tmp_path / "F32.gguf", 0.0, untold)
    assert reference.shape == (50, 7)
    assert compare(tmp_path / "F16.gguf", "F16", reference, "F32", untold).share == 1.0
    assert compare(tmp_path / "Q2_K.gguf", "Q2_K", reference, "F32", untold).share < 0.9


@given(
    st.builds(
        lambda kind, agreed, more, ties: Agreement(kind, agreed + more, agreed, ties, "F32"),
        st.text(max_size=5),
        st.integers(0, 500),
        st.integers(0, 500),
        st.integers(0, 500),
    )
)
def test_agreement_survives_a_round_trip(found: Agreement) -> None:
    assert Agreement.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert 0 <= found.share <= 1
    assert not found.holds or found.items - found.agreed <= 0.01 * found.items + 1e-9


# -- hashes -------------------------------------------------------------------------------------------------

OLD = 10**18  # nanoseconds since the epoch, long ago


def written(path: Path, content: bytes, time: int = OLD) -> Path:
    path.write_bytes(content)
    os.utime(path, ns=(time, time))
    return path


def test_a_file_is_hashed_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del cache
    path = written(tmp_path / "a", b"content")
    assert file_hash(path) == hashlib.sha256(b"content").hexdigest()
    (tmp_path / "link").symlink_to(path)
    monkeypatch.setattr(hashes, "_digest", lambda _: pytest.fail("read again"))
    assert file_hash(path) == file_hash(tmp_path / "link") == hashlib.sha256(b"content").hexdigest()


@given(
    states=st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from([b"one!", b"two!", b"three"])), min_size=1, max_size=8
    )
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_hash_is_always_that_of_the_content(states: list[tuple[str, bytes]], tmp_path: Path, cache: Path) -> None:
    """Also where content of the same size comes in between, at another time."""
    del cache
    for step, (name, content) in enumerate(states):
        path = written(tmp_path / name, content, OLD + step)
        for _ in range(2):
            assert file_hash(path) == hashlib.sha256(content).hexdigest()


def test_another_file_moved_into_place_is_seen(tmp_path: Path, cache: Path) -> None:
    """The same size and time, but another inode."""
    del cache
    path, other = written(tmp_path / "a", b"one!"), written(tmp_path / "b", b"two!")
    file_hash(path)
    os.replace(other, path)
    assert file_hash(path) == hashlib.sha256(b"two!").hexdigest()


def test_a_file_that_changed_just_now_is_not_remembered(tmp_path: Path, cache: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one!")
    os.utime(path, ns=(2**62, 2**62))  # later than any clock says
    file_hash(path)
    assert not (cache / "hashes.json").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"PATH": 1}', '{"PATH": {"sha256": "x"}}'])
def test_a_damaged_memory_of_hashes_is_made_again(tmp_path: Path, cache: Path, content: str) -> None:
    path = written(tmp_path / "a", b"one!")
    file_hash(path)
    kept = cache / "hashes.json"
    assert str(path) in json.loads(kept.read_text("utf-8"))
    damaged(kept, content.replace("PATH", str(path)))
    assert file_hash(path) == hashlib.sha256(b"one!").hexdigest()
    assert str(path) in json.loads(kept.read_text("utf-8"))


def test_files_that_are_gone_are_forgotten(tmp_path: Path, cache: Path) -> None:
    first, second = written(tmp_path / "a", b"one!"), written(tmp_path / "b", b"two!")
    file_hash(first)
    first.unlink()
    file_hash(second)
    assert list(json.loads((cache / "hashes.json").read_text("utf-8"))) == [str(second)]


# -- from the outside ---------------------------------------------------------------------------------------


def test_the_description_says_what_was_measured() -> None:
    class Named:
        name = "small"

    engine: Any = Named()
    speeds = ((AS_IS, 473.2), ("BF16", 1677.0))
    opened = OpenedModel(engine, "", "BF16", speeds, Agreement("BF16", 466, 465, 34, "F32"))
    assert opened.description == (
        "small, weights BF16 (tokens/s: as-is 473, BF16 1,677; same label as the file's own on 465 of 466, "
        "34 near ties aside)"
    )
    assert OpenedModel(engine, "", "BF16").description == "small, weights BF16"
    assert OpenedModel(engine, "").description == "small"


@pytest.mark.parametrize(
    ("model", "given", "words"),
    [
        (None, "Q4", "'Q4' is none of: auto, as-is, BF16, F16, Q8_0"),
        (None, 8, "8 is no name"),
        ("http://localhost:1/v1", "BF16", "the model is the server 'http://localhost:1/v1'"),
        (fake_model(fake_task()), "as-is", "the model is a FakeLM"),
        (OpenedModel(fake_model(fake_task()), "fake"), "BF16", "comes too late"),
    ],
)
def test_weights_that_cannot_be_had_are_one_line(model: object, given: Any, words: str) -> None:
    with pytest.raises(UserError, match=words.replace("(", r"\(")) as caught:
        open_engine(model, given)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError):
        ps.optimize(fake_task(), model, "100 evaluations", weights=given, progress=False)


def test_a_search_tells_that_weights_are_measured(model_file: Path, workshop: Workshop) -> None:
    from promptsearch.optimizer import _weights_listener

    del workshop
    heard: list[Event] = []
    choose_weights(model_file, tell=_weights_listener(heard.append))
    assert [event.text for event in heard if isinstance(event, Note)] == [
        "measuring which weights run fastest here (once)"
    ]
    shares = [event.done for event in heard if isinstance(event, Progress) and event.phase == "weights"]
    assert (shares[0], shares[-1]) == (0.0, 1.0)


def test_a_saved_prompt_runs_on_the_same_type_where_its_file_was_never_made(
    model_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del model_file
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "here"))
    task = fake_task()
    prompt = ps.Prompt(task, task.examples[:2], weights="Q8_0")
    item = task.examples[5].text
    expected = prompt(item).probabilities
    saved = prompt.save(tmp_path / "prompt.json")
    monkeypatch.setenv("PROMPTSEARCH_CACHE", str(tmp_path / "there"))
    monkeypatch.setattr(weights, "measure_speed", None)  # whoever calls it fails
    loaded = ps.load(saved)
    assert loaded.model == prompt.model == "smollm2-135m, weights Q8_0"
    assert [path.name for path in (tmp_path / "there").rglob("*.gguf")] == ["Q8_0.gguf"]
    assert loaded(item).probabilities == expected
    assert ps.load(saved, weights="as-is").model == "smollm2-135m, weights as-is"


def test_a_run_recorded_on_other_weights_is_refused(tmp_path: Path, model_file: Path) -> None:
    """Both types answer alike enough, and still no run mixes them."""
    del model_file
    rows = [{"text": f"{word} {number}", "label": word} for number in range(30) for word in ("good", "bad")]
    task = ps.Task(rows, inputs="text", output="label")
    options: dict[str, Any] = {"run": tmp_path / "run", "progress": False}
    first = ps.optimize(task, None, "4000 tokens", weights="as-is", **options)
    assert "weights as-is" in first.facts["model"]
    with pytest.raises(ArtifactError, match="model"):
        ps.optimize(task, None, "4000 tokens", weights="Q8_0", **options)
