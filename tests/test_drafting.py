"""Speculative decoding: what is drafted, and that no text, probability or count changes by it."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from test_stem import Memory

from promptsearch.examples import example_task
from promptsearch.lm.base import Completion, FollowUp, GenerationParams
from promptsearch.lm.llamacpp import batching, drafting
from promptsearch.lm.llamacpp.batching import Sequel, generate_batched
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.drafting import Drafter
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.reading_order import TILE, in_tiles, token_of
from promptsearch.lm.llamacpp.stem import FIRST_PLACE, Stem
from promptsearch.lm.plan import Row

Tokens = tuple[int, ...]

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
    for place in pairs[-drafting._MOST_COMPARED :]:
        same = 0
        while same < min(place, 8) and tokens[place - 1 - same] == tokens[-1 - same]:
            same += 1
        if same >= best:
            again = list(tokens)
            while len(again) < place + 2 * same:
                again.append(again[place + len(again) - len(tokens)])
            best, found = same, tuple(again[place : place + min(most, 2 * same)])
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


def test_what_repeats_itself_is_drafted_at_full_length() -> None:
    assert Drafter([9] * 30).draft(15) == (9,) * 15
    assert Drafter([1, 2, 3] * 10).draft(7) == (1, 2, 3, 1, 2, 3, 1)


# without a model


END = 4
WORDS = "abcd"


class Writer(Memory):
    """A model that mostly goes on by its last two tokens, so that its texts repeat themselves, and sometimes not."""

    def __init__(self, sequences: int, room: int) -> None:
        super().__init__(sequences)
        self.longest = room

    def decode(self, rows: Sequence[Row], outputs: Sequence[int]) -> NDArray[Any]:
        assert all(row.position < self.longest for row in rows)
        super().decode(rows, ())
        texts = [self.held[rows[number].sequences[0]][: rows[number].position + 1] for number in outputs]
        ends = [[token_of(token) for token in text] for text in texts]
        return np.array([next_logits(end) for end in ends], dtype=np.float32).reshape(-1, END + 1)

    @staticmethod
    def _check(rows: Sequence[Row], outputs: Sequence[int]) -> None:
        """Equally many rows of each sequence run together."""
        counts = Counter(row.sequences[0] for row in rows)
        assert max(counts.values()) < TILE or len(set(counts.values())) == 1
        if len(outputs) > 2:
            assert len(set(counts.values())) == 1


def next_logits(text: Sequence[int]) -> list[float]:
    whole = zlib.crc32(bytes(text))
    likely = whole % (END + 1) if whole % 5 == 0 else zlib.crc32(bytes(text[-2:])) % END
    return [float(token == likely) for token in range(END + 1)]


class Letters:
    """A vocabulary of four letters and an end."""

    def ends_text(self, token: int) -> bool:
        return token == END

    def piece(self, token: int) -> bytes:
        return WORDS[token].encode()


def written(path: Tokens, params: GenerationParams) -> Completion:
    """The slow way: one request, token by token."""
    text, tokens = "", [token_of(token) for token in path]
    while True:
        token = int(np.argmax(next_logits(tokens)))
        if token == END:
            return Completion(text, len(text), "stop")
        text, tokens = text + WORDS[token], [*tokens, token]
        for stop in params.stop:
            if stop in text:
                return Completion(text[: text.index(stop)], len(text), "stop")
        if len(text) == params.max_tokens:
            return Completion(text, len(text), "length")


letters = st.lists(st.integers(0, END - 1), min_size=1, max_size=30).map(tuple)
prompts_of_letters = st.builds(
    lambda start, ends: [in_tiles((*start, *end), len(start)) for end in ends],
    st.just(()) | st.integers(64, 300).map(lambda length: tuple(at // 3 % END for at in range(length))),
    st.lists(letters, min_size=1, max_size=9),
)
stops = st.lists(st.text(WORDS, min_size=1, max_size=3), max_size=1).map(tuple)


@settings(max_examples=200)
@given(prompts_of_letters, st.integers(1, 9), st.integers(1, 40), stops, st.booleans())
def test_any_texts_are_those_of_one_token_after_another(
    paths: list[Tokens], places: int, max_tokens: int, stop: tuple[str, ...], goes_on: bool
) -> None:
    """However many places there are; whatever ends the texts; whether the requests go on from them or not."""
    first, second = GenerationParams(max_tokens=max_tokens, stop=stop), GenerationParams(max_tokens=7)

    def following(number: int, said: Completion) -> Tokens | None:
        return (*paths[number], *(WORDS.index(letter) for letter in said.text), 0) if number % 3 else None

    def ask(speculates: bool) -> tuple[list[list[Completion]], int]:
        memory = Writer(FIRST_PLACE + places, max(map(len, paths)) + max_tokens + 8)
        sequel = Sequel(following, second) if goes_on else None
        found, _ = generate_batched(
            Stem(memory),
            Letters(),  # type: ignore[arg-type]
            paths,
            first,
            sequel,
            speculates=speculates,
        )
        assert not any(memory.held[FIRST_PLACE:])
        return found, memory.tokens_decoded

    expected = [[written(path, first)] for path in paths]
    for number, texts in enumerate(expected):
        path = following(number, texts[0]) if goes_on else None
        texts += [] if path is None else [written(path, second)]
    fast, counted = ask(True)
    assert fast == expected
    assert (fast, counted) == ask(False)


def test_drafts_are_trusted_as_far_as_they_were_right() -> None:
    stage = batching._Stage(GenerationParams(max_tokens=40), None, [(0, 0)])
    request = batching._Request(0, (1, 2) * 20, FIRST_PLACE, stage)
    request.tokens = [1]
    assert len(request.draft(12)) == 12
    for drafted, accepted, trusted in ((12, 3, 3), (3, 0, 1), (1, 1, 2), (0, 0, 2), (2, 2, 4), (1, 1, 4), (9, 9, 12)):
        request.learn(drafted, accepted)
        assert len(request.draft(12)) == trusted


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
    "a single draft": {"max_tokens": 3},
    "two drafts": {"max_tokens": 4},
}


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("way", WAYS)
def test_texts_and_counts_are_those_without_drafts(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, way: str, count: int
) -> None:
    prompts = [copying(message) for message in sorted(MESSAGES[:40], key=len)[:count]]
    params = GenerationParams(**{"max_tokens": 40, "log_probabilities": True, **WAYS[way]})
    ahead = asked(engine, prompts, params)
    monkeypatch.setattr(batching, "_SPECULATIVE_ROWS", 0)
    assert ahead == asked(engine, prompts, params)


def test_so_it_is_with_weights_that_are_not_quantized(half_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    params = GenerationParams(max_tokens=40, log_probabilities=True)
    with LlamaEngine(half_file, name="half", fingerprint="half", threads=2) as half:
        ahead = [asked(half, [copying(message) for message in MESSAGES[:count]], params) for count in (1, 4)]
        monkeypatch.setattr(batching, "_SPECULATIVE_ROWS", 0)
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
    monkeypatch.setattr(batching, "_SPECULATIVE_ROWS", 0)
    engine.forget()
    assert ahead == engine.write_on(prompts, first, then)


@pytest.mark.parametrize(("count", "share"), [(1, 0.5), (3, 0.7)])
def test_what_repeats_takes_fewer_steps(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, count: int, share: float
) -> None:
    batches: list[int] = []
    decode = Context.decode

    def counted(context: Context, *arguments: Any) -> Any:
        batches[-1] += 1
        return decode(context, *arguments)

    monkeypatch.setattr(Context, "decode", counted)
    params = GenerationParams(max_tokens=40, stop=("\n\n",))
    prompts = [copying(message) for message in sorted(MESSAGES[:40], key=len)[-count:]]
    for rows in (batching._SPECULATIVE_ROWS, 0):
        monkeypatch.setattr(batching, "_SPECULATIVE_ROWS", rows)
        batches.append(0)
        completions, _ = asked(engine, prompts, params)
    longest = max(completion.tokens for completion in completions)
    speculative, singly = batches
    assert longest > 20
    assert singly - speculative > (1 - share) * longest


def test_an_error_in_the_middle_of_a_draft_leaves_the_engine_usable(engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=40, log_probabilities=True)
    prompts = [copying(message) for message in MESSAGES[:2]]
    expected, counted = asked(engine, prompts, params)

    def fails(text: str) -> bool:
        if len(text) > 20:
            raise RuntimeError("of the user")
        return False

    before = engine.tokens_decoded
    with pytest.raises(RuntimeError, match="of the user"):
        engine.generate(prompts, GenerationParams(max_tokens=40, until=fails))
    assert 0 <= engine.tokens_decoded - before < counted
    assert asked(engine, prompts, params) == (expected, counted)


@pytest.mark.parametrize("room", [256, 512])
def test_a_prompt_and_its_text_may_fill_the_memory(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    prompts = ["1, 2, 3, 1, 2, 3," * 8, "la la la la " * 8]
    longest = max(engine.count_tokens(prompts))
    params = GenerationParams(max_tokens=room - longest)
    completions, _ = asked(engine, prompts, params)
    assert any(completion.finish == "length" for completion in completions)
    monkeypatch.setattr(batching, "_SPECULATIVE_ROWS", 0)
    assert asked(engine, prompts, params)[0] == completions
