"""Candidates as values: equal ones have equal keys everywhere, and a file gives back what was put in."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.candidate import CALIBRATIONS, MODES, ORDERS, REASONINGS, RERANKERS, RETRIEVERS, Candidate
from promptsearch.errors import ArtifactError

texts = st.text(st.characters(exclude_categories=()), max_size=20)
ids = st.lists(st.integers(0, 10**6), max_size=8).map(tuple)
shared = {
    "instruction": texts,
    "template": texts,
    "demonstrations": ids,
    "count": st.integers(0, 64),
    "retriever": st.sampled_from(RETRIEVERS),
    "among": ids,
    "order": st.sampled_from(ORDERS),
    "reranker": st.sampled_from(RERANKERS),
    "calibration": st.sampled_from(CALIBRATIONS),
}
answering = st.one_of(
    st.builds(Candidate, mode=st.sampled_from([mode for mode in MODES if mode != "routed"]), **shared),
    st.builds(Candidate, mode=st.just("routed"), routes=st.lists(ids, min_size=1, max_size=4).map(tuple), **shared),
)
reasoning = st.builds(
    lambda candidate, kind, thought, tokens, samples: replace(
        candidate, reasoning=kind, thought=thought, thinking_tokens=tokens, samples=samples
    ),
    st.builds(Candidate, mode=st.sampled_from([mode for mode in MODES if mode != "routed"]), **shared),
    st.sampled_from(REASONINGS[1:]),
    st.text(min_size=1, max_size=9),
    st.integers(1, 512),
    st.integers(1, 9),
)
candidates = st.one_of(answering, reasoning)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(candidates)
def test_round_trip_through_json(candidate: Candidate) -> None:
    again = Candidate.from_dict(json.loads(json.dumps(candidate.to_dict())))
    assert again == candidate
    assert again.key == candidate.key
    assert hash(again) == hash(candidate)


@given(candidates, candidates)
def test_keys_tell_candidates_apart(one: Candidate, other: Candidate) -> None:
    assert (one.key == other.key) == (one == other)


@given(candidates, st.sampled_from(CALIBRATIONS))
def test_a_reading_forgets_the_weighing_and_nothing_else(candidate: Candidate, calibration: str) -> None:
    assert replace(candidate, calibration=calibration).reading == candidate.reading
    assert replace(candidate.reading, calibration=candidate.calibration) == candidate


def test_order_of_demonstrations_counts() -> None:
    assert Candidate(demonstrations=(1, 2)).key != Candidate(demonstrations=(2, 1)).key


def test_shots() -> None:
    assert Candidate(demonstrations=(4, 5, 6), count=9).shots == 3
    assert Candidate(mode="retrieved", count=9).shots == 9
    assert Candidate(mode="routed", routes=((1,), (2, 3))).shots == 2


def test_routes_are_static_candidates() -> None:
    routed = Candidate("Say.", mode="routed", routes=((1, 2), (3,)), calibration="fitted")
    assert routed.route(0) == Candidate("Say.", demonstrations=(1, 2), calibration="fitted")
    assert routed.shown == (1, 2, 3)


@pytest.mark.parametrize("hash_seed", ["0", "1", "2"])
def test_keys_are_the_same_in_another_process(hash_seed: str) -> None:
    candidate = Candidate(
        instruction="Größe? \ud800",
        template="arrow",
        mode="retrieved",
        demonstrations=(3, 1),
        count=4,
        order="nearest-first",
        calibration="fitted",
    )
    code = (
        "from promptsearch.candidate import Candidate; "
        f"print(Candidate.from_dict({candidate.to_dict()!r}).key, end='')"
    )
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONUTF8": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == candidate.key


@pytest.mark.parametrize(
    "change",
    [
        {"mode": "guessed"},
        {"order": "random"},
        {"calibration": "magic"},
        {"reasoning": "magic"},
        {"reasoning": "cue"},
        {"thinking_tokens": 4},
        {"reasoning": "gold", "thinking_tokens": 4, "thought": None},
        {"reasoning": "gold", "thought": "Hm.", "thinking_tokens": -4},
        {"reasoning": "gold", "thought": "Hm.", "thinking_tokens": 4.0},
        {"reasoning": "gold", "thought": "Hm.", "thinking_tokens": 4, "samples": 0},
        {"reasoning": "gold", "thought": "Hm.", "thinking_tokens": 4, "samples": "3"},
        {"samples": 3},
        {"reasoning": "cue", "thinking_tokens": 4},
        {"reasoning": "cue", "thinking_tokens": 4, "thought": "Hm.", "mode": "routed", "routes": [[1]]},
        {"demonstrations": None},
        {"demonstrations": 3},
        {"demonstrations": ["x"]},
        {"demonstrations": "12"},
        {"demonstrations": [1.5]},
        {"demonstrations": [float("inf")]},
        {"demonstrations": [float("nan")]},
        {"demonstrations": [[1]]},
        {"instruction": 5},
        {"instruction": None},
        {"template": ["fields"]},
        {"count": "3"},
        {"count": -1},
        {"count": 1.5},
        {"more": 1},
        {"mode": "routed"},
        {"routes": [[1]]},
        {"routes": [1]},
        {"routes": [["x"]], "mode": "routed"},
        {"among": [-1]},
        {"retriever": "magic"},
        {"reranker": "magic"},
    ],
)
def test_damaged_values(change: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError) as caught:
        Candidate.from_dict({**Candidate(demonstrations=(1, 2)).to_dict(), **change})
    assert "\n" not in str(caught.value)


def test_no_demonstrations_named() -> None:
    values = Candidate().to_dict()
    del values["demonstrations"]
    with pytest.raises(ArtifactError):
        Candidate.from_dict(values)


@given(candidates, st.sampled_from(list(Candidate().to_dict())), json_values)
def test_any_other_value_is_refused_or_is_a_candidate(candidate: Candidate, name: str, value: Any) -> None:
    try:
        found = Candidate.from_dict({**candidate.to_dict(), name: value})
    except ArtifactError:
        return
    assert Candidate.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert len(found.key) == 32


@given(json_values)
def test_no_dict_of_a_candidate(values: Any) -> None:
    with pytest.raises(ArtifactError):
        Candidate.from_dict(values)
