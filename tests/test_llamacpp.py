"""The llama.cpp engine on the packaged model: batching changes no answer, data stays data, clear errors."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptsearch.errors import BackendError, ContextError, DataError, ModelError
from promptsearch.lm.base import FloatArray, GenerationParams, Rendered, Segment
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.sampling import sample
from promptsearch.lm.llamacpp.weights import convert

SENTIMENTS = [" negative", " positive"]
DEMONSTRATIONS = "".join(
    f"Review: {text}\nSentiment: {label}\n\n"
    for text, label in [
        ("A moving story, told with great warmth.", "positive"),
        ("Two hours that I will never get back.", "negative"),
        ("The plot makes no sense and nobody cares.", "negative"),
        ("Funny, tender and beautifully shot.", "positive"),
    ]
)
SUBJECTS = ["The film", "Its plot", "The acting", "Every joke", "This sequel", "The ending", "Her debut"]
VERDICTS = ["is a delight", "falls flat", "goes on for ever", "surprised me", "is forgettable", "moved us"]
QUERIES = [
    f"Review: {subject} {verdict}{' and ' + VERDICTS[(i + j) % 6] if j % 2 else ''}.\nSentiment:"
    for i, subject in enumerate(SUBJECTS)
    for j, verdict in enumerate(VERDICTS)
]
WORDS = ["card", "cash", "transfer", "refund", "exchange", "payment", "account"]
ENDINGS = ["", " arrival", " not working", " declined", " fee charged", " limit", " lost or stolen"]
ENDINGS += [" pending", " delivery estimate", " by country", " rate"]
INTENTS = [f" {word}{ending}" for word in WORDS for ending in ENDINGS]


def one_by_one(engine: LlamaEngine, prompts: Sequence[str], labels: Sequence[str]) -> FloatArray:
    return np.concatenate([engine.score([prompt], labels) for prompt in prompts])


def check_batched(engine: LlamaEngine, prompts: Sequence[str], labels: Sequence[str]) -> None:
    together, alone = engine.score(prompts, labels), one_by_one(engine, prompts, labels)
    assert np.abs(together - alone).max() < 0.02
    close = np.sort(alone, axis=1)
    clear = close[:, -1] - close[:, -2] > 0.04  # twice the tolerance: no order may turn
    assert (together.argmax(axis=1) == alone.argmax(axis=1))[clear].all()


def test_a_shared_prefix_changes_nothing_and_is_decoded_once(exact_engine: LlamaEngine) -> None:
    prompts = [DEMONSTRATIONS + query for query in QUERIES[:16]]
    check_batched(exact_engine, prompts, SENTIMENTS)
    before = exact_engine.tokens_decoded
    exact_engine.score(prompts, SENTIMENTS)
    decoded = exact_engine.tokens_decoded - before
    assert decoded < 0.3 * sum(exact_engine.count_tokens(prompts))


def test_nested_prompts_and_duplicates(exact_engine: LlamaEngine) -> None:
    text = DEMONSTRATIONS + QUERIES[0]
    words = text.split(" ")
    nested = [" ".join(words[:end]) for end in range(1, len(words), 7)]
    prompts = [*nested[::-1], nested[2], nested[2], nested[0]]
    check_batched(exact_engine, prompts, SENTIMENTS)
    scores = exact_engine.score(prompts, SENTIMENTS)
    assert np.array_equal(scores[-2], scores[-3])
    assert np.array_equal(scores[len(nested) - 1], scores[-1])


def test_prompts_that_share_nothing(exact_engine: LlamaEngine) -> None:
    prompts = [f"{number}. {query} {DEMONSTRATIONS[:300]}" for number, query in enumerate(QUERIES[:8])]
    check_batched(exact_engine, prompts, SENTIMENTS)


def test_a_prompt_longer_than_a_batch(exact_engine: LlamaEngine) -> None:
    prompts = [DEMONSTRATIONS * 9 + query for query in QUERIES[:2]]
    assert min(exact_engine.count_tokens(prompts)) > 600
    check_batched(exact_engine, prompts, SENTIMENTS)


def test_labels_of_many_lengths_and_common_beginnings(exact_engine: LlamaEngine) -> None:
    labels = [
        " card",
        " card lost",
        " card lost or stolen",
        " card lost or stolen abroad",
        " cash",
        " refund",
    ]
    lengths = [len(exact_engine.vocabulary.tokenize_continuation(label)) for label in labels]
    assert min(lengths) == 1
    assert max(lengths) >= 5
    prompts = [f"Customer: my {word} has gone.\nTopic:" for word in WORDS]
    check_batched(exact_engine, prompts, labels)


def test_77_labels(exact_engine: LlamaEngine) -> None:
    assert len(INTENTS) == 77
    check_batched(exact_engine, [f"Customer: my {word} has gone.\nTopic:" for word in WORDS[:2]], INTENTS)


def test_label_order_and_company_change_nothing(exact_engine: LlamaEngine) -> None:
    prompts = ["Customer: my card has gone.\nTopic:"]
    scores = exact_engine.score(prompts, INTENTS)
    assert np.abs(exact_engine.score(prompts, INTENTS[::-1])[:, ::-1] - scores).max() < 0.02
    assert np.abs(exact_engine.score(prompts, INTENTS[40:50]) - scores[:, 40:50]).max() < 0.02


def test_a_long_label_is_scored_to_its_end(exact_engine: LlamaEngine) -> None:
    long = " " + " ".join(["really"] * 300) + " good"
    scores = exact_engine.score(["It was"], [" good", long])
    assert scores[0, 1] < scores[0, 0] < 0


def test_the_same_call_gives_the_same_numbers(engine: LlamaEngine) -> None:
    prompts = [DEMONSTRATIONS + query for query in QUERIES[:12]]
    first = engine.score(prompts, SENTIMENTS)
    engine.score(QUERIES[12:15], INTENTS[:20])
    assert np.array_equal(engine.score(prompts, SENTIMENTS), first)


def test_no_prompts_or_no_labels(engine: LlamaEngine) -> None:
    assert engine.score([], SENTIMENTS).shape == (0, 2)
    assert engine.score(["a"], []).shape == (1, 0)
    assert engine.generate([], GenerationParams()) == []


def test_next_tokens_are_scores_of_their_texts(exact_engine: LlamaEngine) -> None:
    prompts = [DEMONSTRATIONS + query for query in [*QUERIES[:5], QUERIES[0]]]
    likely = exact_engine.likely_next(prompts, 40)
    assert all(len(each) == 40 for each in likely)
    assert likely[0] == likely[5]  # the same prompt
    logs = [[log for _, log in each] for each in likely]
    assert all(each == sorted(each, reverse=True) and np.exp(each).sum() <= 1 for each in logs)
    tokens = [token for token, _ in likely[0]]
    scores, following = exact_engine.score_and_next(prompts, INTENTS, tokens)
    assert np.abs(scores - exact_engine.score(prompts, INTENTS)).max() < 1e-3
    assert np.abs(following[0] - logs[0]).max() < 1e-3
    alone = np.concatenate([exact_engine.score_and_next([prompt], SENTIMENTS, tokens)[1] for prompt in prompts])
    assert np.abs(following - alone).max() < 0.02
    pieces = [exact_engine.vocabulary.piece(token).decode("utf-8", "replace") for token in tokens]
    whole = [
        place
        for place, piece in enumerate(pieces)
        if exact_engine.vocabulary.tokenize_continuation(piece) == (tokens[place],)
    ]
    texts = exact_engine.score(prompts, [pieces[place] for place in whole])
    assert len(whole) > 30
    assert np.abs(following[:, whole] - texts).max() < 0.02  # batches of other sizes round in another way


def test_all_next_tokens_together_are_certain(engine: LlamaEngine) -> None:
    everything = range(engine.vocabulary.size)
    _, following = engine.score_and_next(QUERIES[:2], SENTIMENTS, everything)
    assert np.allclose(np.exp(following).sum(axis=1), 1.0)


@pytest.mark.parametrize("token", [-1, 10**6])
def test_a_token_outside_the_vocabulary_is_an_error(engine: LlamaEngine, token: int) -> None:
    with pytest.raises(DataError, match="tokens 0 to"):
        engine.score_and_next(QUERIES[:1], SENTIMENTS, [token])


@pytest.fixture(scope="module")
def reference(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The exact engine's weights in llama-cpp-python's own class, which keeps the logits of every token."""
    path = tmp_path_factory.mktemp("reference") / "F16.gguf"
    convert(model_file, path, "F16")
    model = llama().Llama(str(path), n_ctx=256, logits_all=True, verbose=False)
    yield model
    model.close()


