"""Beginnings that are kept: restored = decoded, read back = written, and nothing foreign is taken in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptsearch.errors import ArtifactError
from promptsearch.lm.base import Rendered, Segment
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.prefix import PrefixState, PrefixStates, read_prefix_state, write_prefix_state

OPENING = "".join(
    f"Text: message number {number}\nLabel: {'good' if number % 3 else 'bad'}\n\n" for number in range(9)
)
ITEMS = ["it came late", "it works", "it came late again", "where is it?", "no", "it came"]
LABELS = [" good", " bad", " very bad"]


def prompts_of(items: Sequence[str], opening: str = OPENING) -> list[Rendered]:
    head = f"{opening}Text: "
    return [Rendered([Segment(f"{head}{item}\nLabel:")], shared=len(head)) for item in items]


@pytest.fixture
def fresh(engine: LlamaEngine) -> LlamaEngine:
    engine._states.clear()
    return engine


def decoded_by(engine: LlamaEngine, prompts: Sequence[str]) -> tuple[np.ndarray, int, int]:
    before = engine.tokens_decoded, engine.tokens_restored
    scores = engine.score(prompts, LABELS)
    return scores, engine.tokens_decoded - before[0], engine.tokens_restored - before[1]


def test_a_restored_beginning_gives_the_same_numbers_bit_by_bit(fresh: LlamaEngine) -> None:
    prompts = prompts_of(ITEMS)
    first, decoded, restored = decoded_by(fresh, prompts)
    assert restored == 0
    second, decoded_again, restored_again = decoded_by(fresh, prompts)
    assert np.array_equal(first, second)
    assert restored_again > 60
    assert decoded_again == decoded - restored_again


def test_other_items_restore_the_same_beginning(fresh: LlamaEngine) -> None:
    uncached = fresh.score(prompts_of(ITEMS[3:]), LABELS)
    fresh._states.clear()
    fresh.score(prompts_of(ITEMS[:3]), LABELS)
    cached, _, restored = decoded_by(fresh, prompts_of(ITEMS[3:]))
    assert restored > 60
    assert np.array_equal(cached, uncached)


def test_one_item_alone_uses_it_too(fresh: LlamaEngine) -> None:
    fresh.score(prompts_of(ITEMS), LABELS)
    _, decoded, restored = decoded_by(fresh, prompts_of(["a single one"]))
    assert restored > 60
    assert decoded < 20


def test_numbers_do_not_depend_on_what_the_memory_has_grown_to(fresh: LlamaEngine) -> None:
    small = fresh.score(prompts_of(ITEMS), LABELS)
    fresh._context.clear(8000)
    assert fresh._context.reserved >= 8000
    fresh._states.clear()
    assert np.array_equal(fresh.score(prompts_of(ITEMS), LABELS), small)


def test_the_same_texts_without_the_hint_agree(exact_engine: LlamaEngine) -> None:
    prompts = prompts_of(ITEMS)
    hinted = exact_engine.score(prompts, LABELS)
    plain = exact_engine.score([str(prompt) + "" for prompt in prompts], LABELS)
    alone = np.concatenate([exact_engine.score([str(prompt)], LABELS) for prompt in prompts])
    assert hinted == pytest.approx(plain, abs=0.02)
    assert hinted == pytest.approx(alone, abs=0.02)


def test_a_wrong_hint_changes_nothing(exact_engine: LlamaEngine) -> None:
    right = prompts_of(ITEMS)
    wrong = [Rendered(prompt.segments, shared=len(prompt)) for prompt in right]
    lying = [Rendered(prompt.segments, shared=prompt.shared + 3) for prompt in right]
    expected = exact_engine.score(right, LABELS)
    assert exact_engine.score(wrong, LABELS) == pytest.approx(expected, abs=0.02)
    assert exact_engine.score(lying, LABELS) == pytest.approx(expected, abs=0.02)


def test_many_labels_restore_between_their_groups(exact_engine: LlamaEngine) -> None:
    labels = [f" label {first} {second}" for first in "abcdefghijklmn" for second in range(12)]
    together = exact_engine.score(prompts_of(ITEMS[:2]), labels)
    some = exact_engine.score(prompts_of(ITEMS[:2]), labels[40:50])
    assert together[:, 40:50] == pytest.approx(some, abs=0.02)


def test_states_stay_within_their_limit() -> None:
    states = PrefixStates(100)
    states.keep((1,), b"x" * 60)
    states.keep((2,), b"x" * 60)
    assert states.find((1,)) is None
    assert states.size == 60
    states.keep((3,), b"x" * 101)
    assert states.find((3,)) is None
    assert len(states) == 1


def test_the_one_used_longest_ago_goes_first() -> None:
    states = PrefixStates(100)
    states.keep((1,), b"x" * 40)
    states.keep((2,), b"x" * 40)
    assert states.find((1,)) is not None
    states.keep((3,), b"x" * 40)
    assert states.find((2,)) is None
    assert states.find((1,)) is not None


def test_a_short_beginning_is_not_kept(fresh: LlamaEngine) -> None:
    fresh.score(prompts_of(ITEMS, opening="Do it.\n\n"), LABELS)
    assert len(fresh._states) == 0
    assert fresh.prefix_state(prompts_of(["x"], opening="")[0]) is None


@pytest.fixture
def state(fresh: LlamaEngine) -> PrefixState:
    found = fresh.prefix_state(prompts_of(ITEMS)[0])
    assert found is not None
    return found


def test_a_state_from_a_file_is_the_one_that_was_written(
    fresh: LlamaEngine, state: PrefixState, tmp_path: Path
) -> None:
    expected = fresh.score(prompts_of(ITEMS), LABELS)
    write_prefix_state(tmp_path / "p.prefix", state)
    fresh._states.clear()
    read = read_prefix_state(tmp_path / "p.prefix")
    assert read == state
    fresh.keep_prefix_state(read, prompts_of(ITEMS)[0])
    scores, _, restored = decoded_by(fresh, prompts_of(ITEMS))
    assert restored == len(state.tokens)
    assert np.array_equal(scores, expected)


def test_a_state_of_another_model_is_refused(fresh: LlamaEngine, state: PrefixState) -> None:
    with pytest.raises(ArtifactError, match="another model"):
        fresh.keep_prefix_state(PrefixState("other", state.tokens, state.data), prompts_of(ITEMS)[0])


def test_a_state_that_llama_refuses_is_an_error_and_the_engine_goes_on(
    fresh: LlamaEngine, state: PrefixState
) -> None:
    expected = fresh.score(prompts_of(ITEMS), LABELS)
    fresh._states.clear()
    for data in (state.data[:-1000], b"\0" * len(state.data)):
        with pytest.raises(ArtifactError, match="cannot be used"):
            fresh.keep_prefix_state(PrefixState(state.identity, state.tokens, data), prompts_of(ITEMS)[0])
    assert len(fresh._states) == 0
    assert np.array_equal(fresh.score(prompts_of(ITEMS), LABELS), expected)


def test_a_missing_or_foreign_file(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        read_prefix_state(tmp_path / "none")
    (tmp_path / "foreign").write_bytes(b"GGUF\n{}\n")
    with pytest.raises(ArtifactError, match="is no prefix state"):
        read_prefix_state(tmp_path / "foreign")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.data())
def test_a_changed_byte_is_noticed(state: PrefixState, tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "p.prefix"
    write_prefix_state(path, state)
    content = bytearray(path.read_bytes())
    begin = content.index(b"\n", content.index(b"\n") + 1) + 1
    place = data.draw(st.integers(begin, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with pytest.raises(ArtifactError, match="is damaged"):
        read_prefix_state(path)
    path.write_bytes(content[: data.draw(st.integers(0, begin))])
    with pytest.raises(ArtifactError):
        read_prefix_state(path)


@given(st.integers(1, 3), st.integers(-5, 5))
def test_cells_that_lie_are_refused_even_with_a_right_digest(
    tmp_path_factory: pytest.TempPathFactory, column: int, wrong: int
) -> None:
    tokens = (5, 6, 7)
    cells = np.array([[0, 1, 0], [1, 1, 0], [2, 1, 0]], dtype="<i4")
    head = np.array([1, 0, 1, 3], dtype="<i4")
    good = PrefixState("x", tokens, head.tobytes() + cells.tobytes() + b"rest")
    path = tmp_path_factory.mktemp("state") / "p.prefix"
    write_prefix_state(path, good)
    assert read_prefix_state(path) == good
    if wrong == cells[1, column - 1]:
        return
    cells[1, column - 1] = wrong
    write_prefix_state(path, PrefixState("x", tokens, head.tobytes() + cells.tobytes() + b"rest"))
    with pytest.raises(ArtifactError, match="is damaged"):
        read_prefix_state(path)


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3)))
def test_any_header_is_an_error_and_no_crash(tmp_path_factory: pytest.TempPathFactory, header: object) -> None:
    path = tmp_path_factory.mktemp("state") / "p.prefix"
    path.write_bytes(b"promptsearch prefix state 1\n" + json.dumps(header).encode() + b"\ndata")
    with pytest.raises(ArtifactError):
        read_prefix_state(path)


@pytest.mark.parametrize("tokens", [[1e999], [True], [-1], [2**31], ["5"], [], None, 7])
def test_tokens_that_are_none_are_an_error(tmp_path: Path, tokens: object) -> None:
    data = np.array([1, 0, 1, 0], dtype="<i4").tobytes()
    header = {"identity": "x", "tokens": tokens, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    path = tmp_path / "p.prefix"
    path.write_bytes(b"promptsearch prefix state 1\n" + json.dumps(header).encode() + b"\n" + data)
    with pytest.raises(ArtifactError):
        read_prefix_state(path)


def test_a_header_too_deep_to_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "p.prefix"
    path.write_bytes(b"promptsearch prefix state 1\n" + b"[" * 100_000 + b"\n")
    with pytest.raises(ArtifactError):
        read_prefix_state(path)


def test_a_state_of_another_prompt_is_refused_and_what_is_known_stays(fresh: LlamaEngine, state: PrefixState) -> None:
    other = prompts_of(ITEMS, opening=OPENING.replace("9", "8").replace("bad", "worse"))
    with pytest.raises(ArtifactError, match="another prompt"):
        fresh.keep_prefix_state(state, other[0])
    planted = PrefixState(state.identity, state.tokens, state.data[:-64] + b"\x11" * 64)
    fresh.keep_prefix_state(planted, prompts_of(ITEMS)[0])
    assert fresh._states.find(state.tokens) == state.data


def test_an_engine_that_has_run_nothing_takes_a_state(
    model_file: Path, fresh: LlamaEngine, state: PrefixState
) -> None:
    expected = fresh.score(prompts_of(ITEMS), LABELS)
    with LlamaEngine(model_file, name="other", fingerprint="packaged") as other:
        with pytest.raises(ArtifactError):
            other.keep_prefix_state(PrefixState(state.identity, (), b""), prompts_of(ITEMS)[0])
        other.keep_prefix_state(state, prompts_of(ITEMS)[0])
        assert np.array_equal(other.score(prompts_of(ITEMS), LABELS), expected)
        assert other.tokens_restored == len(state.tokens)
