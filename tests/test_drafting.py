"""Reading ahead: what is drafted, and that no text, probability or count changes by it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptsearch.examples import example_task
from promptsearch.lm.base import Completion, FollowUp, GenerationParams
from promptsearch.lm.llamacpp import batching, drafting
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.drafting import Drafter
from promptsearch.lm.llamacpp.engine import LlamaEngine

MESSAGES = [example.text for example in example_task().examples]
SCHEMA = {
    "type": "object",
    "properties": {"message": {"type": "string", "maxLength": 60}, "urgent": {"type": "boolean"}},
    "required": ["message", "urgent"],
}


def by_looking(tokens: Sequence[int], most: int) -> tuple[int, ...]:
    """The slow way: of all earlier places the last one before which the text read the same for longest."""
    best, found = 1, ()
    pairs = [place for place in range(2, len(tokens)) if tokens[place - 2 : place] == tokens[-2:]]
    for place in pairs[-drafting._MOST_PLACES :]:
        same = 0
        while same < min(place, 8) and tokens[place - 1 - same] == tokens[-1 - same]:
            same += 1
        if same >= best:
            best, found = same, tuple(tokens[place : place + min(most, 2 * same)])
    return found


@given(st.lists(st.integers(0, 2), max_size=60), st.integers(0, 20), st.integers(0, 60))
def test_a_draft_follows_the_longest_match(tokens: list[int], most: int, given_first: int) -> None:
    drafter = Drafter(tokens[:given_first])
    for token in tokens[given_first:]:
        drafter.append(token)
    assert drafter.draft(most) == by_looking(tokens, most)


def test_of_a_text_that_repeats_itself_for_long_the_newest_places_are_compared() -> None:
    for repeated, expected in ((10, 3), (100, 4)):  # 3 is what followed the longest match
        tokens = [7, 1, 2, 3, *[1, 2, 4] * repeated, 7, 1, 2]
        assert Drafter(tokens).draft(1) == by_looking(tokens, 1) == (expected,)


# with a model


def copying(message: str, demonstrations: int = 2) -> str:
    """A prompt that the model goes on with the message itself, and then with more of the same kind."""
    shown = "".join(f"Message: {text}\nAgain: {text}\n\n" for text in MESSAGES[400 : 400 + demonstrations])
    return f"{shown}Message: {message}\nAgain:"


def asked(engine: LlamaEngine, prompts: Sequence[str], params: GenerationParams) -> tuple[list[Completion], int]:
    """Completions, and tokens that count, with nothing there from an earlier call."""
    engine.forget()
    before = engine.tokens_decoded
    completions = engine.generate(prompts, params)
    return completions, engine.tokens_decoded - before


WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "sampled": {"temperature": 0.7, "seed": 3},
    "stopped": {"stop": ("\n\n", " the")},
    "until": {"until": lambda text: len(text) > 50},
    "schema": {"json_schema": SCHEMA, "temperature": 0.5, "seed": 4},
    "short": {"max_tokens": 2},
}


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("way", WAYS)
def test_texts_and_counts_are_those_without_reading_ahead(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, way: str, count: int
) -> None:
    prompts = [copying(message) for message in sorted(MESSAGES[:40], key=len)[:count]]
    params = GenerationParams(**{"max_tokens": 40, "log_probabilities": True, **WAYS[way]})
    ahead = asked(engine, prompts, params)
    monkeypatch.setattr(batching, "_DRAFTED_ROWS", 0)
    assert ahead == asked(engine, prompts, params)


def test_so_it_is_with_weights_that_are_not_quantized(half_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = GenerationParams(max_tokens=40, log_probabilities=True)
    with LlamaEngine(half_file, name="half", fingerprint="half", threads=2) as half:
        ahead = [asked(half, [copying(message) for message in MESSAGES[:count]], params) for count in (1, 4)]
        monkeypatch.setattr(batching, "_DRAFTED_ROWS", 0)
        assert ahead == [asked(half, [copying(message) for message in MESSAGES[:count]], params) for count in (1, 4)]


@pytest.mark.parametrize("count", [1, 3])
def test_going_on_from_what_was_written(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    prompts = [copying(message) for message in MESSAGES[:count]]
    first = GenerationParams(max_tokens=24, stop=("\n",), log_probabilities=True)
    then = FollowUp(
        lambda number, said: f"{prompts[number]}{said.text}\nAgain:",
        GenerationParams(max_tokens=16, log_probabilities=True),
        8,
    )
    engine.forget()
    ahead = engine.write_on(prompts, first, then)
    monkeypatch.setattr(batching, "_DRAFTED_ROWS", 0)
    engine.forget()
    assert ahead == engine.write_on(prompts, first, then)


def test_what_repeats_takes_fewer_steps(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 0
    decode = Context.decode

    def counted(context: Context, *given: Any) -> Any:
        nonlocal steps
        steps += 1
        return decode(context, *given)

    monkeypatch.setattr(Context, "decode", counted)
    params = GenerationParams(max_tokens=40, stop=("\n\n",))
    longest = max(MESSAGES[:40], key=len)
    (written,), _ = asked(engine, [copying(longest)], params)
    ahead, steps = steps, 0
    monkeypatch.setattr(batching, "_DRAFTED_ROWS", 0)
    asked(engine, [copying(longest)], params)
    assert written.tokens > 20
    assert steps - ahead > written.tokens / 2
