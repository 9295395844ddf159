"""Batched generation: shared starts decoded once, memory kept, constraints kept, and draws that are right."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from promptsearch.errors import BackendError, ContextError, UserError
from promptsearch.examples import example_task
from promptsearch.lm.base import Completion, FollowUp, GenerationParams, Rendered, Segment
from promptsearch.lm.llamacpp.context import Context
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.grammar import Grammar
from promptsearch.lm.llamacpp.growing_text import GrowingText
from promptsearch.lm.llamacpp.json_schema import schema_to_gbnf
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.sampling import log_probability, sample

MESSAGES = [example.text for example in example_task().examples]
TEAMS = ["Returns", "Shipping", "Sales", "Billing", "Technical", "Complaints"]


def copying(message: str, demonstrations: int) -> str:
    """A prompt whose continuation the model is sure of: the message once more."""
    shown = "".join(f"Message: {text}\nAgain: {text}\n\n" for text in MESSAGES[400 : 400 + demonstrations])
    return f"{shown}Message: {message}\nAgain:"


def texts(completions: Sequence[Completion]) -> list[str]:
    return [completion.text for completion in completions]


# parameters


@pytest.mark.parametrize(
    ("given_values", "said"),
    [
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"temperature": -0.1}, "temperature=-0.1"),
        ({"temperature": float("nan")}, "temperature=nan"),
        ({"temperature": float("inf")}, "temperature=inf"),
        ({"top_p": 0.0}, "top_p=0.0"),
        ({"top_p": 1.01}, "top_p=1.01"),
        ({"top_p": float("nan")}, "top_p=nan"),
        ({"min_p": 1.0}, "min_p=1.0"),
        ({"min_p": -0.1}, "min_p=-0.1"),
        ({"top_k": -1}, "top_k=-1"),
        ({"seed": -1}, "seed=-1"),
        ({"stop": ("a", "")}, "stop="),
        ({"stop": "\n"}, "stop="),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar and json_schema"),
    ],
)
def test_a_value_outside_its_range_is_an_error_of_one_line(given_values: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        GenerationParams(**given_values)
    assert "\n" not in str(caught.value)


@given(
    max_tokens=st.integers(-3, 5),
    temperature=st.floats(),
    top_k=st.integers(-3, 5),
    top_p=st.floats(-1, 2),
    min_p=st.floats(-1, 2),
    stop=st.lists(st.text(max_size=2), max_size=3).map(tuple),
)
def test_parameters_are_accepted_exactly_where_their_rules_hold(
    max_tokens: int, temperature: float, top_k: int, top_p: float, min_p: float, stop: tuple[str, ...]
) -> None:
    good = max_tokens >= 1 and 0 <= temperature < float("inf") and top_k >= 0
    good = good and 0 < top_p <= 1 and 0 <= min_p < 1 and "" not in stop
    given_values = (max_tokens, temperature, top_k, top_p, min_p, stop)
    if good:
        assert GenerationParams(*given_values).stop == stop
    else:
        with pytest.raises(UserError):
            GenerationParams(*given_values)


# text


@given(
    text=st.text("ab\né🙂", max_size=30),
    stop=st.lists(st.text("ab\né🙂", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_text_grows_and_stops_as_the_whole_text_says(text: str, stop: list[str], cuts: list[int]) -> None:
    data = text.encode()
    bounds = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    growing = GrowingText(stop)
    added = ""
    for start, end in pairwise(bounds):
        added += growing.append(data[start:end])
        whole = data[:end].decode(errors="ignore")
        assert added == whole
        found = [whole.find(string) for string in stop if string in whole]
        assert growing.stopped == bool(found)
        assert growing.text == (whole[: min(found)] if found else whole)
        if found:
            break


# from logits to a token


class Mask:
    """Allows some tokens, and counts how often it was asked about all of them."""

    def __init__(self, mask: Sequence[bool] | NDArray[np.bool_]) -> None:
        self.mask = np.asarray(mask, dtype=bool)
        self.full = 0

    def allows(self, tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        return np.asarray(self.mask[tokens])

    def allowed(self) -> NDArray[np.bool_]:
        self.full += 1
        return self.mask


class Unhelpful(Mask):
    """Answers no to every question about some tokens, so that only the whole mask decides."""

    def allows(self, tokens: NDArray[np.intp]) -> NDArray[np.bool_]:
        return np.zeros(len(tokens), dtype=bool)


def reference_distribution(logits: NDArray[np.float32], mask: NDArray[np.bool_], params: GenerationParams) -> Any:
    """Masked first, then cut, as plainly as it can be written."""
    masked = np.where(mask, logits.astype(float) / params.temperature, -np.inf)
    order = np.argsort(-masked, kind="stable")
    keep = np.ones(len(order), dtype=bool)
    if params.top_k:
        keep[params.top_k :] = False
    weights = np.exp(masked[order] - masked.max()) * keep
    weights /= weights.sum()
    keep &= weights >= params.min_p * weights.max()
    if params.top_p < 1:
        keep &= np.cumsum(weights) - weights < params.top_p
    weights = weights * keep
    shares = np.zeros(len(order))
    shares[order] = weights / weights.sum()
    return shares


LIMITS = [
    {},
    {"top_k": 3},
    {"top_p": 0.8},
    {"min_p": 0.2},
    {"top_k": 4, "top_p": 0.7},
    {"top_k": 5, "min_p": 0.1, "top_p": 0.9},
    {"temperature": 0.3, "top_p": 0.95},
]


@pytest.mark.parametrize("limits", LIMITS)
@pytest.mark.parametrize("refused", [[], [0], [0, 2, 5], [1, 2, 3, 4]])
def test_draws_follow_the_masked_distribution(limits: dict[str, Any], refused: list[int]) -> None:
    logits = np.array([2.0, 1.6, 1.5, 1.0, 0.4, 0.0, -0.5, -1.0], dtype=np.float32)
    mask = np.ones(8, dtype=bool)
    mask[refused] = False
    params = GenerationParams(**{"temperature": 1.0, **limits})
    drawn = [sample(logits, params, np.random.default_rng([1, number]), Mask(mask)) for number in range(3000)]
    expected = reference_distribution(logits, mask, params)
    assert np.bincount(drawn, minlength=8) / 3000 == pytest.approx(expected, abs=0.035)
    assert set(drawn) <= set(np.flatnonzero(expected))


@settings(max_examples=300)
@given(
    seed=st.integers(0, 10**6),
    temperature=st.sampled_from([0.0, 0.05, 0.7, 1.0, 3.0]),
    top_k=st.sampled_from([0, 1, 3, 10, 700]),
    top_p=st.sampled_from([1.0, 0.5, 0.9, 0.999]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    share=st.sampled_from([0.003, 0.3, 0.9, 0.999]),
)
def test_asking_about_few_tokens_changes_no_draw(
    seed: int, temperature: float, top_k: int, top_p: float, min_p: float, share: float
) -> None:
    rng = np.random.default_rng(seed)
    logits = (rng.standard_normal(600) * 4).astype(np.float32)
    mask = rng.random(600) < share
    params = GenerationParams(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    asked = sample(logits, params, np.random.default_rng(seed), Mask(mask))
    assert asked == sample(logits, params, np.random.default_rng(seed), Unhelpful(mask))
    assert mask[asked] if mask.any() else asked is None


@pytest.mark.parametrize("limits", LIMITS)
def test_a_refused_token_that_could_not_be_drawn_may_still_change_the_limits(limits: dict[str, Any]) -> None:
    """Refusing an unlikely token makes a nucleus smaller; refusing one of the ``top_k`` lets another in."""
    params = GenerationParams(**{"temperature": 1.0, **limits})
    rng = np.random.default_rng(0)
    for number in range(3000):
        logits = rng.standard_normal(12).astype(np.float32)
        mask = np.ones(12, dtype=bool)
        mask[rng.choice(np.argsort(-logits)[3:], 3)] = False
        draws = [sample(logits, params, np.random.default_rng([4, number]), kind(mask)) for kind in (Mask, Unhelpful)]
        assert draws[0] == draws[1]


@pytest.mark.parametrize("limits", [{}, {"top_k": 5}, {"min_p": 0.1}, {"top_p": 0.9}])
def test_where_the_likely_tokens_are_allowed_the_whole_mask_is_not_made(limits: dict[str, Any]) -> None:
    logits = np.linspace(0, 40, 2000, dtype=np.float32)
    mask = Mask(logits > 5)
    for temperature in (0.0, 1.0):
        params = GenerationParams(temperature=temperature, **limits)
        draws = [sample(logits, params, np.random.default_rng([0, number]), mask) for number in range(50)]
        assert all(mask.mask[draw] for draw in draws if draw is not None)
    assert mask.full <= 10


def test_the_best_allowed_token_is_taken_without_sampling() -> None:
    logits = np.arange(2000, dtype=np.float32)
    for refused in (0, 1, 100, 1000, 1999):
        mask = Mask(np.arange(2000) < 2000 - refused)
        assert sample(logits, GenerationParams(), np.random.default_rng(0), mask) == 1999 - refused
    assert sample(logits, GenerationParams(), np.random.default_rng(0), Mask(np.zeros(2000))) is None


def test_a_token_without_probability_is_never_drawn() -> None:
    """Times of 0, which are common in single precision, would win against any probability."""
    logits = np.zeros(49152, dtype=np.float32)
    logits[7] = 60
    params = GenerationParams(temperature=1.0)
    assert {sample(logits, params, np.random.default_rng([3, number])) for number in range(1500)} == {7}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 3, 9])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_no_numbers_are_an_error(value: float, place: int, temperature: float) -> None:
    logits = np.zeros(10, dtype=np.float32)
    logits[place] = value
    with pytest.raises(BackendError, match="no numbers"):
        sample(logits, GenerationParams(temperature=temperature), np.random.default_rng(0))


def test_the_log_probability_is_that_of_a_softmax() -> None:
    logits = np.array([1.0, 80.0, 79.0], dtype=np.float32)
    assert log_probability(logits, 2) == pytest.approx(-1 - np.log(1 + np.exp(-1)), abs=1e-6)
    assert log_probability(logits, 0) == pytest.approx(-79 - np.log(1 + np.exp(-1)), abs=1e-4)


# batches


def test_greedy_text_of_100_prompts_is_that_of_one_by_one(engine: LlamaEngine) -> None:
    prompts = [f"Message: {message}\nReply:" for message in sorted(MESSAGES, key=len)[:100]]
    params = GenerationParams(max_tokens=8, log_probabilities=True)
    together = engine.generate(prompts, params)
    assert sum(completion.tokens for completion in together) > 6 * len(prompts)
    assert together == [engine.generate([prompt], params)[0] for prompt in prompts]


def decoded_by(engine: LlamaEngine, prompts: Sequence[str], params: GenerationParams) -> tuple[int, list[Completion]]:
    """Tokens run, with nothing there from an earlier call."""
    if engine._stem is not None:
        engine._stem.forget()
    before = engine.tokens_decoded
    completions = engine.generate(prompts, params)
    return engine.tokens_decoded - before, completions


def tree_size(engine: LlamaEngine, prompts: Sequence[str]) -> int:
    paths = [engine.vocabulary.tokenize_continuation(prompt) for prompt in prompts]
    return len({path[:end] for path in paths for end in range(1, len(path) + 1)})


def nested_groups() -> list[str]:
    """Samples of one prompt, several orders, shared demonstrations, a prompt that begins another, one alone."""
    blocks = [f"Message: {message}\nTeam: Sales\n\n" for message in MESSAGES[:6]]
    orders = ["".join(blocks[at] for at in order) for order in ((0, 1, 2), (0, 2, 1), (0, 1, 3), (4, 5))]
    prompts = [start + f"Message: {MESSAGES[20 + at]}\nTeam:" for start in orders for at in range(6)]
    prompts += [prompts[3]] * 9 + [blocks[0] + blocks[1], blocks[0], "Once upon a time"]
    shuffled = np.random.default_rng(0).permutation(len(prompts))
    return [prompts[at] for at in shuffled]


@pytest.mark.parametrize("max_tokens", [1, 5])
def test_shared_starts_are_decoded_once(engine: LlamaEngine, max_tokens: int) -> None:
    prompts = nested_groups()
    decoded, completions = decoded_by(engine, prompts, GenerationParams(max_tokens=max_tokens))
    # the last token written is never decoded, nor is the end of a text
    written = sum(completion.tokens - (completion.finish == "length") for completion in completions)
    again = len(set(prompts))  # of a prompt that differs in its last token only, two are decoded
    assert tree_size(engine, prompts) + written <= decoded <= tree_size(engine, prompts) + written + again


def test_many_samples_of_one_prompt_decode_it_once(engine: LlamaEngine) -> None:
    prompt = copying(MESSAGES[3], 3)
    params = GenerationParams(max_tokens=4, temperature=1.5, seed=2)
    decoded, completions = decoded_by(engine, [prompt] * 130, params)
    assert decoded <= tree_size(engine, [prompt]) + sum(completion.tokens for completion in completions)
    assert len(set(texts(completions))) > 60


def test_later_requests_for_a_prompt_get_the_prediction_of_the_first(engine: LlamaEngine) -> None:
    """More requests than places, beside prompts that another token follows."""
    params = GenerationParams(max_tokens=1)
    first, last = "1, 2, 3,", "z, y, x,"
    alone = {prompt: engine.generate([prompt], params)[0].text for prompt in (first, last)}
    assert alone[first] != alone[last]
    for prompts in ([first] * 3 + [last] * 70, [first] * 70 + [last] * 3):
        assert texts(engine.generate(prompts, params)) == [alone[prompt] for prompt in prompts]


def test_a_shared_prompt_longer_than_a_batch_is_decoded_once(engine: LlamaEngine) -> None:
    start = "".join(f"Message: {message}\n" for message in MESSAGES[:60])
    prompts = [start + ending for ending in ("Reply:", "Team:", "Reply:")]
    decoded, completions = decoded_by(engine, prompts, GenerationParams(max_tokens=3))
    assert tree_size(engine, prompts) > 1000
    assert decoded <= tree_size(engine, prompts) + 9
    assert completions[0] == completions[2]


def test_nested_groups_give_the_texts_of_one_by_one(engine: LlamaEngine, half_file: Path) -> None:
    """Bit by bit, with quantized weights and with those that are not, which other kernels multiply."""
    prompts = nested_groups()
    params = GenerationParams(max_tokens=3, log_probabilities=True)
    with LlamaEngine(half_file, name="half", fingerprint="half", threads=2) as half:
        for each in (engine, half):
            alone = {prompt: each.generate([prompt], params)[0] for prompt in set(prompts)}
            assert each.generate(prompts, params) == [alone[prompt] for prompt in prompts]


def test_long_questions_after_one_opening_give_the_texts_of_one_by_one(engine: LlamaEngine, half_file: Path) -> None:
    """Read in tiles beside each other, some of them a little before their question; warm as cold."""
    start = "".join(f"Message: {message}\n" for message in MESSAGES[:14])
    own = [" ".join(MESSAGES[number : number + 2 + number % 6]) + "\nTeam:" for number in range(20, 41)]
    prompts = [Rendered([Segment(start), Segment(each)], shared=len(start)) for each in own]
    lengths = engine.count_tokens([each.removeprefix(start) for each in prompts])
    assert min(lengths) < 64 < 120 < max(lengths)
    params = GenerationParams(max_tokens=3, log_probabilities=True)
    with LlamaEngine(half_file, name="half", fingerprint="half", threads=2) as half:
        for each in (engine, half):
            each.forget()
            alone = []
            for prompt in prompts:
                each.forget()
                alone += each.generate([prompt], params)
            assert each.generate(prompts, params) == alone
            assert each.generate(prompts[::-1], params) == alone[::-1]
            assert each.generate(prompts[3:5], params) == alone[3:5]


def test_the_next_call_goes_on_from_what_it_shares(engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=2, log_probabilities=True)
    prompts = [copying(message, 3) for message in MESSAGES[:4]]
    cold, expected = decoded_by(engine, prompts[2:], params)
    decoded_by(engine, prompts[:2], params)
    before = engine.tokens_decoded, engine.tokens_restored
    assert engine.generate(prompts[2:], params) == expected
    warm, restored = engine.tokens_decoded - before[0], engine.tokens_restored - before[1]
    assert restored > 30
    assert warm + restored == cold


@pytest.mark.parametrize("length", [1, 2, 3, 62, 63, 64, 65, 126, 127, 128, 200, 511, 512, 513, 514, 577, 578, 700])
def test_prompts_of_any_length_beside_any_others(engine: LlamaEngine, length: int) -> None:
    tokens = engine.vocabulary.tokenize_continuation(" ".join(MESSAGES[:80]))
    text = b"".join(engine.vocabulary.piece(token) for token in tokens[:length]).decode()
    params = GenerationParams(max_tokens=3, log_probabilities=True)
    _, alone = decoded_by(engine, [text], params)
    others = [text + " and", text[:-1], *MESSAGES[:3], text]
    assert engine.generate([*others, text], params)[-1] == alone[0]
    assert engine.generate([text], params) == alone


def with_opening(opening: str, rest: str) -> Rendered:
    return Rendered([Segment(opening), Segment(rest)], shared=len(opening))


def test_a_long_opening_serves_all_that_begin_with_it(engine: LlamaEngine, half_file: Path) -> None:
    """Read in tiles once, whatever follows: short questions, long texts, more of the same; bit by bit."""
    opening = "".join(f"Message: {message}\nTeam: Sales\n\n" for message in MESSAGES[:12])
    other = "".join(f"Message: {message}\nTeam: Sales\n\n" for message in MESSAGES[3:14])
    rests = [*MESSAGES[20:24], " ".join(MESSAGES[30:60]), " ".join(MESSAGES[30:61]), "x"]
    prompts = [with_opening(start, rest) for start in (opening, other) for rest in rests]
    params = GenerationParams(max_tokens=3, log_probabilities=True)
    with LlamaEngine(half_file, name="half", fingerprint="half", threads=2) as half:
        for each in (engine, half):
            assert 256 < each.count_tokens([opening])[0] < each.count_tokens([rests[4]])[0]
            alone = [decoded_by(each, [prompt], params)[1][0] for prompt in prompts]
            assert each.generate(prompts, params) == alone
            for prompt, expected in reversed(list(zip(prompts, alone, strict=True))):
                assert each.generate([prompt], params) == [expected]
    short = [prompt for prompt, rest in zip(prompts, rests, strict=False) if len(rest) < 500]
    decoded, _ = decoded_by(engine, short, GenerationParams(max_tokens=1))
    assert decoded <= tree_size(engine, short) + len(short)


def test_places_of_finished_requests_are_taken_and_gaps_closed(engine: LlamaEngine) -> None:
    """Requests of very different lengths, more than places."""
    prompts = [f"{number} {MESSAGES[number % 90]}" for number in range(90)]
    params = GenerationParams(max_tokens=12, until=lambda text: len(text) > 8 and ord(text[3]) % 3 > 0)
    together = engine.generate(prompts, params)
    assert {completion.finish for completion in together} >= {"until", "length"}
    assert together[::9] == [engine.generate([prompt], params)[0] for prompt in prompts[::9]]


def test_a_large_room_leaves_fewer_places_and_the_same_texts(engine: LlamaEngine) -> None:
    prompts = [f"Message: {message}\nReply:" for message in MESSAGES[:12]]
    ends = {"until": lambda text: len(text) > 5}
    narrow = engine.generate(prompts, GenerationParams(max_tokens=20, **ends))
    wide = engine.generate(prompts, GenerationParams(max_tokens=6000, **ends))
    assert engine._stem is not None
    assert engine._stem.context.sequences < 12
    assert wide == narrow


# seeds


def test_a_seed_decides_its_text_whatever_else_is_asked(engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=8, temperature=1.0, seed=11)
    prompts = [f"Message: {message}\nReply:" for message in MESSAGES[:10]]
    first = texts(engine.generate(prompts, params))
    assert texts(engine.generate(prompts, params)) == first
    more = texts(engine.generate([*prompts, *reversed(MESSAGES[:30])], params))[:10]
    assert more == first
    other = GenerationParams(max_tokens=8, temperature=1.0, seed=12)
    assert not set(texts(engine.generate(prompts, other))) & set(first)
    assert len(set(texts(engine.generate(prompts[:1] * 10, params)))) > 5


# grammars

DIGITS = "root ::= [0-9]+"
CHOICE = "root ::= " + " | ".join(f'" {team}"' for team in TEAMS)
ORDER = {
    "type": "object",
    "properties": {
        "team": {"enum": TEAMS},
        "urgent": {"type": "boolean"},
        "customer": {
            "type": "object",
            "properties": {"name": {"type": "string", "maxLength": 12}, "orders": {"type": "integer"}},
            "required": ["name", "orders"],
        },
        "note": {"type": ["string", "null"], "maxLength": 10},
    },
    "required": ["team", "customer"],
}


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_digits_only(engine: LlamaEngine, temperature: float) -> None:
    params = GenerationParams(max_tokens=6, grammar=DIGITS, temperature=temperature)
    for completion in engine.generate([f"{message}\nOrder number" for message in MESSAGES[:8]], params):
        assert completion.text.isdecimal()
        assert completion.finish in ("stop", "length")


def test_a_choice_among_labels_ends_with_the_label(engine: LlamaEngine) -> None:
    prompts = [f"Message: {message}\nTeam:" for message in MESSAGES[:20]]
    decoded, completions = decoded_by(engine, prompts, GenerationParams(grammar=CHOICE))
    assert all(completion.text.strip() in TEAMS and completion.finish == "stop" for completion in completions)
    # nothing may follow the label, so its last token needs no further step
    read = decoded - sum(completion.tokens - 1 for completion in completions)
    assert tree_size(engine, prompts) <= read <= tree_size(engine, prompts) + len(prompts)


def test_a_greedy_choice_is_the_likeliest_token_that_the_grammar_allows(exact_engine: LlamaEngine) -> None:
    prompts = [f"Message: {message}\nAnswer (A, B or C):" for message in MESSAGES[:12]]
    answers = texts(exact_engine.generate(prompts, GenerationParams(grammar='root ::= " A" | " B" | " C"')))
    scores = exact_engine.score(prompts, [" A", " B", " C"])
    clear = np.sort(scores, axis=1)[:, -1] - np.sort(scores, axis=1)[:, -2] > 0.05
    assert clear.sum() > 5
    best = np.array([" A", " B", " C"])[scores.argmax(axis=1)]
    assert (best == np.array(answers))[clear].all()


@pytest.mark.parametrize(
    ("temperature", "limits"), [(0.0, {}), (1.0, {}), (1.0, {"top_p": 0.9}), (1.5, {"top_k": 20, "min_p": 0.01})]
)
def test_json_follows_its_schema(engine: LlamaEngine, temperature: float, limits: dict[str, Any]) -> None:
    params = GenerationParams(max_tokens=120, json_schema=ORDER, temperature=temperature, **limits)
    completions = engine.generate([f"{message}\nAs JSON:" for message in MESSAGES[:6]], params)
    assert sum(completion.finish == "stop" for completion in completions) >= 4
    for completion in completions:
        if completion.finish == "stop":
            jsonschema.validate(json.loads(completion.text), ORDER)


def test_no_seed_breaks_a_grammar(engine: LlamaEngine) -> None:
    grammar = 'root ::= [A-Z] [a-z]{1,6} " " ("is" | "was") " " [0-9]{2} "."'
    for limits in ({}, {"top_p": 0.9}):
        params = GenerationParams(max_tokens=24, grammar=grammar, temperature=1.2, seed=5, **limits)
        for completion in engine.generate(["Say it:"] * 100, params):
            assert completion.finish == "stop"
            name, verb, number = completion.text.split(" ")
            assert name.istitle()
            assert verb in ("is", "was")
            assert number[:2].isdecimal()
            assert number[2:] == "."


def test_the_text_ends_only_where_the_grammar_is_complete(engine: LlamaEngine) -> None:
    """Also where stop strings, ``until`` and the length end it before."""
    prompts = ["Answer:"]
    ten = 'root ::= "a a a a a a a a a a"'
    assert engine.generate(prompts, GenerationParams(grammar=ten))[0].text == "a a a a a a a a a a"
    cut = engine.generate(prompts, GenerationParams(grammar=ten, max_tokens=2))[0]
    assert (cut.finish, cut.tokens) == ("length", 2)
    stopped = engine.generate(prompts, GenerationParams(grammar=ten, stop=("a a a",)))[0]
    assert (stopped.text, stopped.finish) == ("", "stop")
    until = engine.generate(prompts, GenerationParams(grammar=ten, until=lambda text: text.count("a") >= 4))[0]
    assert (until.text.strip(), until.finish) == ("a a a a", "until")
    empty = engine.generate(prompts, GenerationParams(grammar='root ::= ""'))[0]
    assert (empty.text, empty.tokens, empty.finish) == ("", 0, "stop")


def test_characters_of_many_bytes_follow_a_grammar(engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=40, grammar="root ::= [Ѐ-ӿ]{3} [一-鿿]{2} [😀-😏]", temperature=1.0)
    for completion in engine.generate(["ответ 答え:"] * 8, params):
        assert len(completion.text) == 6
        assert completion.text[5] in [chr(code) for code in range(0x1F600, 0x1F610)]
        assert completion.finish == "stop"


def test_a_control_token_is_no_text_of_a_grammar(engine: LlamaEngine) -> None:
    with Grammar('root ::= "<|im_start|>"', engine.vocabulary) as grammar:
        state = grammar.start()
        allowed = np.flatnonzero(state.allowed())
        state.close()
    assert {engine.vocabulary.piece(token) for token in allowed} == {b"<"}


@pytest.mark.parametrize(
    ("grammar", "said"),
    [
        ('root ::= "a', "unexpected end of input"),
        ("root ::= other", "Undefined rule identifier 'other'"),
        ('other ::= "a"', "does not contain a 'root' symbol"),
        ('root ::= root "a" | "b"', "left recursion"),
        ("", "empty"),
        ("  \n", "empty"),
        ('root ::= "a"{5,3}', "{5,3}"),
        ('root ::= "a"{0,100000}', "{0,100000}"),
        ('root ::= "a\0b"', "null character"),
        ('root ::= "\ud800"', "lone surrogate"),
        ("root ::= \"a\" )\nx ::= 'b'" * 50, "llama.cpp says"),
    ],
)
def test_a_bad_grammar_is_one_clear_error_before_anything_runs(
    engine: LlamaEngine, grammar: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    before = engine.tokens_decoded
    with pytest.raises(UserError) as caught:
        engine.generate(["a"], GenerationParams(grammar=grammar))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert engine.tokens_decoded == before
    assert capfd.readouterr() == ("", "")


def test_a_grammar_that_the_model_cannot_write_is_an_error(engine: LlamaEngine) -> None:
    with pytest.raises(UserError, match="allows no token"):
        engine.generate(["a"], GenerationParams(grammar='root ::= "a\\x00b"'))
    assert engine.generate(["a"], GenerationParams(grammar='root ::= "a{5,3}"'))[0].text == "a{5,3}"


# JSON schemas


def follows(engine: LlamaEngine, schema: dict[str, Any], text: str) -> bool:
    """Whether the schema's grammar accepts a text to its end."""
    with Grammar(schema_to_gbnf(schema), engine.vocabulary) as grammar:
        state = grammar.start()
        try:
            for token in engine.vocabulary.tokenize_continuation(text):
                if not state.allows(np.array([token]))[0]:
                    return False
                state.accept(token)
            return bool(state.allows(engine.vocabulary.ends).any())
        finally:
            state.close()