def test_scores_are_what_llama_itself_says(exact_engine: LlamaEngine, reference: Any) -> None:
    labels = [" negative", " very positive indeed", " card lost or stolen"]
    prompts = QUERIES[:3]
    expected = np.zeros((len(prompts), len(labels)))
    for row, prompt in enumerate(prompts):
        start = reference.tokenize(prompt.encode(), add_bos=False)
        for column, label in enumerate(labels):
            tokens = reference.tokenize(label.encode(), add_bos=False)
            reference.reset()
            reference.eval(start + tokens)
            logs = reference.logits_to_logprobs(reference.scores[: reference.n_tokens])
            expected[row, column] = sum(logs[len(start) - 1 + at, token] for at, token in enumerate(tokens))
    assert exact_engine.score(prompts, labels) == pytest.approx(expected, abs=0.05)


def texts(engine: LlamaEngine, prompts: Sequence[str], params: GenerationParams) -> list[str]:
    return [completion.text for completion in engine.generate(prompts, params)]


def test_greedy_text_is_that_of_one_by_one(exact_engine: LlamaEngine) -> None:
    prompts = QUERIES[:40]
    params = GenerationParams(max_tokens=6)
    together = texts(exact_engine, prompts, params)
    alone = [texts(exact_engine, [prompt], params)[0] for prompt in prompts]
    assert sum(left == right for left, right in zip(together, alone, strict=True)) >= 36


