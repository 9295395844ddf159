"""The models without a model: deterministic, as right as told, and engines in every respect."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from promptsearch.errors import BackendError, ContextError, UserError
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.fake import FakeLM, ScriptedLM

LABELS = [" negative", " positive"]
PROMPTS = [f"Review: film {number}\nSentiment:" for number in range(400)]


def share_right(lm: FakeLM, label: int = 1) -> float:
    return float((lm.score(PROMPTS, LABELS).argmax(axis=1) == label).mean())


def test_scores_depend_on_prompt_and_continuation_only() -> None:
    lm = FakeLM(lambda prompt: "positive", reliability=0.7)
    together = lm.score(PROMPTS[:20], LABELS)
    alone = [[lm.score([prompt], [label])[0, 0] for label in LABELS] for prompt in PROMPTS[:20]]
    assert together.tolist() == alone
    assert np.all(together < 0)


def test_scores_are_the_same_in_another_process() -> None:
    code = (
        f"from promptsearch.lm.fake import FakeLM; print(FakeLM(seed=3).score({PROMPTS[:3]!r}, {LABELS!r}).tolist())"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(FakeLM(seed=3).score(PROMPTS[:3], LABELS).tolist())


@pytest.mark.parametrize("reliability", [0.0, 0.5, 0.8, 1.0])
def test_reliability_is_the_share_answered_rightly(reliability: float) -> None:
    lm = FakeLM(lambda prompt: "positive", reliability=reliability)
    assert share_right(lm) == pytest.approx(reliability, abs=0.08)


def test_reliability_may_depend_on_the_prompt() -> None:
    lm = FakeLM(lambda prompt: "positive", reliability=lambda prompt: float("7" in prompt))
    right = lm.score(PROMPTS, LABELS).argmax(axis=1) == 1
    assert right.tolist() == ["7" in prompt for prompt in PROMPTS]


def test_without_an_answer_labels_are_a_coin_toss() -> None:
    assert share_right(FakeLM()) == pytest.approx(0.5, abs=0.1)


def test_seeds_err_on_different_prompts() -> None:
    first, second = (FakeLM(lambda prompt: "positive", reliability=0.5, seed=seed) for seed in (0, 1))
    assert first.fingerprint != second.fingerprint
    assert not np.array_equal(first.score(PROMPTS, LABELS), second.score(PROMPTS, LABELS))


def test_in_a_table_the_last_text_of_the_prompt_counts() -> None:
    lm = FakeLM({"good": "positive", "bad": "negative", "not good": "negative"})
    prompts = ["good -> positive\nbad ->", "bad -> negative\ngood ->", "bad -> negative\nnot good ->", "odd"]
    assert lm.score(prompts, LABELS).argmax(axis=1)[:3].tolist() == [0, 1, 0]
    assert lm.generate(prompts[:1], GenerationParams())[0].text == " negative"


def test_generation_above_temperature_0_follows_the_seed() -> None:
    lm = FakeLM(lambda prompt: "positive", reliability=0.5)

    def texts(seed: int, temperature: float) -> list[str]:
        params = GenerationParams(temperature=temperature, seed=seed)
        return [completion.text for completion in lm.generate(PROMPTS[:40], params)]

    assert texts(0, 0.0) == texts(1, 0.0)
    assert texts(0, 1.0) == texts(0, 1.0)
    assert texts(0, 1.0) != texts(1, 1.0)
    assert 8 <= texts(0, 1.0).count(" positive") <= 32


def test_tokens_are_words() -> None:
    lm = FakeLM(context_tokens=4)
    assert lm.count_tokens(["", "a b  c\nd"]) == [0, 4]
    lm.score(["a b", "a"], [" x"])
    assert lm.tokens_decoded == 3
    with pytest.raises(ContextError, match="4 tokens and an answer of 1"):
        lm.score(["a b c d"], [" x"])


def test_scripted_replies_are_cut_as_asked() -> None:
    lm = ScriptedLM(lambda prompt: f" so {prompt} it is.\nEnd")
    cut, stopped = (
        lm.generate(["then"], params)[0]
        for params in (GenerationParams(max_tokens=3), GenerationParams(stop=("\n",)))
    )
    assert (cut.text, cut.tokens, cut.finish) == (" so then it", 3, "length")
    assert (stopped.text, stopped.tokens, stopped.finish) == (" so then it is.", 4, "stop")
    assert lm.prompts == ["then", "then"]


def test_until_ends_a_reply_at_the_word_that_answers() -> None:
    lm = ScriptedLM(lambda prompt: " so 4 2 it is. End")
    params = GenerationParams(until=lambda text: "4" in text, stop=(" End",))
    assert lm.generate(["then"], params)[0] == Completion(" so 4", 2, "until")
    assert (
        lm.generate(["then"], GenerationParams(until=lambda text: "End" in text, stop=(" End",)))[0].finish == "stop"
    )


@pytest.mark.parametrize(
    "params",
    [
        GenerationParams(grammar='root ::= "a"'),
        GenerationParams(json_schema={"type": "null"}),
        GenerationParams(log_probabilities=True),
    ],
)
def test_what_words_cannot_follow_is_refused(params: GenerationParams) -> None:
    for lm in (FakeLM(), ScriptedLM(lambda prompt: prompt)):
        with pytest.raises(UserError, match="cannot follow"):
            lm.generate(["a"], params)


def test_closed_is_closed() -> None:
    lm = FakeLM()
    lm.close()
    with pytest.raises(BackendError, match="closed"):
        lm.score(["a"], [" x"])
