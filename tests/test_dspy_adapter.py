"""The adapter for small models."""

from __future__ import annotations

import asyncio
import enum
import time
from typing import Any, Literal

import pytest
from fakes import WatchedLM
from hypothesis import given
from hypothesis import strategies as st

import promptsearch as ps
from promptsearch.calibration import Weighing
from promptsearch.errors import DataError, UserError
from promptsearch.lm.fake import FakeLM, ScriptedLM
from promptsearch.lm.llamacpp.engine import LlamaEngine

dspy = pytest.importorskip("dspy")

from dspy.utils.exceptions import AdapterParseError, LMUnsupportedFeatureError  # noqa: E402

from promptsearch.dspy.adapter import ANSWERED, STYLES, PlainAdapter  # noqa: E402


class Review(dspy.Signature):  # type: ignore[misc]
    """Classify the sentiment of the review."""

    text: str = dspy.InputField()
    label: Literal["negative", "positive"] = dspy.OutputField()


class Reasoned(dspy.Signature):  # type: ignore[misc]
    """Answer the question."""

    question: str = dspy.InputField(desc="asked by a child")
    reasoning: str = dspy.OutputField()
    answer: str = dspy.OutputField()


PROMPT = """Classify the sentiment of the review.
Label is one of: negative, positive.

Text: Dull.
Label: negative

Text: A delight.
Label:"""


def test_the_prompt() -> None:
    demos = [{"text": "Dull.", "label": "negative"}]
    messages = PlainAdapter().format(Review, demos, {"text": "A delight."})
    assert messages == [{"role": "user", "content": PROMPT}]


def test_order_is_kept_and_nothing_is_made_up() -> None:
    demos = [
        {"question": "one", "answer": "1"},  # DSPy's own adapters put this one first, with a placeholder
        {"question": "two", "reasoning": "It is two.", "answer": "2"},
        {"question": "three", "answer": "3"},
    ]
    text = PlainAdapter().text(Reasoned, demos, {"question": "four"})
    assert [text.index(f"Question: {word}") for word in ("one", "two", "three", "four")] == sorted(
        text.index(f"Question: {word}") for word in ("one", "two", "three", "four")
    )
    assert "Not supplied" not in text
    assert text.count("Reasoning:") == 2
    assert text.endswith("Question: four\nReasoning:")
    assert "Question: asked by a child" in text


class Talk(dspy.Signature):  # type: ignore[misc]
    """Answer."""

    question: str = dspy.InputField()
    history: dspy.History = dspy.InputField()
    answer: str = dspy.OutputField()


def test_turns_of_a_conversation_are_shown_as_demonstrations() -> None:
    history = dspy.History(messages=[{"question": "Capital of France?", "answer": "Paris", "probabilities": {}}])
    demo = {"question": "Sure?", "answer": "Yes", "history": {"messages": [{"question": "2 + 2?", "answer": "4"}]}}
    text = PlainAdapter().text(Talk, [demo], {"question": "Are you sure?", "history": history})
    assert text == (
        "Answer.\n\nQuestion: 2 + 2?\nAnswer: 4\n\nQuestion: Sure?\nAnswer: Yes\n\n"
        "Question: Capital of France?\nAnswer: Paris\n\nQuestion: Are you sure?\nAnswer:"
    )
    close = PlainAdapter(style="close").text(Talk, [demo], {"question": "Are you sure?", "history": history})
    assert close.endswith("Yes\nQuestion: Capital of France?\nAnswer: Paris\nQuestion: Are you sure?\nAnswer:")
    alone = PlainAdapter().text(Talk, [], {"question": "Are you sure?", "history": None})
    assert alone == "Answer.\n\nQuestion: Are you sure?\nAnswer:"


@given(st.text(min_size=1), st.text())
def test_lines_of_any_text_are_read_or_refused(reasoning: str, answer: str) -> None:
    try:
        fields = PlainAdapter().parse(Reasoned, f" {reasoning}\nAnswer: {answer}")
    except AdapterParseError:  # says which field is missing
        return
    assert set(fields) == {"reasoning", "answer"}