def test_sampling_follows_the_seed_and_not_the_neighbours(exact_engine: LlamaEngine) -> None:
    params = GenerationParams(max_tokens=6, temperature=1.0, top_p=0.95, seed=5)
    prompts = QUERIES[:12]
    first = texts(exact_engine, prompts, params)
    assert texts(exact_engine, prompts, params) == first
    other = GenerationParams(max_tokens=6, temperature=1.0, top_p=0.95, seed=6)
    assert texts(exact_engine, prompts, other) != first
    neighbours = [*prompts[:6], *QUERIES[20:26]]
    same = zip(texts(exact_engine, neighbours, params)[:6], first[:6], strict=True)
    assert sum(left == right for left, right in same) >= 5


def test_more_requests_than_places_with_prompts_of_many_lengths(engine: LlamaEngine) -> None:
    prompts = [QUERIES[number % 42] * (1 + 60 * (number == 50)) for number in range(60)]
    completions = engine.generate(prompts, GenerationParams(max_tokens=2))
    assert len(completions) == 60
    assert all(1 <= completion.tokens <= 2 for completion in completions)


def test_stop_strings_end_the_text_and_are_not_part_of_it(engine: LlamaEngine) -> None:
    prompts = [DEMONSTRATIONS + query for query in QUERIES[:4]]
    for completion in engine.generate(prompts, GenerationParams(max_tokens=24, stop=("\n", "tive"))):
        assert "\n" not in completion.text
        assert "tive" not in completion.text
        assert completion.finish == "stop"
        assert completion.tokens < 24


def test_text_cut_by_its_length_says_so(engine: LlamaEngine) -> None:
    completion = engine.generate(["Once upon a time"], GenerationParams(max_tokens=3))[0]
    assert (completion.tokens, completion.finish) == (3, "length")


LOGITS = np.array([1.0, 3.0, 2.0, -5.0, 2.5], dtype=np.float32)


def test_sampling_follows_the_probabilities() -> None:
    params = GenerationParams(temperature=1.0)
    draws = [sample(LOGITS, params, np.random.default_rng([0, number])) for number in range(4000)]
    expected = np.exp(LOGITS) / np.exp(LOGITS).sum()
    assert np.bincount(draws, minlength=5) / 4000 == pytest.approx(expected, abs=0.03)


def drawn(params: GenerationParams, count: int = 400) -> set[int]:
    return {sample(LOGITS, params, np.random.default_rng([0, number])) for number in range(count)}


@pytest.mark.parametrize(
    ("params", "tokens"),
    [
        (GenerationParams(), {1}),
        (GenerationParams(temperature=1.0, top_k=2), {1, 4}),
        (GenerationParams(temperature=1.0, top_p=0.4), {1}),
        (GenerationParams(temperature=1.0, top_p=0.7), {1, 4}),
        (GenerationParams(temperature=1.0, min_p=0.3), {1, 2, 4}),
        (GenerationParams(temperature=20.0), {0, 1, 2, 3, 4}),
        (GenerationParams(temperature=1.0, top_k=2, top_p=0.6), {1}),
    ],
)
def test_sampling_keeps_to_its_limits(params: GenerationParams, tokens: set[int]) -> None:
    assert drawn(params) == tokens


def test_control_tokens_in_data_stay_data(engine: LlamaEngine) -> None:
    data = engine.vocabulary.tokenize((Segment("hello<|im_end|>"),))
    control = engine.vocabulary.tokenize((Segment("hello"), Segment("<|im_end|>", control=True)))
    assert len(data) > len(control)
    assert control[-1] not in data
    assert engine.vocabulary.ends_text(control[-1])
    assert engine.count_tokens(["hello<|im_end|>"]) == [len(data)]
    assert engine.vocabulary.tokenize_continuation("<|im_end|>") == data[-len(data) + 1 :]


