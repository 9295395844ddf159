"""Prompts that let the model reason: what it reads, what it answers, and how several samples vote."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.lm.base import Completion, GenerationParams
from promptsearch.lm.fake import ScriptedLM
from promptsearch.reasoning import Answer, is_settled, merged, one_line

ROWS = [
    {"question": f"What is {left} plus {right}?", "answer": str(left + right), "why": f"{left}\nand {right} more."}
    for left in range(1, 9)
    for right in range(1, 6)
]
COLOURS = [
    {"text": f"{name} number {number}", "label": label, "why": f"A {name} is {label}."}
    for number in range(12)
    for name, label in (("tomato", "red"), ("leaf", "green"))
]


def sums(**options: Any) -> ps.Task:
    return ps.Task(ROWS, inputs="question", output="answer", labels=False, rationale="why", **options)


def colours() -> ps.Task:
    return ps.Task(COLOURS, inputs="text", output="label", rationale="why", instruction="Name the colour.")


def adding(prompt: str) -> str:
    """A model that adds right only after it has written what it adds."""
    question = prompt.rpartition("What is ")[2]
    left, right = question.partition("?")[0].split(" plus ")
    if prompt.endswith("Answer:"):
        thought = f"That is {left} and {right}."
        return f" {int(left) + int(right)}\nQuestion: more" if thought in question else " 0"
    return f" That is {left} and {right}.\nAnswer: 7"


def test_the_model_reasons_and_then_answers() -> None:
    lm = ScriptedLM(adding)
    prompt = ps.Prompt(sums(), (), lm, reasoning="cue")
    assert prompt.render("What is 3 plus 4?") == "Question: What is 3 plus 4?\nLet's think step by step."
    said = prompt("What is 3 plus 4?")
    assert (said.output, said.rationale) == ("7", "That is 3 and 4.")
    assert lm.prompts == [
        "Question: What is 3 plus 4?\nLet's think step by step.",
        "Question: What is 3 plus 4?\nLet's think step by step. That is 3 and 4.\nAnswer:",
    ]
    assert ps.Prompt(sums(), (), lm)("What is 3 plus 4?").output == "0"
    assert prompt.evaluate(ROWS[:6]).value == 1.0


def test_demonstrations_show_their_reasoning_on_one_line() -> None:
    lm = ScriptedLM(adding)
    prompt = ps.Prompt(sums(), ROWS[:2], lm, reasoning="gold", instruction="Add.")
    assert prompt.render("What is 3 plus 4?") == (
        "Add.\n\n"
        "Question: What is 1 plus 1?\nReasoning: 1 and 1 more.\nAnswer: 2\n\n"
        "Question: What is 1 plus 2?\nReasoning: 1 and 2 more.\nAnswer: 3\n\n"
        "Question: What is 3 plus 4?\nReasoning:"
    )
    assert prompt.messages("What is 3 plus 4?")[0]["content"] == prompt.render("What is 3 plus 4?")
    said = prompt("What is 3 plus 4?")
    assert said.output == "7"
    assert [each.rationale for each in said.demonstrations] == ["1 and 1 more.", "1 and 2 more."]


def test_labels_are_scored_after_the_reasoning() -> None:
    def reply(prompt: str) -> str:
        if not prompt.endswith("Label:"):
            return " A leaf is green." if "leaf" in prompt.rpartition("Text:")[2] else " A tomato is red."
        return " green" if prompt.rstrip("Label:").strip().endswith("green.") else " red"

    prompt = ps.Prompt(colours(), COLOURS[:2], ScriptedLM(reply), reasoning="gold")
    said = prompt.predict(["leaf number 40", "tomato number 50"])
    assert [each.output for each in said] == ["green", "red"]
    assert [each.rationale for each in said] == ["A leaf is green.", "A tomato is red."]
    assert set(said[0].probabilities) == {"red", "green"}


def test_a_prompt_that_reasons_survives_on_disk(tmp_path: Path) -> None:
    lm = ScriptedLM(adding)
    prompt = ps.Prompt(sums(), ROWS[:2], lm, reasoning="gold", thought="Think:", thinking_tokens=20)
    loaded = ps.load(prompt.save(tmp_path / "prompt.json"), lm)
    assert loaded.candidate == prompt.candidate
    assert loaded.render(ROWS[5]["question"]) == prompt.render(ROWS[5]["question"])
    assert loaded("What is 3 plus 5?") == prompt("What is 3 plus 5?")
    assert loaded.demonstrations[0].rationale == "1 and 1 more."


def test_a_text_without_reasoning_is_answered_all_the_same() -> None:
    prompt = ps.Prompt(sums(), (), ScriptedLM(lambda text: "\n" if text.endswith("step.") else " 5"), reasoning="cue")
    said = prompt("What is 1 plus 4?")
    assert (said.output, said.rationale) == ("5", "")


def test_line_ends_before_the_first_word_do_not_end_reasoning() -> None:
    def reply(prompt: str) -> str:
        return " 5" if prompt.endswith("Answer:") else "\n\nFirst 1 and 4.\nThen 5.\n\nQuestion: another one"

    prompt = ps.Prompt(sums(), (), ScriptedLM(reply), reasoning="cue")
    assert prompt("What is 1 plus 4?").rationale == "First 1 and 4. Then 5."
    shown = ps.Prompt(sums(), ROWS[:1], ScriptedLM(reply), reasoning="gold")
    assert shown("What is 1 plus 4?").rationale == "First 1 and 4."


@pytest.mark.parametrize(
    ("written", "follows"),
    [
        ("\n\n1. Take 1.\n2. Take 4. \n\nQuestion: another one", "\n\n1. Take 1.\n2. Take 4."),
        (" Take 1.\nTake 4.", " Take 1.\nTake 4."),
        ("Take 1.", " Take 1."),  # from a server that strips blanks
        (" \n ", ""),
        (" Take 1.\r\n \t\r\nMore.", " Take 1."),  # blanks in a line make it no text
        ("\n\nQuestion: another one", ""),
    ],
)
def test_reasoning_after_a_cue_stands_as_it_was_written(written: str, follows: str) -> None:
    lm = ScriptedLM(lambda prompt: " 5" if prompt.endswith("Answer:") else written)
    said = ps.Prompt(sums(), (), lm, reasoning="cue")("What is 1 plus 4?")
    assert lm.prompts[1] == f"{lm.prompts[0]}{follows}\nAnswer:"
    assert said.rationale == " ".join(follows.split())


@pytest.mark.parametrize(("template", "separator"), [("lines", "\n"), ("rules", "\n###\n"), ("fields", "\n\n")])
def test_reasoning_ends_where_the_next_item_would_begin(template: str, separator: str) -> None:
    written = f" Take 1.{separator}Question: What is 2 plus 2?\nAnswer: 4"
    lm = ScriptedLM(lambda prompt: " 5" if prompt.endswith("Answer:") else written)
    prompt = ps.Prompt(sums(), (), lm, reasoning="cue", template=template)
    assert prompt("What is 1 plus 4?").rationale == "Take 1."
    assert lm.prompts[1] == f"{lm.prompts[0]} Take 1.\nAnswer:"


def test_white_space_alone_is_no_next_item() -> None:
    lm = ScriptedLM(lambda prompt: " 5" if prompt.endswith("=>") else "\nTake 1.\nTake 4.\n\nMore.")
    prompt = ps.Prompt(sums(), (), lm, reasoning="cue", template="arrow")
    assert prompt("What is 1 plus 4?").rationale == "Take 1. Take 4."


def test_reasoning_stands_on_one_line_where_demonstrations_show_it_so() -> None:
    lm = ScriptedLM(lambda prompt: " 5" if prompt.endswith("Answer:") else "\n Take  1.\nAnd more")
    ps.Prompt(sums(), ROWS[:1], lm, reasoning="gold")("What is 1 plus 4?")
    assert lm.prompts[1] == f"{lm.prompts[0]} Take 1.\nAnswer:"


def test_what_does_not_fit_with_its_reasoning_is_not_asked() -> None:
    lm = ScriptedLM(adding, context_tokens=200)
    prompt = ps.Prompt(sums(), (), lm, reasoning="cue", thinking_tokens=96)
    assert prompt("What is 3 plus 4? " + "word " * 60).failure == "too long"
    assert not lm.prompts


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"reasoning": "magic"}, "reasoning='magic'"),
        ({"reasoning": "self"}, "reasoning='self'"),
        ({"reasoning": "gold"}, "no demonstrations"),
        ({"reasoning": "gold", "demonstrations": [{"question": "q", "answer": "a", "why": ""}]}, "demonstration 0"),
        ({"reasoning": "cue", "demonstrations": ROWS[:1]}, "reasoning='cue'"),
        ({"reasoning": "cue", "template": "chat-turns"}, "chat turns"),
        ({"reasoning": "cue", "thinking_tokens": 0}, "thinking_tokens=0"),
        ({"reasoning": "cue", "samples": 1.5}, "samples=1.5"),
        ({"reasoning": "cue", "thought": " \n"}, "thought=''"),
    ],
)
def test_reasoning_that_cannot_be(options: dict[str, Any], rule: str) -> None:
    given_ = {"demonstrations": (), **options}
    with pytest.raises(ps.UserError, match=rule):
        ps.Prompt(sums(), given_.pop("demonstrations"), ScriptedLM(adding), **given_)


# -- several samples --------------------------------------------------------------------------------------------


class Wavering:
    """Reasons at random by the request's seed, three times in five towards the right sum."""

    name = "wavering"

    def __init__(self) -> None:
        self.requests = 0

    def generate(self, prompts: Sequence[str], params: GenerationParams) -> list[Completion]:
        return [self._one(prompt, params, number) for number, prompt in enumerate(prompts)]

    def _one(self, prompt: str, params: GenerationParams, number: int) -> Completion:
        left, right = prompt.rpartition("What is ")[2].partition("?")[0].split(" plus ")
        if prompt.endswith("Answer:"):
            return Completion(f" {prompt.split()[-2]}", 1, "stop")
        self.requests += 1
        right_one = params.temperature == 0 or np.random.default_rng(params.seed_of(number)).random() < 0.6
        return Completion(f" so {int(left) + int(right) if right_one else 0}", 2, "stop")

    def score(self, prompts: Sequence[str], continuations: Sequence[str]) -> Any:
        raise AssertionError("free text is not scored")


