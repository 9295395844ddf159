"""A label has the tokens that it has inside the prompt that it follows, whatever a vocabulary does with spaces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_models import CONTROL, GENERATORS, SENTENCEPIECE, WORDS, write_model

from promptsearch.errors import DataError
from promptsearch.lm.base import Rendered, Segment
from promptsearch.lm.llamacpp.engine import LlamaEngine
from promptsearch.lm.llamacpp.library import llama
from promptsearch.lm.llamacpp.opening import open_model
from promptsearch.lm.llamacpp.vocabulary import Vocabulary

CHAT = (Segment("is it a\n"), Segment(CONTROL, control=True))
"""A prompt after which a label begins a run of text."""


@pytest.fixture(scope="module", params=[*SENTENCEPIECE, next(iter(GENERATORS))])
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("models"), request.param)


@pytest.fixture(scope="module")
def vocabulary(path: Path) -> Iterator[Vocabulary]:
    model = open_model(path)
    yield Vocabulary(model)
    llama().llama_model_free(model)


def text_of(vocabulary: Vocabulary, tokens: tuple[int, ...]) -> str:
    return b"".join(map(vocabulary.piece, tokens)).decode()


def inside(vocabulary: Vocabulary, prompt: tuple[Segment, ...], text: str) -> tuple[int, ...] | None:
    """Tokens of a text after a prompt, from tokenizing both together; None where one reaches over the border."""
    before, both = vocabulary.tokenize(prompt), vocabulary.tokenize((*prompt, Segment(text)))
    return both[len(before) :] if both[: len(before)] == before else None


def after(vocabulary: Vocabulary, prompt: tuple[Segment, ...], text: str) -> tuple[int, ...]:
    return vocabulary.tokenize_continuation(text, vocabulary.begins_run(prompt))


@pytest.mark.parametrize(
    "label", [" good", "good", " badly", " ness", "ness", "  good", "\ngood", "日本", " é", "!a"]
)
@pytest.mark.parametrize("prompt", [(Segment("Label:"),), (Segment("a\n\na: good\n\nx:"),), CHAT])
def test_a_label_has_the_tokens_that_it_has_in_a_prompt(
    vocabulary: Vocabulary, prompt: tuple[Segment, ...], label: str
) -> None:
    expected = inside(vocabulary, prompt, label)
    assert expected is not None
    assert after(vocabulary, prompt, label) == expected


TEXTS = st.lists(
    st.one_of(st.sampled_from([word.replace("▁", " ") for word in WORDS]), st.sampled_from(" \n.=a日é")), max_size=5
).map("".join)
PROMPTS = st.one_of(
    TEXTS.map(lambda text: (Segment(f"a={text}"),)),
    TEXTS.map(lambda text: (Segment(text), *CHAT, Segment(""))),
    TEXTS.map(lambda text: (*CHAT, Segment(f"{text}x", control=True))),
)


@given(prompt=PROMPTS, text=TEXTS)
def test_any_text_has_the_tokens_that_it_has_in_a_prompt(
    vocabulary: Vocabulary, prompt: tuple[Segment, ...], text: str
) -> None:
    expected = inside(vocabulary, prompt, text)
    if expected is not None:
        assert after(vocabulary, prompt, text) == expected


@given(text=TEXTS)
def test_a_label_alone_is_its_own_text(vocabulary: Vocabulary, text: str) -> None:
    assert text_of(vocabulary, vocabulary.tokenize_continuation(text)) == text


def test_a_space_is_put_before_texts_unless_the_file_says_no(vocabulary: Vocabulary, path: Path) -> None:
    spaced = SENTENCEPIECE.get(path.stem, False) is not False
    assert text_of(vocabulary, vocabulary.tokenize((Segment("good"),))) == (" good" if spaced else "good")
    assert vocabulary.begins_run(CHAT) is spaced
    assert not vocabulary.begins_run((Segment(CONTROL),))
    assert not vocabulary.begins_run(())


def test_a_call_whose_prompts_end_in_both_ways_gives_each_its_own_scores(path: Path) -> None:
    labels = ["good", "a", "ness"]
    prompts = ["is it:", Rendered(CHAT), "is it a:", Rendered((*CHAT, Segment("a:")))]
    with LlamaEngine(path, name="x", fingerprint="x", threads=1) as engine:
        alone = np.concatenate([engine.score([prompt], labels) for prompt in prompts])
        scores, following = engine.score_and_next(prompts, labels, range(engine.vocabulary.size))
        assert np.abs(scores - alone).max() < 0.02
        assert np.abs(np.array(engine.score_each(prompts, [labels] * len(prompts))) - alone).max() < 0.02
        for row, prompt in enumerate(prompts):
            segments = prompt.segments if isinstance(prompt, Rendered) else (Segment(prompt),)
            for column, label in enumerate(labels):
                tokens = inside(engine.vocabulary, segments, label)
                assert tokens is not None
                if len(tokens) == 1:
                    assert scores[row, column] == pytest.approx(following[row, tokens[0]], abs=0.02)
        with pytest.raises(DataError, match="has no tokens"):
            engine.score(prompts, ["a", ""])