def test_lines_are_read() -> None:
    assert PlainAdapter().parse(Reasoned, " It has\ntwo parts.\nAnswer: 2\n\nQuestion: more") == {
        "reasoning": "It has\ntwo parts.",
        "answer": "2",
    }
    assert PlainAdapter().parse(Reasoned, "Reasoning: Yes.\nanswer: 3") == {"reasoning": "Yes.", "answer": "3"}
    with pytest.raises(AdapterParseError, match="'answer' is missing"):
        PlainAdapter().parse(Reasoned, "only reasoning")


def test_another_language_model_reads_the_same_text() -> None:
    lm = dspy.utils.DummyLM([{"label": "positive"}])
    asked: list[Any] = []

    class Spy(PlainAdapter):
        def format(self, *given: Any) -> Any:
            asked.append(super().format(*given))
            return asked[-1]

        def parse(self, signature: Any, completion: str) -> Any:
            return super().parse(signature, " positive\n\nText: more")

    with dspy.context(lm=lm, adapter=Spy()):
        assert dspy.Predict(Review)(text="A delight.").label == "positive"
    assert asked[0][0]["content"].startswith("Classify")


def test_choices_are_scored_and_noted() -> None:
    lm = ps.dspy.lm(FakeLM({"A delight.": "positive", "Dull.": "negative"}), cache=False)
    noted: list[Any] = []
    token = ANSWERED.set(noted)
    try:
        with dspy.context(lm=lm, adapter=PlainAdapter()):
            prediction = dspy.Predict(Review)(text="A delight.")
    finally:
        ANSWERED.reset(token)
    assert prediction.label == "positive"
    assert prediction.probabilities["positive"] > 0.5
    assert sum(prediction.probabilities.values()) == pytest.approx(1)
    assert [(each.field, each.texts) for each in noted] == [("label", ("negative", "positive"))]
    assert len(lm.history) == 1


def test_a_weighing_moves_choices() -> None:
    lm = ps.dspy.lm(FakeLM({"A delight.": "positive"}), cache=False)
    weighing = Weighing("batch", (-30.0, 30.0))
    with dspy.context(lm=lm, adapter=PlainAdapter(weighings={"label": weighing})):
        assert dspy.Predict(Review)(text="A delight.").label == "negative"


def test_unscored_choices_are_written() -> None:
    lm = ps.dspy.lm(ScriptedLM(lambda prompt: " Positive, I think\nText:"), cache=False)
    with dspy.context(lm=lm, adapter=PlainAdapter(scored=False)):
        prediction = dspy.Predict(Review)(text="A delight.")
    assert prediction.label == "positive"
    assert "probabilities" not in prediction


def test_fields_are_asked_one_after_another() -> None:
    model = ScriptedLM(lambda prompt: " 12 " if prompt.endswith("Answer:") else " Three fours.\nAnswer: 13")
    lm = ps.dspy.lm(model, cache=False)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        prediction = dspy.Predict(Reasoned)(question="3 * 4?")
        again = asyncio.run(dspy.Predict(Reasoned).acall(question="3 * 4?"))
    assert (prediction.reasoning, prediction.answer) == (again.reasoning, again.answer) == ("Three fours.", "12")
    assert model.prompts[1].endswith("Reasoning: Three fours.\nAnswer:")


def test_answers_of_several_lines_end_where_the_next_field_begins() -> None:
    demos = [{"question": "?", "reasoning": "One.\nTwo.", "answer": "2"}]
    for style in STYLES:
        replies = iter([" first\nsecond\nAnswer: 7", " 8\nQuestion: other"])
        lm = ps.dspy.lm(ScriptedLM(lambda prompt: next(replies)), cache=False)  # noqa: B023  # used at once
        with dspy.context(lm=lm, adapter=PlainAdapter(style=style)):
            prediction = dspy.Predict(Reasoned)(question="3 * 4?", demos=demos)
        assert (prediction.reasoning, prediction.answer) == ("first\nsecond", "8")
    with pytest.raises(UserError, match="style='loud' is unknown"):
        PlainAdapter(style="loud")


def test_settings_are_passed_on_or_refused() -> None:
    lm = ps.dspy.lm(ScriptedLM(lambda prompt: " ENDLESS Days"), cache=False, stop="Days")
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        assert dspy.Predict("question -> answer")(question="?").answer == "ENDLESS"
        with pytest.raises(LMUnsupportedFeatureError, match="logprobs was given"):
            dspy.Predict("question -> answer", logprobs=True)(question="?")