def test_samples_vote() -> None:
    alone = ps.Prompt(sums(), (), Wavering(), reasoning="cue", samples=2).evaluate(ROWS).value
    lm = Wavering()
    voted = ps.Prompt(sums(), (), lm, reasoning="cue", samples=9).evaluate(ROWS).value
    assert 0.4 < alone < 0.8
    assert voted > alone
    assert lm.requests < 9 * len(ROWS) * 0.9  # most are settled before the last sample


def test_samples_of_an_item_do_not_depend_on_others() -> None:
    prompt = ps.Prompt(sums(), (), Wavering(), reasoning="cue", samples=5)
    items = [row["question"] for row in ROWS[:12]]
    assert prompt.predict(items) == [prompt(item) for item in items]
    assert prompt.predict(items[::-1]) == prompt.predict(items)[::-1]


def test_seeds_must_be_one_for_each_prompt() -> None:
    with pytest.raises(ps.UserError, match="2 seeds"):
        ScriptedLM(str).generate(["a"], GenerationParams(temperature=1.0, seeds=(1, 2)))
    with pytest.raises(ps.UserError, match="seeds"):
        GenerationParams(seeds=(-1,))


@settings(max_examples=80)
@given(st.lists(st.sampled_from("abc"), max_size=6), st.integers(0, 3))
def test_a_vote_is_settled_where_nothing_could_change_it(said: list[str], more: int) -> None:
    winners = set()
    for rest in product("abcd", repeat=more):
        counts = Counter([*said, *rest])
        best = max(counts.values(), default=0)
        winners.add(frozenset(name for name, count in counts.items() if count == best))
    certain = len(winners) == 1 and all(len(names) == 1 for names in winners)
    assert is_settled(said, len(said) + more) == certain