def test_a_rendered_prompt_keeps_its_control_tokens(engine: LlamaEngine) -> None:
    parts = [Segment("<|im_start|>user\n", True), Segment("hi <|im_end|>"), Segment("<|im_end|>\n", True)]
    rendered = Rendered(parts)
    assert engine.count_tokens([rendered])[0] < engine.count_tokens([str(rendered) + ""])[0]
    for copied in (copy.deepcopy(rendered), pickle.loads(pickle.dumps(rendered))):
        assert (copied, copied.segments, copied.shared) == (rendered, rendered.segments, rendered.shared)


def test_no_seam_where_a_template_meets_data(engine: LlamaEngine) -> None:
    seamed = (Segment("Review: ", True), Segment("good"), Segment(" film\n", True))
    assert engine.vocabulary.tokenize(seamed) == engine.vocabulary.tokenize((Segment("Review: good film\n"),))


@pytest.mark.parametrize("text", ["日本語のレビュー", "🙂🙃👩‍👩‍👧", "naïve café", "a\x00b", "العربية"])
def test_text_of_many_bytes_comes_back_whole(engine: LlamaEngine, text: str) -> None:
    tokens = engine.vocabulary.tokenize_continuation(text)
    assert b"".join(engine.vocabulary.piece(token) for token in tokens).decode() == text
    assert np.isfinite(engine.score([text], [" " + text, " x"])).all()


def check_one_line(error: BaseException, *said: str) -> None:
    assert "\n" not in str(error)
    for part in said:
        assert part in str(error)


@pytest.mark.parametrize("text", ["bad \ud800 text", "\udfff"])
def test_a_lone_surrogate_is_a_clear_error(engine: LlamaEngine, text: str) -> None:
    with pytest.raises(DataError, match="lone surrogate") as caught:
        engine.score([text], SENTIMENTS)
    check_one_line(caught.value)
    with pytest.raises(DataError, match="lone surrogate"):
        engine.check_continuations([text])


def test_a_prompt_that_does_not_fit_is_a_clear_error(engine: LlamaEngine) -> None:
    prompt = "word\n" * engine.context_tokens
    with pytest.raises(ContextError) as caught:
        engine.score([prompt], SENTIMENTS)
    check_one_line(caught.value, str(engine.context_tokens), "shorten")
    with pytest.raises(ContextError):
        engine.generate(["short"], GenerationParams(max_tokens=engine.context_tokens))


def test_an_empty_prompt_is_an_error(engine: LlamaEngine) -> None:
    with pytest.raises(DataError, match="empty prompt"):
        engine.score([""], SENTIMENTS)


def test_labels_without_tokens_or_with_the_same_are_errors(engine: LlamaEngine) -> None:
    with pytest.raises(DataError, match="has no tokens"):
        engine.score(["a"], [" yes", ""])
    with pytest.raises(DataError, match="the same tokens"):
        engine.score(["a"], [" yes", " no", " yes"])


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no model file"):
        LlamaEngine(tmp_path / "missing.gguf", name="x", fingerprint="x")


def test_a_file_that_is_no_gguf_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "text.gguf"
    path.write_text("this is no model")
    with pytest.raises(ModelError, match="is no GGUF file"):
        LlamaEngine(path, name="x", fingerprint="x")


@pytest.mark.parametrize("kept", [4, 4000, 3_000_000, 60_000_000])
def test_a_file_cut_short_is_a_clear_error(model_file: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.gguf"
    with model_file.open("rb") as file:
        path.write_bytes(file.read(kept))
    with pytest.raises(ModelError, match="cannot be loaded") as caught:
        LlamaEngine(path, name="x", fingerprint="x")
    check_one_line(caught.value)


def test_a_closed_engine_is_an_error(model_file: Path) -> None:
    engine = LlamaEngine(model_file, name="x", fingerprint="x")
    engine.close()
    engine.close()
    for call in (
        lambda: engine.score(["a"], SENTIMENTS),
        lambda: engine.generate(["a"], GenerationParams()),
        lambda: engine.count_tokens(["a"]),
        lambda: engine.check_continuations(SENTIMENTS),
        lambda: engine.chat_template,
    ):
        with pytest.raises(BackendError, match="has been closed"):
            call()
    assert engine.tokens_decoded == 0


def test_threads_get_the_right_results(engine: LlamaEngine) -> None:
    parts = [QUERIES[start : start + 2] for start in range(0, 12, 2)]
    expected = [engine.score(part, SENTIMENTS) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda part: engine.score(part, SENTIMENTS), parts))
    assert all(np.array_equal(left, right) for left, right in zip(found, expected, strict=True))


def test_a_deep_copy_is_the_same_engine(engine: LlamaEngine) -> None:
    assert copy.deepcopy({"lm": engine})["lm"] is engine


def test_the_model_brings_its_chat_template(engine: LlamaEngine) -> None:
    assert engine.chat_template is not None
    assert "<|im_start|>" in engine.chat_template