def test_images_are_refused() -> None:
    lm = ps.dspy.lm(ScriptedLM(lambda prompt: " x"), cache=False)
    with dspy.context(lm=lm, adapter=PlainAdapter()), pytest.raises(DataError, match=r"dspy\.Image"):
        dspy.Predict("picture: dspy.Image -> answer")(picture=dspy.Image("https://example.org/x.png"))


def test_dspy_modules_that_show_inputs_outside_a_prompt() -> None:
    def reply(prompt: str) -> str:
        return " finish" if prompt.endswith("name:") else " {}" if prompt.endswith("args:") else " 12"

    def multiply(a: int, b: int) -> int:
        """Multiply."""
        return a * b

    lm = ps.dspy.lm(ScriptedLM(reply), cache=False)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        assert dspy.ReAct("question -> answer", tools=[multiply])(question="3 * 4?").answer == "12"


def test_asynchronous_answers_run_together() -> None:
    model = WatchedLM({}, on_call=lambda number: time.sleep(0.3))
    lm = ps.dspy.lm(model, cache=False)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(dspy.Predict(Review).acall(text=f"text {number}") for number in range(48)))

    with dspy.context(lm=lm, adapter=PlainAdapter()):
        assert len(asyncio.run(ask())) == 48
    assert max(map(len, model.calls)) > 12


def test_several_answers_differ_by_seed() -> None:
    lm = ps.dspy.lm(FakeLM(None), cache=False, temperature=1.0)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        found = dspy.Predict(Reasoned)(question="?", config={"n": 3})
    assert len(found.completions.answer) == 3
    assert len(set(found.completions.reasoning)) > 1


# -- the real model ---------------------------------------------------------------------------------------------


class Kind(enum.Enum):
    HUMAN = "a person"
    PLACE = "a place"


def signatures() -> list[tuple[Any, dict[str, Any]]]:
    """Five questions, most of which DSPy's default adapter cannot get a small model to answer in form."""
    ranked = dspy.Signature(
        {"text": (str, dspy.InputField()), "stars": (int, dspy.OutputField(ge=1, le=5))}, "Rate the review."
    )
    return [
        (Review, {"text": "A delight from start to end."}),
        (ranked, {"text": "It broke on the first day."}),
        (
            dspy.Signature({"question": (str, dspy.InputField()), "kind": (Kind, dspy.OutputField())}),
            {"question": "Who?"},
        ),
        (dspy.Signature("premise, claim -> entailed: bool"), {"premise": "It rains.", "claim": "It is dry."}),
        (
            dspy.Signature("question -> reasoning, total: int, parts: list[str]"),
            {"question": "What are two and two?"},
        ),
    ]


def test_the_small_model_never_fails_the_form(engine: LlamaEngine) -> None:
    lm = ps.dspy.lm(engine, cache=False, max_tokens=48)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        for signature, inputs in signatures():
            prediction = dspy.Predict(signature)(**inputs)
            for name, field in signature.output_fields.items():
                value = getattr(prediction, name)
                origin = getattr(field.annotation, "__origin__", None)
                assert origin is Literal or isinstance(value, origin or field.annotation), (name, value)


def test_numbers_and_lists_end_with_their_line(engine: LlamaEngine) -> None:
    """As texts do: the line's end is part of what the model is held to."""
    lm = ps.dspy.lm(engine, cache=False, max_tokens=48)
    demos = [{"question": "How many legs has a cat?", "answer": 4}]
    listed = [{"question": "Name colours.", "answer": ["red", "blue"]}]
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        assert (
            dspy.Predict("question -> answer: int")(question="How many days has a week?", demos=demos).answer < 1000
        )
        found = dspy.Predict("question -> answer: list[str]")(question="Name fruits.", demos=listed).answer
    assert found
    assert all(isinstance(each, str) for each in found)
    assert "Answer is a whole number." in lm.history[0]["messages"][0]["content"]


def test_probabilities_of_several_fields() -> None:
    lm = ps.dspy.lm(FakeLM(None), cache=False)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        found = dspy.Predict("text -> mood: Literal['good', 'bad'], loud: bool")(text="?").probabilities
    assert {name: set(each) for name, each in found.items()} == {"mood": {"good", "bad"}, "loud": {"True", "False"}}