@given(st.lists(st.lists(st.floats(-30, 0) | st.none(), min_size=3, max_size=3), min_size=1, max_size=5))
def test_label_probabilities_are_averaged(tables: list[list[float | None]]) -> None:
    answers: list[Answer] = list(tables)
    found = merged(answers)
    assert isinstance(found, list)
    assert json.loads(json.dumps(found)) == found
    if len(tables) == 1:
        assert found == tables[0]
        return
    shares = np.zeros(3)
    for row in tables:
        weights = np.exp([-np.inf if cell is None else cell for cell in row])
        shares += weights / weights.sum() if weights.sum() > 0 else 0.0
    np.testing.assert_allclose(
        np.exp([-np.inf if cell is None else cell for cell in found]), shares / len(tables), atol=1e-9
    )


def test_labels_are_never_settled_early() -> None:
    """Probabilities are averaged: two for the first label, and the third one may outweigh them."""
    assert not is_settled([[-0.67, -0.71], [-0.67, -0.71]], 3)
    mean = merged([[-0.67, -0.71], [-0.67, -0.71], [-4.6, -0.01]])
    assert isinstance(mean, list)
    assert float(mean[1] or 0.0) > float(mean[0] or 0.0)


def test_texts_vote_as_they_are_compared() -> None:
    assert merged(["Paris", "The paris.", "London", "London"]) == "Paris"
    assert merged(["x", "Paris", "the Paris"]) == "Paris"


@given(st.text())
def test_one_line(text: str) -> None:
    found = one_line(text)
    assert "\n" not in found
    assert found.split() == text.split()
    assert one_line(found) == found