NODE = {
    "$defs": {
        "node": {"properties": {"next": {"$ref": "#/$defs/node"}, "v": {"const": 'a"\\\n🙂'}}, "required": ["v"]}
    },
    "$ref": "#/$defs/node",
}


PAIR = {"type": "array", "prefixItems": [{"type": "integer"}, {"$ref": "#/prefixItems/0"}]}


@pytest.mark.parametrize(
    ("schema", "text", "good"),
    [
        (ORDER, '{"team": "Sales", "customer": {"name": "Ann", "orders": -3}}', True),
        (ORDER, '{"team":"Sales","urgent":true,"customer":{"name":"","orders":0},"note":null}', True),
        (ORDER, '{"team": "Nobody", "customer": {"name": "Ann", "orders": 3}}', False),
        (ORDER, '{"team": "Sales"}', False),
        (ORDER, '{"team": "Sales", "customer": {"name": "Ann", "orders": 3.5}}', False),
        (ORDER, '{"team": "Sales", "customer": {"name": "longer than twelve", "orders": 3}}', False),
        (ORDER, '{"team": "Sales", "customer": {"name": "a\nb", "orders": 3}}', False),
        (NODE, '{"next": {"v": "a\\"\\\\\\n🙂"}, "v": "a\\"\\\\\\n🙂"}', True),
        (NODE, '{"next": {}, "v": "a\\"\\\\\\n🙂"}', False),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}, "[1, 2.5e3]", True),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}, "[1]", False),
        ({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 3}, "[1,2,3,4]", False),
        ({"type": "array", "maxItems": 0}, "[]", True),
        ({"type": "array", "maxItems": 1}, "[]", True),
        ({"prefixItems": [{"type": "null"}, {"enum": [1, "x"]}]}, '[null, "x"]', True),
        ({"anyOf": [{"type": "null"}, {"type": "integer"}], "title": "T"}, "007", False),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": 1, "b": 2}', True),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, '{"a": "x"}', False),
        ({"type": "integer", "enum": ["a", 1, 2.0, True]}, "1", True),
        ({"type": "integer", "enum": ["a", 1, 2.0, True]}, "2.0", True),
        ({"type": "integer", "enum": ["a", 1, 2.0, True]}, '"a"', False),
        ({"type": "integer", "enum": ["a", 1, 2.0, True]}, "true", False),
        ({"type": ["null", "object"], "enum": [None, {}, []]}, "{}", True),
        ({"type": ["null", "object"], "enum": [None, {}, []]}, "[]", False),
        ({"type": "string", "const": "a"}, '"a"', True),
        (PAIR, "[1, 2]", True),
        (PAIR, "[1, null]", False),
        ({}, '{"any": [1, {"thing": null}]}', True),
        ({"type": "object", "properties": {}}, "{}", True),
        ({"type": "string"}, '"\\u0041"', False),
        ({"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}, '{"b": null}', True),
        ({"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}, "{}", True),
        ({"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}, '{"a": null, }', False),
    ],
)
def test_a_schema_accepts_what_is_valid(engine: LlamaEngine, schema: dict[str, Any], text: str, good: bool) -> None:
    assert follows(engine, schema, text) == good
    if good:
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "integer", "minimum": 3}, "'minimum'"),
        ({"properties": {"a": {"type": "string", "pattern": "^a$"}}}, "/properties/a holds 'pattern'"),
        ({"type": "object", "required": ["a"]}, '"a"'),
        ({"type": "text"}, "text"),
        ({"allOf": []}, "'allOf'"),
        ({"$ref": "https://example.com/a"}, "not in the schema itself"),
        ({"$ref": "#/$defs/a"}, "not there"),
        ({"$ref": "#"}, "left recursion"),
        ({"enum": []}, "at least one"),
        ({"enum": ["a", True], "type": ["number", "null"]}, "/enum has no value of the type number or null"),
        ({"const": 1.5, "type": "integer"}, "/const has no value of the type integer"),
        ({"const": 1, "type": "text"}, "text"),
        ({"type": []}, "the type []"),
        ({"type": [{}]}, "the type [{}]"),
        ({"prefixItems": [{"$ref": "#/prefixItems/1"}]}, "not there"),
        ({"prefixItems": [{"type": "null"}, {"$ref": "#/prefixItems/00"}]}, "not there"),
        ({"type": "array", "items": [1]}, "where a schema must be"),
        ({"type": "string", "minLength": 3, "maxLength": 2}, "below"),
        ({"type": "string", "maxLength": 5000}, "2000"),
        ({"type": "string", "maxLength": -1}, "whole number"),
        ({"properties": {"a": {}}, "additionalProperties": True}, "additionalProperties"),
        ({"const": float("nan")}, "no JSON"),
        ({"const": {1, 2}}, "no JSON"),
    ],
)
def test_a_schema_that_cannot_be_kept_is_refused(engine: LlamaEngine, schema: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        engine.generate(["a"], GenerationParams(json_schema=schema))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


SCHEMAS = st.recursive(
    st.sampled_from(
        [{"type": name} for name in ("string", "integer", "number", "boolean", "null")]
        + [
            {"enum": ["a", 'b"\\', None, 3]},
            {"const": {"k": [1]}},
            {"type": "string", "minLength": 1, "maxLength": 3},
        ]
    ),
    lambda inner: st.one_of(
        st.dictionaries(st.text('a"\\é\n', max_size=2), inner, max_size=3).flatmap(
            lambda named: (
                st.lists(st.sampled_from(sorted(named)), unique=True).map(
                    lambda required: {"type": "object", "properties": named, "required": required}
                )
                if named
                else st.just({"type": "object", "properties": {}})
            )
        ),
        st.builds(lambda item: {"type": "array", "items": item, "maxItems": 2}, inner),
        st.lists(inner, min_size=1, max_size=2).map(lambda options: {"anyOf": options}),
    ),
    max_leaves=5,
)


@settings(max_examples=25)
@given(schema=SCHEMAS, seed=st.integers(0, 1000))
def test_any_text_that_a_schema_allows_is_valid(engine: LlamaEngine, schema: dict[str, Any], seed: int) -> None:
    """A random walk through the grammar, preferring what closes brackets, so that it ends."""
    rng = np.random.default_rng(seed)
    vocabulary = engine.vocabulary
    closing = vocabulary.tokenize_continuation('"}]0l')
    data = b""
    with Grammar(schema_to_gbnf(schema), vocabulary) as grammar:
        state = grammar.start()
        for length in range(300):
            if state.allows(vocabulary.ends).any():
                break
            allowed = np.flatnonzero(state.allowed())
            short = [token for token in closing if token in allowed] if length > 10 else []
            token = int(rng.choice(short or allowed))
            state.accept(token)
            data += vocabulary.piece(token)
        else:
            state.close()
            return
        state.close()
    jsonschema.validate(json.loads(data.decode()), schema)


# ends


def test_a_stop_string_that_spans_tokens_is_found(engine: LlamaEngine) -> None:
    plain = engine.generate([copying(MESSAGES[0], 3)], GenerationParams(max_tokens=16, log_probabilities=True))[0]
    ends = np.cumsum([len(text) for text in plain.token_texts])
    stop = plain.text[ends[3] - 2 : ends[4] + 2]  # in three tokens
    params = GenerationParams(max_tokens=16, stop=("nowhere", stop), log_probabilities=True)
    stopped = engine.generate([copying(MESSAGES[0], 3)], params)[0]
    assert stopped.text == plain.text[: plain.text.index(stop)]
    assert stopped.finish == "stop"
    assert stopped.tokens == 6
    assert "".join(stopped.token_texts) == plain.text[: ends[5]]


def test_until_ends_one_request_and_not_the_others(engine: LlamaEngine) -> None:
    prompts = [copying(message, 2) for message in MESSAGES[:3]]
    plain = engine.generate(prompts, GenerationParams(max_tokens=12, stop=("\n",)))
    asked: list[str] = []

    def answered(text: str) -> bool:
        asked.append(text)
        return plain[1].text[:10] in text

    completions = engine.generate(prompts, GenerationParams(max_tokens=12, stop=("\n",), until=answered))
    assert completions[1].finish == "until"
    assert completions[1].text.startswith(plain[1].text[:10])
    assert completions[1].tokens < plain[1].tokens
    assert [completions[0], completions[2]] == [plain[0], plain[2]]
    assert len(asked) <= sum(completion.tokens for completion in completions)


class Counted:
    """Counts llama.cpp's samplers."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.made = self.freed = 0
        library = llama()
        for name in ("llama_sampler_init_grammar", "llama_sampler_clone"):
            patch.setattr(library, name, self._making(getattr(library, name)))
        free = library.llama_sampler_free

        def freeing(sampler: Any) -> None:
            self.freed += 1
            free(sampler)

        patch.setattr(library, "llama_sampler_free", freeing)

    def _making(self, make: Any) -> Any:
        def making(*arguments: Any) -> Any:
            self.made += 1
            return make(*arguments)

        return making


def test_an_error_in_until_passes_through_and_every_sampler_is_freed(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"{message}\nOrder number" for message in MESSAGES[:50]]
    expected = texts(engine.generate(prompts[:4], GenerationParams(max_tokens=3)))
    counted = Counted(monkeypatch)

    def failing(text: str) -> bool:
        if len(text) > 2:
            raise ZeroDivisionError("mine")
        return False

    with pytest.raises(ZeroDivisionError, match="mine"):
        engine.generate(prompts, GenerationParams(grammar=DIGITS, until=failing))
    assert counted.made == counted.freed > 40
    engine.generate(prompts, GenerationParams(grammar=DIGITS, max_tokens=2))
    assert counted.made == counted.freed > 90
    assert texts(engine.generate(prompts[:4], GenerationParams(max_tokens=3))) == expected


def test_a_failing_batch_frees_every_sampler(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    run = Context._run

    def failing(context: Context) -> int:
        if counted.made > 10:
            raise BackendError("out of order")
        return run(context)

    monkeypatch.setattr(Context, "_run", failing)
    with pytest.raises(BackendError, match="out of order"):
        engine.generate([f"{message}\nOrder number" for message in MESSAGES[:60]], GenerationParams(grammar=DIGITS))
    assert counted.made == counted.freed > 10


def test_logits_that_are_no_numbers_fail_the_call_and_not_the_engine(
    engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = Context.decode

    def damaged(context: Context, *arguments: Any) -> Any:
        logits = decode(context, *arguments).copy()
        logits[-1, 777] = np.nan
        return logits

    with monkeypatch.context() as patch:
        patch.setattr(Context, "decode", damaged)
        with pytest.raises(BackendError, match="no numbers"):
            engine.generate(["Once", "Twice"], GenerationParams())
    assert len(engine.generate(["Once", "Twice"], GenerationParams(max_tokens=2))) == 2


# log-probabilities


def test_log_probabilities_are_those_of_score(exact_engine: LlamaEngine) -> None:
    prompts = [copying(message, 1) for message in MESSAGES[:5]]
    for params in (
        GenerationParams(max_tokens=8, log_probabilities=True),
        GenerationParams(max_tokens=8, log_probabilities=True, temperature=0.8, top_p=0.9, seed=3),
        GenerationParams(max_tokens=4, log_probabilities=True, grammar="root ::= [a-z ]+"),
    ):
        for prompt, completion in zip(prompts, exact_engine.generate(prompts, params), strict=True):
            assert len(completion.log_probabilities) == len(completion.token_texts) == completion.tokens
            assert "".join(completion.token_texts) == completion.text
            tokens = exact_engine.vocabulary.tokenize_continuation(completion.text)
            if tuple(map(exact_engine.vocabulary.piece, tokens)) == tuple(map(str.encode, completion.token_texts)):
                scored = exact_engine.score([prompt], [completion.text])[0, 0]
                assert sum(completion.log_probabilities) == pytest.approx(scored, abs=0.02)
            first = exact_engine.score([prompt], [completion.token_texts[0]])[0, 0]
            assert completion.log_probabilities[0] == pytest.approx(first, abs=0.01)


def test_without_being_asked_for_there_are_none(engine: LlamaEngine) -> None:
    completion = engine.generate(["Once"], GenerationParams(max_tokens=2))[0]
    assert (completion.log_probabilities, completion.token_texts) == ((), ())


def test_characters_split_over_tokens_appear_when_they_are_whole(engine: LlamaEngine) -> None:
    text = "🙂👩‍👧日本"
    pieces = [engine.vocabulary.piece(token) for token in engine.vocabulary.tokenize_continuation(text)]
    assert any(len(piece.decode(errors="ignore").encode()) < len(piece) for piece in pieces)
    params = GenerationParams(max_tokens=60, grammar=f'root ::= "{text}"', log_probabilities=True)
    completion = engine.generate(["Write:"], params)[0]
    assert completion.text == "".join(completion.token_texts) == text
    assert "" in completion.token_texts
    cut = engine.generate(["Write:"], GenerationParams(max_tokens=2, grammar=f'root ::= "{text}"'))[0]
    assert text.startswith(cut.text)
    assert "�" not in cut.text


def test_one_request_alone_is_one_among_many(engine: LlamaEngine) -> None:
    """More requests than places, some for the same prompt, each with a stream of its own."""
    params = GenerationParams(max_tokens=5, temperature=1.0, seed=9)
    prompts = [f"Message: {MESSAGES[number % 30]}\nReply:" for number in range(110)]
    completions = engine.generate(prompts, params)
    assert engine.generate(prompts, params) == completions
    assert len(set(texts(completions))) > 90


# going on from what was written


WORDS = GenerationParams(max_tokens=4, temperature=0.9, seed=5, stop=("\n\n",), log_probabilities=True)


def in_two_calls(
    engine: LlamaEngine,
    prompts: Sequence[str],
    params: GenerationParams,
    following: Callable[[int, Completion], str],
    further: GenerationParams,
) -> list[tuple[Completion, Completion]]:
    """The slow way."""
    first = engine.generate(prompts, params)
    second = engine.generate([following(number, said) for number, said in enumerate(first)], further)
    return list(zip(first, second, strict=True))


def after(prompts: Sequence[str]) -> Callable[[int, Completion], str]:
    """The prompt, what was written on one line, and a question."""
    return lambda number, said: f"{prompts[number]} {' '.join(said.text.split())}\nIn short:"


@pytest.mark.parametrize(("count", "grammar"), [(1, None), (7, DIGITS), (70, None)])
def test_writing_on_is_two_calls(engine: LlamaEngine, count: int, grammar: str | None) -> None:
    prompts = [f"Message: {message}\nReply:" for message in MESSAGES[:count]]
    further = GenerationParams(max_tokens=3, temperature=0.5, seed=2, log_probabilities=True, grammar=grammar)
    together = engine.write_on(prompts, WORDS, FollowUp(after(prompts), further, 16))
    assert together == in_two_calls(engine, prompts, WORDS, after(prompts), further)
    assert len({second.text for _, second in together}) > count // 2


def test_writing_on_reads_what_was_written_once(engine: LlamaEngine) -> None:
    prompts = [f"Message: {message}\nReply:" for message in MESSAGES[:12]]
    thought, further = replace(WORDS, max_tokens=20), GenerationParams(max_tokens=2)

    def decoded(ask: Callable[[], object]) -> int:
        engine.forget()
        before = engine.tokens_decoded
        ask()
        return engine.tokens_decoded - before

    once = decoded(lambda: engine.write_on(prompts, thought, FollowUp(after(prompts), further, 16)))
    twice = decoded(lambda: in_two_calls(engine, prompts, thought, after(prompts), further))
    assert once < 0.65 * twice


@pytest.mark.parametrize("own", [10, 24, 40])
def test_long_prompts_are_gone_on_from_too(engine: LlamaEngine, own: int) -> None:
    """Own parts around the length from which on they are read in tiles; the second prompt is as long as it wants."""
    opening = "".join(f"Message: {message}\nTeam: Sales\n\n" for message in MESSAGES[:12])
    prompts = [with_opening(opening, " ".join(MESSAGES[at : at + own]) + "\nReply:") for at in (20, 21)]
    thought, further = replace(WORDS, max_tokens=40, stop=()), GenerationParams(max_tokens=2, log_probabilities=True)

    def following(number: int, said: Completion) -> str:
        first = prompts[number]
        return Rendered([*first.segments, Segment(f"{said.text}\nIn short:")], first.shared, len(first))

    engine.forget()
    before = engine.tokens_decoded
    together = engine.write_on(prompts, thought, FollowUp(following, further, 16))
    once = engine.tokens_decoded - before
    assert together == in_two_calls(engine, prompts, thought, following, further)
    first_prompts = decoded_by(engine, prompts, thought)[0]
    assert once < first_prompts + len(prompts) * 20


def test_one_text_marked_in_two_ways_is_two_prompts(engine: LlamaEngine) -> None:
    text = " ".join(MESSAGES[:30])
    prompts = [with_opening(text[:cut], text[cut:]) for cut in (0, len(text) // 2, len(text) - 20)]
    params = GenerationParams(max_tokens=2, log_probabilities=True)
    alone = [decoded_by(engine, [prompt], params)[1][0] for prompt in prompts]
    assert engine.generate([*prompts, *prompts], params) == [*alone, *alone]


def test_second_prompts_may_be_any(engine: LlamaEngine) -> None:
    """Longer than was said, shorter than the first, equal to it, and with nothing in common."""
    prompts = [f"Message: {message}\nReply:" for message in MESSAGES[:12]]
    others = [MESSAGES[20] * 3, prompts[1][:30], prompts[2], "Once", "Once upon"]
    further = GenerationParams(max_tokens=6, temperature=0.8, seed=1, log_probabilities=True)

    def following(number: int, said: Completion) -> str:
        return others[number] if number < len(others) else f"{prompts[number]}{said.text}"

    together = engine.write_on(prompts, WORDS, FollowUp(following, further, 4))
    assert together == in_two_calls(engine, prompts, WORDS, following, further)
    ended = engine.write_on(["Once", "Twice"], GenerationParams(max_tokens=1), FollowUp(following, further, 0))
    assert ended == in_two_calls(engine, ["Once", "Twice"], GenerationParams(max_tokens=1), following, further)
    assert engine.write_on([], WORDS, FollowUp(following, further, 4)) == []


def test_what_follows_cannot_ask_the_model(engine: LlamaEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = Counted(monkeypatch)
    further = GenerationParams(max_tokens=2, grammar=DIGITS)
    asking = FollowUp(lambda number, said: engine.generate(["x"], WORDS)[0].text, further, 4)
    with pytest.raises(BackendError, match="is generating"):
        engine.write_on(["Once", "Twice"], WORDS, asking)
    with pytest.raises(ContextError):
        engine.write_on(["Once", "Twice"], WORDS, FollowUp(lambda number, said: "word " * 9000, further, 4))
    with pytest.raises(UserError, match="2 seeds"):
        engine.write_on(["Once"], WORDS, FollowUp(after(["Once"]), replace(further, seeds=(1, 2)), 4))
    assert counted.made == counted.freed
    assert len(engine.generate(["Once", "Twice"], GenerationParams(max_tokens=2))) == 2
